//! Live traffic, and gateways among themselves.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use causeway::message::{Body, Class};

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
