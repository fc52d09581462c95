//! One client from its first frame to its end: a task with one fair `select!` over readiness and letters.
//!
//! Every arm is safe to cancel; they only say that something can be done. The steps a session returns are performed
//! in one place, so a reply and the event after it keep their order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tracing::info;

use crate::dialect::{Dialect, Opening, Session, Step};
use crate::gateway::Gateway;
use crate::gateway::apart::{TURN, others_first};
use crate::gateway::bridge::Bridge;
use crate::gateway::calls::{Among, Calls};
use crate::gateway::ending::Ending;
use crate::gateway::intake::Intake;
use crate::gateway::lobby::Key;
use crate::gateway::outbox::{Letter, Outbox};
use crate::gateway::pace::Pace;
use crate::gateway::polls::{Poller, Registered};
use crate::gateway::probe::Probe;
use crate::gateway::ring::Carrier;
use crate::gateway::slow::What;
use crate::gateway::turn::Turn;
use crate::message::{Offset, Space};
use crate::telemetry::clock;

mod flow;
mod hearing;
mod parting;
mod polled;
mod timing;

/// For dialects without settings: the echo of conformance tests.
pub const MAX_MESSAGE: usize = 64 << 20;

/// A client on its way in: everything the handshake decided.
pub struct Guest {
    /// What it speaks.
    pub dialect: &'static dyn Dialect,
    /// How its frames travel.
    pub carrier: Carrier,
    /// What its session is told.
    pub opening: Opening,
    /// Dialects whose events it gets; usually its own.
    pub listens: Vec<&'static dyn Dialect>,
    /// Where it resumes: `None` = newcomer, `Some(None)` = an offset that is not ours.
    pub since: Option<Option<Offset>>,
    /// The trace its handshake belongs to, where it said one.
    pub traceparent: Option<Box<str>>,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Bytes that came with the handshake.
    pub early: Bytes,
    /// Its place; given back when the connection ends.
    pub place: OwnedSemaphorePermit,
}

struct Connection {
    gateway: Arc<Gateway>,
    outbox: Arc<Outbox>,
    intake: Intake,
    session: Box<dyn Session>,
    calls: Calls,
    carrier: Carrier,
    /// A whole frame came, so the client may be pinged.
    spoke: bool,
    /// Last sign of life.
    heard: Instant,
    /// How much it says.
    flow: flow::Flow,
    pinged: Option<Instant>,
    /// When this connection ends its part in the drain.
    leave_at: Option<Instant>,
    /// For clients that take each read as one document.
    pace: Pace,
    finishing: bool,
    /// Tells a client that is gone from one that has only said its last.
    probe: Probe,
    id: u64,
    dialect: &'static dyn Dialect,
    ulid: Arc<str>,
    space: Space,
    since: Option<Option<Offset>>,
    /// Rooms to join once the session wants events.
    listens: Vec<&'static dyn Dialect>,
    /// Rooms joined.
    keys: Vec<Key>,
    /// While they are being entered: until when what the client says waits for that.
    entry: Option<Instant>,
    /// While the client polls.
    poller: Option<Box<Poller>>,
    /// While its client performs a service.
    bridge: Option<Box<Bridge>>,
    /// The id a client polled with before its WebSocket took over.
    once: Option<Registered>,
}

/// What a connection begins on.
pub enum Line {
    /// A socket of its own.
    Socket(TcpStream),
    /// Requests that come and go.
    Polls(Box<Poller>),
}

