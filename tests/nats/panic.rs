//! A bug in one conversation: it ends that connection alone, is counted, and the client is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway::bus::directory::Directory;
use causeway::config::Config;
use causeway::dialect::{Dialect, Encoding, Frame, Offence, Opening, Session, Step, Transport};
use causeway::gateway::connection::{Guest, Line, run};
use causeway::gateway::ring::Carrier;
use causeway::gateway::{Gateway, Parts};
use causeway::message::{Class, Event, Now, Reply, Space};
use causeway::telemetry::metrics::Metrics;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::support::{Plan, Server, patiently};
use super::{fact, space};

/// Speaks like any dialect and panics at one word.
struct Clumsy;

impl Dialect for Clumsy {
    fn name(&self) -> &'static str {
        "voice"
    }

    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn open(&self, _opening: Opening) -> Box<dyn Session> {
        Box::new(Stumbles)
    }

    fn encode(&self, _encoding: Encoding, event: &Event) -> Option<Frame> {
        Some(Frame::Text(event.body.bytes.clone()))
    }
}

struct Stumbles;

impl Session for Stumbles {
    fn receive(&mut self, _now: Now, frame: Frame, _out: &mut Vec<Step>) -> Result<(), Offence> {
        assert_ne!(&frame.bytes()[..], b"stumble", "meant to panic");
        Ok(())
    }

    fn reply(&mut self, _now: Now, _reply: Reply, _out: &mut Vec<Step>) {}
}

/// A client that is past its handshake.
async fn client(gateway: &Arc<Gateway>) -> WebSocketStream<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, peer) = listener.accept().await.unwrap();
    let guest = Guest {
        dialect: &Clumsy,
        carrier: Carrier::WebSocket,
        opening: Opening {
            session: ulid::Ulid::new().to_string().into(),
            space: Space::default(),
            routes: Arc::default(),
            target: "/".into(),
        },
        listens: vec![&Clumsy],
        since: None,
        traceparent: None,
        peer,
        early: Bytes::new(),
        place: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
    };
    gateway
        .tasks
        .spawn(run(gateway.clone(), Line::Socket(far), guest));
    WebSocketStream::from_raw_socket(near, Role::Client, None).await
}

/// What the client hears next.
async fn next(client: &mut WebSocketStream<TcpStream>) -> Message {
    patiently(client.next()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_one_connection_and_is_told_and_counted() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let metrics = Metrics::new(&["voice"]);
    let gateway = Gateway::new(Parts {
        config: Arc::new(Config::defaults()),
        directory: Directory::start(bus.ingress().clone()),
        bus: bus.clone(),
        metrics: metrics.clone(),
        drain: tokio_util::sync::CancellationToken::new(),
        ports: std::collections::BTreeMap::new(),
        nats_url: server.url(),
    });
    let (mut one, mut two) = (client(&gateway).await, client(&gateway).await);
    bus.append(fact(Class::Event, &space("main"), "t", "before"))
        .await
        .unwrap();
    for client in [&mut one, &mut two] {
        assert_eq!(next(client).await, Message::text("before"));
    }
    one.send(Message::text("stumble")).await.unwrap();
    let Message::Close(Some(close)) = next(&mut one).await else {
        panic!("no close");
    };
    assert_eq!(u16::from(close.code), 1011);
    bus.append(fact(Class::Event, &space("main"), "t", "after"))
        .await
        .unwrap();
    assert_eq!(next(&mut two).await, Message::text("after"));
    let books = [
        "gw_panics_total 1\n",
        "gw_connections{dialect=\"voice\"} 1\n",
        "gw_connections_closed_total{code=\"1011\",dialect=\"voice\"} 1\n",
    ];
    // the books are closed when the client has had time to end its side
    let closed = async {
        while !books.iter().all(|line| metrics.text().contains(line)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    patiently(closed).await;
    assert_eq!(gateway.presence.list(None).len(), 1, "the other one is here");
}
