//! Connecting: two connections, every way to authenticate, and the handle the rest of the gateway holds.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::{ConnectOptions, Event, Message, ServerAddr};
use futures_util::StreamExt;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use ulid::Ulid;

use super::calls::Calls;
use super::contract::{self, streams::Definition};
use super::counters::Counters;
use super::error::refused;
use super::history::Suspects;
use super::inbox::{Inbox, Token, Wire};
use super::{BusError, Fetch, Link, Observe, Running, Store, calls, link, login};
use crate::config;

/// The broker may come up this much later than we do.
const START: Duration = Duration::from_secs(10);
/// One attempt to connect; a paused server accepts but says nothing.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Messages one subscription holds before the newest are dropped.
const SUBSCRIPTION: usize = 16_384;
/// Unconfirmed appends retried in the background at once.
const BACKGROUND: usize = 1024;

/// What the event callback of a connection knows.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) up: bool,
    /// How often it came up.
    pub(super) times: u64,
    pub(super) closed: bool,
    /// The server's last complaint.
    pub(super) complaint: Option<String>,
}

/// What is decided by configuration.
pub(super) struct Settings {
    pub(super) events: config::Events,
    pub(super) commands: config::Commands,
    pub(super) definitions: [Definition; 3],
}

type Shelves = (Arc<dyn Fetch>, Arc<dyn Store>);
/// What all clones of a [`Bus`] share.
pub(super) struct Core {
    pub(super) ingress: Wire,
    pub(super) egress: Wire,
    pub(super) settings: Settings,
    pub(super) gateway: String,
    pub(super) link: watch::Sender<Link>,
    /// When the link came back last.
    pub(super) back: RwLock<Option<Instant>>,
    pub(super) calls: Calls,
    pub(super) counters: Arc<Counters>,
    pub(super) bodies: RwLock<Option<Shelves>>,
    pub(super) running: RwLock<Option<Running>>,
    pub(super) observer: OnceLock<Arc<dyn Observe>>,
    pub(super) background: Arc<Semaphore>,
    pub(super) suspects: Suspects,
    pub(super) tasks: TaskTracker,
    /// Held by whoever looks after a stream that vanished.
    pub(super) repair: tokio::sync::Mutex<()>,
    pub(super) stop: CancellationToken,
    /// A connection ended by itself, and nothing in this process makes it again.
    pub(super) broken: CancellationToken,
}

impl Core {
    /// Whether the broker is reachable.
    pub(super) fn is_up(&self) -> bool {
        self.link.borrow().is_up()
    }
}

/// The connection to NATS, shared by everything in the process. Cheap to clone; the last clone dropped ends its tasks.
#[derive(Clone)]
pub struct Bus {
    pub(super) core: Arc<Core>,
    _guard: Arc<DropGuard>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus")
            .field("gateway", &self.core.gateway)
            .field("link", &*self.core.link.borrow())
            .finish_non_exhaustive()
    }
}

