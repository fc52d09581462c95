//! Facts: stored once, compared and set, refused when the store is full.

use causeway::bus::Unstored;
use causeway::message::{Body, Class, Code};
use ulid::Ulid;

use super::support::{Plan, Server};
use super::{fact, space};

#[tokio::test]
async fn the_same_id_is_stored_once() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let mut one = fact(Class::Event, &space("main"), "t", "1");
    one.id = Some(Ulid::new());
    assert_eq!(bus.append(one.clone()).await, Ok(1));
    assert_eq!(bus.append(one).await, Ok(1));
    assert_eq!(
        bus.append(fact(Class::Event, &space("main"), "t", "2")).await,
        Ok(2)
    );
}

#[tokio::test]
async fn compare_and_set_loses_recognisably() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let with = |expected, body: &str| {
        let mut one = fact(Class::State, &space("main"), "ui", body);
        one.expected = Some(expected);
        bus.append(one)
    };
    assert_eq!(with(0, "1").await, Ok(1));
    assert_eq!(with(0, "2").await, Err(Unstored::Conflict));
    assert_eq!(with(1, "2").await, Ok(2));
    assert_eq!(with(1, "3").await, Err(Unstored::Conflict));
}

#[tokio::test]
async fn a_full_state_store_says_too_large_and_keeps_what_it_has() {
    let server = Server::start().await;
    let mut plan = Plan::at(&server);
    plan.events.state_max_bytes = 256 << 10;
    let bus = plan.connect().await.unwrap();
    let main = space("main");
    let body = "x".repeat(100 << 10);
    assert_eq!(bus.append(fact(Class::State, &main, "a", &body)).await, Ok(1));
    assert_eq!(bus.append(fact(Class::State, &main, "b", &body)).await, Ok(2));
    let refused = bus.append(fact(Class::State, &main, "c", &body)).await;
    assert!(
        matches!(&refused, Err(Unstored::Fault(fault)) if fault.code == Code::TooLarge),
        "{refused:?}"
    );
    assert_eq!(bus.last_of(Class::State, &main, "voice").await, Ok(2));
}

#[tokio::test]
async fn names_no_subject_can_carry_are_invalid() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let refused = bus
        .append_promptly(fact(Class::Event, &space("main"), &"ü".repeat(60), "1"))
        .await;
    assert!(matches!(refused, Err(Unstored::Fault(fault)) if fault.code == Code::Invalid));
    let mut typed = fact(Class::Event, &space("main"), "> * . $SYS", "");
    typed.body = Body::typed(vec![0, 1, 2], "application/octet-stream");
    assert_eq!(bus.append_promptly(typed).await, Ok(1));
}

#[tokio::test]
async fn a_stream_deleted_under_us_is_created_again_as_another_one() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    assert_eq!(bus.append(fact(Class::Event, &main, "t", "1")).await, Ok(1));
    let before = bus.tail(Class::Event).await.unwrap();
    let client = server.client().await;
    client
        .request("$JS.API.STREAM.DELETE.GW_EVENTS", "".into())
        .await
        .unwrap();
    assert_eq!(bus.append(fact(Class::Event, &main, "t", "2")).await, Ok(1));
    let after = bus.tail(Class::Event).await.unwrap();
    assert!(!after.resumes(Class::Event, before.epoch, before.last_seq));
}
