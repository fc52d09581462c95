//! Commands: order, exactly one final answer, deadlines, errors, withdrawal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{HeaderMap, Message};
use causeway::bus::{Bus, Fetch, Store};
use causeway::message::{Answer, Body, CallId, Class, Code, Fault, Reply};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::support::{Plan, Server, patiently};
use super::{command, ear, space};

/// Subscribes and waits until the server has noted it.
pub(super) async fn listen(client: &async_nats::Client, subject: &str) -> async_nats::Subscriber {
    let subscriber = client.subscribe(subject.to_owned()).await.unwrap();
    let _ = client.request("nobody.is.here", "".into()).await;
    subscriber
}

async fn status(client: &async_nats::Client, message: &Message, status: &str, body: &str) {
    let mut headers = HeaderMap::new();
    headers.insert("Gw-Status", status);
    let reply = message.reply.clone().unwrap();
    client
        .publish_with_headers(reply, headers, body.to_owned().into())
        .await
        .unwrap();
}

fn failed(reply: &Reply) -> &Fault {
    match &reply.answer {
        Answer::Failed(fault) => fault,
        other => panic!("{other:?}"),
    }
}

fn done(body: &str) -> Answer {
    Answer::Done(Body::json(body.to_owned()))
}

#[tokio::test]
async fn commands_arrive_in_order_and_each_is_answered_once() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let worker = server.client().await;
    let mut inbox = listen(&worker, "gw.v1.cmd.*.echo.say").await;
    let (replies, mut heard) = ear();
    let answering = tokio::spawn(async move {
        let mut order = Vec::new();
        for _ in 0..300 {
            let message = inbox.next().await.unwrap();
            order.push(String::from_utf8(message.payload.to_vec()).unwrap());
            worker
                .publish(message.reply.unwrap(), message.payload)
                .await
                .unwrap();
        }
        worker.flush().await.unwrap();
        order
    });
    for id in 0..300 {
        let one = command(id, "echo", "say", &id.to_string());
        bus.call("voice/s", &space("main"), one, 1, replies.clone())
            .await
            .unwrap();
    }
    for id in 0..300 {
        let reply = patiently(heard.recv()).await.unwrap();
        assert_eq!(reply.id, CallId(id));
        assert_eq!(reply.answer, done(&id.to_string()));
    }
    let order = answering.await.unwrap();
    assert_eq!(order, (0..300).map(|id| id.to_string()).collect::<Vec<_>>());
    assert_eq!(bus.pending(), 0);
    assert_eq!(bus.counters().late.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_command_carries_the_headers_of_the_contract() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let mut inbox = listen(&server.client().await, "gw.v1.cmd.>").await;
    let (replies, _heard) = ear();
    let mut one = command(1, "voice", "get info.v2", "{}");
    one.correlation = Some("7\r\nX: y".to_owned());
    one.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    bus.call("voice/01HZ", &space("lab"), one, 42, replies)
        .await
        .unwrap();
    let message = patiently(inbox.next()).await.unwrap();
    assert_eq!(message.subject.as_str(), "gw.v1.cmd.lab.voice.get=20info=2Ev2");
    let reply = message.reply.unwrap();
    assert!(reply.starts_with("_GW.gw-test."), "{reply}");
    let headers = message.headers.unwrap();
    let value = |name: &str| headers.get(name).map(|value| value.to_string());
    assert_eq!(value("Nats-Msg-Id").unwrap().len(), 26);
    assert_eq!(value("Gw-Time").as_deref(), Some("42"));
    assert_eq!(value("Gw-Session").as_deref(), Some("voice/01HZ"));
    assert_eq!(value("Gw-Deadline").as_deref(), Some("30000"));
    assert_eq!(value("Gw-Correlation").as_deref(), Some("7%0D%0AX: y"));
    assert!(value("traceparent").unwrap().ends_with("-01"));
    assert_eq!(headers.len(), 6);
}

