//! The recent past of a room, kept in memory and encoded at most once for each kind of listener.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::dialect::{Dialect, Encoding, Frame};
use crate::gateway::apart::apart;
use crate::message::Event;
use crate::wire::frame::{self, Packet};

/// How frames reach the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// Framed as WebSocket messages.
    WebSocket,
    /// As they are.
    Raw,
}

impl Carrier {
    /// Makes a frame ready for the socket.
    #[must_use]
    pub fn pack(self, frame: &Frame) -> Packet {
        match self {
            Self::WebSocket => frame::packet(frame),
            Self::Raw => Packet::new(frame.bytes().clone()),
        }
    }
}

/// A kind of listener: those of one kind share every encoded byte.
#[derive(Clone, Copy)]
pub struct Ear {
    /// The dialect the listener speaks, which may differ from the room's.
    pub dialect: &'static dyn Dialect,
    /// Its encoding.
    pub encoding: Encoding,
    /// Its socket.
    pub carrier: Carrier,
}

impl PartialEq for Ear {
    fn eq(&self, other: &Self) -> bool {
        self.encoding == other.encoding
            && self.carrier == other.carrier
            && self.dialect.name() == other.dialect.name()
    }
}

/// One encoded form of an event: the packet alone, since the frame is a slice of it.
#[derive(Clone)]
struct Form {
    ear: Ear,
    packet: Packet,
    payload: usize,
    text: bool,
}

impl Form {
    fn frame(&self) -> Frame {
        let Packet { head, body } = &self.packet;
        let bytes = if body.is_empty() {
            head.slice(head.len() - self.payload..)
        } else {
            body.clone()
        };
        if self.text {
            Frame::Text(bytes)
        } else {
            Frame::Binary(bytes)
        }
    }
}

/// An event with the forms made of it so far.
pub struct Entry {
    /// The event.
    pub event: Event,
    forms: Vec<Form>,
}

impl Entry {
    /// An event nobody has encoded yet.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self {
            event,
            forms: Vec::new(),
        }
    }

    fn form(&mut self, ear: Ear) -> Option<&Form> {
        if let Some(at) = self.forms.iter().position(|form| form.ear == ear) {
            return self.forms.get(at);
        }
        let event = &self.event;
        let (frame, packet) = apart(event.body.bytes.len(), || {
            let frame = ear.dialect.encode(ear.encoding, event)?;
            let packet = ear.carrier.pack(&frame);
            Some((frame, packet))
        })?;
        let text = matches!(frame, Frame::Text(_));
        self.forms.push(Form {
            ear,
            packet,
            payload: frame.bytes().len(),
            text,
        });
        self.forms.last()
    }

    /// The event as one kind of listener gets it; `None` when it does not.
    pub fn packet(&mut self, ear: Ear) -> Option<Packet> {
        self.form(ear).map(|form| form.packet.clone())
    }

    /// The same before framing, for replay frames.
    pub fn frame(&mut self, ear: Ear) -> Option<Frame> {
        self.form(ear).map(Form::frame)
    }

    /// Memory it is taken to cost: the body and one encoded form, whether made yet or not.
    fn size(&self) -> usize {
        self.event.body.bytes.len() * 2 + 512
    }
}

/// Every event of the room after `base`, oldest first.
pub struct Ring {
    entries: VecDeque<Entry>,
    /// Sequence before the first entry: what is at or below it is only in the stream.
    base: u64,
    keep: usize,
    memory: usize,
    bytes: usize,
}

impl Ring {
    /// An empty ring that keeps `keep` events and beyond them up to `memory` bytes.
    #[must_use]
    pub fn new(keep: usize, memory: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            base: 0,
            keep,
            memory,
            bytes: 0,
        }
    }

    /// Forgets everything; what is at or below `base` is unknown.
    pub fn reset(&mut self, base: u64) {
        self.entries.clear();
        self.bytes = 0;
        self.base = base;
    }

    /// Sequence before the first event in memory.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Adds the newest event and returns it, evicting what no longer fits.
    pub fn push(&mut self, event: Event) -> Option<&mut Entry> {
        let entry = Entry::new(event);
        self.bytes += entry.size();
        self.entries.push_back(entry);
        while self.bytes > self.memory && self.entries.len() > self.keep.max(1) {
            self.evict();
        }
        self.entries.back_mut()
    }

    /// Whether an event is in memory.
    #[must_use]
    pub fn contains(&self, seq: u64) -> bool {
        self.entries
            .binary_search_by_key(&seq, |entry| entry.event.seq)
            .is_ok()
    }

    /// Adds an event that came late at its place and returns it.
    pub fn insert(&mut self, event: Event) -> Option<&mut Entry> {
        let at = self.entries.partition_point(|entry| entry.event.seq < event.seq);
        let entry = Entry::new(event);
        self.bytes += entry.size();
        self.entries.insert(at, entry);
        self.entries.get_mut(at)
    }

    /// Puts older events before the ones in memory; everything after `base` is then known.
    pub fn extend_back(&mut self, base: u64, older: Vec<Event>) {
        for event in older.into_iter().rev() {
            let entry = Entry::new(event);
            self.bytes += entry.size();
            self.entries.push_front(entry);
        }
        self.base = base;
    }

    /// Drops what the stream no longer has, so that memory never tells more than the stream would.
    pub fn trim(&mut self, first_seq: u64) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.event.seq < first_seq)
        {
            self.evict();
        }
        self.base = self.base.max(first_seq.saturating_sub(1));
    }

    fn evict(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes = self.bytes.saturating_sub(entry.size());
            self.base = entry.event.seq;
        }
    }

    /// The events after `seq`, oldest first. Only complete when `seq >= base`.
    pub fn after(&mut self, seq: u64) -> impl Iterator<Item = &mut Entry> {
        let start = self.entries.partition_point(|entry| entry.event.seq <= seq);
        self.entries.range_mut(start..)
    }

    /// The last `n` events, oldest first.
    pub fn last(&mut self, n: usize) -> impl Iterator<Item = &mut Entry> {
        let start = self.entries.len().saturating_sub(n);
        self.entries.range_mut(start..)
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Topics numbered at once; a space has far fewer.
const TOPICS: usize = 4096;

/// Numbers a state topic within its room, for conflation in the queues.
#[derive(Default)]
pub struct Topics {
    known: HashMap<Arc<str>, u32>,
    last: u32,
}

impl Topics {
    /// The number of a topic. One that comes again after very many others has a new one, and what still waits under
    /// the old one stays beside it.
    pub fn number(&mut self, topic: &Arc<str>) -> u32 {
        if let Some(number) = self.known.get(topic) {
            return *number;
        }
        if self.known.len() >= TOPICS {
            self.known.clear();
        }
        self.last = self.last.wrapping_add(1);
        self.known.insert(topic.clone(), self.last);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{TOPICS, Topics};

    #[test]
    fn topics_keep_their_number_and_are_not_kept_for_ever() {
        let mut topics = Topics::default();
        let number = |topics: &mut Topics, name: &str| topics.number(&Arc::from(name));
        let (one, two) = (number(&mut topics, "one"), number(&mut topics, "two"));
        assert_ne!(one, two);
        assert_eq!(
            (number(&mut topics, "one"), number(&mut topics, "two")),
            (one, two)
        );
        for n in 0..3 * TOPICS {
            assert_ne!(number(&mut topics, &format!("t{n}")), one);
        }
        assert!(topics.known.len() <= TOPICS);
    }
}