impl Bus {
    /// Connects, retrying for ten seconds so that the order of starting does not matter, and sets up the streams.
    /// `gateway` is this process' name among gateways.
    ///
    /// # Errors
    /// [`BusError`], whose text tells the operator what to do.
    pub async fn connect(
        nats: &config::Nats,
        events: &config::Events,
        commands: &config::Commands,
        gateway: &str,
    ) -> Result<Self, BusError> {
        let deadline = Instant::now() + START;
        let counters = Arc::<Counters>::default();
        let inbox = format!("_GW.{}", contract::token(gateway));
        let (ingress, inward) = wire(nats, gateway, inbox.clone(), &counters, deadline).await?;
        let (egress, outward) = wire(nats, gateway, format!("{inbox}.e"), &counters, deadline).await?;
        let stop = CancellationToken::new();
        let core = Arc::new(Core {
            ingress,
            egress,
            settings: Settings {
                events: events.clone(),
                commands: commands.clone(),
                definitions: contract::streams::definitions(events),
            },
            gateway: gateway.to_owned(),
            link: watch::Sender::new(Link::Up { generation: 1 }),
            back: RwLock::default(),
            calls: Calls::default(),
            counters,
            bodies: RwLock::default(),
            running: RwLock::default(),
            observer: OnceLock::new(),
            background: Arc::new(Semaphore::new(BACKGROUND)),
            suspects: Suspects::default(),
            tasks: TaskTracker::new(),
            repair: tokio::sync::Mutex::default(),
            stop: stop.clone(),
            broken: CancellationToken::new(),
        });
        let bus = Self {
            core: Arc::clone(&core),
            _guard: Arc::new(stop.drop_guard()),
        };
        tokio::spawn(answers(Arc::clone(&core), inward, false));
        tokio::spawn(answers(Arc::clone(&core), outward, true));
        for wire in [&core.ingress, &core.egress] {
            if !wire.round_trip(ATTEMPT).await {
                return Err(BusError::Forbidden {
                    what: format!("its reply inbox {}", wire.inbox.wildcard()),
                    cause: complaint(wire),
                });
            }
        }
        core.start_streams(deadline).await?;
        tokio::spawn(calls::sweep(Arc::clone(&core)));
        tokio::spawn(link::keep(core));
        Ok(bus)
    }

    /// Whether the broker is reachable, and every change of that.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.core.link.subscribe()
    }

    /// Returns when a connection has ended for good: only another process comes to NATS again.
    pub async fn broken(&self) {
        self.core.broken.cancelled().await;
    }

    /// Whether streams are in use (`events.history`).
    #[must_use]
    pub fn history(&self) -> bool {
        self.core.settings.events.history
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// The gateway's own name, as connected.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.core.gateway
    }

    /// The connection commands and appends go out on, for services and the object store.
    #[must_use]
    pub fn ingress(&self) -> &async_nats::Client {
        &self.core.ingress.client
    }

    /// Wires large bodies. Without them a body above the broker's payload limit is `too_large`.
    pub fn set_bodies(&self, fetch: Arc<dyn Fetch>, store: Arc<dyn Store>) {
        *self.core.bodies.write() = Some((fetch, store));
    }

    /// Wires the directory: whether a service runs.
    pub fn set_running(&self, running: Running) {
        *self.core.running.write() = Some(running);
    }

    /// Sends what is queued, then closes both connections; bounded in time.
    pub async fn drain(&self) {
        let core = &self.core;
        core.tasks.close();
        if timeout(Duration::from_secs(5), core.tasks.wait()).await.is_err() {
            tracing::warn!("some events are not confirmed at the end");
        }
        core.calls.close();
        let wires = [&core.ingress, &core.egress];
        for wire in wires {
            // drain alone loses the tail of what was published
            let _ = timeout(Duration::from_secs(2), wire.client.flush()).await;
        }
        // before the connections close, which would else be told as a loss
        core.stop.cancel();
        for wire in wires {
            let mut state = wire.state.subscribe();
            let drained = matches!(
                timeout(Duration::from_secs(1), wire.client.drain()).await,
                Ok(Ok(()))
            );
            let closed = state.wait_for(|state| state.closed);
            if !drained || timeout(Duration::from_secs(3), closed).await.is_err() {
                tracing::warn!("the connection to NATS did not close in time");
            }
        }
    }
}

/// The server's last complaint on a connection.
pub(super) fn complaint(wire: &Wire) -> String {
    let state = wire.state.borrow();
    state
        .complaint
        .clone()
        .unwrap_or_else(|| "it stays silent".to_owned())
}

/// Hands answers to whoever waits for them. One task per connection, so answers keep their order.
async fn answers(core: Arc<Core>, mut inbox: async_nats::Subscriber, egress: bool) {
    let wire = if egress { &core.egress } else { &core.ingress };
    loop {
        let message: Message = tokio::select! {
            () = core.stop.cancelled() => return,
            message = inbox.next() => match message {
                Some(message) => message,
                None if core.stop.is_cancelled() => return,
                // the client library makes lost connections again; what ended the task that does so is its own fault
                None => return core.broken.cancel(),
            },
        };
        match wire.inbox.token(&message.subject) {
            Some(Token::Call(token)) => calls::answered(&core, token, message),
            Some(Token::Ask(number)) => {
                wire.inbox.deliver(number, message);
            }
            None => Counters::add(&core.counters.late),
        }
    }
}

