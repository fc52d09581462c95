//! What waits to be written to one client: bounded in bytes, shared by the connection and the rooms.
//!
//! Whoever puts something in also tries to write it, so a message to a thousand clients needs no thousand
//! wake-ups. The lock is short: it covers moving references and one vectored write that never blocks.
//!
//! A client of long polling has no socket yet: what is queued waits for its connection to fetch it, framed like
//! everybody's, so that a socket that comes later simply goes on with the queue.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::bus::Replies;
use crate::config::SlowPolicy;
use crate::dialect::{Frame, Notice};
use crate::message::{CallId, Close, Reply};
use crate::telemetry::metrics::DialectMetrics;
use crate::wire::frame::{self, Packet};

mod batch;
mod queue;

pub use batch::{Batch, Delivery, Kind, Parcel, Taken};
use queue::Queue;

/// Letters a connection may leave unread before interim answers are dropped.
const LETTERS: usize = 1024;

/// What a connection is told by others.
#[derive(Debug)]
pub enum Letter {
    /// An answer to one of its commands.
    Reply(Reply),
    /// The trace of the final answer that follows.
    Traced(CallId, String),
    /// News for its client.
    Notice(Notice),
}

/// The outbound side of one connection. It keeps the books of its client: every message it is given is in the end
/// counted once, as written or as dropped.
pub struct Outbox {
    stream: OnceLock<TcpStream>,
    queue: Mutex<Queue>,
    kick: Notify,
    limit: usize,
    policy: SlowPolicy,
    /// One packet a write, spaced by the connection, for clients that take each read as one document.
    paced: bool,
}

impl Outbox {
    /// An empty outbox that writes to `stream` and queues `limit` bytes beyond one message; what becomes of them is
    /// counted in `books`.
    #[must_use]
    pub fn new(
        stream: Option<TcpStream>,
        limit: usize,
        policy: SlowPolicy,
        paced: bool,
        books: Arc<DialectMetrics>,
    ) -> Self {
        Self {
            stream: stream.map_or_else(OnceLock::new, OnceLock::from),
            queue: Mutex::new(Queue::new(books)),
            kick: Notify::new(),
            limit,
            policy,
            paced,
        }
    }

    /// Whether every packet is written alone, by the connection.
    #[must_use]
    pub fn is_paced(&self) -> bool {
        self.paced
    }

    /// The socket, where there is one.
    #[must_use]
    pub fn stream(&self) -> Option<&TcpStream> {
        self.stream.get()
    }

    /// Resolves when there is something to read; without a socket never.
    ///
    /// # Errors
    /// The socket's.
    pub async fn readable(&self) -> io::Result<()> {
        match self.stream.get() {
            Some(stream) => stream.readable().await,
            None => std::future::pending().await,
        }
    }

    /// Resolves when the socket takes bytes; without a socket never.
    ///
    /// # Errors
    /// The socket's.
    pub async fn writable(&self) -> io::Result<()> {
        match self.stream.get() {
            Some(stream) => stream.writable().await,
            None => std::future::pending().await,
        }
    }

    /// A socket takes over what was fetched so far. `false` when it is broken, or there was one already.
    #[must_use]
    pub fn adopt(&self, stream: TcpStream) -> bool {
        self.stream.set(stream).is_ok() && self.resume()
    }

    /// Takes the frames that wait, for a client that fetches them.
    pub fn fetch(&self) -> Vec<Frame> {
        let mut queue = self.queue.lock();
        let mut frames = Vec::new();
        let (mut messages, bytes) = (0, queue.bytes);
        while let Some(item) = queue.items.pop_front() {
            messages += u64::from(item.counts());
            let body = if item.more { queue.items.pop_front() } else { None };
            let packet = Packet {
                head: item.bytes,
                body: body.map(|item| item.bytes).unwrap_or_default(),
            };
            frames.extend(frame::unpack(&packet));
        }
        queue.items = VecDeque::new();
        queue.bytes = 0;
        queue.grant = 0;
        queue.books.written(messages, bytes);
        frames
    }

    /// Resolves when a letter, a close or a first blocked byte needs the connection.
    pub async fn kicked(&self) {
        self.kick.notified().await;
    }

    /// Queues one packet under the bound. Call [`Outbox::flush`] after the last of a batch.
    pub fn push(&self, packet: &Packet, kind: Kind) -> Taken {
        let mut queue = self.queue.lock();
        let taken = self.take(&mut queue, packet, kind);
        queue.refused(taken != Taken::Yes && kind != Kind::Control);
        taken
    }

    /// Queues and writes what one session gets of a batch, under one lock. The common case, a client that keeps up,
    /// is a single write of what all share, without any queueing.
    pub fn deliver(&self, batch: &Batch, session: &str) -> Delivery {
        let mut queue = self.queue.lock();
        let dropped = queue.dropped;
        let whole = batch.whole();
        let gone = self.write_past(&queue, whole);
        let mut taken = Taken::Yes;
        if gone > 0 && gone == whole.len() {
            let packets = batch.len() as u64;
            queue.packets += packets;
            queue.books.written(packets, gone);
        } else {
            for (packet, kind) in batch.of(session) {
                if gone > 0 {
                    // part of it is out, so all of it goes
                    queue.append(packet, kind);
                } else if taken == Taken::Yes {
                    taken = self.take(&mut queue, packet, kind);
                }
                // the rest of the batch was meant for this client too
                queue.refused(taken != Taken::Yes);
            }
            queue.advance(gone);
            self.write(&mut queue);
        }
        Delivery {
            dropped: queue.dropped - dropped,
            taken,
        }
    }

