//! The bus contract word for word: every subject, every header, every stream. Whoever changes a line here changes what workers see.
#![allow(clippy::unwrap_used)] // tests say what they expect

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use causeway::bus::contract::headers::{self, CommandHead, FactHead};
use causeway::bus::contract::{self, Place, Tail, streams};
use causeway::config::{self, Config};
use causeway::message::{Answer, Body, Class, Code, Fault};
use serde_json::json;

#[path = "contract/names.rs"]
mod names;
#[path = "contract/page.rs"]
mod page;

#[test]
fn subjects() {
    let long = "x".repeat(64);
    for (subject, expected) in [
        (
            contract::command("main", "voice", "stt_start"),
            "gw.v1.cmd.main.voice.stt_start",
        ),
        (
            contract::command("lab-2", "blender", "get.state"),
            "gw.v1.cmd.lab-2.blender.get=2Estate",
        ),
        (contract::command("main", "a b", ""), "gw.v1.cmd.main.a=20b.="),
        (
            contract::cancel("main", "blender"),
            "gw.v1.cmd.main.blender.cancel",
        ),
        (
            contract::fact(Class::Event, "main", "voice", "stt_result"),
            "gw.v1.evt.main.voice.stt_result",
        ),
        (
            contract::fact(Class::State, "main", "cad", "model"),
            "gw.v1.state.main.cad.model",
        ),
        (
            contract::fact(Class::Event, "main", "voice", "é=*>.$"),
            "gw.v1.evt.main.voice.=C3=A9=3D=2A=3E=2E=24",
        ),
        (
            contract::facts(Class::Event, "main", "voice"),
            "gw.v1.evt.main.voice.>",
        ),
        (
            contract::facts(Class::State, "main", "voice"),
            "gw.v1.state.main.voice.>",
        ),
        (contract::live("main", "voice"), "gw.v1.live.main.voice.>"),
        (contract::lease("main", "blender"), "gw.v1.lease.main.blender"),
        (contract::sys("gateway.alive"), "gw.v1.sys.gateway.alive"),
        (contract::sys("session.>"), "gw.v1.sys.session.>"),
        (contract::lease(&long, "b"), &format!("gw.v1.lease.{long}.b")),
    ] {
        assert_eq!(subject.as_deref(), Ok(expected));
    }
}

#[test]
fn names_that_are_too_long_are_the_clients_error() {
    let code = |subject: Result<String, Fault>| subject.map_err(|fault| fault.code);
    // 15 bytes of prefix
    let (fits, over) = ("a".repeat(240), "a".repeat(241));
    assert!(contract::command("m", "s", &fits[..]).is_ok_and(|subject| subject.len() <= 255));
    assert_eq!(code(contract::command("m", "sx", &over)), Err(Code::Invalid));
    assert_eq!(
        code(contract::fact(Class::Event, "main", "voice", &"é".repeat(50))),
        Err(Code::Invalid)
    );
    let tokens = |count: usize| vec!["a"; count].join(".");
    assert!(contract::sys(&tokens(13)).is_ok());
    assert_eq!(code(contract::sys(&tokens(14))), Err(Code::Invalid));
    for path in ["", "a..b", "a b", ".a", "a.", "a\n", "é"] {
        assert_eq!(code(contract::sys(path)), Err(Code::Invalid), "{path:?}");
    }
}

#[test]
fn subjects_are_read_back() {
    let place = |class, topic: &str| Place {
        class,
        space: "main".into(),
        dialect: "voice".into(),
        topic: topic.into(),
    };
    for (subject, expected) in [
        ("gw.v1.evt.main.voice.t", Some(place(Class::Event, "t"))),
        ("gw.v1.state.main.voice.=", Some(place(Class::State, ""))),
        ("gw.v1.evt.main.voice.a=2Eb", Some(place(Class::Event, "a.b"))),
        ("gw.v1.evt.main.voice.a.b", Some(place(Class::Event, "a.b"))),
        ("gw.v1.evt.main.voice.a:b", Some(place(Class::Event, "a:b"))),
        ("gw.v1.evt.main.voice", None),
        ("gw.v1.evt.main.voice.=2e", None),
        ("gw.v1.evt.main.voice.=FF", None),
        ("gw.v1.evt.main.voice.a=", None),
        ("gw.v1.live.main.voice.t", None),
        ("gw.v2.evt.main.voice.t", None),
    ] {
        assert_eq!(contract::place(subject), expected, "{subject}");
        let topic = expected.map(|place| (place.class, place.topic));
        assert_eq!(contract::topic(subject), topic, "{subject}");
    }
    let parts = contract::command_parts("gw.v1.cmd.main.a=20b.=");
    assert_eq!(parts, Some(("main".into(), "a b".into(), String::new())));
    assert_eq!(contract::command_parts("gw.v1.cmd.main.a"), None);
    assert_eq!(contract::command_parts("gw.v1.cmd.main.a.b.c"), None);
}

