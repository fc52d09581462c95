//! Large bodies through a real object store: whole, once, verified, never waited for without end.
#![allow(clippy::expect_used)] // tests say what they expect

#[path = "support/broker.rs"]
mod broker;
#[path = "bodies/reference.rs"]
mod reference;

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, stream};
use broker::{Broker, eventually};
use bytes::Bytes;
use causeway::bus::bodies::{Bodies, Bucket, EXPIRED, Reference};
use causeway::config;
use causeway::message::{Body, Class, Code};

async fn open(client: Client, timeout: Duration) -> Bodies {
    let settings = config::Bodies {
        max_bytes: 1 << 30,
        timeout,
    };
    let age = Duration::from_secs(24 * 3600);
    Bodies::open(client, &settings, age, 1).await.expect("buckets")
}

const PATIENT: Duration = Duration::from_secs(60);

/// Bytes that no shift or swap of chunks leaves equal.
fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test]
async fn sixty_four_mebibytes_come_back_as_they_went() {
    let broker = Broker::start().await;
    let putter = open(broker.client().await, PATIENT).await;
    let body = Body::json(noise((64 << 20) + 17, 1));
    let reference = putter.put(Class::Event, &body).await.expect("put");
    assert_eq!(reference.bucket, Bucket::Bodies);
    assert_eq!(reference.size, body.bytes.len() as u64);
    let text = reference.to_string();

    // another gateway: nothing in memory
    let fetcher = open(broker.client().await, PATIENT).await;
    let fetched = fetcher.fetch(&text).await.expect("fetch");
    assert!(fetched.bytes == body.bytes, "other bytes came back");
    assert_eq!(count(&fetcher.counters().gets), 1);
    // the one that put it never asks
    assert!(putter.fetch(&text).await.expect("fetch").bytes == body.bytes);
    assert_eq!(count(&putter.counters().gets), 0);
    broker.stop().await;
}

#[tokio::test]
async fn any_object_store_client_reads_and_writes_the_same() {
    use tokio::io::AsyncReadExt as _;
    let broker = Broker::start().await;
    let client = broker.client().await;
    let bodies = open(client.clone(), PATIENT).await;
    let store = jetstream::new(client)
        .get_object_store("GW_BODIES")
        .await
        .expect("bucket");

    let ours = noise(1_500_000, 2);
    let reference = bodies
        .put(Class::Event, &Body::json(ours.clone()))
        .await
        .expect("put");
    let mut object = store.get(&reference.name).await.expect("object");
    let mut read = Vec::new();
    object.read_to_end(&mut read).await.expect("read");
    assert!(read == ours[..], "a plain client reads other bytes");

    let theirs = noise(700_001, 3);
    store.put("theirs-1", &mut &theirs[..]).await.expect("put");
    let sha256 = sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), &theirs));
    let reference = Reference {
        bucket: Bucket::Bodies,
        name: "theirs-1".into(),
        size: theirs.len() as u64,
        sha256: sha256.into(),
    };
    let fetched = bodies.fetch(&reference.to_string()).await.expect("fetch");
    assert!(fetched.bytes == theirs, "we read other bytes");
    bodies.delete(&reference.to_string()).await.expect("delete");
    assert!(store.get("theirs-1").await.is_err(), "deleted for everybody");
    broker.stop().await;
}

#[tokio::test]
async fn twenty_at_once_are_one_get() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    let body = noise(3 << 20, 4);
    let putter = open(client.clone(), PATIENT).await;
    let reference = putter
        .put(Class::State, &Body::json(body.clone()))
        .await
        .expect("put");
    assert_eq!(reference.bucket, Bucket::StateBodies);
    // no memory of it afterwards: what joins, joins the flight
    let fetcher = open(client, PATIENT).await.with_cache(0);
    let text = reference.to_string();
    let all = (0..20).map(|_| fetcher.fetch(&text));
    for fetched in futures_util::future::join_all(all).await {
        assert!(fetched.expect("fetch").bytes == body);
    }
    assert_eq!(count(&fetcher.counters().gets), 1);
    assert_eq!(count(&fetcher.counters().joined), 19);
    // a waiter that leaves takes nothing from the others
    let left = fetcher.fetch(&text);
    let stays = fetcher.fetch(&text);
    let (_, stays) = tokio::join!(
        async { tokio::time::timeout(Duration::ZERO, left).await.is_ok() },
        stays
    );
    assert!(stays.expect("fetch").bytes == body);
    assert_eq!(count(&fetcher.counters().gets), 2);
    assert_eq!(fetcher.cached(), 0);
    broker.stop().await;
}

