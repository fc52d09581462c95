//! The queue behind an outbox: packets in pieces, what may be dropped of them, and the writes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::{Kind, Letter};
use crate::gateway::apart::TURN;
use crate::message::Close;
use crate::telemetry::metrics::DialectMetrics;
use crate::wire::frame::Packet;

/// Slices handed to one `writev`.
const SLICES: usize = 64;

/// A piece of a packet.
pub(super) struct Item {
    pub(super) bytes: Bytes,
    kind: Kind,
    /// Whether the next item belongs to the same packet.
    pub(super) more: bool,
}

impl Item {
    /// Whether it belongs to a message that is in the books.
    pub(super) fn counts(&self) -> bool {
        self.kind != Kind::Control
    }
}

/// The queue itself; its owner holds the lock.
pub(super) struct Queue {
    /// Every message given to the queue is in the end one that was sent or one that was dropped.
    pub(super) books: Arc<DialectMetrics>,
    pub(super) items: VecDeque<Item>,
    pub(super) bytes: usize,
    /// Bytes of the first item that are already written.
    pub(super) written: usize,
    /// The head of a packet is gone and its body is first in the queue.
    pub(super) mid_packet: bool,
    /// Bytes of replay still queued: they were asked for and do not count against the bound.
    pub(super) grant: usize,
    /// Set when the socket took no more; only the connection resets it.
    pub(super) blocked: Option<Instant>,
    /// Events dropped and not yet told to the client.
    pub(super) dropped: u64,
    /// Packets ever queued.
    pub(super) packets: u64,
    pub(super) letters: VecDeque<Letter>,
    pub(super) closing: Option<Close>,
    pub(super) gone: bool,
    /// The close frame is queued, which nothing may follow.
    pub(super) ended: bool,
    /// Rooms the client was sent to and is not in yet.
    pub(super) entering: u8,
}

impl Queue {
    pub(super) fn new(books: Arc<DialectMetrics>) -> Self {
        Self {
            books,
            items: VecDeque::new(),
            bytes: 0,
            written: 0,
            mid_packet: false,
            grant: 0,
            blocked: None,
            dropped: 0,
            packets: 0,
            letters: VecDeque::new(),
            closing: None,
            gone: false,
            ended: false,
            entering: 0,
        }
    }

    /// A message that was meant for this client was not taken.
    pub(super) fn refused(&self, one: bool) {
        if one {
            self.books.dropped.closed.inc();
        }
    }

    pub(super) fn append(&mut self, packet: &Packet, kind: Kind) {
        self.bytes += packet.len();
        self.packets += 1;
        let more = !packet.body.is_empty();
        self.items.push_back(Item {
            bytes: packet.head.clone(),
            kind,
            more,
        });
        if more {
            self.items.push_back(Item {
                bytes: packet.body.clone(),
                kind,
                more: false,
            });
        }
    }

    /// Whether what comes next may go straight to the socket.
    pub(super) fn is_free(&self) -> bool {
        self.items.is_empty() && self.blocked.is_none() && !self.is_over()
    }

    /// Whether nothing more is taken.
    pub(super) fn is_over(&self) -> bool {
        self.gone || self.ended || self.closing.is_some()
    }

    /// Whether more waits than `limit`, what was asked for and one message, the largest, not counted.
    pub(super) fn over(&self, limit: usize) -> bool {
        let bound = limit + self.grant;
        self.bytes > bound && {
            let largest = self.items.iter().map(|item| item.bytes.len()).max();
            self.bytes - largest.unwrap_or(0) > bound
        }
    }

    /// Index of the first item that no write has touched and that begins a packet.
    pub(super) fn untouched(&self) -> usize {
        if self.written == 0 && !self.mid_packet {
            return 0;
        }
        let mut index = 0;
        while self.items.get(index).is_some_and(|item| item.more) {
            index += 1;
        }
        (index + 1).min(self.items.len())
    }

