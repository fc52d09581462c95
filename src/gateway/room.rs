//! One space of one dialect: follows the live traffic, keeps the recent past, serves newcomers and resumers.
//!
//! A room is one task and owns all its state, so the cut between what a newcomer is given and what follows is a
//! point in that task's own sequence: nothing is missed and nothing comes twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use crate::bus::{Bus, Live, Since, Stored};
use crate::config;
use crate::dialect::view::Known;
use crate::dialect::{Dialect, Notice, Welcome};
use crate::gateway::lobby::{Key, Lobby};
use crate::gateway::looks::Snapshot;
use crate::gateway::outbox::{Kind, Letter, Outbox, Taken};
use crate::gateway::ring::{Ear, Entry, Ring, Topics};
use crate::message::{Class, Event, Fault, Offset};
use crate::telemetry::clock;
use crate::telemetry::metrics::DialectMetrics;
use crate::telemetry::trace::DeliverSpan;
use crate::wire::frame::Packet;

/// Live messages taken before the batch is written.
const BATCH: usize = 64;
/// How often the room compares itself with its streams.
const CHECK: Duration = Duration::from_secs(2);
/// How long an empty room waits for somebody to come back.
const LINGER: Duration = Duration::from_secs(30);

/// What a room is asked.
pub enum Order {
    /// A session comes in.
    Join(Box<Joining>),
    /// A session left.
    Leave(u64),
    /// News for everybody here.
    Announce(Notice),
}

/// A session on its way in.
pub struct Joining {
    /// Number of the connection in this process.
    pub id: u64,
    /// Where to write.
    pub outbox: Arc<Outbox>,
    /// How to encode.
    pub ear: Ear,
    /// What the client asked to resume from: `None` = newcomer, `Some(None)` = an offset that is not ours.
    pub since: Option<Option<Offset>>,
    /// ULID of the session.
    pub session: Arc<str>,
    /// Whether this room greets it; a session in several rooms is greeted by one.
    pub greet: bool,
}

struct Member {
    id: u64,
    outbox: Arc<Outbox>,
    ear: usize,
    session: Arc<str>,
    greet: bool,
}

/// One space of one dialect.
pub struct Room {
    key: Key,
    bus: Bus,
    lobby: Arc<Lobby>,
    settings: config::Events,
    metrics: Arc<DialectMetrics>,
    members: Vec<Member>,
    /// Bytes queued for them at the last look.
    weight: i64,
    ears: Vec<Ear>,
    waiting: Vec<Box<Joining>>,
    ring: Ring,
    states: BTreeMap<Arc<str>, Entry>,
    topics: Topics,
    /// The states for those who only look.
    view: watch::Sender<Option<Arc<Snapshot>>>,
    /// Last sequence seen of each subject, to notice holes in the live traffic.
    subjects: BTreeMap<(bool, Arc<str>), u64>,
    head: Offset,
    /// Everything up to these was read from the streams, so a subject never seen live may point there.
    known: Offset,
}

impl Room {
    /// A room that has not looked at its streams yet.
    #[must_use]
    pub fn new(
        key: Key,
        bus: Bus,
        lobby: Arc<Lobby>,
        settings: config::Events,
        metrics: Arc<DialectMetrics>,
        view: watch::Sender<Option<Arc<Snapshot>>>,
    ) -> Self {
        let ring = Ring::new(settings.replay, settings.memory);
        Self {
            key,
            bus,
            lobby,
            settings,
            metrics,
            members: Vec::new(),
            weight: 0,
            ears: Vec::new(),
            waiting: Vec::new(),
            ring,
            states: BTreeMap::new(),
            topics: Topics::default(),
            view,
            subjects: BTreeMap::new(),
            head: Offset::default(),
            known: Offset::default(),
        }
    }