#[tokio::test]
async fn without_responders_the_directory_tells_what_is_missing() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    bus.set_running(Arc::new(|service, _| service == "voice"));
    let (replies, mut heard) = ear();
    for (id, service) in [(1, "voice"), (2, "blender")] {
        let one = command(id, service, "nonsense", "{}");
        bus.call("voice/s", &space("main"), one, 1, replies.clone())
            .await
            .unwrap();
    }
    let first = patiently(heard.recv()).await.unwrap();
    assert_eq!((first.id, failed(&first).code), (CallId(1), Code::UnknownAction));
    let second = patiently(heard.recv()).await.unwrap();
    assert_eq!((second.id, failed(&second).code), (CallId(2), Code::NoWorker));
    assert!(failed(&second).text.contains("`blender`"));
}

#[tokio::test]
async fn interim_replies_restart_the_deadline() {
    let server = Server::start().await;
    let mut plan = Plan::at(&server);
    plan.commands.deadline = Duration::from_secs(2);
    let bus = plan.connect().await.unwrap();
    let worker = server.client().await;
    let mut inbox = listen(&worker, "gw.v1.cmd.main.slow.go").await;
    let (replies, mut heard) = ear();
    bus.call(
        "voice/s",
        &space("main"),
        command(1, "slow", "go", ""),
        1,
        replies,
    )
    .await
    .unwrap();
    let message = patiently(inbox.next()).await.unwrap();
    status(&worker, &message, "ack", "").await;
    // together longer than the deadline
    for _ in 0..4 {
        sleep(Duration::from_millis(900)).await;
        status(&worker, &message, "progress", "1").await;
    }
    status(&worker, &message, "done", "2").await;
    let mut answers = Vec::new();
    while answers.len() < 6 {
        answers.push(patiently(heard.recv()).await.unwrap().answer);
    }
    assert_eq!(answers[0], Answer::Ack(Body::default()));
    assert_eq!(answers[4], Answer::Progress(Body::json("1")));
    assert_eq!(answers[5], done("2"));
}

#[tokio::test]
async fn silence_ends_in_a_timeout_and_the_worker_is_told() {
    let server = Server::start().await;
    let mut plan = Plan::at(&server);
    plan.commands.deadline = Duration::from_millis(300);
    let bus = plan.connect().await.unwrap();
    let worker = server.client().await;
    let mut inbox = listen(&worker, "gw.v1.cmd.main.mute.go").await;
    let mut cancels = listen(&worker, "gw.v1.cmd.main.mute.cancel").await;
    let (replies, mut heard) = ear();
    bus.call(
        "voice/s",
        &space("main"),
        command(1, "mute", "go", ""),
        1,
        replies,
    )
    .await
    .unwrap();
    let message = patiently(inbox.next()).await.unwrap();
    let reply = patiently(heard.recv()).await.unwrap();
    assert_eq!(failed(&reply).code, Code::Timeout);
    let cancel = patiently(cancels.next()).await.unwrap();
    let id = message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap();
    assert_eq!(cancel.payload, format!("{{\"id\":\"{id}\"}}"));
    // too late: dropped and counted, twice
    status(&worker, &message, "done", "x").await;
    status(&worker, &message, "done", "x").await;
    late(&bus, 2).await;
    assert!(heard.try_recv().is_err());
}

