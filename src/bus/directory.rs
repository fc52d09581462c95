//! The directory: which services run, at most two seconds old, and frozen while the bus is away.

mod answers;
mod roll;
mod roster;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Running;
use crate::message::{Code, Fault, Space};
use answers::Answer;
pub use answers::{Endpoint, EndpointStats, LastError, Stats};
pub use roll::{NoRoll, roll};
use roster::{Key, Roster};

/// Everyone is pinged every second; who stays silent for half of it is asked once more by name.
const HALF: Duration = Duration::from_millis(500);
/// After the bus came back, services are given this long to come back too.
const THAW: Duration = Duration::from_secs(3);
/// A publish that takes longer waits for a connection.
const SEND: Duration = Duration::from_millis(200);
/// Changes a slow receiver may lag behind before it reads the snapshot again.
const CHANGES: usize = 256;
/// Answers to one request for statistics that are read at most.
const MOST_STATS: usize = 4096;

/// One process that serves a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The service.
    pub name: String,
    /// The instance.
    pub id: String,
    /// Its version.
    pub version: String,
    /// What it says it is; known a moment after the instance itself.
    pub description: String,
    /// What it listens on; known a moment after the instance itself.
    pub endpoints: Vec<Endpoint>,
    /// What it says about itself.
    pub metadata: BTreeMap<String, String>,
    /// When it last answered.
    pub last_seen: Instant,
}

/// The first instance of a service came, or the last one went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The service.
    pub service: String,
    /// Whether it runs now.
    pub running: bool,
}

/// What readers see.
#[derive(Debug, Default)]
struct View {
    instances: Arc<Vec<Instance>>,
    services: HashSet<String>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    view: RwLock<View>,
    changes: broadcast::Sender<Change>,
}

/// The live list of services. Cheap to clone; ends with its last clone.
#[derive(Clone, Debug)]
pub struct Directory {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

impl Directory {
    /// Starts to ask who is there.
    #[must_use]
    pub fn start(client: Client) -> Self {
        let shared = Arc::new(Shared {
            client: client.clone(),
            view: RwLock::default(),
            changes: broadcast::Sender::new(CHANGES),
        });
        let stop = CancellationToken::new();
        let round = Round::new(client, shared.clone());
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = round.run() => {}
            }
        });
        Self {
            shared,
            _stop: Arc::new(stop.drop_guard()),
        }
    }

    /// Whether any instance of a service runs.
    #[must_use]
    pub fn running(&self, service: &str) -> bool {
        self.shared.view.read().services.contains(service)
    }

    /// Whether the service runs for a space: a stateful one listens in its own space alone.
    #[must_use]
    pub fn serves(&self, service: &str, space: &Space) -> bool {
        let hears = |endpoint: &Endpoint| match endpoint.subject.strip_prefix("gw.v1.cmd.") {
            Some(rest) => {
                matches!(rest.split('.').next(), Some(token) if token == "*" || token == space.as_str())
            }
            None => true,
        };
        // an instance's endpoints are known a moment after the instance itself
        let view = self.shared.view.read();
        let mut instances = view.instances.iter().filter(|instance| instance.name == service);
        instances.any(|instance| instance.endpoints.is_empty() || instance.endpoints.iter().any(hears))
    }

    /// [`Directory::serves`] for whoever should not know the directory.
    #[must_use]
    pub fn as_running(&self) -> Running {
        let directory = self.clone();
        Arc::new(move |service, space| directory.serves(service, space))
    }

    /// All instances, by service and id.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Vec<Instance>> {
        self.shared.view.read().instances.clone()
    }

    /// Services coming and going from now on. Who lags reads the snapshot and goes on.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    /// What all instances have done since they started; those that answer within `within`.
    ///
    /// # Errors
    /// `bus_down` without a connection.
    pub async fn stats(&self, within: Duration) -> Result<Vec<Stats>, Fault> {
        let away = || Fault::new(Code::BusDown, "the gateway has no NATS right now");
        let client = &self.shared.client;
        if client.connection_state() != State::Connected {
            return Err(away());
        }
        let inbox = client.new_inbox();
        let mut waited_for: HashSet<Key> = self
            .snapshot()
            .iter()
            .map(|instance| (instance.name.clone(), instance.id.clone()))
            .collect();
        let mut answers: BTreeMap<Key, Stats> = BTreeMap::new();
        let asking = async {
            let mut inbox_messages = client.subscribe(inbox.clone()).await.map_err(|_| away())?;
            let asked = client.publish_with_reply("$SRV.STATS", inbox, Bytes::new());
            asked.await.map_err(|_| away())?;
            while !waited_for.is_empty() && answers.len() < MOST_STATS {
                let Some(message) = inbox_messages.next().await else {
                    break;
                };
                if message.status == Some(StatusCode::NO_RESPONDERS) {
                    break;
                }
                let Some(stats) = Stats::parse(&message.payload) else {
                    continue;
                };
                let key = (stats.name.clone(), stats.id.clone());
                waited_for.remove(&key);
                answers.insert(key, stats);
            }
            Ok(())
        };
        // the time being up is the usual end where somebody is silent
        if let Ok(Err(fault)) = timeout(within, asking).await {
            return Err(fault);
        }
        Ok(answers.into_values().collect())
    }
}

