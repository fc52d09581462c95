//! Clients that open a connection for each message still expect them in order: what one says waits for what the same
//! peer began to say before.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::gateway::lobby::Key;
use crate::message::Close;
use crate::telemetry::clock;

/// How long what was begun may keep others waiting.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a refusal is of interest to the peer's next connections.
const FRESH: Duration = Duration::from_secs(60);
/// Refusals remembered at once.
const REFUSALS: usize = 1024;

/// Who speaks and from where.
type Place = (Key, IpAddr);

/// Connections that are in the middle of saying something, by number: they grow in the order of arrival.
#[derive(Default)]
pub struct Turns {
    busy: Mutex<HashMap<Place, BTreeSet<u64>>>,
    /// What was refused last: who says one thing and leaves does not look for the close code.
    refused: Mutex<HashMap<Place, (Instant, Close)>>,
    ended: Notify,
}

/// One connection among those of its peer.
pub struct Turn {
    turns: Arc<Turns>,
    place: Place,
    id: u64,
    begun: bool,
}

impl Turn {
    /// A connection that says nothing yet.
    #[must_use]
    pub fn new(turns: Arc<Turns>, key: Key, peer: IpAddr, id: u64) -> Self {
        Self {
            turns,
            place: (key, peer),
            id,
            begun: false,
        }
    }

    /// It begins to say something.
    pub fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            let mut busy = self.turns.busy.lock();
            busy.entry(self.place.clone()).or_default().insert(self.id);
        }
    }

    /// What it said is stored.
    pub fn end(&mut self) {
        if !self.begun {
            return;
        }
        self.begun = false;
        let mut busy = self.turns.busy.lock();
        if let Some(ids) = busy.get_mut(&self.place) {
            ids.remove(&self.id);
            if ids.is_empty() {
                busy.remove(&self.place);
            }
        }
        drop(busy);
        self.turns.ended.notify_waiters();
    }

    /// What it said is refused. Its peer's next connections may tell him.
    pub fn refuse(&self, close: &Close) {
        let now = clock::now();
        let mut refused = self.turns.refused.lock();
        if refused.len() >= REFUSALS {
            refused.retain(|_, (at, _)| now.saturating_duration_since(*at) < FRESH);
        }
        if refused.len() < REFUSALS {
            refused.insert(self.place.clone(), (now, close.clone()));
        }
    }

    /// Something the peer said is taken: what was refused before is past.
    pub fn take(&self) {
        self.turns.refused.lock().remove(&self.place);
    }

    /// The refusal of what the peer said before, if nothing was taken since.
    #[must_use]
    pub fn refused(&self) -> Option<Close> {
        let refused = self.turns.refused.lock();
        let (at, close) = refused.get(&self.place)?;
        (clock::now().saturating_duration_since(*at) < FRESH).then(|| close.clone())
    }

    /// Waits until nobody of the same peer who came earlier is in the middle of something.
    pub async fn wait(&self) {
        let free = async {
            loop {
                let ended = self.turns.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if self.is_first() {
                    return;
                }
                ended.await;
            }
        };
        let _late = timeout(PATIENCE, free).await;
    }

    fn is_first(&self) -> bool {
        let busy = self.turns.busy.lock();
        let first = busy.get(&self.place).and_then(|ids| ids.first().copied());
        first.is_none_or(|first| first >= self.id)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end();
    }
}