#[tokio::test]
async fn damaged_bodies_are_told_and_never_given() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    let context = jetstream::new(client.clone());
    let bodies = open(client.clone(), PATIENT).await.with_cache(0);
    let body = noise(2 << 20, 5);
    let put = async || {
        bodies
            .put(Class::Event, &Body::json(body.clone()))
            .await
            .expect("put")
    };

    // one chunk of four is missing
    let missing = put().await;
    let stream = context.get_stream("OBJ_GW_BODIES").await.expect("stream");
    assert!(stream.delete_message(2).await.expect("delete"));
    let fault = bodies
        .fetch(&missing.to_string())
        .await
        .expect_err("missing chunk");
    assert_eq!(fault.code, Code::WorkerError, "{fault}");

    // chunks are all there, one with other bytes
    let forged = put().await;
    let subject = format!("$O.GW_BODIES.C.{}", forged.name);
    let last = stream
        .direct_get_last_for_subject(subject.clone())
        .await
        .expect("last chunk");
    assert!(stream.delete_message(last.sequence).await.expect("delete"));
    let other = noise(last.payload.len(), 6);
    context
        .publish(subject, other)
        .await
        .expect("publish")
        .await
        .expect("stored");
    let fault = bodies.fetch(&forged.to_string()).await.expect_err("forged chunk");
    assert_eq!(fault.code, Code::WorkerError, "{fault}");

    // whole, but the reference lies
    let honest = put().await;
    for lie in [
        Reference {
            size: honest.size - 1,
            ..honest.clone()
        },
        Reference {
            sha256: [7; 32],
            ..honest.clone()
        },
    ] {
        let fault = bodies.fetch(&lie.to_string()).await.expect_err("a lie");
        assert_eq!(fault.code, Code::WorkerError, "{fault}");
    }
    assert!(bodies.fetch(&honest.to_string()).await.expect("honest").bytes == body);
    assert_eq!(count(&bodies.counters().failed), 4);
    broker.stop().await;
}

#[tokio::test]
async fn what_is_gone_is_expired_and_deleting_it_again_is_fine() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    let bodies = open(client.clone(), PATIENT).await.with_cache(0);
    let reference = bodies
        .put(Class::Event, &Body::json(noise(1 << 20, 7)))
        .await
        .expect("put");
    let text = reference.to_string();
    bodies.delete(&text).await.expect("delete");
    bodies.delete(&text).await.expect("delete again");
    let body = bodies.fetch(&text).await.expect("expired is no fault");
    assert!(body.is_empty());
    assert_eq!(body.content_type.as_deref(), Some(EXPIRED));

    // the description outlives the chunks for a moment when both age out
    let aged = bodies
        .put(Class::Event, &Body::json(noise(1 << 20, 8)))
        .await
        .expect("put");
    let stream = jetstream::new(client.clone())
        .get_stream("OBJ_GW_BODIES")
        .await
        .expect("stream");
    let chunks = format!("$O.GW_BODIES.C.{}", aged.name);
    stream.purge().filter(chunks).await.expect("purge");
    let body = bodies
        .fetch(&aged.to_string())
        .await
        .expect("expired is no fault");
    assert_eq!(body.content_type.as_deref(), Some(EXPIRED));
    assert_eq!(count(&bodies.counters().expired), 2);

    let replaced = bodies
        .put(Class::State, &Body::json(noise(1 << 20, 9)))
        .await
        .expect("put")
        .to_string();
    bodies.delete_after(replaced.clone(), Duration::ZERO);
    eventually("a replaced body is gone", || async {
        // not fetched: a chunk that goes under the reader is waited for
        let stream = jetstream::new(client.clone())
            .get_stream("OBJ_GW_STATE_BODIES")
            .await;
        stream.expect("stream").cached_info().state.messages == 0
    })
    .await;
    let body = bodies.fetch(&replaced).await.expect("expired is no fault");
    assert_eq!(body.content_type.as_deref(), Some(EXPIRED));
    broker.stop().await;
}

#[tokio::test]
async fn a_silent_broker_costs_no_more_than_the_deadline() {
    let broker = Broker::start().await;
    let bodies = open(broker.client().await, Duration::from_millis(500))
        .await
        .with_cache(0);
    let body = Body::json(noise(1 << 20, 9));
    let reference = bodies.put(Class::Event, &body).await.expect("put").to_string();
    broker.signal("-STOP");
    // a hang fails here and not at the end of the test run
    let put = tokio::time::timeout(PATIENT, bodies.put(Class::Event, &body)).await;
    let got = tokio::time::timeout(PATIENT, bodies.fetch(&reference)).await;
    broker.signal("-CONT");
    assert_eq!(put.expect("put ends").expect_err("silent").code, Code::Timeout);
    assert_eq!(got.expect("fetch ends").expect_err("silent").code, Code::Timeout);
    broker.stop().await;
    let gone = bodies.put(Class::Event, &body).await.expect_err("nobody there");
    assert!(matches!(gone.code, Code::BusDown | Code::Timeout), "{gone}");
}