/// Headers as they cross the wire.
fn lines(list: &[(&str, Cow<'_, str>)]) -> Vec<String> {
    list.iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect()
}

#[test]
fn headers_of_a_command() {
    let head = CommandHead {
        id: "01HZ",
        time: 1_700_000_000_000_000_001,
        session: "assistant/01HX",
        deadline_ms: 30_000,
        correlation: Some("\"7\"\r\n"),
        content_type: Some("image/png"),
        traceparent: Some("00-aa-bb-01"),
    };
    assert_eq!(
        lines(&head.list()),
        [
            "Nats-Msg-Id: 01HZ",
            "Gw-Time: 1700000000000000001",
            "Gw-Session: assistant/01HX",
            "Gw-Deadline: 30000",
            "Gw-Correlation: \"7\"%0D%0A",
            "Content-Type: image/png",
            "traceparent: 00-aa-bb-01",
        ]
    );
    let bare = CommandHead {
        correlation: None,
        content_type: None,
        traceparent: None,
        ..head
    };
    assert_eq!(bare.list().len(), 4);
}

#[test]
fn headers_of_an_event() {
    let head = FactHead {
        id: "01HZ",
        time: 5,
        session: Some("voice/01HX"),
        content_type: None,
        traceparent: None,
        expected: Some(0),
    };
    assert_eq!(
        lines(&head.list()),
        [
            "Nats-Msg-Id: 01HZ",
            "Gw-Time: 5",
            "Gw-Session: voice/01HX",
            "Nats-Expected-Last-Subject-Sequence: 0",
        ]
    );
}

#[test]
fn replies() {
    let body = || Body::json("{}");
    let failed = |code, text: &str| {
        Answer::Failed(Fault {
            code,
            text: text.to_owned(),
            details: body(),
        })
    };
    let rows: [(&[(&str, &str)], Answer); 12] = [
        (&[], Answer::Done(body())),
        (&[("Gw-Status", "done")], Answer::Done(body())),
        (&[("Gw-Status", "ack")], Answer::Ack(body())),
        (&[("Gw-Status", "progress")], Answer::Progress(body())),
        (&[("Content-Type", "application/json")], Answer::Done(body())),
        (
            &[("Content-Type", "image/png")],
            Answer::Done(Body::typed("{}", "image/png")),
        ),
        (
            &[("Nats-Service-Error", "no"), ("Nats-Service-Error-Code", "400")],
            failed(Code::Invalid, "no"),
        ),
        (
            &[
                ("Gw-Status", "done"),
                ("Nats-Service-Error", "full"),
                ("Nats-Service-Error-Code", "429"),
            ],
            failed(Code::Busy, "full"),
        ),
        (
            &[("Nats-Service-Error", "boom")],
            failed(Code::WorkerError, "boom"),
        ),
        (
            &[("Nats-Service-Error", "x"), ("Nats-Service-Error-Code", "teapot")],
            failed(Code::WorkerError, "x"),
        ),
        (
            &[("Nats-Service-Error-Code", "413")],
            failed(
                Code::TooLarge,
                "the worker failed and did not say why; look at its log",
            ),
        ),
        (
            &[("Gw-Status", "Working")],
            failed(
                Code::WorkerError,
                "the worker answered with Gw-Status `Working`, which the contract does not know; it knows ack, progress, done",
            ),
        ),
    ];
    for (given, expected) in rows {
        let header = |name: &'static str| {
            given
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| *value)
        };
        assert_eq!(
            headers::answer(header, Bytes::from_static(b"{}")),
            expected,
            "{given:?}"
        );
    }
}

