//! Starting: streams as the contract has them, and every reason not to start in words that help.

use causeway::bus::BusError;
use causeway::message::Class;
use serde_json::{Value, json};

use super::support::{Plan, Server, free_port};
use super::{fact, space};

async fn api(server: &Server, subject: &str, body: Value) -> Value {
    let client = server.client().await;
    let answer = client
        .request(format!("$JS.API.{subject}"), body.to_string().into())
        .await
        .unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

#[tokio::test]
async fn the_streams_are_those_of_the_contract() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let config = async |name: &str| {
        let info = api(&server, &format!("STREAM.INFO.{name}"), json!({})).await;
        info["config"].clone()
    };
    let events = config("GW_EVENTS").await;
    assert_eq!(events["subjects"], json!(["gw.v1.evt.>"]));
    assert_eq!(
        events["republish"],
        json!({"src": "gw.v1.evt.>", "dest": "gw.v1.live.>"})
    );
    assert_eq!(events["storage"], "file");
    assert_eq!(events["max_age"], 86_400_000_000_000_u64);
    assert_eq!(events["max_bytes"], 1 << 30);
    assert_eq!(events["discard"], "old");
    assert_eq!(events["duplicate_window"], 120_000_000_000_u64);
    assert_eq!(
        (&events["allow_direct"], &events["deny_delete"]),
        (&json!(true), &json!(true))
    );
    let state = config("GW_STATE").await;
    assert_eq!(
        state["republish"],
        json!({"src": "gw.v1.state.>", "dest": "gw.v1.live.>"})
    );
    assert_eq!(
        (&state["max_msgs_per_subject"], &state["discard"]),
        (&json!(1), &json!("new"))
    );
    let leases = config("GW_LEASES").await;
    assert_eq!(
        (&leases["storage"], &leases["max_age"]),
        (&json!("memory"), &json!(10_000_000_000_u64))
    );
    drop(bus);
    // a second start finds them in order and leaves them alone
    let created = api(&server, "STREAM.INFO.GW_EVENTS", json!({})).await["created"].clone();
    Plan::at(&server).connect().await.unwrap();
    assert_eq!(
        api(&server, "STREAM.INFO.GW_EVENTS", json!({})).await["created"],
        created
    );
}

#[tokio::test]
async fn limits_follow_the_configuration_and_keep_what_is_stored() {
    let server = Server::start().await;
    let mut plan = Plan::at(&server);
    let bus = plan.connect().await.unwrap();
    bus.append(fact(Class::Event, &space("main"), "t", "1"))
        .await
        .unwrap();
    plan.events.max_bytes = 64 << 20;
    plan.events.max_age = std::time::Duration::from_secs(3600);
    let again = plan.connect().await.unwrap();
    let info = api(&server, "STREAM.INFO.GW_EVENTS", json!({})).await;
    assert_eq!(info["config"]["max_bytes"], 64 << 20);
    assert_eq!(info["config"]["max_age"], 3_600_000_000_000_u64);
    assert_eq!(again.tail(Class::Event).await.unwrap().last_seq, 1);
}

