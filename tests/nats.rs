//! The bus against a real nats-server: calls, outages, appends, history, live traffic, start errors.
#![allow(clippy::expect_used, clippy::unwrap_used)] // tests say what they expect

#[path = "nats/append.rs"]
mod append;
#[path = "nats/calls.rs"]
mod calls;
#[path = "nats/history.rs"]
mod history;
#[path = "nats/live.rs"]
mod live;
#[path = "nats/outage.rs"]
mod outage;
#[path = "nats/panic.rs"]
mod panic;
#[path = "nats/start.rs"]
mod start;
#[path = "support/nats.rs"]
mod support;
#[path = "nats/unreadable.rs"]
mod unreadable;

use std::sync::Arc;

use bytes::Bytes;
use causeway::bus::{Fact, Replies};
use causeway::message::{Body, CallId, Class, Command, Reply, Space};
use tokio::sync::mpsc;

/// Keeps replies for the test to look at.
struct Heard(mpsc::Sender<Reply>);

impl Replies for Heard {
    fn reply(&self, reply: Reply) {
        let _ = self.0.try_send(reply);
    }
}

fn ear() -> (Arc<dyn Replies>, mpsc::Receiver<Reply>) {
    let (sender, receiver) = mpsc::channel(4096);
    (Arc::new(Heard(sender)), receiver)
}

fn command(id: u64, service: &str, action: &str, body: &str) -> Command {
    Command {
        id: CallId(id),
        service: service.into(),
        action: action.to_owned(),
        body: Body::json(Bytes::from(body.to_owned())),
        correlation: None,
        traceparent: None,
    }
}

fn fact(class: Class, space: &Space, topic: &str, body: &str) -> Fact {
    Fact {
        class,
        space: space.clone(),
        dialect: "voice".into(),
        topic: topic.to_owned(),
        body: Body::json(Bytes::from(body.to_owned())),
        time: 1_700_000_000_000_000_000,
        from: Some("voice/01HZ".to_owned()),
        id: None,
        expected: None,
        traceparent: None,
    }
}

fn space(name: &str) -> Space {
    Space::parse(name).expect("a space")
}