/// A client's connection, set up at once; the future runs it to its end and holds no more than that needs,
/// because every idle client pays for its size.
pub fn run(gateway: Arc<Gateway>, line: Line, guest: Guest) -> impl Future<Output = ()> + Send + use<> {
    let Guest {
        dialect,
        carrier,
        opening,
        listens,
        since,
        traceparent,
        peer,
        early,
        place,
    } = guest;
    let name = dialect.name();
    let metrics = gateway.metrics.dialect(name);
    let settings = gateway.config.dialects.get(name);
    let max_message = settings.map_or(MAX_MESSAGE, |own| own.max_message);
    let slow = &gateway.config.slow;
    let (stream, poller) = match line {
        Line::Socket(stream) => (Some(stream), None),
        Line::Polls(poller) => (None, Some(poller)),
    };
    let outbox = Arc::new(Outbox::new(
        stream,
        slow.queue_bytes,
        slow.policy,
        dialect.paced(),
        metrics.clone(),
    ));
    let session_id = opening.session.clone();
    let space = opening.space.clone();
    let opened = clock::now();
    metrics.connected();
    let session = match &poller {
        Some(poller) => dialect.open_polled(opening, max_message, poller.sid()),
        None => dialect.open_within(opening, max_message),
    };
    let id = gateway.next_id();
    let room = Key {
        space: space.clone(),
        dialect,
    };
    let among = dialect.looks().then(|| {
        let turn = Turn::new(gateway.turns.clone(), room.clone(), peer.ip(), id);
        let key = room.clone();
        Box::new(Among { key, turn })
    });
    let calls = Calls::new(
        gateway.clone(),
        outbox.clone(),
        carrier,
        room,
        &session_id,
        traceparent,
        among,
    );
    let mut connection = Connection {
        intake: Intake::new(carrier, max_message),
        outbox: outbox.clone(),
        session,
        calls,
        carrier,
        spoke: false,
        heard: opened,
        flow: flow::Flow::new(opened),
        pinged: None,
        leave_at: None,
        pace: Pace::default(),
        finishing: false,
        probe: Probe::default(),
        gateway: gateway.clone(),
        id,
        dialect,
        ulid: session_id.clone(),
        space: space.clone(),
        since,
        listens,
        keys: Vec::new(),
        entry: None,
        poller,
        bridge: None,
        once: None,
    };
    if !early.is_empty() {
        connection
            .intake
            .feed(&early, &gateway.receiving, gateway.config.gateway.max_receiving);
    }
    if !dialect.looks() {
        gateway.presence.opened(&session_id, name, &space);
    }
    async move {
        let ending = connection.guarded().await;
        let (tally, sent, trace_id) = connection.told();
        let joined = !connection.keys.is_empty();
        if joined {
            gateway.lobby.screens.left(&session_id);
            connection.leave(&ending).await;
        } else if let Ending::Broken(close) | Ending::Closed(close) = &ending {
            connection.calls.refused(close);
        }
        gateway.presence.closed(&session_id, &ending.to_string());
        if ending == Ending::Slow {
            metrics.slow.close.inc();
            let room = Key {
                space: space.clone(),
                dialect,
            };
            gateway.lobby.slow.tell(&session_id, &room, What::Closed);
        }
        for key in &connection.keys {
            gateway.lobby.leave(key, connection.id).await;
        }
        Box::pin(connection.end(&ending)).await;
        metrics.disconnected(ending.code(), opened);
        if dialect.looks() && !joined {
            // one message and gone: the client opens ten of these for each thing it does
            gateway.lobby.visited(&Key {
                space: space.clone(),
                dialect,
            });
            parting::visited(&ending, name, &session_id, &space, &peer);
            return drop(place);
        }
        info!(
            dialect = name,
            session = %session_id,
            space = %space,
            peer = %peer,
            code = ending.code(),
            trace_id,
            received = tally.received,
            commands = tally.commands,
            sent,
            seconds = opened.elapsed().as_secs_f64(),
            "session ended: {ending}"
        );
        drop(place);
    }
}