    /// Removes packets from the first untouched one on while `which` says so; returns how many.
    pub(super) fn remove(&mut self, mut which: impl FnMut(&Self, Kind) -> bool) -> u64 {
        let mut removed = 0;
        let mut index = self.untouched();
        while let Some(item) = self.items.get(index) {
            let parts = if item.more { 2 } else { 1 };
            if which(self, item.kind) {
                for gone in self.items.drain(index..index + parts) {
                    self.bytes -= gone.bytes.len();
                }
                removed += 1;
            } else {
                index += parts;
            }
        }
        removed
    }

    pub(super) fn conflate(&mut self, topic: u32) {
        if !self.items.is_empty() {
            let replaced = self.remove(|_, kind| kind == Kind::State(topic));
            if replaced > 0 {
                self.books.slow.conflate.inc();
                self.books.dropped.conflated.inc_by(replaced);
            }
        }
    }

    pub(super) fn drop_events(&mut self, limit: usize) {
        let dropped = self.remove(|queue, kind| kind == Kind::Event && queue.bytes > limit);
        self.dropped += dropped;
        self.books.dropped.slow.inc_by(dropped);
    }

    pub(super) fn discard(&mut self) {
        let keep = self.untouched();
        let mut lost = 0;
        for gone in self.items.drain(keep..) {
            self.bytes -= gone.bytes.len();
            lost += u64::from(!gone.more && gone.counts());
        }
        self.books.dropped.closed.inc_by(lost);
    }

    /// Frees everything; what is still here reaches nobody.
    pub(super) fn empty(&mut self) {
        let left = self.items.iter().filter(|item| !item.more && item.counts());
        self.books.dropped.closed.inc_by(left.count() as u64);
        self.items = VecDeque::new();
        self.letters = VecDeque::new();
        self.bytes = 0;
        self.written = 0;
    }

    /// Writes until empty or blocked, or for a turn: a client that reads as fast as we write must not have a thread for
    /// as long as it takes. `false` when the socket is broken.
    pub(super) fn write(&mut self, stream: &TcpStream) -> bool {
        let mut turn = 0;
        while !self.items.is_empty() {
            if turn >= TURN {
                // the connection goes on with it when others have had theirs
                self.blocked = Some(Instant::now());
                return true;
            }
            let attempt = match self.items.front() {
                // one slice needs no vector
                Some(only) if self.items.len() == 1 => stream.try_write(&only.bytes[self.written..]),
                _ => self.write_many(stream),
            };
            match attempt {
                Ok(0) => return false,
                Ok(n) => {
                    turn += n;
                    self.advance(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = Some(Instant::now());
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if self.items.capacity() > 256 {
            // a burst must not cost its high-water mark for ever
            self.items = VecDeque::new();
        }
        true
    }

    pub(super) fn write_many(&self, stream: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for item in self.items.iter().take(SLICES) {
            let skip = if count == 0 { self.written } else { 0 };
            slices[count] = IoSlice::new(&item.bytes[skip..]);
            count += 1;
        }
        stream.try_write_vectored(&slices[..count])
    }

    pub(super) fn write_packet(&mut self, stream: &TcpStream) -> io::Result<bool> {
        while let Some(item) = self.items.front() {
            let more = item.more;
            match stream.try_write(&item.bytes[self.written..]) {
                Ok(n) => {
                    let whole = self.written + n == item.bytes.len();
                    self.advance(n);
                    if whole && !more {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = Some(Instant::now());
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    pub(super) fn advance(&mut self, n: usize) {
        self.grant = self.grant.saturating_sub(n);
        let (mut rest, mut messages) = (n, 0);
        while let Some(item) = self.items.front() {
            let left = item.bytes.len() - self.written;
            if rest < left {
                self.written += rest;
                break;
            }
            rest -= left;
            messages += u64::from(!item.more && item.counts());
            self.bytes -= item.bytes.len();
            self.written = 0;
            self.mid_packet = item.more;
            self.items.pop_front();
        }
        self.books.written(messages, n);
    }
}
