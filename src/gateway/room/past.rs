//! What a room reads from the streams: the exact cut at its beginning, what it missed, whether the past is still the same.

use std::collections::BTreeMap;

use tracing::{debug, info, warn};

use super::{Joining, Room};
use crate::bus::{Live, Since, Stored, Tail};
use crate::gateway::apart::Spell;
use crate::gateway::ring::Entry;
use crate::message::{Class, Code, Event, Fault, Offset};

impl Room {
    /// The exact cut: live first, then history up to the head, then drop what is live and at or below it.
    pub(super) async fn hydrate(&mut self) -> Result<Live, Fault> {
        let live = self.bus.live(&self.key.space, self.key.dialect.name()).await?;
        if !self.settings.history {
            self.show();
            return Ok(live);
        }
        let (events, state, leaders) = self.stand().await?;
        let head = Offset {
            event_epoch: events.epoch,
            event_seq: events.last_seq,
            state_epoch: state.epoch,
            state_seq: state.last_seq,
        };
        let last = Since::Last(self.settings.replay);
        let past = self.read(Class::Event, last, events.last_seq).await?;
        let states = self.read(Class::State, Since::After(0), state.last_seq).await?;
        // from here on nothing fails: a room is never half of the old and half of the new
        self.head = head;
        self.known = head;
        self.leaders = leaders;
        let base = match past.first() {
            Some(first) => first.seq.saturating_sub(1),
            None if self.settings.replay == 0 => events.last_seq,
            None => events.first_seq.saturating_sub(1),
        };
        self.ring.reset(base);
        for stored in past {
            let event = self.past_event(stored, head);
            self.ring.push(event);
        }
        self.set_states(states);
        self.subjects.clear();
        Ok(live)
    }

    fn set_states(&mut self, states: Vec<Stored>) {
        let states = states.into_iter().map(|stored| {
            let event = self.past_event(stored, self.head);
            (event.topic.clone(), Entry::new(event))
        });
        self.states = states.collect::<BTreeMap<_, _>>();
        self.show();
    }

    /// An event of which nobody knows what state came before it: whoever resumes there is given all of it again.
    pub(super) fn past_event(&self, stored: Stored, head: Offset) -> Event {
        let offset = match stored.class {
            Class::Event => Offset {
                event_seq: stored.seq,
                state_seq: 0,
                ..head
            },
            Class::State => Offset {
                state_seq: stored.seq,
                ..head
            },
        };
        event(stored, offset)
    }

    pub(super) async fn read(&self, class: Class, since: Since, up_to: u64) -> Result<Vec<Stored>, Fault> {
        let dialect = self.key.dialect.name();
        let memory = match class {
            Class::Event => self.settings.memory,
            // nobody can come in without all of it; what there can be of it is bounded by its stream and its bucket
            Class::State => usize::MAX,
        };
        let read = self
            .bus
            .read(class, &self.key.space, dialect, since, up_to, memory);
        read.await
    }

    /// Where the streams stand, and who leads them.
    pub(super) async fn stand(&self) -> Result<(Tail, Tail, (u64, u64)), Fault> {
        let (events, state) = (
            self.bus.stand(Class::Event).await,
            self.bus.stand(Class::State).await,
        );
        if events.is_err() || state.is_err() {
            // deleted while we run?
            self.bus.restore_streams().await?;
        }
        let ((events, event_leader), (state, state_leader)) = (events?, state?);
        Ok((events, state, (event_leader, state_leader)))
    }

    /// A last message lost on the way leaves no hole behind it: compare with the streams. `false` = look closer.
    pub(super) async fn compare(&mut self) -> bool {
        if !self.settings.history {
            return true;
        }
        for class in [Class::Event, Class::State] {
            let dialect = self.key.dialect.name();
            match self.bus.last_of(class, &self.key.space, dialect).await {
                // purged or made anew; a replica may only be behind
                Ok(last) if last < self.newest(class) && self.settings.replicas == 1 => return false,
                Ok(last) => {
                    let head = self.head_of(class);
                    let expected = match class {
                        Class::Event => &mut self.expected.0,
                        Class::State => &mut self.expected.1,
                    };
                    // what was stored a moment ago may still be on its way
                    if *expected > head {
                        return false;
                    }
                    *expected = last;
                }
                Err(fault) => {
                    debug!(room = %self.key, %fault, "cannot compare with the stream");
                    return false;
                }
            }
        }
        true
    }

