//! Live messages on their way to everybody in the room: in order, holes filled first, each encoded once.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::Room;
use super::past::event;
use crate::bus::{Since, Stored};
use crate::gateway::apart::Spell;
use crate::gateway::outbox::{Batch, Kind, Parcel, Taken};
use crate::gateway::ring::Ear;
use crate::gateway::slow::What;
use crate::message::{Class, Event, Fault, Offset};
use crate::telemetry::trace::DeliverSpan;

impl Room {
    /// Delivers a batch. Fails when a hole before one of its messages cannot be filled: that one and the rest are
    /// then left to be read from the stream.
    pub(super) async fn take(&mut self, batch: Vec<Stored>) -> Result<(), Fault> {
        let mut fresh = Vec::with_capacity(batch.len());
        for stored in batch {
            if !self.settings.history {
                fresh.push(stored);
                continue;
            }
            if !self.is_new(&stored, &fresh) {
                continue;
            }
            let subject = (stored.class == Class::Event, stored.topic.clone());
            let known = self.known_of(stored.class);
            let seen = self.subjects.get(&subject).copied().unwrap_or(0).max(known);
            if stored.previous > seen {
                self.lobby.metrics.live_gaps.inc();
                self.deliver(std::mem::take(&mut fresh)).await;
                let before = stored.seq.saturating_sub(1);
                let mut missed = self.read(stored.class, Since::After(seen), before).await?;
                missed.retain(|stored| self.is_missing(stored));
                self.deliver(missed).await;
            }
            self.subjects.insert(subject, stored.seq);
            fresh.push(stored);
        }
        self.deliver(fresh).await;
        Ok(())
    }

    /// The one session that gets an event; `None` when everybody does.
    fn addressee(&self, event: &Event) -> Option<Arc<str>> {
        let dialect = self.key.dialect;
        if !dialect.is_private(event) {
            return None;
        }
        let known = |topic: &str| self.states.get(topic).map(|entry| &entry.event);
        dialect.foremost(&known).map(Into::into)
    }

    /// Whether a live message is beyond everything delivered or about to be.
    fn is_new(&self, stored: &Stored, fresh: &[Stored]) -> bool {
        let ours = fresh.iter().rev().find(|known| known.class == stored.class);
        let head = ours.map_or_else(|| self.head_of(stored.class), |known| known.seq);
        stored.seq > head
    }

    /// Where a listener stands who has got this message and everything delivered before it. One that comes late
    /// changes nothing in that.
    fn advance(&mut self, stored: &Stored) -> Offset {
        if self.settings.history {
            let head = match stored.class {
                Class::Event => &mut self.head.event_seq,
                Class::State => &mut self.head.state_seq,
            };
            *head = stored.seq.max(*head);
        }
        self.head
    }

    /// Encodes each message once for each kind of listener and writes to everybody.
    pub(super) async fn deliver(&mut self, fresh: Vec<Stored>) {
        if fresh.is_empty() {
            return;
        }
        let started = self.metrics.now();
        let mut batches: Vec<Vec<Parcel>> = Vec::new();
        batches.resize_with(self.ears.len(), Vec::new);
        let mut times = Vec::with_capacity(fresh.len());
        let mut spans = Vec::new();
        let mut stated = false;
        for stored in fresh {
            times.push(stored.time);
            if let Some(span) = DeliverSpan::start(stored.origin.as_ref()) {
                let size = stored.body.bytes.len();
                spans.push((span, stored.class, stored.topic.clone(), size));
            }
            let late = self.settings.history && stored.seq <= self.head_of(stored.class);
            let subject = (stored.class == Class::Event, stored.topic.clone());
            let seen = self.subjects.entry(subject).or_default();
            *seen = stored.seq.max(*seen);
            let offset = self.advance(&stored);
            let event = event(stored, offset);
            let kind = match event.class {
                Class::Event => Kind::Event,
                Class::State if self.key.dialect.conflates(&event.topic) => {
                    Kind::State(self.topics.number(&event.topic))
                }
                Class::State => Kind::Own,
            };
            stated |= event.class == Class::State;
            if self.key.dialect.looks() && event.class == Class::Event && &*event.topic == "screenshot" {
                self.lobby.screens.offer(&self.key.space, &event.body);
            }
            let only = self.addressee(&event);
            let entry = match event.class {
                Class::Event if late => self.ring.insert(event),
                Class::Event => self.ring.push(event),
                Class::State => {
                    let topic = event.topic.clone();
                    self.states
                        .insert(topic.clone(), crate::gateway::ring::Entry::new(event));
                    self.states.get_mut(&topic)
                }
            };
            let Some(entry) = entry else { continue };
            let foreign = |ear: &Ear| ear.dialect.name() != self.key.dialect.name();
            for (ear, batch) in self.ears.iter().zip(&mut batches) {
                if let Some(packet) = entry.packet(*ear) {
                    let only = only.clone().filter(|_| !foreign(ear));
                    batch.push(Parcel { packet, kind, only });
                }
            }
        }
        if stated {
            self.show();
        }
        let batches: Vec<Batch> = batches.into_iter().map(Batch::new).collect();
        let began = self.metrics.now();
        self.metrics.encoded(began - started);
        let others = self.write(&batches).await;
        self.metrics.stage.write.since(began + others);
        self.metrics.delivered(&times);
        for (span, class, topic, size) in spans {
            span.end(self.key.dialect.name(), class, &topic, size, self.members.len());
        }
    }

    /// Hands every member its packets; returns how long others had the thread meanwhile.
    async fn write(&mut self, batches: &[Batch]) -> Duration {
        let mut left = false;
        let mut spell = Spell::begin();
        for member in &self.members {
            spell.go_on().await;
            let Some(batch) = batches.get(member.ear).filter(|batch| !batch.is_empty()) else {
                continue;
            };
            let delivery = member.outbox.deliver(batch, &member.session);
            left |= delivery.taken != Taken::Yes;
            if delivery.taken == Taken::Overflow {
                debug!(room = %self.key, session = %member.session, "too slow");
            }
            if delivery.dropped > 0 {
                let what = What::Dropped(delivery.dropped);
                self.lobby.slow.tell(&member.session, &self.key, what);
            }
        }
        if left {
            self.members.retain(|member| member.outbox.closing().is_none());
        }
        spell.others()
    }
}
