//! Leases over a real server: one holder at a time, handed on when released or lost.
#![allow(clippy::expect_used)] // tests say what they expect

#[path = "support/broker.rs"]
mod broker;

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, stream};
use broker::{Broker, PATIENCE};
use causeway::bus::lease::{Leases, STREAM};
use causeway::message::{Code, Space};

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let Ok(done) = tokio::time::timeout(PATIENCE, work).await else {
        panic!("never came: {what}");
    };
    done
}

/// The contract's stream with leases that end sooner.
async fn short(client: Client, age: Duration) -> Leases {
    let config = stream::Config {
        name: STREAM.into(),
        subjects: vec!["gw.v1.lease.>".into()],
        storage: stream::StorageType::Memory,
        max_messages_per_subject: 1,
        max_age: age,
        ..stream::Config::default()
    };
    jetstream::new(client.clone())
        .create_stream(config)
        .await
        .expect("stream");
    Leases::open(client).await.expect("leases")
}

#[tokio::test]
async fn one_holds_it_until_it_is_released() {
    let broker = Broker::start().await;
    let first = Leases::open(broker.client().await).await.expect("leases");
    let second = Leases::open(broker.client().await)
        .await
        .expect("the same stream");
    let (main, lab) = (Space::default(), Space::parse("lab").expect("space"));
    let held = first
        .acquire(&main, "blender", "one")
        .await
        .expect("bus")
        .expect("free");
    assert!(held.held());
    assert!(
        second
            .acquire(&main, "blender", "two")
            .await
            .expect("bus")
            .is_none()
    );
    let others = [
        second.acquire(&lab, "blender", "two").await,
        second.acquire(&main, "cad", "two").await,
    ];
    assert!(
        others.iter().all(|other| matches!(other, Ok(Some(_)))),
        "one for each space and service"
    );
    let holder = second.holder(&main, "blender").await.expect("bus").expect("held");
    assert_eq!(holder.holder, "one");

    held.release().await;
    assert_eq!(second.holder(&main, "blender").await.expect("bus"), None);
    let next = second.acquire(&main, "blender", "two").await.expect("bus");
    assert!(next.is_some_and(|lease| lease.held()));
    for bad in ["", "a.b", "a>"] {
        let fault = first.acquire(&main, bad, "one").await.expect_err("no token");
        assert_eq!(fault.code, Code::Invalid);
    }
    broker.stop().await;
}

#[tokio::test]
async fn it_is_renewed_and_handed_on_when_it_runs_out() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    let age = Duration::from_secs(2);
    let leases = short(client.clone(), age).await;
    let space = Space::default();
    let held = leases
        .acquire(&space, "blender", "one")
        .await
        .expect("bus")
        .expect("free");
    // longer than it would live without renewal
    tokio::time::sleep(age * 2).await;
    assert!(held.held());
    assert!(
        leases
            .acquire(&space, "blender", "two")
            .await
            .expect("bus")
            .is_none()
    );

    // a claim that nobody renews
    let context = jetstream::new(client);
    let dead = r#"{"holder":"dead","id":"x"}"#;
    context
        .publish("gw.v1.lease.main.cad", dead.into())
        .await
        .expect("sent")
        .await
        .expect("stored");
    assert!(leases.acquire(&space, "cad", "two").await.expect("bus").is_none());
    let next = in_time("the dead one's lease", leases.stand_by(&space, "cad", "two")).await;
    assert!(next.expect("lease").held());
    broker.stop().await;
}

#[tokio::test]
async fn the_holder_learns_that_another_took_it_or_that_the_bus_is_gone() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    let leases = short(client.clone(), Duration::from_secs(3)).await;
    let space = Space::default();
    let context = jetstream::new(client);

    let taken = leases
        .acquire(&space, "blender", "one")
        .await
        .expect("bus")
        .expect("free");
    let other = r#"{"holder":"two","id":"y"}"#;
    context
        .publish("gw.v1.lease.main.blender", other.into())
        .await
        .expect("sent")
        .await
        .expect("stored");
    in_time("the loss", taken.lost()).await;
    assert!(!taken.held());

    // forgotten by the broker, and nobody else wants it: still ours
    let kept = leases
        .acquire(&space, "cad", "one")
        .await
        .expect("bus")
        .expect("free");
    let stream = context.get_stream(STREAM).await.expect("stream");
    stream
        .purge()
        .filter("gw.v1.lease.main.cad")
        .await
        .expect("purge");
    in_time("the renewal", async {
        while leases.holder(&space, "cad").await.expect("bus").is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(kept.held());

    broker.stop().await;
    in_time("the end without a bus", kept.lost()).await;
}
