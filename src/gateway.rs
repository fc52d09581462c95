//! Sessions, rooms and the connection loop: the core, which knows no dialect and no broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::Bus;
use crate::bus::directory::Directory;
use crate::config::Config;
use crate::dialect::{self, Routes};
use crate::gateway::lobby::Lobby;
use crate::gateway::polls::Polls;
use crate::gateway::presence::Presence;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Gate;

pub mod apart;
pub mod bridge;
pub mod calls;
pub mod closing;
pub mod connection;
pub mod ending;
pub mod intake;
pub mod lobby;
pub mod local;
pub mod looks;
pub mod merges;
pub mod outbox;
pub mod pace;
pub mod polls;
pub mod presence;
pub mod probe;
pub mod ring;
pub mod room;
pub mod screens;
pub mod slow;
pub mod survey;
pub mod threshold;
pub mod turn;
pub mod unread;
pub mod viewer;
pub mod watch;

/// What a gateway is put together from.
pub struct Parts {
    /// What the operator decided.
    pub config: Arc<Config>,
    /// The way to workers and streams.
    pub bus: Bus,
    /// Which services run.
    pub directory: Directory,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the gateway drains.
    pub drain: CancellationToken,
    /// Port numbers as bound, by purpose.
    pub ports: BTreeMap<String, u16>,
    /// Where workers attach, for people to read.
    pub nats_url: String,
}

/// What all connections of the process share.
pub struct Gateway {
    /// What the operator decided.
    pub config: Arc<Config>,
    /// The way to workers and streams.
    pub bus: Bus,
    /// Which services run.
    pub directory: Directory,
    /// Who is connected, over all gateways.
    pub presence: Arc<Presence>,
    /// Where workers attach, for people to read.
    pub nats_url: String,
    ports: BTreeMap<String, u16>,
    /// The rooms.
    pub lobby: Arc<Lobby>,
    /// Sessions of long polling.
    pub polls: Arc<Polls>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Which messages are traced.
    pub gate: Gate,
    /// Cancelled when the gateway drains.
    pub drain: CancellationToken,
    /// Everything that must have ended before the process does.
    pub tasks: TaskTracker,
    /// Places for connections.
    pub places: Arc<Semaphore>,
    /// Where newcomers are served.
    pub threshold: threshold::Threshold,
    /// Bytes of large messages being received right now.
    pub receiving: AtomicU64,
    /// Changes of merged states under way.
    pub merges: merges::Merges,
    /// Who is in the middle of saying something.
    pub turns: Arc<turn::Turns>,
    /// What clients on this machine have not read yet.
    pub unread: unread::Unread,
    routes: BTreeMap<&'static str, Arc<Routes>>,
    ids: AtomicU64,
}

impl Gateway {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            config,
            bus,
            directory,
            metrics,
            drain,
            ports,
            nats_url,
        } = parts;
        let tasks = TaskTracker::new();
        let lobby = Lobby::new(bus.clone(), config.clone(), metrics.clone());
        let routes = dialect::ALL.iter().map(|dialect| {
            let defaults = dialect.routes().iter().copied();
            let own = config
                .dialects
                .get(dialect.name())
                .map(|own| own.routes.as_slice())
                .unwrap_or_default();
            let own = own
                .iter()
                .map(|(pattern, service)| (pattern.as_str(), service.as_str()));
            (dialect.name(), Arc::new(Routes::new(defaults.chain(own))))
        });
        Arc::new(Self {
            places: Arc::new(Semaphore::new(config.gateway.max_connections)),
            gate: Gate::of(&config.trace),
            routes: routes.collect(),
            config,
            directory,
            presence: Presence::start(bus.clone()),
            bus,
            ports,
            nats_url,
            lobby,
            polls: Arc::default(),
            metrics,
            drain,
            tasks,
            threshold: threshold::Threshold::open(),
            receiving: AtomicU64::new(0),
            merges: merges::Merges::default(),
            turns: Arc::default(),
            unread: unread::Unread::open(),
            ids: AtomicU64::new(1),
        })
    }

    /// The routing of a dialect's commands.
    #[must_use]
    pub fn routes(&self, dialect: &str) -> Arc<Routes> {
        self.routes.get(dialect).cloned().unwrap_or_default()
    }

    /// Reads what is only known when asked for, just before the metrics are.
    pub fn scrape(&self) {
        let mut instances: BTreeMap<String, usize> = BTreeMap::new();
        for instance in self.directory.snapshot().iter() {
            *instances.entry(instance.name.clone()).or_default() += 1;
        }
        self.metrics
            .set_instances(instances.iter().map(|(name, count)| (name.as_str(), *count)));
        let receiving = self.receiving.load(Ordering::Relaxed);
        self.metrics
            .receiving_bytes
            .set(i64::try_from(receiving).unwrap_or(i64::MAX));
    }

    /// The port bound for a dialect, `gateway` or `ops`.
    #[must_use]
    pub fn port(&self, purpose: &str) -> Option<u16> {
        self.ports.get(purpose).copied()
    }

    /// The same as others reach it: something in front may publish it under another number.
    #[must_use]
    pub fn published(&self, purpose: &str) -> Option<u16> {
        let bound = self.port(purpose)?;
        Some(self.config.links.ports.get(purpose).copied().unwrap_or(bound))
    }

    /// A number for a new connection.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}
