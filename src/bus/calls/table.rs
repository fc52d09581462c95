//! Commands under way, by token and by deadline.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::Replies;
use crate::message::{Answer, CallId, Code, Fault, Nanos, Space};

/// Answers of one call that may wait behind a large body.
const QUEUE: usize = 64;

/// Calls the link broke whose workers are told when it is back; beyond, they run to their end.
const ORPHANS: usize = 4096;

/// What a worker knows a command by.
pub(crate) struct Job {
    /// `Nats-Msg-Id`.
    pub(super) id: String,
    pub(super) space: Space,
    pub(super) service: Arc<str>,
}

/// One command under way.
pub(crate) struct Pending {
    pub(super) call: CallId,
    pub(super) replies: Arc<dyn Replies>,
    pub(super) job: Job,
    /// How long until the next sign of life.
    pub(super) window: Duration,
    /// The hard limit.
    pub(super) end: Instant,
    /// When the call times out, unless prolonged.
    pub(super) due: Instant,
    /// Where the deadline index has it; at or before `due`.
    pub(super) indexed: Instant,
    /// When it was sent, by the clock its worker has too.
    pub(super) sent: Nanos,
    /// When it was sent.
    pub(super) start: Instant,
    /// Where its times are counted; `None` when nobody counts.
    pub(super) lane: Option<u8>,
    /// Answers behind a large body; `Some` while a task fetches.
    pub(super) queue: Option<VecDeque<Message>>,
}

/// What to do with an answer.
#[allow(
    clippy::large_enum_variant,
    reason = "it lives for one match; a box would cost an allocation a reply"
)]
pub(super) enum Arrival {
    /// Decode and hand it over; first the service and the space it was asked in.
    Now(Arc<str>, Space, Message),
    /// Queued, and somebody must start fetching.
    Fetch,
    /// Queued behind another one.
    Queued,
    /// Dropped: too many are queued.
    Crowded,
    /// The call has ended.
    Late,
}

/// The table. One short lock; nothing is awaited under it.
#[derive(Default)]
pub(crate) struct Calls {
    inner: Mutex<Table>,
    earlier: Notify,
}

#[derive(Default)]
struct Table {
    closed: bool,
    pending: HashMap<u64, Pending>,
    due: BTreeSet<(Instant, u64)>,
    /// How many are under way for a service of a space.
    load: HashMap<(Space, Arc<str>), usize>,
    orphans: Vec<Job>,
}

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The link is down.
    Down,
    /// Its service has as many under way as it may.
    Crowded,
}

impl Table {
    fn take(&mut self, token: u64) -> Option<Pending> {
        let pending = self.pending.remove(&token)?;
        self.due.remove(&(pending.indexed, token));
        self.unload(&pending.job);
        Some(pending)
    }

    /// Counts a command of a service, unless there are `most` already.
    fn load(&mut self, job: &Job, most: usize) -> bool {
        let key = (job.space.clone(), Arc::clone(&job.service));
        let count = self.load.entry(key).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        true
    }

    fn unload(&mut self, job: &Job) {
        let key = (job.space.clone(), Arc::clone(&job.service));
        if let Some(count) = self.load.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.load.remove(&key);
            }
        }
    }
}

impl Calls {
    /// Takes a command, unless the link is down or its service has `most` under way.
    pub(super) fn insert(&self, token: u64, mut pending: Pending, most: usize) -> Result<(), Refused> {
        let mut table = self.inner.lock();
        if table.closed {
            return Err(Refused::Down);
        }
        if !table.load(&pending.job, most) {
            return Err(Refused::Crowded);
        }
        pending.due = pending.due.min(pending.end);
        pending.indexed = pending.due;
        let first = table.due.first().is_none_or(|(due, _)| pending.due < *due);
        table.due.insert((pending.due, token));
        table.pending.insert(token, pending);
        drop(table);
        if first {
            self.earlier.notify_one();
        }
        Ok(())
    }

