//! The assistant's reference workers against a real server, asked as any NATS client would.

#[path = "support/broker.rs"]
mod broker;

use async_nats::{Client, Message};
use causeway::config;
use causeway::worker::{self, Options};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use broker::{Broker, PATIENCE, eventually};

/// The final answer: whatever comes before it is interim.
async fn ask(client: &Client, subject: &str, body: &Value) -> Message {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    let subject = subject.to_owned();
    let sent = client.publish_with_reply(subject, inbox, body.to_string().into());
    sent.await.unwrap();
    loop {
        let answer = timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
        let status = answer.headers.as_ref().and_then(|head| head.get("Gw-Status"));
        if !matches!(status.map(|status| status.as_str()), Some("ack" | "progress")) {
            return answer;
        }
    }
}

fn code(answer: &Message) -> Option<&str> {
    let head = answer.headers.as_ref()?;
    head.get("Nats-Service-Error-Code").map(|code| code.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workers_answer_and_tell_the_space_how_it_goes() {
    let broker = Broker::start().await;
    let nats = config::Nats {
        url: vec![broker.url()],
        ..config::Nats::default()
    };
    let names = ["command_processor".to_owned(), "language".to_owned()];
    let workers = tokio::spawn(async move { worker::run_with(&names, &nats, &Options::default()).await });
    let client = broker.client().await;
    for name in ["command_processor", "language"] {
        eventually(name, || async {
            let ping = client.request(format!("$SRV.PING.{name}"), "".into());
            matches!(timeout(PATIENCE, ping).await, Ok(Ok(_)))
        })
        .await;
    }

    let execute = "gw.v1.cmd.blue.command_processor.execute_command";
    let mut told = client.subscribe("gw.v1.evt.blue.assistant.status").await.unwrap();
    client.flush().await.unwrap();
    let seed = json!({"command": "Search cats on youtube, domain youtube.com"});
    let answer = ask(&client, execute, &seed).await;
    let data: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(data["user-command"], "Search cats on youtube");
    assert_eq!(data["task-domain-id"], "youtube.com");
    assert_eq!(
        data["result"]["url"],
        "https://youtube.com/results?search_query=cats"
    );
    for (status, progress) in [("processing", 0), ("completed", 100)] {
        let event = timeout(PATIENCE, told.next()).await.unwrap().unwrap();
        let event: Value = serde_json::from_slice(&event.payload).unwrap();
        assert_eq!(event["operation"], "command_execution");
        assert_eq!(
            (&event["status"], &event["progress"]),
            (&json!(status), &json!(progress))
        );
    }

    let answer = ask(&client, execute, &json!({"command": "calculate 2*(3+4)"})).await;
    let data: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(data["result"]["value"], 14.0);
    for bad in [
        json!({}),
        json!({"command": 5}),
        json!({"command": " "}),
        json!({"command": "calculate 1/0"}),
    ] {
        assert_eq!(code(&ask(&client, execute, &bad).await), Some("400"), "{bad}");
    }

    let analyse = "gw.v1.cmd.main.language.analyse_text";
    let answer = ask(
        &client,
        analyse,
        &json!({"text": "the cat is on the mat with the cat"}),
    )
    .await;
    let data: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(
        (&data["language"], &data["keywords"][0]),
        (&json!("en"), &json!("cat"))
    );
    assert_eq!(code(&ask(&client, analyse, &json!(["text"])).await), Some("400"));

    assert!(!workers.is_finished());
    workers.abort();
    broker.stop().await;
}
