//! Assistant sessions as a whole, plain and Socket.IO: every request gets exactly one answer, whatever is said.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use causeway::dialect::{Fate, Frame, Opening, Routes, Session, Step, named};
use causeway::message::{Answer, Body, CallId, Code, Fault, Now, Reply, Space};

const NOW: Now = Now {
    unix: 0,
    mono: Duration::ZERO,
};

fn open(target: &str, max_message: usize) -> Box<dyn Session> {
    let dialect = named("assistant").unwrap();
    let opening = Opening {
        session: "01J".into(),
        space: Space::default(),
        routes: Arc::new(Routes::new(dialect.routes().iter().copied())),
        target: target.into(),
    };
    dialect.open_within(opening, max_message)
}

fn socket() -> Box<dyn Session> {
    let mut session = open("/socket.io/?EIO=4&transport=websocket", 1 << 20);
    let mut out = Vec::new();
    session.receive(NOW, Frame::text("40/ws,"), &mut out).unwrap();
    assert_eq!(out.len(), 2);
    session
}

fn done(session: &mut dyn Session, id: u64, body: impl Into<Bytes>) -> Vec<Step> {
    let mut out = Vec::new();
    let reply = Reply {
        id: CallId(id),
        answer: Answer::Done(Body::json(body)),
    };
    session.reply(NOW, reply, &mut out);
    out
}

fn sent(steps: &[Step]) -> Vec<String> {
    let text = |step: &Step| match step {
        Step::Send(Frame::Text(text)) => Some(String::from_utf8(text.to_vec()).unwrap()),
        Step::Send(Frame::Binary(_)) => panic!("these clients are sent text only"),
        _ => None,
    };
    steps.iter().filter_map(text).collect()
}

