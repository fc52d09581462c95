//! Headers that the client library does not take: they cost a connection once, and nothing that was said is lost.

use std::time::Duration;

use causeway::bus::{Bus, Link, Since, Stored};
use causeway::message::{Answer, Class, Code, Fault};
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::calls::listen;
use super::support::{Plan, Server, patiently};
use super::{command, ear, fact, space};

const ROOM: usize = 32 << 20;

/// Says something with a header of any bytes; returns when the server has taken it.
async fn say(server: &Server, subject: &str, field: &[u8], body: &str) {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let mut stream = BufReader::new(stream);
    let head = [b"NATS/1.0\r\n", field, b"\r\n\r\n"].concat();
    let whole = head.len() + body.len();
    let mut said = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n".to_vec();
    said.extend(format!("HPUB {subject} {} {whole}\r\n", head.len()).into_bytes());
    said.extend([&head[..], body.as_bytes(), b"\r\nPING\r\n"].concat());
    stream.write_all(&said).await.unwrap();
    let mut line = String::new();
    while line != "PONG\r\n" {
        assert!(!line.starts_with("-ERR"), "{line}");
        line.clear();
        assert_ne!(patiently(stream.read_line(&mut line)).await.unwrap(), 0);
    }
}

/// Asks until there is an answer: the connection may go for it, and come back.
async fn insist<T, F: Future<Output = Result<T, Fault>>>(ask: impl Fn() -> F) -> T {
    patiently(async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(fault) => assert_eq!(fault.code, Code::BusDown),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn up(bus: &Bus) -> Link {
    let mut link = bus.link();
    patiently(link.wait_for(Link::is_up)).await.unwrap().clone()
}

fn bodies(read: &[Stored]) -> Vec<&[u8]> {
    read.iter().map(|stored| &stored.body.bytes[..]).collect()
}

#[tokio::test]
async fn what_is_stored_with_such_headers_is_read_all_the_same() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let main = space("main");
    for (class, root) in [(Class::Event, "evt"), (Class::State, "state")] {
        bus.append(fact(class, &main, "a", "1")).await.unwrap();
        for (topic, field) in [
            ("b", &b"Gw-Time: 7\r\nNo Name: x"[..]),
            ("c", b"Gw-Time: 7\r\nX: first line\nsecond line"),
            ("d", b"Gw-Time: 7\r\nX: \xff"),
            // a space to the client library, and none to the server
            ("no\u{a0}break", b"Gw-Time: 7"),
        ] {
            say(&server, &format!("gw.v1.{root}.main.voice.{topic}"), field, topic).await;
        }
        // the very last one is such a message: that there is one costs the connection too
        assert_eq!(insist(|| bus.last_of(class, &main, "voice")).await, 5);
        for since in [Since::After(0), Since::Last(100)] {
            let read = insist(|| bus.read(class, &main, "voice", since, 5, ROOM)).await;
            let last = "no\u{a0}break".as_bytes();
            assert_eq!(bodies(&read), [b"1", b"b", b"c", b"d", last]);
            // what can be read of their headers holds
            assert!(read[1..].iter().all(|stored| stored.time == 7));
        }
        // from now on it is known where they are
        let known = up(&bus).await;
        for since in [Since::After(0), Since::Last(2), Since::After(4)] {
            let read = bus.read(class, &main, "voice", since, 5, ROOM).await.unwrap();
            assert_eq!(read.last().unwrap().seq, 5);
        }
        assert_eq!(bus.last_of(class, &main, "voice").await, Ok(5));
        bus.append(fact(class, &main, "e", "6")).await.unwrap();
        let read = bus.read(class, &main, "voice", Since::After(5), 6, ROOM).await;
        assert_eq!(bodies(&read.unwrap()), [b"6"]);
        assert_eq!(*bus.link().borrow(), known, "the connection was lost again");
    }
}

#[tokio::test]
async fn a_reply_with_such_headers_ends_as_an_outage_does() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let worker = server.client().await;
    let mut inbox = listen(&worker, "gw.v1.cmd.main.w.go").await;
    let (replies, mut heard) = ear();
    let main = space("main");
    let go = async |id| {
        let asked = command(id, "w", "go", "{}");
        bus.call("voice/s", &main, asked, 1, replies.clone()).await
    };
    go(1).await.unwrap();
    let reply = patiently(inbox.next()).await.unwrap().reply.unwrap();
    say(&server, &reply, b"Nats-Service-Error: one\ntwo", "").await;
    let answer = patiently(heard.recv()).await.unwrap().answer;
    assert!(
        matches!(&answer, Answer::Failed(fault) if fault.code == Code::BusDown),
        "{answer:?}"
    );
    up(&bus).await;
    go(2).await.unwrap();
    let reply = patiently(inbox.next()).await.unwrap().reply.unwrap();
    worker.publish(reply, "fine".into()).await.unwrap();
    let answer = patiently(heard.recv()).await.unwrap().answer;
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
}

#[tokio::test]
async fn a_connection_that_cannot_come_back_is_told() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    // the inbox of every gateway hears it
    say(&server, "_GW.gw-test.c0", b"X: one\rtwo", "").await;
    patiently(bus.broken()).await;
    let mut link = bus.link();
    patiently(link.wait_for(|link| !link.is_up())).await.unwrap();
}