#[tokio::test]
async fn the_sweeper_takes_what_no_state_names() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    let context = jetstream::new(client.clone());
    let bodies = open(client, PATIENT).await.with_cache(0);
    let put = async |class, seed| {
        let put = bodies.put(class, &Body::json(noise(1 << 20, seed))).await;
        put.expect("put").to_string()
    };
    let config = stream::Config {
        name: "GW_STATE".into(),
        subjects: vec!["gw.v1.state.>".into()],
        max_messages_per_subject: 1,
        ..stream::Config::default()
    };
    context.create_stream(config).await.expect("state");
    let name = async |subject: &'static str, reference: Option<&str>| {
        let mut headers = async_nats::HeaderMap::new();
        if let Some(reference) = reference {
            headers.insert("Gw-Body", reference);
        }
        let sent = context.publish_with_headers(subject, headers, "".into()).await;
        sent.expect("sent").await.expect("stored");
    };
    let (replaced, current) = (put(Class::State, 10).await, put(Class::State, 11).await);
    let (orphan, other) = (put(Class::State, 12).await, put(Class::State, 13).await);
    let event = put(Class::Event, 14).await;
    name("gw.v1.state.main.cad.model", Some(&replaced)).await;
    name("gw.v1.state.main.cad.model", Some(&current)).await;
    name("gw.v1.state.lab.cad.model", Some(&other)).await;
    name("gw.v1.state.lab.cad.ui", None).await;

    let young = bodies.sweep(Duration::from_secs(3600)).await.expect("sweep");
    assert_eq!(young, 0, "young bodies may still be named");
    assert_eq!(bodies.sweep(Duration::ZERO).await.expect("sweep"), 2);
    assert_eq!(bodies.sweep(Duration::ZERO).await.expect("sweep"), 0);
    for (reference, kept) in [
        (&replaced, false),
        (&orphan, false),
        (&current, true),
        (&other, true),
        (&event, true),
    ] {
        let body = bodies.fetch(reference).await.expect("fetch");
        assert_eq!(body.content_type.is_none(), kept, "{reference}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_full_bucket_refuses_state_and_lets_old_events_go() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    let settings = config::Bodies {
        max_bytes: 3 << 20,
        timeout: PATIENT,
    };
    let age = Duration::from_secs(3600);
    let bodies = Bodies::open(client.clone(), &settings, age, 1)
        .await
        .expect("buckets")
        .with_cache(0);
    let mut bucket = jetstream::new(client)
        .get_stream("OBJ_GW_STATE_BODIES")
        .await
        .expect("stream");
    let body = |seed| Body::json(noise(2 << 20, seed));
    let old = bodies.put(Class::Event, &body(1)).await.expect("put");
    let new = bodies
        .put(Class::Event, &body(2))
        .await
        .expect("old ones make room");
    let old = bodies.fetch(&old.to_string()).await.expect("fetch");
    assert_eq!(old.content_type.as_deref(), Some(EXPIRED));
    assert!(bodies.fetch(&new.to_string()).await.expect("fetch").bytes == body(2).bytes);

    let first = bodies.put(Class::State, &body(3)).await.expect("put");
    let held = bucket.info().await.expect("bucket").state.messages;
    let fault = bodies.put(Class::State, &body(4)).await.expect_err("full");
    assert_eq!(fault.code, Code::TooLarge, "{fault}");
    assert!(bodies.fetch(&first.to_string()).await.expect("kept").bytes == body(3).bytes);
    // what had been stored of the refused one is taken back, its description too
    let back = async {
        while bucket.info().await.expect("bucket").state.messages != held {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENT, back)
        .await
        .expect("nothing is left of it");
    broker.stop().await;
}

#[tokio::test]
async fn limits_follow_the_configuration_when_the_bucket_exists() {
    let broker = Broker::start().await;
    let client = broker.client().await;
    drop(open(client.clone(), PATIENT).await);
    let settings = config::Bodies {
        max_bytes: 2 << 30,
        timeout: PATIENT,
    };
    Bodies::open(client.clone(), &settings, Duration::from_secs(7200), 1)
        .await
        .expect("buckets");
    let config = async || {
        let stream = jetstream::new(client.clone()).get_stream("OBJ_GW_BODIES").await;
        stream.expect("stream").cached_info().config.clone()
    };
    let adjusted = config().await;
    assert_eq!(
        (adjusted.max_bytes, adjusted.max_age.as_secs()),
        (2 << 30, 7200 + 3600)
    );
    // a server alone takes note of the copies, or says that it has no place for them
    match Bodies::open(client.clone(), &settings, Duration::from_secs(7200), 3).await {
        Ok(_) => assert_eq!(config().await.num_replicas, 3),
        Err(refused) => assert!(refused.to_string().contains("GW_BODIES"), "{refused}"),
    }
    broker.stop().await;
}