    /// Runs until nobody has been here for a while.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut link = self.bus.link();
        let mut live: Option<Live> = None;
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        let mut empty_since = Some(Instant::now());
        let mut up = false;
        loop {
            if live.is_none() && link.borrow_and_update().is_up() {
                match self.hydrate().await {
                    Ok(opened) => {
                        live = Some(opened);
                        up = true;
                        self.admit_waiting().await;
                    }
                    Err(fault) => {
                        warn!(room = %self.key, %fault, "cannot read the streams, trying again");
                        tokio::time::sleep(Duration::from_millis(250)).await;
                    }
                }
            }
            let opened = live.is_some();
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    self.obey(order, opened && up).await;
                    empty_since = self.is_empty().then(|| empty_since.unwrap_or_else(Instant::now));
                }
                stored = next(&mut live) => {
                    let Some(stored) = stored else { live = None; continue };
                    let mut batch = vec![stored];
                    while batch.len() < BATCH {
                        let Some(more) = live.as_mut().and_then(Live::try_next) else { break };
                        batch.push(more);
                    }
                    self.take(batch).await;
                }
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now_up = link.borrow_and_update().is_up();
                    if now_up && !up && opened {
                        up = self.resync().await;
                        if up {
                            self.admit_waiting().await;
                        }
                    } else if !now_up {
                        up = false;
                    }
                }
                _ = check.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.weigh();
                    if opened && link.borrow().is_up() {
                        if !up || ticks.is_multiple_of(5) {
                            up = self.resync().await;
                            if up { self.admit_waiting().await; }
                        } else {
                            self.catch_up().await;
                        }
                    }

                    let idle = empty_since.is_some_and(|since| since.elapsed() > LINGER);
                    if idle && self.is_empty() && self.lobby.retire(&self.key) {
                        debug!(room = %self.key, "empty, closed");
                        return;
                    }
                }
            }
        }
    }

    /// What waits for slow clients, as far as it has changed since the last look.
    fn weigh(&mut self) {
        let queued: usize = self.members.iter().map(|member| member.outbox.queued()).sum();
        let queued = i64::try_from(queued).unwrap_or(i64::MAX);
        self.metrics.queue_bytes.add(queued - self.weight);
        self.weight = queued;
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.waiting.is_empty()
    }

    async fn obey(&mut self, order: Order, ready: bool) {
        match order {
            Order::Join(joining) if ready => self.admit(joining).await,
            Order::Join(joining) => self.waiting.push(joining),
            Order::Leave(id) => {
                self.members.retain(|member| member.id != id);
                self.waiting.retain(|joining| joining.id != id);
            }
            Order::Announce(notice) => {
                for member in self.members.iter().filter(|member| member.greet) {
                    member.outbox.post(Letter::Notice(notice.clone()));
                }
            }
        }
    }

    /// The exact cut: live first, then history up to the head, then drop what is live and at or below it.
    async fn hydrate(&mut self) -> Result<Live, Fault> {
        let live = self.bus.live(&self.key.space, self.key.dialect.name()).await?;
        if self.settings.history {
            let events = self.bus.tail(Class::Event).await?;
            let state = self.bus.tail(Class::State).await?;
            self.head = Offset {
                event_epoch: events.epoch,
                event_seq: events.last_seq,
                state_epoch: state.epoch,
                state_seq: state.last_seq,
            };
            self.known = self.head;
            let past = self
                .read(Class::Event, Since::Last(self.settings.replay), events.last_seq)
                .await?;
            // with fewer than asked there are no older ones at all
            let complete = past.len() < self.settings.replay;
            let base = past
                .first()
                .map_or(events.last_seq, |stored| stored.seq.saturating_sub(1));
            self.ring.reset(if complete {
                events.first_seq.saturating_sub(1)
            } else {
                base
            });
            for stored in past {
                let event = self.event(stored);
                self.ring.push(event);
            }
            self.states.clear();
            for stored in self.read(Class::State, Since::After(0), state.last_seq).await? {
                let event = self.event(stored);
                self.states.insert(event.topic.clone(), Entry::new(event));
            }
            self.subjects.clear();
        }
        self.show();
        Ok(live)
    }

    /// Lets those who look see the states as they are now.
    fn show(&self) {
        if self.key.dialect.looks() {
            let states = self.states.iter();
            let snapshot = Snapshot {
                states: states
                    .map(|(topic, entry)| (topic.clone(), entry.event.clone()))
                    .collect(),
                head: self.head.state_seq,
            };
            self.view.send_replace(Some(Arc::new(snapshot)));
        }
    }

    async fn read(&self, class: Class, since: Since, up_to: u64) -> Result<Vec<Stored>, Fault> {
        let dialect = self.key.dialect.name();
        self.bus
            .read(
                class,
                &self.key.space,
                dialect,
                since,
                up_to,
                self.settings.memory,
            )
            .await
    }

    fn event(&self, stored: Stored) -> Event {
        Event {
            class: stored.class,
            topic: stored.topic,
            time: stored.time,
            seq: stored.seq,
            offset: match stored.class {
                Class::Event => Offset {
                    event_seq: stored.seq,
                    ..self.head
                },
                Class::State => Offset {
                    state_seq: stored.seq,
                    ..self.head
                },
            },
            body: stored.body,
            from: stored.from,
        }
    }

    fn head_of(&self, class: Class) -> u64 {
        match class {
            Class::Event => self.head.event_seq,
            Class::State => self.head.state_seq,
        }
    }

    /// Live messages, in order; holes are filled from the stream before what came after them.
    async fn take(&mut self, batch: Vec<Stored>) {
        let mut fresh = Vec::with_capacity(batch.len());
        for stored in batch {
            if !self.settings.history {
                fresh.push(stored);
                continue;
            }
            if stored.seq <= self.head_of(stored.class) {
                continue;
            }
            let subject = (stored.class == Class::Event, stored.topic.clone());
            let known = match stored.class {
                Class::Event => self.known.event_seq,
                Class::State => self.known.state_seq,
            };
            let seen = self.subjects.get(&subject).copied().unwrap_or(0).max(known);
            if stored.previous > seen {
                self.lobby.metrics.live_gaps.inc();
                let class = stored.class;
                let after = self.head_of(class);
                match self
                    .read(class, Since::After(after), stored.seq.saturating_sub(1))
                    .await
                {
                    Ok(missed) => {
                        for stored in missed {
                            self.advance(&stored);
                            fresh.push(stored);
                        }
                    }
                    Err(fault) => warn!(room = %self.key, %fault, "a hole in the live traffic stays open"),
                }
            }
            self.advance(&stored);
            fresh.push(stored);
        }
        self.fan_out(fresh);
    }

    fn advance(&mut self, stored: &Stored) {
        let is_event = stored.class == Class::Event;
        self.subjects.insert((is_event, stored.topic.clone()), stored.seq);
        if is_event {
            self.head.event_seq = stored.seq;
        } else {
            self.head.state_seq = stored.seq;
        }
    }

    /// Encodes each message once for each kind of listener and writes to everybody.
    fn fan_out(&mut self, fresh: Vec<Stored>) {
        if fresh.is_empty() {
            return;
        }
        let started = clock::now();
        let mut packets: Vec<(usize, Packet, Kind)> = Vec::with_capacity(fresh.len() * self.ears.len());
        let mut times = Vec::with_capacity(fresh.len());
        let mut spans = Vec::new();
        let mut stated = false;
        for stored in fresh {
            times.push(stored.time);
            if let Some(span) = DeliverSpan::start(stored.traceparent.as_deref()) {
                let size = stored.body.bytes.len();
                spans.push((span, stored.class, stored.topic.clone(), size));
            }
            let event = self.event(stored);
            let kind = match event.class {
                Class::Event => Kind::Event,
                Class::State if self.key.dialect.conflates(&event.topic) => {
                    Kind::State(self.topics.number(&event.topic))
                }
                Class::State => Kind::Own,
            };
            stated |= event.class == Class::State;
            let entry = match event.class {
                Class::Event => self.ring.push(event),
                Class::State => {
                    let topic = event.topic.clone();
                    self.states.insert(topic.clone(), Entry::new(event));
                    self.states.get_mut(&topic)
                }
            };
            let Some(entry) = entry else { continue };
            for (at, ear) in self.ears.iter().enumerate() {
                if let Some(packet) = entry.packet(*ear) {
                    packets.push((at, packet, kind));
                }
            }
        }
        if stated {
            self.show();
        }
        self.metrics.encoded(started);
        let mut sent = 0;
        let mut bytes = 0;
        let mut left = false;
        let began = clock::now();
        for member in &self.members {
            let mine = packets.iter().filter(|(at, ..)| *at == member.ear);
            let (taken_packets, taken_bytes, taken) = member
                .outbox
                .deliver(mine.map(|(_, packet, kind)| (packet, *kind)));
            sent += taken_packets;
            bytes += taken_bytes;
            left |= taken != Taken::Yes;
            if taken == Taken::Overflow {
                self.metrics.slow.close.inc();
                debug!(room = %self.key, session = %member.session, "too slow");
            }
        }
        if left {
            self.members.retain(|member| member.outbox.closing().is_none());
        }
        self.metrics.stage.write.observe(began.elapsed().as_secs_f64());
        self.metrics.delivered(&times, sent, bytes as u64);
        for (span, class, topic, size) in spans {
            span.end(self.key.dialect.name(), class, &topic, size, self.members.len());
        }
    }

    /// A last message lost on the way leaves no hole behind it: compare with the stream.
    async fn catch_up(&mut self) {
        if !self.settings.history {
            return;
        }
        for class in [Class::Event, Class::State] {
            let dialect = self.key.dialect.name();
            let last = match self.bus.last_of(class, &self.key.space, dialect).await {
                Ok(last) => last,
                Err(fault) => {
                    debug!(room = %self.key, %fault, "cannot compare with the stream");
                    return;
                }
            };
            let head = self.head_of(class);
            if last > head {
                match self.read(class, Since::After(head), last).await {
                    Ok(missed) => {
                        for stored in &missed {
                            self.advance(stored);
                        }
                        self.fan_out(missed);
                    }
                    Err(fault) => warn!(room = %self.key, %fault, "cannot catch up with the stream"),
                }
            }
        }
    }

    /// After a reconnect and every ten seconds: is it still the same history? `false` = ask again.
    async fn resync(&mut self) -> bool {
        if !self.settings.history {
            return true;
        }
        let (Ok(events), Ok(state)) = (
            self.bus.tail(Class::Event).await,
            self.bus.tail(Class::State).await,
        ) else {
            return false;
        };
        let same = events.epoch == self.head.event_epoch
            && state.epoch == self.head.state_epoch
            && events.last_seq >= self.ring_seq()
            && state.last_seq >= self.state_seq();
        if same && events.first_seq <= self.head.event_seq.saturating_add(1) {
            self.ring.trim(events.first_seq);
            self.catch_up().await;
            return true;
        }
        info!(room = %self.key, "history was replaced, everybody starts anew");
        match self.hydrate().await {
            // the subscription in use stays: its messages at or below the new head are dropped
            Ok(_) => {
                let members = std::mem::take(&mut self.members);
                for member in members {
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
                    self.admit(Box::new(joining)).await;
                }
                true
            }
            Err(fault) => {
                warn!(room = %self.key, %fault, "cannot read the new history, trying again");
                false
            }
        }
    }

    /// Sequence of the newest event this room has itself seen of its own subjects.
    fn ring_seq(&mut self) -> u64 {
        self.ring.last(1).next().map_or(0, |entry| entry.event.seq)
    }

    fn state_seq(&self) -> u64 {
        self.states
            .values()
            .map(|entry| entry.event.seq)
            .max()
            .unwrap_or(0)
    }

    async fn admit_waiting(&mut self) {
        for joining in std::mem::take(&mut self.waiting) {
            self.admit(joining).await;
        }
    }

    /// Gives a newcomer the state and the last events, a resumer exactly what it missed; then it is a member.
    async fn admit(&mut self, joining: Box<Joining>) {
        let now = clock::unix();
        let ear = joining.ear;
        let resume = match joining.since {
            Some(Some(since)) if self.settings.history => self.resume_point(since).await,
            _ => None,
        };
        let recovered = joining.since.map(|_| resume.is_some());
        let mut frames = Vec::new();
        let state_after = resume.map_or(0, |since| since.state_seq);
        let past = match resume {
            Some(_) => ear,
            None => Ear {
                encoding: ear.dialect.newcomer(ear.encoding),
                ..ear
            },
        };
        let known = |entry: &Entry| Known {
            topic: entry.event.topic.clone(),
            seq: entry.event.seq,
            gone: entry.event.body.is_empty(),
        };
        let given = self.states.values();
        let given = given.filter(|entry| entry.event.seq > state_after);
        let mut given: Vec<Known> = given.map(known).collect();
        if resume.is_none() {
            self.key.dialect.arrange(&mut given);
            given.retain(|known| !known.gone);
        }
        for known in given {
            let entry = self.states.get_mut(&known.topic);
            frames.extend(entry.and_then(|entry| entry.frame(past)));
        }
        if let Some(since) = resume {
            // what was missed comes as it would have come live, and its bytes are shared with everybody
            let mut count = 0;
            for frame in frames {
                joining.outbox.push_granted(&ear.carrier.pack(&frame), Kind::Own);
                count += 1;
            }
            for entry in self.ring.after(since.event_seq) {
                if let Some(packet) = entry.packet(ear) {
                    joining.outbox.push_granted(&packet, Kind::Own);
                    count += 1;
                }
            }
            self.metrics.resumed(count);
        } else {
            frames.extend(
                self.ring
                    .last(self.settings.replay)
                    .filter_map(|entry| entry.frame(past)),
            );
            let mut replay = Vec::new();
            ear.dialect.replay(now, ear.encoding, &frames, &mut replay);
            for frame in replay {
                joining.outbox.push_granted(&ear.carrier.pack(&frame), Kind::Own);
            }
            if recovered.is_some() {
                self.metrics.unrecovered.inc();
            }
        }
        if joining.greet {
            let welcome = Welcome {
                session: joining.session.clone(),
                space: self.key.space.clone(),
                offset: self.head,
                recovered,
                history: self.settings.history,
            };
            if let Some(frame) = ear.dialect.welcome(now, ear.encoding, &welcome) {
                joining.outbox.push_granted(&ear.carrier.pack(&frame), Kind::Own);
            }
        }
        joining.outbox.flush();
        let at = self
            .ears
            .iter()
            .position(|known| *known == ear)
            .unwrap_or_else(|| {
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

    /// The offset, if everything after it can be given. Reads the stream once and keeps what it read.
    async fn resume_point(&mut self, since: Offset) -> Option<Offset> {
        if since.event_epoch != self.head.event_epoch || since.state_epoch != self.head.state_epoch {
            return None;
        }
        if since.event_seq >= self.ring.base() && since.event_seq <= self.head.event_seq {
            return Some(since);
        }
        let tail = self.bus.tail(Class::Event).await.ok()?;
        if since.event_seq + 1 < tail.first_seq || since.event_seq > tail.last_seq {
            return None;
        }
        if since.event_seq < self.ring.base() {
            let older = self
                .read(Class::Event, Since::After(since.event_seq), self.ring.base())
                .await
                .ok()?;
            let older = older.into_iter().map(|stored| self.event(stored)).collect();
            self.ring.extend_back(since.event_seq, older);
        }
        Some(since)
    }
}

async fn next(live: &mut Option<Live>) -> Option<Stored> {
    match live {
        Some(live) => live.next().await,
        None => std::future::pending().await,
    }
}

/// A dialect's room never greets for another: the greeting is the listener's own dialect's.
#[must_use]
pub fn greets(room: &'static dyn Dialect, speaks: &'static dyn Dialect) -> bool {
    room.name() == speaks.name()
}