#[test]
fn the_handshake_announces_the_limit_of_the_gateway() {
    let mut session = open("/socket.io/?EIO=4&transport=websocket", 12_345);
    assert_eq!(session.deadline(), Some(Duration::ZERO));
    let mut out = Vec::new();
    session.wake(NOW, &mut out);
    assert!(sent(&out)[0].ends_with(r#""maxPayload":12345}"#));
    assert_eq!(session.deadline(), Some(Duration::from_secs(25)));
}

#[test]
fn a_packet_above_the_limit_closes_with_1009() {
    let mut session = open("/socket.io/?EIO=4&transport=websocket", 100);
    session
        .receive(NOW, Frame::text("40/ws,"), &mut Vec::new())
        .unwrap();
    let long = format!("42/ws,[\"rpc\",\"{}\"]", "x".repeat(100));
    let offence = session
        .receive(NOW, Frame::text(long), &mut Vec::new())
        .unwrap_err();
    assert!(matches!(offence.fate, Fate::Close(close) if close.code == 1009));
}

#[test]
fn a_session_takes_events_once_it_joined() {
    let mut session = open("/socket.io/?EIO=4&transport=polling", 100);
    let before = session.encoding();
    assert!(!session.joined());
    session.receive(NOW, Frame::text("40"), &mut Vec::new()).unwrap();
    assert!(session.joined());
    assert_ne!(session.encoding(), before);
    session.receive(NOW, Frame::text("41"), &mut Vec::new()).unwrap();
    assert!(!session.joined());
    assert!(open("/ws", 100).joined(), "plain clients join by connecting");
}

#[test]
fn answers_held_for_an_earlier_one_are_bounded() {
    let mut session = open("/ws", 1000);
    for _ in 0..4 {
        let ask = Frame::text(r#"{"method":"execute_command"}"#);
        session.receive(NOW, ask, &mut Vec::new()).unwrap();
    }
    let large = format!("\"{}\"", "x".repeat(600));
    assert!(done(&mut *session, 2, large.clone()).is_empty());
    assert!(done(&mut *session, 3, large.clone()).is_empty());
    assert!(done(&mut *session, 4, "1").is_empty());
    let sent = sent(&done(&mut *session, 1, large));
    let kinds: Vec<_> = sent
        .iter()
        .map(|text| {
            let value: Value = serde_json::from_str(text).unwrap();
            value["data"]["code"].as_str().unwrap_or("answered").to_owned()
        })
        .collect();
    assert_eq!(kinds, ["answered", "answered", "busy", "answered"]);
    assert!(session.finished());
}

#[test]
fn refusals_behind_a_slow_command_are_bounded() {
    let mut session = open("/ws", 1000);
    let slow = Frame::text(r#"{"method":"execute_command"}"#);
    session.receive(NOW, slow, &mut Vec::new()).unwrap();
    let mut out = Vec::new();
    let ended = (0..100_000).find(|_| {
        let offence = session
            .receive(NOW, Frame::text("nonsense"), &mut out)
            .unwrap_err();
        matches!(offence.fate, Fate::Close(close) if close.code == 1008)
    });
    assert_eq!(ended, Some(1023));
    assert!(out.is_empty());
}

#[test]
fn parameters_are_not_copied() {
    let text = Bytes::from(r#"{"method":"execute_command","params":{"command":"x"}}"#);
    let range = text.as_ptr_range();
    let mut out = Vec::new();
    open("/ws", 1000)
        .receive(NOW, Frame::Text(text), &mut out)
        .unwrap();
    let [Step::Call(command)] = &out[..] else {
        panic!("one call: {out:?}");
    };
    assert!(range.contains(&command.body.bytes.as_ptr()));
}

fn said() -> impl Strategy<Value = String> {
    let method = prop_oneof![
        Just(r#""get_status""#.to_owned()),
        Just(r#""execute_command""#.to_owned()),
        Just(r#""fly""#.to_owned()),
        "[0-9a-z\"\\\\{}\\[\\]]{0,6}",
    ];
    prop_oneof![
        4 => (method, "[0-9a-z\":,{}\\[\\]]{0,8}").prop_map(|(m, p)| format!(r#"{{"method":{m},"params":"{p}"}}"#)),
        1 => ".{0,12}",
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let body = || vec(any::<u8>(), 0..12).prop_map(Body::json);
    prop_oneof![
        body().prop_map(Answer::Done),
        (body(), ".{0,9}").prop_map(|(details, text)| {
            Answer::Failed(Fault {
                details,
                ..Fault::new(Code::WorkerError, text)
            })
        }),
    ]
}

proptest! {
    /// In the order of the requests, each exactly one, each JSON.
    #[test]
    fn plain_clients_get_one_answer_each_in_order(
        said in vec(said(), 1..12), answers in vec((any::<u16>(), answer()), 12)
    ) {
        let mut session = open("/ws", 1 << 20);
        let (mut open, mut out, mut refused) = (Vec::new(), Vec::new(), 0);
        for text in &said {
            let mut steps = Vec::new();
            refused += usize::from(session.receive(NOW, Frame::text(text.clone()), &mut steps).is_err());
            for step in steps {
                match step {
                    Step::Call(command) => open.push(command.id),
                    other => out.push(other),
                }
            }
        }
        prop_assert_eq!(open.len() + refused, said.len());
        for (pick, answer) in answers {
            if !open.is_empty() {
                let id = open.remove(usize::from(pick) % open.len());
                session.reply(NOW, Reply { id, answer }, &mut out);
            }
        }
        prop_assert!(session.finished());
        let sent = sent(&out);
        prop_assert_eq!(sent.len(), said.len());
        for text in sent {
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert!(value["type"].is_string() && value.get("data").is_some());
        }
    }

    /// One ack for each request that asks for one, with its id, and a frame the client's own parser takes.
    #[test]
    fn socket_io_clients_get_one_ack_each(said in vec((said(), any::<u32>(), answer()), 1..10)) {
        let mut session = socket();
        for (text, ack, answer) in said {
            let mut out = Vec::new();
            let frame = Frame::text(format!("42/ws,{ack}[\"rpc\",{text}]"));
            if let Err(offence) = session.receive(NOW, frame, &mut out)
                && matches!(offence.fate, Fate::Close(_))
            {
                prop_assert!(serde_json::from_str::<Value>(&format!("[0,{text}]")).is_err(), "{text}");
                break;
            }
            let call = out.iter().find_map(|step| match step {
                Step::Call(command) => Some(command.id),
                _ => None,
            });
            if let Some(id) = call {
                session.reply(NOW, Reply { id, answer: answer.clone() }, &mut out);
                session.reply(NOW, Reply { id, answer }, &mut out);
            }
            let sent = sent(&out);
            prop_assert_eq!(sent.len(), 1);
            let head = format!("43/ws,{ack}");
            let json = sent[0].strip_prefix(&head);
            let value: Value = serde_json::from_str(json.unwrap()).unwrap();
            prop_assert!(value[0]["type"].is_string() && value.as_array().unwrap().len() == 1);
        }
    }

    #[test]
    fn arbitrary_frames_never_panic(
        frames in vec(prop_oneof![
            "4[0-6][0-9-]{0,3}(/ws,)?[0-9]{0,3}[\\[{\"a-z:,}\\]0-9]{0,12}".prop_map(Frame::text),
            "[0-6].{0,6}".prop_map(Frame::text),
            Just(Frame::text("451-/ws,[\"rpc\",{\"method\":\"get_status\",\"params\":{\"_placeholder\":true,\"num\":0}}]")),
            vec(any::<u8>(), 0..9).prop_map(|bytes| Frame::Binary(bytes.into())),
        ], 1..6)
    ) {
        let mut session = socket();
        for frame in frames {
            let mut out = Vec::new();
            let over = session.receive(NOW, frame, &mut out).is_err_and(|offence| offence.fate != Fate::Continue);
            sent(&out);
            if over {
                prop_assert_eq!(session.deadline(), None);
                break;
            }
        }
    }
}
