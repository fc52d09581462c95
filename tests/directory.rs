//! The directory over a real server: services come, go, hang, and outlast the server's own absence.
#![allow(clippy::expect_used)] // tests say what they expect

#[path = "support/broker.rs"]
mod broker;

use std::collections::HashMap;
use std::time::Duration;

use async_nats::Client;
use async_nats::service::{Service, ServiceExt};
use broker::{Broker, PATIENCE, eventually};
use causeway::bus::directory::{Change, Directory};
use causeway::message::{Code, Space};
use futures_util::StreamExt;
use tokio::sync::broadcast::Receiver;

async fn next(changes: &mut Receiver<Change>) -> (String, bool) {
    let change = tokio::time::timeout(PATIENCE, changes.recv()).await;
    let change = change.expect("a change in time").expect("a change");
    (change.service, change.running)
}

/// A service with one endpoint that says `pong`, and fails for `fail`.
async fn serve(client: &Client, name: &str) -> Service {
    let service = client
        .service_builder()
        .description("says pong")
        .metadata(HashMap::from([("exposed".to_owned(), "false".to_owned())]))
        .start(name, "1.2.3")
        .await
        .expect("service");
    let subject = format!("gw.v1.cmd.*.{name}.say");
    let builder = service.endpoint_builder().name("say").queue_group(name);
    let mut endpoint = builder.add(subject).await.expect("endpoint");
    tokio::spawn(async move {
        while let Some(request) = endpoint.next().await {
            let _ = request.respond(Ok("pong".into())).await;
        }
    });
    service
}

#[tokio::test]
async fn services_come_and_go() {
    let broker = Broker::start().await;
    let directory = Directory::start(broker.client().await);
    let mut changes = directory.changes();
    assert!(!directory.running("voice"));
    assert!(directory.snapshot().is_empty());

    let worker = broker.client().await;
    let first = serve(&worker, "voice").await;
    assert_eq!(next(&mut changes).await, ("voice".into(), true));
    assert!(directory.running("voice"), "shown before it is told");
    assert!(!directory.running("voic") && !directory.running("voice2"));
    assert!(directory.as_running()("voice", &Space::default()));
    eventually("the endpoints", || async {
        directory
            .snapshot()
            .first()
            .is_some_and(|one| one.endpoints.len() == 1)
    })
    .await;
    let one = directory.snapshot()[0].clone();
    assert_eq!((one.name.as_str(), one.version.as_str()), ("voice", "1.2.3"));
    assert_eq!(one.description, "says pong");
    assert_eq!(one.metadata.get("exposed").map(String::as_str), Some("false"));
    assert_eq!(one.endpoints[0].subject, "gw.v1.cmd.*.voice.say");
    assert_eq!(one.endpoints[0].queue_group, "voice");

    let second = serve(&worker, "voice").await;
    eventually("both instances", || async { directory.snapshot().len() == 2 }).await;
    first.stop().await.expect("stop");
    eventually("the first to go", || async { directory.snapshot().len() == 1 }).await;
    assert!(directory.running("voice"), "the second serves on");
    assert!(changes.is_empty(), "nothing to tell while one serves");
    second.stop().await.expect("stop");
    assert_eq!(next(&mut changes).await, ("voice".into(), false));
    assert!(!directory.running("voice") && directory.snapshot().is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn a_worker_that_hangs_while_connected_is_dropped_and_found_again() {
    let broker = Broker::start().await;
    let worker = broker.client().await;
    let answers = tokio::sync::watch::Sender::new(true);
    let hangs = answers.subscribe();
    let mut pings = worker.subscribe("$SRV.PING").await.expect("subscribe");
    let mut named = worker.subscribe("$SRV.PING.stuck.one").await.expect("subscribe");
    tokio::spawn(async move {
        loop {
            let ping = tokio::select! { ping = pings.next() => ping, ping = named.next() => ping };
            let Some(reply) = ping.and_then(|ping| ping.reply) else {
                return;
            };
            if *hangs.borrow() {
                let pong = r#"{"type":"io.nats.micro.v1.ping_response","name":"stuck","id":"one","version":"1.0.0"}"#;
                let _ = worker.publish(reply, pong.into()).await;
            }
        }
    });
    let directory = Directory::start(broker.client().await);
    let mut changes = directory.changes();
    assert_eq!(next(&mut changes).await, ("stuck".into(), true));
    answers.send_replace(false);
    assert_eq!(next(&mut changes).await, ("stuck".into(), false));
    answers.send_replace(true);
    assert_eq!(next(&mut changes).await, ("stuck".into(), true));
    broker.stop().await;
}

#[tokio::test]
async fn it_freezes_while_the_server_is_silent_or_away() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    let directory = Directory::start(client.clone());
    let mut changes = directory.changes();
    let worker = broker.client().await;
    let service = serve(&worker, "voice").await;
    assert_eq!(next(&mut changes).await, ("voice".into(), true));

    // silent, though the connection stands: several pings long
    broker.signal("-STOP");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(
        directory.running("voice"),
        "silence of the bus is not the service's"
    );
    let asked = directory
        .stats(Duration::from_millis(100))
        .await
        .expect("connected");
    assert!(asked.is_empty(), "nobody can answer");
    broker.signal("-CONT");

    // away and back
    broker.signal("-9");
    eventually("the connection to go", || async {
        client.connection_state() != async_nats::connection::State::Connected
    })
    .await;
    let fault = directory.stats(PATIENCE).await;
    if let Err(fault) = fault {
        assert_eq!(fault.code, Code::BusDown);
    }
    assert!(directory.running("voice"));
    eventually("the connection to return", || async {
        client.connection_state() == async_nats::connection::State::Connected
    })
    .await;
    eventually("the worker to answer again", || async {
        directory
            .stats(Duration::from_secs(1))
            .await
            .is_ok_and(|stats| stats.len() == 1)
    })
    .await;
    assert!(directory.running("voice"));
    assert!(changes.is_empty(), "nobody was told of a stop that was none");

    // and it is awake again
    service.stop().await.expect("stop");
    assert_eq!(next(&mut changes).await, ("voice".into(), false));
    broker.stop().await;
}

#[tokio::test]
async fn statistics_of_every_instance_are_told() {
    let broker = Broker::start().await;
    let worker = broker.client().await;
    let client = broker.client().await;
    let directory = Directory::start(client.clone());
    assert!(directory.stats(PATIENCE).await.expect("connected").is_empty());
    let services = [serve(&worker, "voice").await, serve(&worker, "vision").await];
    eventually("both services", || async {
        directory.running("voice") && directory.running("vision")
    })
    .await;
    for _ in 0..3 {
        client
            .request("gw.v1.cmd.main.voice.say", "ping".into())
            .await
            .expect("pong");
    }
    let stats = directory.stats(PATIENCE).await.expect("stats");
    let requests: Vec<(&str, u64)> = stats
        .iter()
        .map(|one| (one.name.as_str(), one.endpoints.iter().map(|e| e.requests).sum()))
        .collect();
    assert_eq!(requests, [("vision", 0), ("voice", 3)]);
    assert_eq!(stats[1].endpoints[0].errors, 0);
    assert!(stats[1].endpoints[0].processing_time > Duration::ZERO);
    drop(services);
    broker.stop().await;
}
