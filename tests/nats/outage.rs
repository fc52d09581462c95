//! NATS away: killed, paused, late; everything fails typed and at once, and comes back by itself.

use std::time::Duration;

use causeway::bus::{Bus, Link, Unstored};
use causeway::message::{Answer, Class, Code};
use futures_util::StreamExt;

use super::support::{Plan, Server, free_port, patiently};
use super::{command, ear, fact, space};

async fn down(bus: &Bus) {
    patiently(bus.link().wait_for(|link| !link.is_up()))
        .await
        .unwrap();
}

async fn up(bus: &Bus, generation: u64) {
    let back = |link: &Link| *link == Link::Up { generation };
    patiently(bus.link().wait_for(back)).await.unwrap();
}

#[tokio::test]
async fn a_killed_broker_fails_what_is_under_way_and_everything_returns() {
    let mut server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    let mut live = bus.live(&main, "voice").await.unwrap();
    let worker = server.client().await;
    let mut inbox = worker.subscribe("gw.v1.cmd.>").await.unwrap();
    let _ = worker.request("nobody.is.here", "".into()).await;
    let (replies, mut heard) = ear();
    for id in 0..50 {
        bus.call(
            "voice/s",
            &main,
            command(id, "mute", "go", ""),
            1,
            replies.clone(),
        )
        .await
        .unwrap();
    }
    for _ in 0..50 {
        patiently(inbox.next()).await.unwrap();
    }
    server.kill();
    let mut ids = Vec::new();
    for _ in 0..50 {
        let reply = patiently(heard.recv()).await.unwrap();
        assert!(matches!(&reply.answer, Answer::Failed(fault) if fault.code == Code::BusDown));
        ids.push(reply.id.0);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..50).collect::<Vec<_>>());
    down(&bus).await;
    let refused = bus
        .call(
            "voice/s",
            &main,
            command(99, "mute", "go", ""),
            1,
            replies.clone(),
        )
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::BusDown);
    assert_eq!(bus.live(&main, "voice").await.unwrap_err().code, Code::BusDown);
    assert_eq!(bus.tail(Class::Event).await.unwrap_err().code, Code::BusDown);

    // told at once, stored later
    let one = fact(Class::Event, &main, "t", "1");
    let Err(Unstored::Fault(fault)) = bus.append_promptly(one).await else {
        panic!("confirmed by nobody");
    };
    assert_eq!(fault.code, Code::BusDown);
    assert!(fault.text.starts_with("not confirmed"));

    drop((inbox, worker));
    server.restart().await;
    up(&bus, 2).await;
    let stored = patiently(live.next()).await.unwrap();
    assert_eq!((&*stored.topic, &*stored.body.bytes), ("t", &b"1"[..]));
    assert_eq!(bus.tail(Class::Event).await.unwrap().last_seq, 1);
    let (replies, mut heard) = ear();
    bus.call("voice/s", &main, command(1, "nobody", "go", ""), 1, replies)
        .await
        .unwrap();
    let reply = patiently(heard.recv()).await.unwrap();
    assert!(matches!(&reply.answer, Answer::Failed(fault) if fault.code == Code::NoWorker));
}

#[tokio::test]
async fn a_paused_broker_is_noticed_and_its_return_too() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let worker = server.client().await;
    let mut cancels = worker.subscribe("gw.v1.cmd.main.mute.cancel").await.unwrap();
    let _ = worker.request("nobody.is.here", "".into()).await;
    let (replies, mut heard) = ear();
    server.pause().await;
    let main = space("main");
    // accepted by the socket, answered by nobody
    let sent = bus
        .call("voice/s", &main, command(1, "mute", "go", ""), 1, replies)
        .await;
    down(&bus).await;
    sent.unwrap();
    let reply = patiently(heard.recv()).await.unwrap();
    assert!(matches!(&reply.answer, Answer::Failed(fault) if fault.code == Code::BusDown));
    server.resume();
    up(&bus, 2).await;
    // nobody waits for it any more: the worker is told
    patiently(cancels.next()).await.unwrap();
    assert_eq!(bus.append(fact(Class::Event, &main, "t", "1")).await, Ok(1));
}

#[tokio::test]
async fn an_append_survives_an_outage_and_is_stored_once() {
    let mut server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    assert_eq!(bus.append(fact(Class::Event, &main, "t", "0")).await, Ok(1));
    server.kill();
    let waiting = {
        let (bus, one) = (bus.clone(), fact(Class::Event, &main, "t", "1"));
        tokio::spawn(async move { bus.append(one).await })
    };
    down(&bus).await;
    server.restart().await;
    assert_eq!(patiently(waiting).await.unwrap(), Ok(2));
    assert_eq!(bus.tail(Class::Event).await.unwrap().last_seq, 2);
}

#[tokio::test]
async fn an_append_that_nobody_confirms_is_given_up_and_counted() {
    let mut server = Server::start().await;
    let mut plan = Plan::at(&server);
    plan.events.retry = Duration::from_millis(300);
    let bus = plan.connect().await.unwrap();
    server.kill();
    let given_up = bus.append(fact(Class::Event, &space("main"), "t", "1")).await;
    assert!(matches!(given_up, Err(Unstored::Fault(fault)) if fault.code == Code::BusDown));
    assert_eq!(
        bus.counters()
            .unconfirmed
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}

#[tokio::test]
async fn the_broker_may_start_later() {
    let port = free_port();
    let later = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        Server::on(port, "jetstream { store_dir: \"STORE\" }").await
    });
    let mut plan = Plan::at(&Server::start().await);
    plan.nats.url = vec![format!("nats://127.0.0.1:{port}")];
    let bus = plan.connect().await.unwrap();
    assert_eq!(bus.tail(Class::State).await.unwrap().last_seq, 0);
    drop(later.await.unwrap());
}

#[tokio::test]
async fn drain_sends_the_tail() {
    let server = Server::with("").await;
    let mut plan = Plan::at(&server);
    plan.events.history = false;
    let bus = plan.connect().await.unwrap();
    let other = server.client().await;
    let mut all = other.subscribe("gw.v1.evt.>").await.unwrap();
    let _ = other.request("nobody.is.here", "".into()).await;
    let main = space("main");
    for n in 0..1000 {
        bus.append(fact(Class::Event, &main, "t", &n.to_string()))
            .await
            .unwrap();
    }
    patiently(bus.drain()).await;
    for n in 0..1000 {
        let message = patiently(all.next()).await.unwrap();
        assert_eq!(message.payload, n.to_string());
    }
    down(&bus).await;
}