    /// After any doubt and every ten seconds: what was missed, if it is still the same history, else everybody anew.
    pub(super) async fn resync(&mut self, live: &mut Live) -> Result<(), Fault> {
        live.settle().await?;
        let (events, state, leaders) = self.stand().await?;
        let same = events.epoch == self.head.event_epoch
            && state.epoch == self.head.state_epoch
            && events.last_seq >= self.newest(Class::Event)
            && state.last_seq >= self.newest(Class::State)
            && events.first_seq <= self.head.event_seq.saturating_add(1);
        if same {
            self.ring.trim(events.first_seq);
            self.bury_vanished().await?;
            let audit = leaders != self.leaders;
            match self.catch_up(&events, &state, audit).await {
                Ok(()) => {
                    self.leaders = leaders;
                    return Ok(());
                }
                Err(fault) if fault.code == Code::TooLarge => {
                    warn!(room = %self.key, %fault, "too much was missed");
                }
                Err(fault) => return Err(fault),
            }
        }
        info!(room = %self.key, "history cannot be continued, everybody starts anew");
        let before = self.alive();
        *live = self.hydrate().await?;
        let vanished = before
            .into_iter()
            .filter(|topic| !self.states.contains_key(topic));
        self.bury(vanished.collect()).await?;
        let mut spell = Spell::begin();
        for member in std::mem::take(&mut self.members) {
            spell.go_on().await;
            let Some(ear) = self.ears.get(member.ear).copied() else {
                continue;
            };
            let joining = Joining {
                id: member.id,
                outbox: member.outbox,
                ear,
                since: Some(None),
                session: member.session,
                greet: member.greet,
            };
            self.admit(joining, None);
        }
        Ok(())
    }

    /// Delivers what the streams hold beyond the head, and moves the head to their present end: what other rooms
    /// store there is none of ours, and may expire without our missing it.
    ///
    /// With `audit` also what lies before the head and never came: a stream that changed its leader may have stored
    /// messages that were not sent live.
    pub(super) async fn catch_up(&mut self, events: &Tail, state: &Tail, audit: bool) -> Result<(), Fault> {
        for (class, tail) in [(Class::Event, events), (Class::State, state)] {
            let head = self.head_of(class);
            let from = if audit { self.known_of(class) } else { head };
            if audit || self.may_have_more(class, tail).await? {
                let mut missed = self.read(class, Since::After(from), tail.last_seq).await?;
                missed.retain(|stored| self.is_missing(stored));
                if missed.iter().any(|stored| stored.seq <= head) {
                    self.lobby.metrics.live_gaps.inc();
                }
                self.deliver(missed).await;
            }
            let (head, known) = match class {
                Class::Event => (&mut self.head.event_seq, &mut self.known.event_seq),
                Class::State => (&mut self.head.state_seq, &mut self.known.state_seq),
            };
            *head = tail.last_seq.max(*head);
            *known = *head;
            // these now say less than `known`
            self.subjects
                .retain(|(is_event, _), _| *is_event != (class == Class::Event));
        }
        self.expected = (0, 0);
        Ok(())
    }

    /// Spares a read where the stream grew by what is none of ours. A replica may be behind: then it is read.
    async fn may_have_more(&self, class: Class, tail: &Tail) -> Result<bool, Fault> {
        let head = self.head_of(class);
        if tail.last_seq <= head || self.settings.replicas > 1 {
            return Ok(tail.last_seq > head);
        }
        let dialect = self.key.dialect.name();
        Ok(self.bus.last_of(class, &self.key.space, dialect).await? > head)
    }

    /// Whether a stored message was never delivered here.
    pub(super) fn is_missing(&self, stored: &Stored) -> bool {
        if stored.seq > self.head_of(stored.class) {
            return true;
        }
        match stored.class {
            Class::Event => stored.seq > self.ring.base() && !self.ring.contains(stored.seq),
            Class::State => {
                let known = self.states.get(&stored.topic);
                known.is_none_or(|entry| entry.event.seq < stored.seq)
            }
        }
    }

    pub(super) fn head_of(&self, class: Class) -> u64 {
        match class {
            Class::Event => self.head.event_seq,
            Class::State => self.head.state_seq,
        }
    }

    pub(super) fn known_of(&self, class: Class) -> u64 {
        match class {
            Class::Event => self.known.event_seq,
            Class::State => self.known.state_seq,
        }
    }

    /// Sequence of the newest message this room itself holds.
    fn newest(&mut self, class: Class) -> u64 {
        match class {
            Class::Event => self.ring.last(1).next().map_or(0, |entry| entry.event.seq),
            Class::State => {
                let states = self.states.values().map(|entry| entry.event.seq);
                states.max().unwrap_or(0)
            }
        }
    }
}

/// A stored message as listeners get it.
pub(super) fn event(stored: Stored, offset: Offset) -> Event {
    Event {
        class: stored.class,
        topic: stored.topic,
        time: stored.time,
        seq: stored.seq,
        offset,
        body: stored.body,
        from: stored.from,
    }
}