    pub(super) fn remove(&self, token: u64) -> Option<Pending> {
        self.inner.lock().take(token)
    }

    pub(super) fn len(&self) -> usize {
        self.inner.lock().pending.len()
    }

    /// Hands over an interim answer and restarts the deadline. Under the lock, so that it cannot follow a final one.
    pub(super) fn interim(&self, token: u64, answer: Answer) {
        let mut table = self.inner.lock();
        if let Some(pending) = table.pending.get_mut(&token) {
            // the index is corrected when it comes up: interim answers stay cheap
            pending.due = (Instant::now() + pending.window).min(pending.end);
            pending.tell(answer);
        }
    }

    pub(super) fn arrive(&self, token: u64, message: Message, large: bool) -> Arrival {
        let mut table = self.inner.lock();
        let Some(pending) = table.pending.get_mut(&token) else {
            return Arrival::Late;
        };
        match &mut pending.queue {
            Some(queue) if queue.len() < QUEUE => {
                queue.push_back(message);
                Arrival::Queued
            }
            Some(queue) => {
                // the newest may be the final one; an old interim one is missed least
                queue.pop_front();
                queue.push_back(message);
                Arrival::Crowded
            }
            None if large => {
                pending.queue = Some(VecDeque::from([message]));
                Arrival::Fetch
            }
            None => Arrival::Now(
                Arc::clone(&pending.job.service),
                pending.job.space.clone(),
                message,
            ),
        }
    }

    /// The next answer that waits behind a large body; `None` ends the fetching.
    pub(super) fn queued(&self, token: u64) -> Option<(Arc<str>, Space, Message)> {
        let mut table = self.inner.lock();
        let pending = table.pending.get_mut(&token)?;
        let Some(message) = pending.queue.as_mut().and_then(VecDeque::pop_front) else {
            pending.queue = None;
            return None;
        };
        // arrived: from here on the fetch's own deadline counts
        pending.due = (Instant::now() + pending.window).min(pending.end);
        let job = &pending.job;
        Some((Arc::clone(&job.service), job.space.clone(), message))
    }

    /// When the sweeper has to look again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.inner.lock().due.first().map(|(due, _)| *due)
    }

    /// Returns when a call was added that is due before all others.
    pub(super) async fn earlier(&self) {
        self.earlier.notified().await;
    }

    /// Takes out what is due.
    pub(super) fn expired(&self, now: Instant) -> Vec<Pending> {
        let mut out = Vec::new();
        let mut table = self.inner.lock();
        while let Some(&(at, token)) = table.due.first() {
            if at > now {
                break;
            }
            table.due.remove(&(at, token));
            let Some(pending) = table.pending.get_mut(&token) else {
                continue;
            };
            if pending.due > now {
                pending.indexed = pending.due;
                let due = pending.due;
                table.due.insert((due, token));
            } else if let Some(pending) = table.take(token) {
                out.push(pending);
            }
        }
        out
    }

    /// The link is down: every call ends now, and none begins.
    pub(in super::super) fn close(&self) {
        let ended = {
            let mut table = self.inner.lock();
            table.closed = true;
            table.due.clear();
            table.load.clear();
            std::mem::take(&mut table.pending)
        };
        let mut orphans = Vec::new();
        for (_, pending) in ended {
            let orphan = pending.finish(Answer::Failed(Fault::new(
                Code::BusDown,
                "the gateway lost the message bus before an answer came; the command may or may not have run",
            )));
            orphans.push(orphan);
        }
        let mut table = self.inner.lock();
        let room = ORPHANS.saturating_sub(table.orphans.len());
        orphans.truncate(room);
        table.orphans.append(&mut orphans);
    }

    /// Commands whose answers nobody waits for since the link went down.
    pub(super) fn orphans(&self) -> Vec<Job> {
        std::mem::take(&mut self.inner.lock().orphans)
    }

    /// The link is back.
    pub(in super::super) fn open(&self) {
        self.inner.lock().closed = false;
    }
}
