//! One client from its first frame to its end: a task with one fair `select!` over readiness and letters.
//!
//! Every arm is safe to cancel; they only say that something can be done. The steps a session returns are performed
//! in one place, so a reply and the event after it keep their order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, info};

use crate::dialect::{Dialect, Opening, Session, Step};
use crate::gateway::calls::{Among, Calls};
use crate::gateway::ending::Ending;
use crate::gateway::intake::{Intake, Item};
use crate::gateway::lobby::Key;
use crate::gateway::outbox::{Kind, Letter, Outbox, PACE, Taken};
use crate::gateway::polls::{Poller, Registered};
use crate::gateway::probe::Probe;
use crate::gateway::ring::{Carrier, Ear};
use crate::gateway::room::{Joining, Order};
use crate::gateway::slow::What;
use crate::gateway::turn::Turn;
use crate::gateway::{Gateway, closing};
use crate::message::{Close, Offset, Space};
use crate::telemetry::clock;
use crate::wire::frame::{self, Packet};

mod polled;

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
    pinged: Option<Instant>,
    /// When this connection ends its part in the drain.
    leave_at: Option<Instant>,
    next_write: Option<Instant>,
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
    /// While the client polls.
    poller: Option<Box<Poller>>,
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

/// Runs a client's connection to its end.
pub async fn run(gateway: Arc<Gateway>, line: Line, guest: Guest) {
    let Guest {
        dialect,
        carrier,
        opening,
        listens,
        since,
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
    let among = dialect.looks().then(|| {
        let space = space.clone();
        let key = Key { space, dialect };
        let turn = Turn::new(gateway.turns.clone(), key.clone(), peer.ip(), id);
        Box::new(Among { key, turn })
    });
    let calls = Calls::new(
        gateway.clone(),
        outbox.clone(),
        carrier,
        name,
        space.clone(),
        &session_id,
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
        pinged: None,
        leave_at: None,
        next_write: None,
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
        poller,
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
    let ending = connection.live().await;
    let joined = !connection.keys.is_empty();
    if joined {
        Box::pin(connection.calls.leave(connection.session.as_mut())).await;
    }
    gateway.presence.closed(&session_id, &ending.to_string());
    if ending == Ending::Slow {
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
        debug!(dialect = name, session = %session_id, space = %space, peer = %peer, "session ended: {ending}");
        return drop(place);
    }
    info!(
        dialect = name,
        session = %session_id,
        space = %space,
        peer = %peer,
        code = ending.code(),
        seconds = opened.elapsed().as_secs_f64(),
        "session ended: {ending}"
    );
    drop(place);
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
            let reading =
                !self.intake.is_over() && self.calls.len() < self.gateway.config.commands.per_connection;
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
                        self.calls.metrics().received_bytes.inc_by(bytes as u64);
                    }
                }
                () = outbox.kicked() => {}
                ready = outbox.writable(), if blocked => {
                    if ready.is_err() || !(self.paced() || outbox.resume()) {
                        return Ending::Lost;
                    }
                    self.next_write = None;
                    if let Some(since) = since.filter(|_| outbox.blocked().is_none()) {
                        let queue = &self.calls.metrics().stage.queue;
                        queue.observe(since.elapsed().as_secs_f64());
                    }
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
                    // those who poll cannot reach us any more: their next request would need a new connection
                    let spread = self.poller.is_none().then(|| self.gateway.spread());
                    self.leave_at = Some(clock::now() + spread.unwrap_or_default());
                }
            }
        }
    }

    /// Enters the rooms, once the session wants events.
    async fn join(&mut self) -> Option<Ending> {
        if self.dialect.looks() {
            // those who only come to say something are nobody's company
            let presence = &self.gateway.presence;
            presence.opened(&self.ulid, self.dialect.name(), &self.space);
        }
        let ear = Ear {
            dialect: self.dialect,
            encoding: self.session.encoding(),
            carrier: self.carrier,
        };
        for room in std::mem::take(&mut self.listens) {
            let key = Key {
                space: self.space.clone(),
                dialect: room,
            };
            let orders = match self.gateway.lobby.enter(&key) {
                Ok(orders) => orders,
                Err(fault) => {
                    self.gateway.metrics.rejected.space.inc();
                    let close = Close {
                        code: Close::BUSY.code,
                        reason: fault.text.into(),
                    };
                    return Some(Ending::Closed(close));
                }
            };
            let joining = Joining {
                id: self.id,
                outbox: self.outbox.clone(),
                ear,
                since: self.since,
                session: self.ulid.clone(),
                greet: room.name() == self.dialect.name(),
            };
            self.keys.push(key);
            let _closed = orders.send(Order::Join(Box::new(joining))).await;
        }
        None
    }

    fn paced(&self) -> bool {
        self.outbox.is_paced()
    }

    /// Does everything that can be done without waiting for the socket.
    async fn work(&mut self, steps: &mut Vec<Step>) -> Option<Ending> {
        let limit = self.gateway.config.commands.per_connection;
        loop {
            let mut idle = true;
            if let Some(letter) = self.outbox.letter() {
                idle = false;
                let now = clock::read();
                match letter {
                    Letter::Reply(reply) => {
                        if self.calls.answered(&reply) {
                            self.session.reply(now, reply, steps);
                        }
                    }
                    Letter::Notice(notice) => self.session.notice(now, &notice, steps),
                }
            } else if self.calls.len() < limit
                && let Some(item) = self.intake.next()
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
                return Some(if close == Close::SLOW {
                    Ending::Slow
                } else {
                    Ending::Closed(close)
                });
            }
            if let Some(close) = self.outbox.closing() {
                return Some(if close == Close::SLOW {
                    Ending::Slow
                } else {
                    Ending::Closed(close)
                });
            }
            if !self.listens.is_empty()
                && self.session.joined()
                && let Some(ending) = Box::pin(self.join()).await
            {
                return Some(ending);
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
            metrics.dropped.slow.inc_by(dropped);
            let notice = crate::dialect::Notice::Gap(dropped);
            self.session.notice(clock::read(), &notice, steps);
            let _end = Box::pin(self.calls.perform(self.session.as_mut(), steps)).await;
        }
        if self.paced()
            && let Some(ending) = self.write_paced()
        {
            return Some(ending);
        }
        if self.finishing && self.calls.is_empty() && self.outbox.queued() == 0 && self.session.finished() {
            return Some(Ending::Left(None));
        }
        None
    }

    fn receive(&mut self, item: Item, steps: &mut Vec<Step>) -> Option<Ending> {
        let now = clock::read();
        match item {
            Item::Frame(frame) => {
                self.spoke = true;
                let metrics = self.calls.metrics();
                let started = clock::now();
                let received = self.session.receive(now, frame, steps);
                metrics.frame_in(started);
                if let Err(offence) = received {
                    metrics.offence(offence.code);
                    if let crate::dialect::Fate::Close(close) = offence.fate {
                        steps.push(Step::Close(close));
                    }
                }
                // over WebSocket the decoder's own count is taken as the bytes come
                if self.carrier == Carrier::Raw {
                    let limit = self.gateway.config.gateway.max_receiving;
                    let receiving = self.session.receiving();
                    if !self.intake.hold(receiving, &self.gateway.receiving, limit) {
                        return Some(Ending::Broken(Close::BUSY));
                    }
                }
                None
            }
            Item::Ping(payload) => {
                self.spoke = true;
                let pong = Packet::new(frame::pong(&payload));
                let taken = self.outbox.push(&pong, Kind::Own);
                self.outbox.flush();
                (taken == Taken::Overflow).then_some(Ending::Slow)
            }
            Item::Pong => {
                self.spoke = true;
                self.pinged = None;
                None
            }
            Item::Goodbye(code) => Some(Ending::Left(code)),
            Item::Broken(close) => {
                let rejected = &self.gateway.metrics.rejected;
                if close.code == 1009 {
                    rejected.too_large.inc()
                } else {
                    rejected.bad_frame.inc()
                }
                Some(Ending::Broken(close))
            }
            Item::End if self.carrier == Carrier::Raw => {
                self.finishing = true;
                self.probe.begin(clock::now());
                None
            }
            Item::End | Item::Lost => Some(Ending::Lost),
        }
    }

    /// The next moment at which something must be looked at.
    fn due(&self) -> Instant {
        let slow = &self.gateway.config.slow;
        let socket = &self.gateway.config.websocket;
        let mut due = match self.pinged {
            Some(at) => at + socket.pong,
            None => self.heard + socket.ping,
        };
        let mut sooner = |at: Option<Instant>| due = at.map_or(due, |at| due.min(at));
        sooner(self.outbox.blocked().map(|since| since + slow.write_timeout));
        sooner(self.session.deadline().map(clock::at));
        let polling = self.poller.as_ref().and_then(|poller| poller.polling.deadline());
        sooner(polling.map(clock::at));
        sooner(self.leave_at);
        sooner(self.probe.due());
        sooner(self.next_write.filter(|_| self.outbox.queued() > 0));
        // a moment that has passed is looked at now and then set anew
        due.max(clock::now())
    }

    /// Time passed.
    fn wake(&mut self, steps: &mut Vec<Step>) -> Option<Ending> {
        let now = clock::now();
        if let Some(blank) = self.probe.turn(now)
            && self.outbox.queued() == 0
        {
            self.outbox.push(&blank, Kind::Own);
        }
        let socket = &self.gateway.config.websocket;
        if self.leave_at.is_some_and(|at| at <= now) {
            return Some(Ending::Drained);
        }
        let write_timeout = self.gateway.config.slow.write_timeout;
        if self
            .outbox
            .blocked()
            .is_some_and(|since| now.duration_since(since) >= write_timeout)
        {
            return Some(Ending::Slow);
        }
        if self.session.deadline().is_some_and(|at| clock::at(at) <= now) {
            self.session.wake(clock::read(), steps);
        }
        if self.poller.is_some() {
            self.heard = now;
            self.wake_poll();
            return None;
        }
        if self.carrier == Carrier::WebSocket {
            match self.pinged {
                Some(at) if self.heard > at => self.pinged = None,
                Some(at) if now.duration_since(at) >= socket.pong => return Some(Ending::Silent),
                None if now.duration_since(self.heard) >= socket.ping => {
                    if self.spoke && !self.intake.partial() && self.session.may_ping() {
                        let ping = Packet::new(frame::ping(b""));
                        self.outbox.push(&ping, Kind::Own);
                        self.outbox.flush();
                        self.pinged = Some(now);
                    } else {
                        self.heard = now;
                    }
                }
                _ => {}
            }
        } else {
            self.heard = now;
        }
        None
    }

    /// One packet, then at least a millisecond, for clients that take each read as one document.
    fn write_paced(&mut self) -> Option<Ending> {
        let now = clock::now();
        if self.outbox.queued() == 0 || self.next_write.is_some_and(|at| at > now) {
            return None;
        }
        match self.outbox.write_one() {
            // also when nothing is queued behind it: the next answer may come within the millisecond
            Ok(whole) => {
                self.next_write = whole.then(|| now + PACE);
                None
            }
            Err(_) => Some(Ending::Lost),
        }
    }

    async fn end(mut self, ending: &Ending) {
        self.intake.release(&self.gateway.receiving);
        let close = match ending {
            Ending::Left(_) | Ending::Lost | Ending::Silent => None,
            Ending::Broken(close) | Ending::Closed(close) => Some(close.clone()),
            Ending::Slow => Some(Close::SLOW),
            Ending::Drained => Some(Close::DRAIN),
        };
        if *ending == Ending::Drained {
            self.last_replies().await;
        }
        if let Some(close) = close.as_ref().filter(|close| close.code != Close::SLOW.code) {
            let mut steps = Vec::new();
            self.session.farewell(clock::read(), close, &mut steps);
            for step in steps {
                if let Step::Send(frame) = step {
                    self.outbox.push_last(&self.carrier.pack(&frame), false);
                }
            }
        }
        self.calls.abandon().await;
        if let Some(poller) = self.poller.take() {
            Box::pin(self.end_polled(poller, ending)).await;
            return self.outbox.bury();
        }
        match ending {
            Ending::Lost | Ending::Silent => self.outbox.bury(),
            Ending::Left(code) => {
                closing::close(&self.outbox, self.carrier, None, Some(*code)).await;
            }
            _ => closing::close(&self.outbox, self.carrier, close.as_ref(), None).await,
        }
    }

    /// Commands under way at a drain still get their answers, within half of the grace.
    async fn last_replies(&mut self) {
        let deadline = tokio::time::Instant::now() + self.gateway.config.gateway.drain_grace / 2;
        let mut steps = Vec::new();
        while !self.calls.is_empty() {
            let outbox = self.outbox.clone();
            if tokio::time::timeout_at(deadline, outbox.kicked()).await.is_err() {
                return;
            }
            while let Some(letter) = self.outbox.letter() {
                if let Letter::Reply(reply) = letter
                    && self.calls.answered(&reply)
                {
                    self.session.reply(clock::read(), reply, &mut steps);
                }
            }
            let _end = Box::pin(self.calls.perform(self.session.as_mut(), &mut steps)).await;
        }
    }
}

/// How long a drained connection stays, so that not all come back at once.
impl Gateway {
    fn spread(&self) -> Duration {
        let window = self.config.gateway.drain_spread;
        let share = f64::from(u16::try_from(self.next_id() * 7919 % 1000).unwrap_or(0)) / 1000.0;
        window.mul_f64(share)
    }
}