#[tokio::test]
async fn a_stream_that_differs_is_named_and_left_alone() {
    let server = Server::start().await;
    let foreign = json!({"name": "GW_EVENTS", "subjects": ["gw.v1.evt.>"], "storage": "file",
        "retention": "limits", "discard": "old", "num_replicas": 1, "allow_direct": true});
    api(&server, "STREAM.CREATE.GW_EVENTS", foreign).await;
    let error = Plan::at(&server).connect().await.unwrap_err();
    assert!(
        matches!(
            error,
            BusError::StreamDiffers {
                stream: "GW_EVENTS",
                field: "republish",
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("nats stream rm GW_EVENTS"));
}

#[tokio::test]
async fn without_jetstream_the_way_out_is_named() {
    let server = Server::with("").await;
    let error = Plan::at(&server).connect().await.unwrap_err();
    assert!(matches!(error, BusError::NoJetStream { .. }), "{error}");
    assert!(error.to_string().contains("events.history = false"));
}

#[tokio::test]
async fn nobody_there_names_the_address_but_not_the_password() {
    let port = free_port();
    let mut plan = Plan::at(&Server::with("").await);
    plan.nats.url = vec![format!("nats://gw:secret@127.0.0.1:{port}")];
    let error = plan.connect().await.unwrap_err();
    assert!(matches!(error, BusError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("127.0.0.1:{port}")) && !text.contains("secret"),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_that_is_there_and_cannot_be_trusted_is_not_waited_for() {
    // it speaks no TLS at all
    let server = Server::start().await;
    let mut plan = Plan::at(&server);
    plan.nats.tls = true;
    let error = plan.connect().await.unwrap_err();
    assert!(matches!(error, BusError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn several_addresses_are_tried() {
    let server = Server::start().await;
    let mut plan = Plan::at(&server);
    plan.nats
        .url
        .insert(0, format!("nats://127.0.0.1:{}", free_port()));
    plan.connect().await.unwrap();
}

#[tokio::test]
async fn passwords_tokens_and_keys_open_the_door_and_nothing_else_does() {
    let store = "jetstream { store_dir: \"STORE\" }\n";
    let server = Server::with(&format!("{store} authorization {{ user: gw, password: right }}")).await;
    let mut plan = Plan::at(&server);
    plan.nats.user = Some("gw".into());
    plan.nats.password = Some("wrong".into());
    let error = plan.connect().await.unwrap_err();
    assert!(matches!(error, BusError::Unauthorized { .. }), "{error}");
    plan.nats.password = Some("right".into());
    plan.connect().await.unwrap();

    let server = Server::with(&format!("{store} authorization {{ token: t0ken }}")).await;
    let mut plan = Plan::at(&server);
    assert!(matches!(plan.connect().await, Err(BusError::Unauthorized { .. })));
    plan.nats.url = vec![format!("nats://t0ken@127.0.0.1:{}", server.port)];
    plan.connect().await.unwrap();
    plan.nats.token = Some("wrong".into());
    assert!(
        matches!(plan.connect().await, Err(BusError::Unauthorized { .. })),
        "what is named by itself wins over what is inside a URL"
    );
    let mut plan = Plan::at(&server);
    plan.nats.token = Some("t0ken".into());
    plan.connect().await.unwrap();

    // what stands for something else in a URL is written %XX there
    let server = Server::with(&format!(
        "{store} authorization {{ user: gw, password: \"p@ss:100%\" }}"
    ))
    .await;
    let mut plan = Plan::at(&server);
    plan.nats.url = vec![format!("nats://gw:p%40ss%3A100%25@127.0.0.1:{}", server.port)];
    plan.connect().await.unwrap();

    // the key pair of NATS' own documentation
    let users =
        "authorization { users: [{ nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 }] }";
    let server = Server::with(&format!("{store} {users}")).await;
    let mut plan = Plan::at(&server);
    plan.nats.nkey = Some("SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY".into());
    plan.connect().await.unwrap();
}

#[tokio::test]
async fn a_gateway_needs_no_more_than_its_permissions() {
    let users = r#"
        jetstream { store_dir: "STORE" }
        authorization { users: [{ user: gw, password: p, permissions: {
            publish: ["gw.v1.cmd.>", "gw.v1.evt.>", "gw.v1.state.>", "gw.v1.sys.>", "_GW.gw-test.>", "$JS.API.>"],
            subscribe: ["gw.v1.live.>", "gw.v1.sys.>", "_GW.gw-test.>"] } }] }"#;
    let server = Server::with(users).await;
    let mut plan = Plan::at(&server);
    (plan.nats.user, plan.nats.password) = (Some("gw".into()), Some("p".into()));
    let bus = plan.connect().await.unwrap();
    let main = space("main");
    let mut live = bus.live(&main, "voice").await.unwrap();
    assert_eq!(bus.append(fact(Class::Event, &main, "t", "1")).await, Ok(1));
    assert_eq!(super::support::patiently(live.next()).await.unwrap().seq, 1);
    assert_eq!(bus.last_of(Class::Event, &main, "voice").await, Ok(1));
}

#[tokio::test]
async fn missing_permissions_are_named() {
    let users = r#"
        jetstream { store_dir: "STORE" }
        authorization { users: [{ user: gw, password: p, permissions: {
            publish: ["gw.v1.>"], subscribe: ["gw.v1.>"] } }] }"#;
    let server = Server::with(users).await;
    let mut plan = Plan::at(&server);
    (plan.nats.user, plan.nats.password) = (Some("gw".into()), Some("p".into()));
    let error = plan.connect().await.unwrap_err();
    assert!(matches!(error, BusError::Forbidden { .. }), "{error}");
    assert!(error.to_string().contains("_GW.gw-test"), "{error}");
}
