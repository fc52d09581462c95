//! The state of a space at hand: what sessions look at without a bus round trip, their own writes included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::dialect::view::{States, View};
use crate::gateway::Gateway;
use crate::gateway::lobby::Key;

/// How long a look waits for a room that opens, or for a write of this gateway to come around.
const PATIENCE: Duration = Duration::from_secs(2);

/// The states of a room at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Last values by topic, tombstones included.
    pub states: States,
    /// Sequence up to which they are known.
    pub head: u64,
}

/// The way to a room's states.
#[derive(Clone)]
pub struct Window {
    /// `None` until the room has read its streams.
    pub view: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Sequence of the last state that a session of this gateway wrote.
    pub floor: Arc<AtomicU64>,
}

impl Window {
    /// The states, with everything in them that sessions of this gateway wrote before. What is known when NATS is
    /// away or slow; `None` when nothing is.
    pub async fn look(&mut self) -> Option<Arc<Snapshot>> {
        let floor = self.floor.load(Ordering::Acquire);
        let fresh = |known: &Option<Arc<Snapshot>>| known.as_ref().is_some_and(|known| known.head >= floor);
        if !fresh(&self.view.borrow()) {
            let _late = timeout(PATIENCE, self.view.wait_for(fresh)).await;
        }
        self.view.borrow().clone()
    }
}

impl Gateway {
    /// The states of a room as they are known here; empty when nothing is.
    pub async fn look(&self, key: &Key) -> Arc<Snapshot> {
        let Ok(mut window) = self.lobby.window(key) else {
            return Arc::default();
        };
        window.look().await.unwrap_or_default()
    }

    /// Lets a session see a snapshot.
    pub fn show<T>(&self, snapshot: &Snapshot, dialect: &str, to: impl FnOnce(&View) -> T) -> T {
        to(&View {
            states: &snapshot.states,
            running: &|service| self.directory.running(service),
            present: &|session| self.presence.knows(session),
            settings: &|| self.viewer_settings(dialect),
        })
    }

    /// What sessions of a dialect are told of their settings.
    fn viewer_settings(&self, _dialect: &str) -> Bytes {
        Bytes::from_static(crate::dialect::cad::settings::DEFAULTS.as_bytes())
    }
}