impl Connection {
    async fn live(&mut self) -> Ending {
        let drain = self.gateway.drain.clone();
        let sleep = tokio::time::sleep(self.gateway.config.websocket.ping);
        tokio::pin!(sleep);
        let mut steps = Vec::new();
        loop {
            if let Some(ending) = self.work(&mut steps).await {
                return ending;
            }
            let due = self.due();
            if due < sleep.deadline().into_std() || sleep.is_elapsed() {
                sleep.as_mut().reset(due.into());
            }
            let held = self.intake.has_more() && self.waits();
            let reading = !held
                && !self.intake.is_over()
                && self.calls.len() < self.gateway.config.commands.per_connection;
            let outbox = self.outbox.clone();
            let since = outbox.blocked();
            let blocked = since.is_some();
            tokio::select! {
                ready = outbox.readable(), if reading => {
                    let (Ok(()), Some(stream)) = (ready, outbox.stream()) else {
                        return Ending::Lost;
                    };
                    let limit = self.gateway.config.gateway.max_receiving;
                    let bytes = self.intake.read(stream, &self.gateway.receiving, limit);
                    if bytes > 0 {
                        self.heard = clock::now();
                        self.pace.heard();
                        self.calls.metrics().received_bytes.inc_by(bytes as u64);
                    }
                    others_first(bytes >= TURN).await;
                }
                () = outbox.kicked() => {}
                ready = outbox.writable(), if blocked => {
                    if ready.is_err() || !(self.paced() || outbox.resume()) {
                        return Ending::Lost;
                    }
                    self.pace.resume();
                    if let Some(since) = since.filter(|_| outbox.blocked().is_none()) {
                        self.calls.metrics().stage.queue.since(since);
                    }
                    others_first(outbox.blocked().is_some()).await;
                }
                news = polled::next(&mut self.poller), if self.poller.is_some() => {
                    if let Some(ending) = self.polled(news) {
                        return ending;
                    }
                }
                () = &mut sleep => {
                    if let Some(ending) = self.wake(&mut steps) {
                        return ending;
                    }
                }
                () = drain.cancelled(), if self.leave_at.is_none() => {
                    self.leave_at = Some(clock::now() + self.gateway.spread());
                }
            }
        }
    }

    fn paced(&self) -> bool {
        self.outbox.is_paced()
    }

    /// Does everything that can be done without waiting for the socket.
    async fn work(&mut self, steps: &mut Vec<Step>) -> Option<Ending> {
        let limit = self.gateway.config.commands.per_connection;
        loop {
            if !self.listens.is_empty()
                && self.session.joined()
                && self.may_join()
                && let Some(ending) = Box::pin(self.join()).await
            {
                return Some(ending);
            }
            let mut idle = true;
            if let Some(letter) = self.outbox.letter() {
                idle = false;
                let now = clock::read();
                match letter {
                    Letter::Reply(reply) => {
                        if self.calls.len() >= limit {
                            // nothing was read meanwhile: its silence begins now
                            self.heard = clock::now();
                        }
                        if self.calls.answered(&reply) {
                            let since = self.calls.metrics().now();
                            self.session.reply(now, reply, steps);
                            self.calls.rendered(since, steps);
                        }
                    }
                    Letter::Traced(id, traceparent) => self.calls.traced(id, &traceparent),
                    Letter::Notice(notice) => self.session.notice(now, &notice, steps),
                }
            } else if !self.waits()
                && self.calls.len() < limit
                && let Some(item) = self.intake.pop()
            {
                idle = false;
                if let Some(ending) = self.receive(item, steps) {
                    // what the last message brought about still happens
                    let _end = Box::pin(self.calls.perform(self.session.as_mut(), steps)).await;
                    return Some(ending);
                }
            }
            if !steps.is_empty()
                && let Some(close) = Box::pin(self.calls.perform(self.session.as_mut(), steps)).await
            {
                return Some(Ending::by(close));
            }
            if let Some(close) = self.outbox.closing() {
                return Some(Ending::by(close));
            }
            if idle && !self.serve_poll() {
                break;
            }
        }
        // a page may take its time with a picture: nobody waits for it
        self.calls
            .speaking(self.intake.partial() && !self.session.joined());
        let dropped = self.outbox.take_dropped();
        if dropped > 0 {
            let metrics = self.calls.metrics();
            metrics.slow.drop_oldest.inc();
            let notice = crate::dialect::Notice::Gap(dropped);
            self.session.notice(clock::read(), &notice, steps);
            let _end = Box::pin(self.calls.perform(self.session.as_mut(), steps)).await;
        }
        if self.paced()
            && self
                .pace
                .write(&self.outbox, &self.gateway.unread, clock::now())
                .is_err()
        {
            return Some(Ending::Lost);
        }
        if self.finishing && self.calls.is_empty() && self.outbox.queued() == 0 && self.session.finished() {
            return Some(Ending::Left(None));
        }
        None
    }
}
