//! Bugs: one in a conversation ends that connection alone, one in a room those in it; they are counted, clients are told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway::bus::Bus;
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
        assert_ne!(&event.body.bytes[..], b"stumble", "meant to panic");
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
async fn client(gateway: &Arc<Gateway>, space: &Space) -> WebSocketStream<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, peer) = listener.accept().await.unwrap();
    let guest = Guest {
        dialect: &Clumsy,
        carrier: Carrier::WebSocket,
        opening: Opening {
            session: ulid::Ulid::new().to_string().into(),
            space: space.clone(),
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

/// A gateway without ports.
fn gateway(server: &Server, bus: &Bus) -> Arc<Gateway> {
    Gateway::new(Parts {
        config: Arc::new(Config::defaults()),
        directory: Directory::start(bus.ingress().clone()),
        bus: bus.clone(),
        metrics: Metrics::new(&["voice"]),
        drain: tokio_util::sync::CancellationToken::new(),
        ports: std::collections::BTreeMap::new(),
        nats_url: server.url(),
    })
}

/// Tells everybody in a space.
async fn tell(bus: &Bus, space: &Space, text: &str) {
    bus.append(fact(Class::Event, space, "t", text)).await.unwrap();
}

/// Waits for the close that says whose fault it was.
async fn is_told(client: &mut WebSocketStream<TcpStream>) {
    let Message::Close(Some(close)) = next(client).await else {
        panic!("no close");
    };
    assert_eq!(u16::from(close.code), 1011);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_room_ends_those_in_it_and_no_other() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let gateway = gateway(&server, &bus);
    let (main, other) = (Space::default(), space("other"));
    let (mut one, mut two) = (client(&gateway, &main).await, client(&gateway, &main).await);
    let mut apart = client(&gateway, &other).await;
    tell(&bus, &main, "before").await;
    for client in [&mut one, &mut two] {
        assert_eq!(next(client).await, Message::text("before"));
    }
    tell(&bus, &main, "stumble").await;
    is_told(&mut one).await;
    is_told(&mut two).await;
    tell(&bus, &other, "after").await;
    assert_eq!(next(&mut apart).await, Message::text("after"));
    assert!(gateway.metrics.text().contains("gw_panics_total 1\n"));
    // what it stumbled over is in the history of whoever comes
    let mut late = client(&gateway, &main).await;
    is_told(&mut late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_one_connection_and_is_told_and_counted() {
    let server = Server::start().await;
    let bus = Plan::at(&server).connect().await.unwrap();
    let (gateway, main) = (gateway(&server, &bus), Space::default());
    let (mut one, mut two) = (client(&gateway, &main).await, client(&gateway, &main).await);
    tell(&bus, &main, "before").await;
    for client in [&mut one, &mut two] {
        assert_eq!(next(client).await, Message::text("before"));
    }
    one.send(Message::text("stumble")).await.unwrap();
    is_told(&mut one).await;
    tell(&bus, &main, "after").await;
    assert_eq!(next(&mut two).await, Message::text("after"));
    let books = [
        "gw_panics_total 1\n",
        "gw_connections{dialect=\"voice\"} 1\n",
        "gw_connections_closed_total{code=\"1011\",dialect=\"voice\"} 1\n",
    ];
    // the books are closed when the client has had time to end its side
    let closed = async {
        while !books.iter().all(|line| gateway.metrics.text().contains(line)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    patiently(closed).await;
    assert_eq!(gateway.presence.list(None).len(), 1, "the other one is here");
}