#[test]
fn only_recorded_traces_count() {
    let parent = |flags: &str| format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
    assert!(headers::sampled(&parent("01")) && headers::sampled(&parent("03")));
    assert!(!headers::sampled(&parent("00")) && !headers::sampled("") && !headers::sampled(&parent("0")));
}

fn events() -> config::Events {
    Config::defaults().events
}

#[test]
fn streams_as_published() {
    let [events, state, leases] = streams::definitions(&events()).map(|definition| {
        let mut config = definition.config;
        config.as_object_mut().unwrap().remove("description");
        config
    });
    assert_eq!(
        events,
        json!({
            "name": "GW_EVENTS", "subjects": ["gw.v1.evt.>"], "retention": "limits", "storage": "file",
            "discard": "old", "max_age": 86_400_000_000_000_u64, "max_bytes": 1_073_741_824,
            "max_msgs": -1, "max_msg_size": -1, "max_msgs_per_subject": -1, "max_consumers": -1,
            "num_replicas": 1, "duplicate_window": 120_000_000_000_u64, "allow_direct": true, "deny_delete": true,
            "republish": {"src": "gw.v1.evt.>", "dest": "gw.v1.live.>"},
        })
    );
    assert_eq!(
        state,
        json!({
            "name": "GW_STATE", "subjects": ["gw.v1.state.>"], "retention": "limits", "storage": "file",
            "discard": "new", "max_age": 0, "max_bytes": 1_073_741_824,
            "max_msgs": -1, "max_msg_size": -1, "max_msgs_per_subject": 1, "max_consumers": -1,
            "num_replicas": 1, "duplicate_window": 120_000_000_000_u64, "allow_direct": true,
            "republish": {"src": "gw.v1.state.>", "dest": "gw.v1.live.>"},
        })
    );
    assert_eq!(
        leases,
        json!({
            "name": "GW_LEASES", "subjects": ["gw.v1.lease.>"], "retention": "limits", "storage": "memory",
            "discard": "old", "max_age": 10_000_000_000_u64, "max_bytes": -1,
            "max_msgs": -1, "max_msg_size": -1, "max_msgs_per_subject": 1, "max_consumers": -1,
            "num_replicas": 1, "duplicate_window": 10_000_000_000_u64, "allow_direct": true,
        })
    );
}

#[test]
fn what_differs_is_named_and_what_may_differ_is_adjusted() {
    let [definition, ..] = streams::definitions(&events());
    let mut found = definition.config.clone();
    found["max_msgs_per_subject"] = json!(0);
    found["sealed"] = json!(false);
    assert_eq!(definition.difference(&found), None);
    assert_eq!(definition.adjusted(&found), None);
    found["max_bytes"] = json!(5);
    found["max_consumers"] = json!(7);
    let adjusted = definition.adjusted(&found).unwrap();
    assert_eq!(
        (&adjusted["max_bytes"], &adjusted["max_consumers"]),
        (&json!(1_073_741_824), &json!(7))
    );
    found["republish"] = json!(null);
    let difference = definition.difference(&found).unwrap();
    assert_eq!(
        (difference.field, difference.found.as_str()),
        ("republish", "not set")
    );
    assert!(difference.expected.contains("gw.v1.live.>"));
    found["republish"] = json!({"src": "gw.v1.evt.>", "dest": "gw.v1.live.>", "headers_only": true});
    assert_eq!(definition.difference(&found).unwrap().field, "republish");
    // the duplicate window may not exceed the age
    let young = config::Events {
        max_age: Duration::from_secs(5),
        ..events()
    };
    let [definition, ..] = streams::definitions(&young);
    assert_eq!(definition.config["duplicate_window"], 5_000_000_000_u64);
}

#[test]
fn who_can_resume() {
    let tail = Tail {
        epoch: 9,
        first_seq: 101,
        last_seq: 200,
    };
    for (class, epoch, since, expected) in [
        (Class::Event, 9, 150, true),
        (Class::Event, 9, 100, true),
        (Class::Event, 9, 99, false),
        (Class::Event, 9, 200, true),
        (Class::Event, 9, 201, false),
        (Class::Event, 8, 150, false),
        (Class::Event, 9, u64::MAX, false),
        (Class::State, 9, 1, true),
        (Class::State, 9, 201, false),
        (Class::State, 8, 1, false),
    ] {
        assert_eq!(
            tail.resumes(class, epoch, since),
            expected,
            "{class:?} {epoch} {since}"
        );
    }
}