    /// Writes past the queue where nothing is in it; returns how many bytes the socket took. What is wrong with a
    /// socket that takes none is found out by those who wait for it.
    fn write_past(&self, queue: &Queue, whole: &[u8]) -> usize {
        if whole.is_empty() || self.paced || !queue.is_free() {
            return 0;
        }
        let stream = self.stream.get();
        stream
            .and_then(|stream| stream.try_write(whole).ok())
            .unwrap_or(0)
    }

    fn take(&self, queue: &mut Queue, packet: &Packet, kind: Kind) -> Taken {
        if queue.is_over() {
            return Taken::Gone;
        }
        if let Kind::State(topic) = kind {
            queue.conflate(topic);
        }
        if queue.over(self.limit) {
            if self.policy == SlowPolicy::DropOldest {
                // a replay was asked for and is not dropped, so neither does it count
                let bound = self.limit + queue.grant;
                queue.drop_events(bound);
            }
            if queue.over(self.limit) {
                queue.closing = Some(Close::SLOW);
                self.kick.notify_one();
                return Taken::Overflow;
            }
        }
        queue.append(packet, kind);
        Taken::Yes
    }

    /// Queues what the client asked for at its connect: replay and state, beyond the bound by as much.
    pub fn push_granted(&self, packet: &Packet, kind: Kind) {
        let mut queue = self.queue.lock();
        if !queue.gone && !queue.ended {
            queue.grant += packet.len();
            queue.append(packet, kind);
        }
    }

    /// Writes what the socket takes now.
    pub fn flush(&self) {
        self.write(&mut self.queue.lock());
    }

    fn write(&self, queue: &mut Queue) {
        if queue.items.is_empty() {
            return;
        }
        if self.paced {
            self.kick.notify_one();
            return;
        }
        let Some(stream) = self.stream.get() else {
            self.kick.notify_one();
            return;
        };
        if queue.blocked.is_none() && queue.write(stream) && queue.blocked.is_some() {
            // somebody must wait for the socket: that is the connection
            self.kick.notify_one();
        }
    }

    /// The connection saw the socket writable. `false` when the socket is broken.
    #[must_use]
    pub fn resume(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.blocked = None;
        self.stream.get().is_some_and(|stream| queue.write(stream))
    }

    /// Paced clients: writes what is left of one packet. `Ok(true)` when a whole packet went out.
    ///
    /// # Errors
    /// The socket's.
    pub fn write_one(&self) -> io::Result<bool> {
        let mut queue = self.queue.lock();
        queue.blocked = None;
        match self.stream.get() {
            Some(stream) => queue.write_packet(stream),
            None => Ok(false),
        }
    }

    /// Paced clients: whether the next packet can wait. The rest of one cannot, and a queue that fills up should not.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        let queue = self.queue.lock();
        queue.untouched() == 0 && !queue.over(self.limit / 2)
    }

    /// Since when the socket takes nothing; `None` while it does.
    #[must_use]
    pub fn blocked(&self) -> Option<Instant> {
        self.queue.lock().blocked
    }

    /// Packets queued since the beginning, control frames too.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.queue.lock().packets
    }

    /// Bytes waiting.
    #[must_use]
    pub fn queued(&self) -> usize {
        let queue = self.queue.lock();
        queue.bytes - queue.written
    }

    /// The client was sent to so many rooms.
    pub fn entering(&self, rooms: u8) {
        self.queue.lock().entering = rooms;
    }

    /// A room has given the client what it is owed.
    pub fn entered(&self) {
        let mut queue = self.queue.lock();
        queue.entering = queue.entering.saturating_sub(1);
        if queue.entering == 0 {
            self.kick.notify_one();
        }
    }

    /// Whether the client is on its way into a room.
    #[must_use]
    pub fn is_entering(&self) -> bool {
        self.queue.lock().entering > 0
    }

    /// Has the connection look around.
    pub fn kick(&self) {
        self.kick.notify_one();
    }

    /// Leaves a letter for the connection.
    pub fn post(&self, letter: Letter) {
        let mut queue = self.queue.lock();
        let interim = matches!(&letter, Letter::Reply(reply) if !reply.answer.is_final());
        if queue.gone || (interim && queue.letters.len() >= LETTERS) {
            return;
        }
        queue.letters.push_back(letter);
        self.kick.notify_one();
    }

    /// Takes the next letter.
    pub fn letter(&self) -> Option<Letter> {
        self.queue.lock().letters.pop_front()
    }

    /// Asks the connection to close.
    pub fn close(&self, close: Close) {
        let mut queue = self.queue.lock();
        if queue.closing.is_none() {
            queue.closing = Some(close);
        }
        self.kick.notify_one();
    }

    /// The close somebody asked for.
    #[must_use]
    pub fn closing(&self) -> Option<Close> {
        self.queue.lock().closing.clone()
    }

    /// Queues the very last packets (a farewell, a close frame), whatever the bound; a client too slow to read
    /// its queue loses what is queued whole, so that it still learns the code. Nothing comes behind a close frame.
    pub fn push_last(&self, packet: &Packet, kind: Kind, discard: bool) {
        let mut queue = self.queue.lock();
        if discard {
            queue.discard();
        }
        queue.append(packet, kind);
        queue.ended |= kind == Kind::Control;
    }

    /// Events dropped since the last call, to be told to the client.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.queue.lock().dropped)
    }

    /// The connection is over: frees what is queued.
    pub fn bury(&self) {
        let mut queue = self.queue.lock();
        queue.gone = true;
        queue.empty();
    }
}

impl Replies for Outbox {
    fn reply(&self, reply: Reply) {
        self.post(Letter::Reply(reply));
    }

    fn traced(&self, id: CallId, traceparent: &str) {
        self.post(Letter::Traced(id, traceparent.to_owned()));
    }
}