/// The asking side: one inbox, one roster.
struct Round {
    client: Client,
    shared: Arc<Shared>,
    inbox: String,
    roster: Roster,
    /// Who was asked by name, by the last token of the reply subject.
    asked: HashMap<String, Key>,
    serial: u64,
    /// Whether our own message came round: then the bus works and silence is the service's own.
    echoed: bool,
    /// Rounds in a row without it.
    deaf: u32,
    /// No judgement before this.
    frozen_until: Option<Instant>,
}

impl Round {
    fn new(client: Client, shared: Arc<Shared>) -> Self {
        let inbox = client.new_inbox();
        Self {
            client,
            shared,
            inbox,
            roster: Roster::default(),
            asked: HashMap::new(),
            serial: 0,
            echoed: false,
            deaf: 0,
            frozen_until: None,
        }
    }

    async fn run(mut self) {
        let mut messages: Subscriber = match self.client.subscribe(format!("{}.*", self.inbox)).await {
            Ok(messages) => messages,
            Err(error) => {
                tracing::error!(%error, "the directory of services cannot listen");
                return;
            }
        };
        let mut ticks = interval(HALF);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut whole = true;
        loop {
            tokio::select! {
                // answers that are there are read before their senders are judged
                biased;
                message = messages.next() => match message {
                    Some(message) => self.hear(message).await,
                    None => return,
                },
                _ = ticks.tick() => {
                    self.judge();
                    self.ask(whole).await;
                    whole = !whole;
                }
            }
        }
    }

    /// Draws the line under the half second that ended.
    fn judge(&mut self) {
        let now = Instant::now();
        let connected = self.client.connection_state() == State::Connected;
        if connected && self.echoed {
            if self.deaf > 1 {
                self.frozen_until = Some(now + THAW);
            }
            self.deaf = 0;
        } else {
            // one late echo is our own breathlessness; a lost connection or a second one is the bus
            self.deaf = self.deaf.saturating_add(if connected { 1 } else { 2 });
            self.roster.forgive();
            return;
        }
        if self.frozen_until.is_some_and(|until| now < until) {
            self.roster.forgive();
            return;
        }
        let changes = self.roster.judge();
        self.tell(changes);
    }

    /// Pings everyone, or only those who are silent; and ourselves.
    async fn ask(&mut self, everyone: bool) {
        self.echoed = false;
        self.asked.clear();
        if self.client.connection_state() != State::Connected {
            return;
        }
        if everyone {
            self.roster.ask_all();
            self.send("$SRV.PING".to_owned(), "a").await;
            for (name, id) in self.roster.uninformed() {
                self.send(format!("$SRV.INFO.{name}.{id}"), "a").await;
            }
            self.show();
        } else {
            for key in self.roster.silent() {
                self.serial += 1;
                let token = format!("s{}", self.serial);
                let subject = format!("$SRV.PING.{}.{}", key.0, key.1);
                self.asked.insert(token.clone(), key);
                self.send(subject, &token).await;
            }
        }
        let echo = format!("{}.e", self.inbox);
        let sending = self.client.publish(echo, Bytes::new());
        let _ = timeout(SEND, sending).await;
    }

    /// A failed send shows as a missing echo.
    async fn send(&self, subject: String, token: &str) {
        let reply = format!("{}.{token}", self.inbox);
        let sending = self.client.publish_with_reply(subject, reply, Bytes::new());
        let _ = timeout(SEND, sending).await;
    }

    async fn hear(&mut self, message: Message) {
        let token = message.subject.as_str().rsplit('.').next();
        let token = token.unwrap_or_default();
        if token == "e" {
            self.echoed = true;
            return;
        }
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            // asked by name and nobody listens: gone for certain
            if let Some(key) = self.asked.remove(token) {
                let change = self.roster.gone(&key);
                self.tell(change);
                self.show();
            }
            return;
        }
        let Some(answer) = Answer::parse(&message.payload) else {
            return;
        };
        let (info, subject) = (
            answer.is_info(),
            format!("$SRV.INFO.{}.{}", answer.name, answer.id),
        );
        let known = self.roster.len();
        let change = self.roster.heard(answer, Instant::now());
        let new = self.roster.len() > known;
        self.tell(change);
        if new && !info {
            self.send(subject, "a").await;
        }
        if new || info {
            self.show();
        }
    }

    /// Shows readers the roster first, so that who hears of a change finds it there.
    fn tell(&mut self, changes: impl IntoIterator<Item = Change>) {
        let mut shown = false;
        for change in changes {
            if !shown {
                self.show();
                shown = true;
            }
            tracing::info!(
                service = change.service,
                running = change.running,
                "service {}",
                if change.running { "runs" } else { "stopped" }
            );
            // an error means that nobody listens
            let _ = self.shared.changes.send(change);
        }
    }

    fn show(&self) {
        let instances = self.roster.instances();
        let services = instances.iter().map(|i| i.name.clone()).collect();
        *self.shared.view.write() = View {
            instances: Arc::new(instances),
            services,
        };
    }
}
