//! The way into a room: state and the last events for a newcomer, exactly what was missed for who comes back.

use std::sync::Arc;

use super::{FRESH, Joining, Member, Room};
use crate::bus::Since;
use crate::dialect::Welcome;
use crate::dialect::view::Known;
use crate::gateway::outbox::{Kind, Outbox};
use crate::gateway::ring::{Ear, Entry};
use crate::message::{Class, Close, Code, Fault, Offset};
use crate::telemetry::clock;

/// Who is being let in when a bug ends the room is in none of its lists.
struct Told(Arc<Outbox>);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close(Close::INTERNAL);
        }
    }
}

impl Room {
    /// The offset a session resumes at, if everything after it can be given; the room then has all of it in memory.
    /// One stream read serves everybody who comes back from as long ago.
    pub(super) async fn resume_point(
        &mut self,
        since: Option<Option<Offset>>,
    ) -> Result<Option<Offset>, Fault> {
        let Some(Some(since)) = since.filter(|_| self.settings.history) else {
            return Ok(None);
        };
        let same =
            |head: &Offset| since.event_epoch == head.event_epoch && since.state_epoch == head.state_epoch;
        if !same(&self.head) {
            // made anew, and we have not looked since?
            if self.looked.is_none_or(|at| at.elapsed() > FRESH) {
                let (events, state, _) = self.stand().await?;
                if events.epoch != self.head.event_epoch || state.epoch != self.head.state_epoch {
                    return Err(Fault::new(Code::BusDown, "the streams were made anew"));
                }
            }
            return Ok(None);
        }
        if since.event_seq > self.head.event_seq || since.state_seq > self.head.state_seq {
            // it was given more by another gateway than has come to this one
            let (events, state, _) = self.stand().await?;
            self.catch_up(&events, &state, false).await?;
            if since.event_seq > self.head.event_seq || since.state_seq > self.head.state_seq {
                return Ok(None);
            }
        }
        if since.event_seq >= self.ring.base() {
            return Ok(Some(since));
        }
        let tail = self.bus.tail(Class::Event).await?;
        if since.event_seq + 1 < tail.first_seq {
            return Ok(None);
        }
        let after = Since::After(since.event_seq);
        match self.read(Class::Event, after, self.ring.base()).await {
            Ok(older) => {
                let older = older
                    .into_iter()
                    .map(|stored| self.past_event(stored, self.head))
                    .collect();
                self.ring.extend_back(since.event_seq, older);
                Ok(Some(since))
            }
            Err(fault) if fault.code == Code::TooLarge => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Gives a session what it is owed; then it is a member.
    pub(super) fn admit(&mut self, joining: Joining, resume: Option<Offset>) {
        let recovered = joining.since.map(|_| resume.is_some());
        let _told = Told(joining.outbox.clone());
        match resume {
            Some(since) => self.give_missed(&joining, since),
            None => {
                self.give_recent(&joining);
                if recovered.is_some() {
                    self.metrics.unrecovered.inc();
                }
            }
        }
        let ear = joining.ear;
        if joining.greet {
            let welcome = Welcome {
                session: joining.session.clone(),
                space: self.key.space.clone(),
                offset: self.head,
                recovered,
                history: self.settings.history,
            };
            if let Some(frame) = ear.dialect.welcome(clock::unix(), ear.encoding, &welcome) {
                joining.outbox.push_granted(&ear.carrier.pack(&frame), Kind::Own);
            }
        }
        joining.outbox.flush();
        joining.outbox.entered();
        let known = self.ears.iter().position(|known| *known == ear);
        let at = known.unwrap_or_else(|| {
            self.ears.push(ear);
            self.ears.len() - 1
        });
        self.members.push(Member {
            id: joining.id,
            outbox: joining.outbox,
            ear: at,
            session: joining.session,
            greet: joining.greet,
        });
    }

    /// A newcomer: the current state, then the last events.
    fn give_recent(&mut self, joining: &Joining) {
        let ear = joining.ear;
        let past = Ear {
            encoding: ear.dialect.newcomer(ear.encoding),
            ..ear
        };
        let known = |entry: &Entry| Known {
            topic: entry.event.topic.clone(),
            seq: entry.event.seq,
            gone: entry.event.body.is_empty(),
        };
        let mut given: Vec<Known> = self.states.values().map(known).collect();
        self.key.dialect.arrange(&mut given);
        let mut frames = Vec::new();
        for known in given.iter().filter(|known| !known.gone) {
            let entry = self.states.get_mut(&known.topic);
            frames.extend(entry.and_then(|entry| entry.frame(past)));
        }
        let last = self.ring.last(self.settings.replay);
        frames.extend(last.filter_map(|entry| entry.frame(past)));
        let mut replay = Vec::new();
        ear.dialect
            .replay(clock::unix(), ear.encoding, &frames, &mut replay);
        for frame in replay {
            joining.outbox.push_granted(&ear.carrier.pack(&frame), Kind::Own);
        }
    }

    /// What was missed comes as it would have come live: in the order in which this room got it, so that each offset
    /// on the way is one from which nothing is missing. The bytes are shared with everybody.
    fn give_missed(&mut self, joining: &Joining, since: Offset) {
        let ear = joining.ear;
        let mut packets = Vec::new();
        let states = self.states.values_mut();
        let states = states.filter(|entry| entry.event.seq > since.state_seq);
        for entry in states.chain(self.ring.after(since.event_seq)) {
            let offset = entry.event.offset;
            packets.extend(
                entry
                    .packet(ear)
                    .map(|packet| ((offset.event_seq, offset.state_seq), packet)),
            );
        }
        packets.sort_by_key(|(place, _)| *place);
        self.metrics.resumed(packets.len() as u64);
        for (_, packet) in packets {
            joining.outbox.push_granted(&packet, Kind::Own);
        }
    }
}
