//! Clients that open a connection for each message still expect them in order: what one says waits for what the same
//! peer began to say before.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::gateway::lobby::Key;

/// How long what was begun may keep others waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who speaks and from where.
type Place = (Key, IpAddr);

/// Connections that are in the middle of saying something, by number: they grow in the order of arrival.
#[derive(Default)]
pub struct Turns {
    busy: Mutex<HashMap<Place, BTreeSet<u64>>>,
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
