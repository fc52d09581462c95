//! Live traffic, and gateways among themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use causeway::bus::{Fetch, Store};
use causeway::message::{Body, Class, Code, Fault};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::support::{Plan, Server, patiently};
use super::{fact, space};

#[tokio::test]
async fn a_live_message_knows_its_place_in_the_stream() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    let mut live = bus.live(&main, "voice").await.unwrap();
    let mut typed = fact(Class::Event, &main, "tts chunk", "");
    typed.body = Body::typed(vec![0, 255], "audio/wav");
    typed.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    bus.append(typed.clone()).await.unwrap();
    bus.append(fact(Class::Event, &space("other"), "tts chunk", "no"))
        .await
        .unwrap();
    typed.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".into());
    bus.append(typed).await.unwrap();
    bus.append(fact(Class::State, &main, "ui", "{}")).await.unwrap();
    let first = patiently(live.next()).await.unwrap();
    assert_eq!((first.class, &*first.topic), (Class::Event, "tts chunk"));
    assert_eq!((first.seq, first.previous), (1, 0));
    assert_eq!(first.time, 1_700_000_000_000_000_000);
    assert_eq!(first.body, Body::typed(vec![0, 255], "audio/wav"));
    assert_eq!(first.from.as_deref(), Some("voice/01HZ"));
    let origin = first.origin.expect("sampled");
    assert!(!origin.id.is_empty());
    let second = patiently(live.next()).await.unwrap();
    assert_eq!((second.seq, second.previous), (3, 1));
    assert!(second.origin.is_none(), "not sampled");
    let third = patiently(live.next()).await.unwrap();
    assert_eq!((third.class, &*third.topic, third.seq), (Class::State, "ui", 1));
    assert!(live.try_next().is_none());
}

#[tokio::test]
async fn live_messages_that_no_stream_republished_are_ignored_and_counted() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    let mut live = bus.live(&main, "voice").await.unwrap();
    let other = server.client().await;
    other
        .publish("gw.v1.live.main.voice.t", "forged".into())
        .await
        .unwrap();
    let _ = other.request("nobody.is.here", "".into()).await;
    bus.append(fact(Class::Event, &main, "t", "1")).await.unwrap();
    assert_eq!(patiently(live.next()).await.unwrap().body, Body::json("1"));
    assert_eq!(bus.counters().foreign.load(Ordering::Relaxed), 1);
}

/// Says something with headers of its own choice.
async fn say(client: &async_nats::Client, subject: &str, headers: &[(&str, &str)]) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    let sent = client.publish_with_headers(subject.to_owned(), map, "{}".into());
    sent.await.unwrap();
}

#[tokio::test]
async fn who_says_again_what_was_live_does_not_give_it_the_old_place() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    let mut live = bus.live(&main, "voice").await.unwrap();
    let copied = [
        ("Nats-Stream", "GW_STATE"),
        ("Nats-Subject", "gw.v1.state.main.voice.old"),
        ("Nats-Sequence", "4711"),
        ("Nats-Last-Sequence", "4710"),
    ];
    let client = server.client().await;
    say(&client, "gw.v1.evt.main.voice.new", &copied).await;
    let heard = patiently(live.next()).await.unwrap();
    assert_eq!((heard.class, &*heard.topic), (Class::Event, "new"));
    assert_eq!((heard.seq, heard.previous), (1, 0));
    assert_eq!(bus.last_of(Class::Event, &main, "voice").await, Ok(1));
}

/// Tells which bodies were replaced.
struct Shelf(mpsc::Sender<String>);

impl Fetch for Shelf {
    fn fetch<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Body, Fault>> {
        Box::pin(async { Ok(Body::json("fetched")) })
    }
}

impl Store for Shelf {
    fn put<'a>(&'a self, _: Class, _: &'a Body) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async { Err(Fault::new(Code::TooLarge, "full")) })
    }

    fn replaced(&self, reference: String) {
        self.0.try_send(reference).unwrap();
    }
}