async fn late(bus: &Bus, count: u64) {
    patiently(async {
        while bus.counters().late.load(Ordering::Relaxed) < count {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(bus.counters().late.load(Ordering::Relaxed), count);
}

#[tokio::test]
async fn progress_does_not_move_the_hard_limit() {
    let server = Server::start().await;
    let mut plan = Plan::at(&server);
    plan.commands
        .limits
        .insert("endless".into(), Duration::from_millis(800));
    let bus = plan.connect().await.unwrap();
    let worker = server.client().await;
    let mut inbox = listen(&worker, "gw.v1.cmd.main.endless.go").await;
    let (replies, mut heard) = ear();
    bus.call(
        "voice/s",
        &space("main"),
        command(1, "endless", "go", ""),
        1,
        replies,
    )
    .await
    .unwrap();
    let message = patiently(inbox.next()).await.unwrap();
    let talking = tokio::spawn(async move {
        loop {
            status(&worker, &message, "progress", "").await;
            sleep(Duration::from_millis(100)).await;
        }
    });
    let last = loop {
        let reply = patiently(heard.recv()).await.unwrap();
        if reply.answer.is_final() {
            break reply;
        }
    };
    talking.abort();
    assert_eq!(failed(&last).code, Code::Timeout);
    assert!(failed(&last).text.contains("time limit"));
    assert!(heard.recv().await.is_none(), "nothing follows a final answer");
}

#[tokio::test]
async fn worker_errors_keep_code_text_and_details() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let worker = server.client().await;
    let mut inbox = listen(&worker, "gw.v1.cmd.main.bad.go").await;
    let (replies, mut heard) = ear();
    bus.call("voice/s", &space("main"), command(1, "bad", "go", ""), 1, replies)
        .await
        .unwrap();
    let message = patiently(inbox.next()).await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Service-Error", "queue full");
    headers.insert("Nats-Service-Error-Code", "429");
    headers.insert("Gw-Status", "done");
    worker
        .publish_with_headers(message.reply.unwrap(), headers, "{\"n\":3}".into())
        .await
        .unwrap();
    let reply = patiently(heard.recv()).await.unwrap();
    let fault = failed(&reply);
    assert_eq!((fault.code, fault.text.as_str()), (Code::Busy, "queue full"));
    assert_eq!(fault.details, Body::json("{\"n\":3}"));
}

#[tokio::test]
async fn a_withdrawn_command_is_cancelled_and_never_answered() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let worker = server.client().await;
    let mut inbox = listen(&worker, "gw.v1.cmd.main.long.go").await;
    let mut cancels = listen(&worker, "gw.v1.cmd.main.long.cancel").await;
    let (replies, mut heard) = ear();
    let call = bus
        .call(
            "voice/s",
            &space("main"),
            command(1, "long", "go", ""),
            1,
            replies,
        )
        .await
        .unwrap();
    let message = patiently(inbox.next()).await.unwrap();
    bus.cancel(&call).await;
    bus.cancel(&call).await;
    patiently(cancels.next()).await.unwrap();
    status(&worker, &message, "done", "x").await;
    late(&bus, 1).await;
    assert!(heard.recv().await.is_none());
    assert_eq!(bus.pending(), 0);
}

/// Knows one body, and takes its time.
struct Shelf;

impl Fetch for Shelf {
    fn fetch<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Body, Fault>> {
        Box::pin(async move {
            sleep(Duration::from_millis(300)).await;
            Ok(Body::json(format!("fetched {reference}")))
        })
    }
}

impl Store for Shelf {
    fn put<'a>(&'a self, _: Class, body: &'a Body) -> BoxFuture<'a, Result<String, Fault>> {
        let size = body.bytes.len();
        Box::pin(async move { Ok(format!("object:GW_BODIES/x;size={size};sha256=00")) })
    }

    fn replaced(&self, _: String) {}
}

#[tokio::test]
async fn large_bodies_go_by_reference_and_answers_keep_their_order() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let worker = server.client().await;
    let mut inbox = listen(&worker, "gw.v1.cmd.main.big.go").await;
    let (replies, mut heard) = ear();
    let large = "x".repeat(2 << 20);
    let one = command(1, "big", "go", &large);
    let refused = bus
        .call("voice/s", &space("main"), one.clone(), 1, replies.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::TooLarge);
    bus.set_bodies(Arc::new(Shelf), Arc::new(Shelf));
    bus.call("voice/s", &space("main"), one, 1, replies)
        .await
        .unwrap();
    let message = patiently(inbox.next()).await.unwrap();
    let reference = message.headers.as_ref().unwrap().get("Gw-Body").unwrap().clone();
    assert_eq!(reference.as_str(), "object:GW_BODIES/x;size=2097152;sha256=00");
    assert!(message.payload.is_empty());
    let mut headers = HeaderMap::new();
    headers.insert("Gw-Status", "progress");
    headers.insert("Gw-Body", reference.as_str());
    let reply = message.reply.clone().unwrap();
    worker
        .publish_with_headers(reply, headers, "".into())
        .await
        .unwrap();
    status(&worker, &message, "progress", "small").await;
    status(&worker, &message, "done", "end").await;
    let fetched = format!("fetched {reference}");
    for expected in [
        Answer::Progress(Body::json(fetched)),
        Answer::Progress(Body::json("small")),
        done("end"),
    ] {
        assert_eq!(patiently(heard.recv()).await.unwrap().answer, expected);
    }
}
