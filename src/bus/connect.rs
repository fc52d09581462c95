//! Connecting: two connections, every way to authenticate, and the handle the rest of the gateway holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::{BusError, Fetch, Link, Running, Store};
use crate::config;

/// What the bus counts; read by telemetry.
#[derive(Debug, Default)]
pub struct Counters {
    /// Answers to calls that had ended: late or repeated.
    pub late: AtomicU64,
    /// Live messages without the stream headers, ignored.
    pub foreign: AtomicU64,
    /// Interim answers dropped because a large body before them is still on its way.
    pub crowded: AtomicU64,
    /// Events that were never confirmed.
    pub unconfirmed: AtomicU64,
    /// Messages the broker client dropped because a subscription was full (at least).
    pub overflow: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The connection to NATS, shared by everything in the process. Cheap to clone; the last clone dropped ends its tasks.
#[derive(Clone)]
pub struct Bus {
    link: Arc<watch::Sender<Link>>,
    counters: Arc<Counters>,
}

impl Bus {
    /// Connects, retrying for ten seconds so that the order of starting does not matter, and sets up the streams.
    ///
    /// # Errors
    /// [`BusError`], whose text tells the operator what to do.
    pub async fn connect(
        _nats: &config::Nats,
        _events: &config::Events,
        _commands: &config::Commands,
        _bodies: &config::Bodies,
        _gateway: &str,
    ) -> Result<Self, BusError> {
        Err(BusError::NoJetStream {
            cause: "not built yet".into(),
        })
    }

    /// Whether the broker is reachable, and every change of that.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Whether streams are in use (`events.history`).
    #[must_use]
    pub fn history(&self) -> bool {
        true
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The gateway's own name, as connected.
    #[must_use]
    pub fn gateway(&self) -> &str {
        ""
    }

    /// The connection commands and appends go out on, for services and the object store.
    #[must_use]
    pub fn ingress(&self) -> &async_nats::Client {
        todo!()
    }

    /// Wires large bodies. Without them a body above the broker's payload limit is `too_large`.
    pub fn set_bodies(&self, _fetch: Arc<dyn Fetch>, _store: Arc<dyn Store>) {}

    /// Wires the directory: whether a service runs.
    pub fn set_running(&self, _running: Running) {}

    /// Sends what is queued, then closes both connections; bounded in time.
    pub async fn drain(&self) {}
}