#[tokio::test]
async fn a_body_goes_when_its_state_has_another_value() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let (told, mut replaced) = mpsc::channel(16);
    let shelf = Arc::new(Shelf(told));
    bus.set_bodies(shelf.clone(), shelf);
    let mut live = bus.live(&space("main"), "voice").await.unwrap();
    let client = server.client().await;
    for (subject, body) in [
        ("gw.v1.state.main.voice.model", Some("first")),
        ("gw.v1.state.main.voice.other", Some("stays")),
        ("gw.v1.evt.main.voice.model", Some("an event's")),
        ("gw.v1.evt.main.voice.model", None),
        ("gw.v1.state.main.voice.model", Some("second")),
        ("gw.v1.state.main.voice.model", Some("second")),
        ("gw.v1.state.main.voice.model", None),
        ("gw.v1.state.main.voice.model", None),
    ] {
        let reference = body.map(|name| ("Gw-Body", name));
        say(&client, subject, reference.as_slice()).await;
        patiently(live.next()).await.unwrap();
    }
    let mut gone = Vec::new();
    while let Ok(reference) = replaced.try_recv() {
        gone.push(reference);
    }
    assert_eq!(gone, ["first", "second"]);
}

#[tokio::test]
async fn what_a_new_leader_sends_is_doubtful_until_settled() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    let mut live = bus.live(&main, "voice").await.unwrap();
    assert!(!live.interrupted());
    // as the server tells it, and then something of the new leader's on the same way
    let other = server.client().await;
    for (subject, body) in [
        ("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.GW_EVENTS", "{}"),
        ("gw.v1.evt.main.voice.t", "1"),
    ] {
        other.publish(subject, body.into()).await.unwrap();
    }
    assert_eq!(patiently(live.next()).await.unwrap().body, Body::json("1"));
    assert!(live.interrupted());
    live.settle().await.unwrap();
    assert!(!live.interrupted());
}

#[tokio::test]
async fn a_burst_is_there_without_waiting() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    let mut live = bus.live(&main, "voice").await.unwrap();
    for n in 0..200 {
        bus.append(fact(Class::Event, &main, "t", &n.to_string()))
            .await
            .unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 200 {
        seen.push(patiently(live.next()).await.unwrap().seq);
        while let Some(stored) = live.try_next() {
            seen.push(stored.seq);
        }
    }
    assert_eq!(seen, (1..=200).collect::<Vec<u64>>());
}

#[tokio::test]
async fn without_history_events_and_states_come_directly() {
    let server = Server::with("").await;
    let mut plan = Plan::at(&server);
    plan.events.history = false;
    let bus = plan.connect().await.unwrap();
    let main = space("main");
    let mut live = bus.live(&main, "voice").await.unwrap();
    assert_eq!(bus.append(fact(Class::Event, &main, "t", "1")).await, Ok(0));
    let event = patiently(live.next()).await.unwrap();
    assert_eq!((event.class, event.seq, &*event.topic), (Class::Event, 0, "t"));
    assert_eq!(
        bus.append_promptly(fact(Class::State, &main, "s", "2")).await,
        Ok(0)
    );
    assert_eq!(patiently(live.next()).await.unwrap().class, Class::State);
    assert!(!bus.history());
    assert_eq!(bus.last_of(Class::Event, &main, "voice").await, Ok(0));
}

#[tokio::test]
async fn gateways_talk_among_themselves() {
    let server = Server::start().await;
    let one = Plan::at(&server).connect().await.unwrap();
    let two = Plan::at(&server).connect().await.unwrap();
    let mut sys = one.subscribe_sys("session.>").await.unwrap();
    two.publish_sys("session.opened", Bytes::from_static(b"{}"))
        .await
        .unwrap();
    let heard = patiently(sys.next()).await.unwrap();
    assert_eq!(
        (heard.path.as_str(), &*heard.body),
        ("session.opened", &b"{}"[..])
    );
    let answering = tokio::spawn(async move {
        let asked = patiently(sys.next()).await.unwrap();
        one.answer_sys(&asked, Bytes::from_static(b"mine")).await.unwrap();
        one
    });
    let window = Duration::from_secs(20);
    let answers = two
        .gather_sys("session.list", Bytes::new(), window, 1)
        .await
        .unwrap();
    assert_eq!(answers, [Bytes::from_static(b"mine")]);
    answering.await.unwrap();
    assert!(
        two.gather_sys("nobody", Bytes::new(), window, 1)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(two.publish_sys("a..b", Bytes::new()).await.is_err());
}