/// One connection and its inbox.
async fn wire(
    nats: &config::Nats,
    gateway: &str,
    prefix: String,
    counters: &Arc<Counters>,
    deadline: Instant,
) -> Result<(Wire, async_nats::Subscriber), BusError> {
    let servers = servers(nats)?;
    let state = watch::Sender::new(State::default());
    let mut waiting = false;
    let client = loop {
        let options = options(nats, gateway, &state, counters).await?;
        let error = match options.connect(servers.as_slice()).await {
            Ok(client) => break client,
            Err(error) => error,
        };
        let refused = refused(&servers, &error);
        if Instant::now() >= deadline || !matches!(refused, BusError::Unreachable { .. }) {
            return Err(refused);
        }
        if !std::mem::replace(&mut waiting, true) {
            tracing::info!(cause = %refused, "NATS is not there yet");
        }
        sleep(Duration::from_millis(200)).await;
    };
    // the event follows the connection; a later one would look like a reconnect
    let mut connected = state.subscribe();
    let _ = timeout(ATTEMPT, connected.wait_for(|state| state.times > 0)).await;
    state.send_modify(|state| state.up = true);
    let seed = u64::try_from(Ulid::new().random() & u128::from(u64::MAX)).unwrap_or_default();
    let inbox = Arc::new(Inbox::new(prefix, seed));
    let subscriber = client
        .subscribe(inbox.wildcard())
        .await
        .map_err(|error| BusError::Forbidden {
            what: inbox.wildcard(),
            cause: error.to_string(),
        })?;
    Ok((Wire { client, inbox, state }, subscriber))
}

/// The addresses to try.
pub(super) fn servers(nats: &config::Nats) -> Result<Vec<ServerAddr>, BusError> {
    let parsed = nats.url.iter().map(|url| url.parse());
    parsed
        .collect::<Result<_, std::io::Error>>()
        .map_err(|error| BusError::Setting {
            key: "nats.url",
            cause: error.to_string(),
        })
}

pub(super) async fn options(
    nats: &config::Nats,
    gateway: &str,
    state: &watch::Sender<State>,
    counters: &Arc<Counters>,
) -> Result<ConnectOptions, BusError> {
    let (state, counters) = (state.clone(), Arc::clone(counters));
    let options = ConnectOptions::new()
        .name(format!("causeway {gateway}"))
        .ping_interval(Duration::from_secs(10))
        .connection_timeout(ATTEMPT)
        .subscription_capacity(SUBSCRIPTION)
        .reconnect_delay_callback(|attempt| {
            let doubled = 10_u64.saturating_mul(1 << attempt.min(7));
            Duration::from_millis(if attempt <= 1 { 0 } else { doubled.min(1000) })
        })
        .event_callback(move |event| {
            noted(&state, &counters, event);
            std::future::ready(())
        });
    let options = login::with(options, nats).await;
    options.map_err(|login::Unusable { key, cause }| BusError::Setting { key, cause })
}

fn noted(state: &watch::Sender<State>, counters: &Counters, event: Event) {
    match event {
        Event::Connected => state.send_modify(|state| {
            state.up = true;
            state.times += 1;
        }),
        Event::Disconnected => state.send_modify(|state| state.up = false),
        Event::Closed => state.send_modify(|state| {
            state.up = false;
            state.closed = true;
        }),
        Event::SlowConsumer(_) => Counters::add(&counters.overflow),
        Event::ServerError(error) => {
            tracing::warn!(%error, "NATS complains");
            state.send_modify(|state| state.complaint = Some(error.to_string()));
        }
        Event::ClientError(error) => tracing::debug!(%error, "NATS client"),
        Event::LameDuckMode => tracing::info!("the NATS server is about to stop"),
        Event::Draining => {}
    }
}
