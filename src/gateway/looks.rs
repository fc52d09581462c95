//! The state of a space at hand: what sessions look at without a bus round trip, their own writes included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use crate::dialect::cad::settings;
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
    pub fn show<T>(&self, key: &Key, snapshot: &Snapshot, to: impl FnOnce(&View) -> T) -> T {
        to(&View {
            states: &snapshot.states,
            running: &|service| self.directory.serves(service, &key.space),
            present: &|session| self.presence.knows(session),
            settings: &|| {
                serde_json::Value::Object(self.viewer_settings())
                    .to_string()
                    .into()
            },
        })
    }

    /// The viewer's settings: the operator's over the user's own file over the defaults. The file is small and read
    /// anew each time, as the original does.
    #[must_use]
    pub fn viewer_settings(&self) -> serde_json::Map<String, serde_json::Value> {
        let cad = &self.config.cad;
        let user = std::fs::read_to_string(&cad.settings_file).unwrap_or_default();
        let user: serde_json::Map<_, _> = match serde_saphyr::from_str(&user) {
            Ok(user) => user,
            Err(error) => {
                if !user.trim().is_empty() {
                    warn!(file = %cad.settings_file.display(), %error, "the viewer's settings are not read");
                }
                serde_json::Map::new()
            }
        };
        let (user, bad) = settings::of_user(&user);
        for text in bad {
            warn!(file = %cad.settings_file.display(), "{text}");
        }
        settings::over_defaults([&user, &cad.viewer])
    }
}
