//! Which rooms exist, and the way into them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::bus::Bus;
use crate::config::Config;
use crate::dialect::{Dialect, Notice};
use crate::gateway::looks::Window;
use crate::gateway::room::{Order, Room};
use crate::gateway::screens::Screens;
use crate::gateway::slow::SlowNews;
use crate::message::{Code, Fault, Space};
use crate::picture::Files;
use crate::telemetry::clock;
use crate::telemetry::metrics::Metrics;

/// Orders a room may have waiting; a joining session waits when there are more.
const ORDERS: usize = 1024;

/// Names a room.
#[derive(Clone)]
pub struct Key {
    /// The space.
    pub space: Space,
    /// Whose events.
    pub dialect: &'static dyn Dialect,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.space == other.space && self.dialect.name() == other.dialect.name()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.space.hash(state);
        self.dialect.name().hash(state);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.space, self.dialect.name())
    }
}

/// What the landing page shows of a room.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Seen {
    /// The space.
    pub space: String,
    /// The dialect.
    pub dialect: &'static str,
    /// Sessions in it.
    pub sessions: usize,
    /// Of these, pages.
    pub pages: usize,
    /// Clients that came for one message and left again.
    pub visits: u64,
    /// Seconds since the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visited: Option<u64>,
}

struct Door {
    orders: mpsc::Sender<Order>,
    inside: usize,
    visits: u64,
    visited: Option<Instant>,
    window: Window,
}

/// Which rooms exist, and the way into them.
pub struct Lobby {
    bus: Bus,
    config: Arc<Config>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who is told of slow clients.
    pub slow: SlowNews,
    /// Pages here, and the pictures asked of them.
    pub screens: Arc<Screens>,
    tasks: TaskTracker,
    doors: Mutex<HashMap<Key, Door>>,
}

impl Lobby {
    /// A lobby without rooms.
    #[must_use]
    pub fn new(bus: Bus, config: Arc<Config>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            slow: SlowNews::start(bus.clone()),
            screens: Arc::new(Screens::new(
                Files::new(config.cad.screenshots.clone()),
                metrics.screenshots.clone(),
            )),
            bus,
            config,
            metrics,
            tasks: TaskTracker::new(),
            doors: Mutex::default(),
        })
    }

    /// Counts a session in and returns the way to its room, which is opened when there is none.
    ///
    /// # Errors
    /// `busy` when there are too many spaces.
    pub fn enter(self: &Arc<Self>, key: &Key) -> Result<mpsc::Sender<Order>, Fault> {
        self.at(key, |door| {
            door.inside += 1;
            door.orders.clone()
        })
    }

    /// The way to the states of a room, which is opened when there is none. Nobody is counted in.
    ///
    /// # Errors
    /// `busy` when there are too many spaces.
    pub fn window(self: &Arc<Self>, key: &Key) -> Result<Window, Fault> {
        self.at(key, |door| door.window.clone())
    }

    /// A session of this gateway wrote a state: who looks next sees it.
    pub fn wrote(&self, key: &Key, seq: u64) {
        if let Some(door) = self.doors.lock().get(key) {
            door.window.floor.fetch_max(seq, Ordering::AcqRel);
        }
    }

    /// A client came for one message and left again.
    pub fn visited(&self, key: &Key) {
        if let Some(door) = self.doors.lock().get_mut(key) {
            door.visits += 1;
            door.visited = Some(clock::now());
        }
    }

    fn at<T>(self: &Arc<Self>, key: &Key, then: impl FnOnce(&mut Door) -> T) -> Result<T, Fault> {
        let mut doors = self.doors.lock();
        if let Some(door) = doors.get_mut(key).filter(|door| !door.orders.is_closed()) {
            return Ok(then(door));
        }
        let spaces: HashSet<&Space> = doors.keys().map(|key| &key.space).collect();
        if !spaces.contains(&key.space) && spaces.len() >= self.config.gateway.max_spaces {
            return Err(Fault::new(
                Code::Busy,
                "too many spaces are in use; join one that exists, or raise gateway.max_spaces",
            ));
        }
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (show, view) = watch::channel(None);
        let mut door = Door {
            orders,
            inside: 0,
            visits: 0,
            visited: None,
            window: Window {
                view,
                floor: Arc::new(AtomicU64::new(0)),
            },
        };
        let result = then(&mut door);
        doors.insert(key.clone(), door);
        self.metrics
            .rooms
            .set(i64::try_from(doors.len()).unwrap_or(i64::MAX));
        let room = Room::new(
            key.clone(),
            self.bus.clone(),
            self.clone(),
            self.config.events.clone(),
            self.metrics.dialect(key.dialect.name()),
            show,
        );
        self.tasks.spawn(room.run(inbox));
        Ok(result)
    }

    /// Counts a session out and tells its room.
    pub async fn leave(&self, key: &Key, id: u64) {
        let orders = {
            let mut doors = self.doors.lock();
            let Some(door) = doors.get_mut(key) else { return };
            door.inside = door.inside.saturating_sub(1);
            door.orders.clone()
        };
        let _closed = orders.send(Order::Leave(id)).await;
    }

    /// Takes an empty room off the list; `false` when somebody is on the way in.
    pub fn retire(&self, key: &Key) -> bool {
        let mut doors = self.doors.lock();
        if doors.get(key).is_some_and(|door| door.inside > 0) {
            return false;
        }
        doors.remove(key);
        self.metrics
            .rooms
            .set(i64::try_from(doors.len()).unwrap_or(i64::MAX));
        true
    }

    /// Tells everybody, or everybody who speaks the dialects that `which` picks.
    pub async fn announce(&self, notice: &Notice, which: impl Fn(&dyn Dialect) -> bool) {
        let orders: Vec<_> = {
            let doors = self.doors.lock();
            let chosen = doors.iter().filter(|(key, _)| which(key.dialect));
            chosen.map(|(_, door)| door.orders.clone()).collect()
        };
        for orders in orders {
            let _closed = orders.send(Order::Announce(notice.clone())).await;
        }
    }

    /// The rooms with their sessions, sorted by name.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        let doors = self.doors.lock();
        let mut seen: Vec<Seen> = doors
            .iter()
            .map(|(key, door)| Seen {
                space: key.space.to_string(),
                dialect: key.dialect.name(),
                sessions: door.inside,
                pages: if key.dialect.looks() {
                    self.screens.count(&key.space)
                } else {
                    0
                },
                visits: door.visits,
                visited: door.visited.map(|at| at.elapsed().as_secs()),
            })
            .collect();
        seen.sort_by(|a, b| (&a.space, a.dialect).cmp(&(&b.space, b.dialect)));
        seen
    }
}
