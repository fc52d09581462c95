//! One space of one dialect: follows the live traffic, keeps the recent past, serves newcomers and resumers.
//!
//! A room is one task and owns all its state, so the cut between what a newcomer is given and what follows is a
//! point in that task's own sequence: nothing is missed and nothing comes twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, warn};

use crate::bus::{Bus, Link, Live, Stored};
use crate::config;
use crate::dialect::Notice;
use crate::gateway::apart::{Spell, others_first};
use crate::gateway::lobby::{Key, Lobby};
use crate::gateway::looks::Snapshot;
use crate::gateway::outbox::{Letter, Outbox};
use crate::gateway::ring::{Ear, Entry, Ring, Topics};
use crate::message::{Close, Offset};
use crate::telemetry::metrics::DialectMetrics;

mod admit;
mod follow;
mod past;
mod vanished;

/// Live messages taken before the batch is written.
const BATCH: usize = 64;
/// How often the room compares itself with its streams.
const CHECK: Duration = Duration::from_secs(2);
/// How long an empty room waits for somebody to come back.
const LINGER: Duration = Duration::from_secs(30);
/// For how long what was seen of the streams answers for who comes back with an offset of another history.
const FRESH: Duration = Duration::from_secs(1);
/// Between attempts to read streams that cannot be read.
const RETRY: Duration = Duration::from_millis(250);

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
    waiting: Vec<Joining>,
    ring: Ring,
    states: BTreeMap<Arc<str>, Entry>,
    topics: Topics,
    /// The states for those who only look.
    view: watch::Sender<Option<Arc<Snapshot>>>,
    /// Last sequence seen of each subject, to notice holes in the live traffic.
    subjects: BTreeMap<(bool, Arc<str>), u64>,
    /// Everything of this room up to here was delivered.
    head: Offset,
    /// Everything up to here was read from the streams themselves, so a subject never seen live may point there.
    known: Offset,
    /// Who led the streams at the last look.
    leaders: (u64, u64),
    /// What the streams held of this room at the last comparison; by the next one it must have come.
    expected: (u64, u64),
    /// When the streams were last looked at.
    looked: Option<Instant>,
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
            leaders: (0, 0),
            expected: (0, 0),
            looked: None,
        }
    }

    /// Runs until nobody has been here for a while.
    ///
    /// Live messages are taken only while the room is whole: after any doubt (the link, a new connection, a hole that
    /// could not be filled) they wait in their queue until the streams were read up to the present.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut link = self.bus.link();
        let mut generation = 0;
        let mut live: Option<Live> = None;
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        let mut empty_since = Some(Instant::now());
        let mut whole = false;
        let mut retry = Instant::now();
        loop {
            if let Link::Up { generation: now } = *link.borrow_and_update()
                && now != generation
            {
                generation = now;
                whole = false;
                retry = Instant::now();
            }
            let up = link.borrow().is_up();
            if !whole && up && Instant::now() >= retry {
                whole = self.restore(&mut live).await;
                retry = Instant::now() + if whole { Duration::ZERO } else { RETRY };
                continue;
            }
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    whole &= self.obey(order, whole && up).await;
                    empty_since = self.is_empty().then(|| empty_since.unwrap_or_else(Instant::now));
                }
                stored = next(&mut live), if whole => {
                    whole = match stored {
                        Some(stored) => self.receive(stored, &mut live).await,
                        None => false,
                    };
                }
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // who waits for the room may say what it has to say: it is told that the bus is away
                    self.waiting.iter().for_each(|joining| joining.outbox.kick());
                }
                () = tokio::time::sleep_until(retry), if !whole && up => {}
                _ = check.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.weigh();
                    if whole && up {
                        let doubtful = live.as_mut().is_none_or(Live::interrupted);
                        whole = !doubtful && !ticks.is_multiple_of(5) && self.compare().await;
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

    /// Reads what is needed for the room to be whole, and lets in who waited for it.
    async fn restore(&mut self, live: &mut Option<Live>) -> bool {
        let restored = match live {
            Some(known) if self.settings.history => self.resync(known).await,
            _ => self.hydrate().await.map(|opened| *live = Some(opened)),
        };
        if let Err(fault) = restored {
            warn!(room = %self.key, %fault, "cannot read the streams, trying again");
            return false;
        }
        self.looked = Some(Instant::now());
        let mut whole = true;
        let mut spell = Spell::begin();
        for joining in std::mem::take(&mut self.waiting) {
            spell.go_on().await;
            if whole {
                whole = self.enter(Box::new(joining)).await;
            } else {
                self.waiting.push(joining);
            }
        }
        whole
    }

    /// Live messages that are here, in one batch. `false` when something may be missing before them.
    async fn receive(&mut self, first: Stored, live: &mut Option<Live>) -> bool {
        let Some(live) = live else { return false };
        let mut batch = vec![first];
        while batch.len() < BATCH {
            let Some(more) = live.try_next() else { break };
            batch.push(more);
        }
        if self.settings.history && live.interrupted() {
            // all of it is in the streams too, after what may be missing
            return false;
        }
        match self.take(batch).await {
            Ok(()) => true,
            Err(fault) => {
                warn!(room = %self.key, %fault, "a hole in the live traffic is still open");
                false
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

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.waiting.is_empty()
    }

    /// `false` when the streams must be read anew.
    async fn obey(&mut self, order: Order, ready: bool) -> bool {
        match order {
            Order::Join(joining) if ready => {
                let whole = self.enter(joining).await;
                // who is here goes first, however many come
                others_first(true).await;
                return whole;
            }
            Order::Join(joining) => {
                joining.outbox.kick();
                self.waiting.push(*joining);
            }
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
        true
    }

    /// Lets a session in, or keeps it waiting when the streams cannot be read for it.
    async fn enter(&mut self, joining: Box<Joining>) -> bool {
        match self.resume_point(joining.since).await {
            Ok(resume) => {
                self.admit(*joining, resume);
                true
            }
            Err(fault) => {
                warn!(room = %self.key, %fault, "a session waits for the streams");
                self.waiting.push(*joining);
                false
            }
        }
    }
}

/// A bug that ends a room must not leave its clients without it: they come back to a new one.
impl Drop for Room {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.lobby.metrics.panics.inc();
        let members = self.members.iter().map(|member| &member.outbox);
        let waiting = self.waiting.iter().map(|joining| &joining.outbox);
        for outbox in members.chain(waiting) {
            outbox.close(Close::INTERNAL);
        }
    }
}

async fn next(live: &mut Option<Live>) -> Option<Stored> {
    match live {
        Some(live) => live.next().await,
        None => std::future::pending().await,
    }
}
