//! The composition root: what starts in which order, and what stops in which.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::bus::bodies::Bodies;
use crate::bus::directory::Directory;
use crate::bus::supervise::{SuperviseError, Supervised};
use crate::bus::{Bus, BusError};
use crate::config::{self, Config};
use crate::edge::ports::{PortError, Purpose};
use crate::edge::registry::Entry;
use crate::edge::{accept, ops, ports};
use crate::gateway::{Gateway, Parts, watch};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::ready::Readiness;
use crate::telemetry::trace;

/// Between two rounds of attempts to reach NATS at the start.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why the gateway did not start, or did not go on. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port could not be bound.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The supervised NATS did not start.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
    /// NATS cannot be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The connection to NATS ended and does not come back.
    #[error(
        "the connection to NATS ended for good, probably by a message whose headers break NATS's rules; start the gateway again, and look for who sends such messages"
    )]
    Broken,
    /// The system refused something basic.
    #[error("cannot listen for signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// Runs the gateway until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`] when it cannot start; once started it ends by a signal, or when NATS can never be reached again.
pub async fn serve(config: Config) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    raise_descriptors();
    prepare_descriptors(config.gateway.max_connections);
    let config = Arc::new(config);
    let ports = ports::bind_all(&config)?;
    let supervised = match config.nats.url.is_empty() {
        // a large store takes its time; who loses patience is heard meanwhile
        true => tokio::select! {
            started = Supervised::start(&config.nats) => Some(started?),
            signal = stopped(&mut terminate, &mut interrupt) => {
                info!("{signal}: stopped before NATS was there");
                return Ok(());
            }
        },
        false => None,
    };
    let mut nats = config.nats.clone();
    if let Some(supervised) = &supervised {
        nats.url = vec![supervised.url()];
    }
    let (host, port) = nats.server();
    trace::broker(host, port);
    let names: Vec<&str> = crate::dialect::ALL.iter().map(|dialect| dialect.name()).collect();
    let metrics = Metrics::counting(&names, config.ops.metrics);
    let readiness = Arc::new(Readiness::default());
    let numbers: BTreeMap<&str, u16> = ports
        .iter()
        .map(|port| (port.purpose.name(), port.number))
        .collect();
    // probes are answered while NATS is waited for: alive, and not ready
    let (doors, probes): (Vec<_>, Vec<_>) = ports
        .into_iter()
        .partition(|port| !matches!(port.purpose, Purpose::Ops));
    let scraped: Arc<OnceLock<Arc<Gateway>>> = Arc::default();
    for port in probes {
        info!(port = port.number, "{} listens", port.purpose.name());
        let scraped = scraped.clone();
        let scrape: ops::Scrape = Arc::new(move || {
            if let Some(gateway) = scraped.get() {
                gateway.scrape();
            }
        });
        ops::open(port, &ops::routes(metrics.clone(), readiness.clone(), scrape));
    }
    let gateway_id = ulid::Ulid::new().to_string();
    let bus = tokio::select! {
        bus = reach(&nats, &config, &gateway_id, &readiness) => bus?,
        signal = stopped(&mut terminate, &mut interrupt) => {
            info!("{signal}: stopped before NATS was there");
            if let Some(supervised) = supervised {
                supervised.stop().await;
            }
            return Ok(());
        }
    };
    if config.events.history {
        match shelves(&bus, &nats, &config).await {
            Ok(bodies) => stock(&bus, bodies),
            Err(error) => {
                warn!(%error, "no object store: bodies above the broker's limit are refused until there is one");
                metrics.object_store_refused.set(1);
                tokio::spawn(stock_later(
                    bus.clone(),
                    nats.clone(),
                    config.clone(),
                    metrics.clone(),
                ));
            }
        }
    }
    let directory = Directory::start(bus.ingress().clone());
    bus.set_running(directory.as_running());
    let drain = CancellationToken::new();
    let gateway = Gateway::new(Parts {
        config: config.clone(),
        bus: bus.clone(),
        directory,
        metrics: metrics.clone(),
        drain: drain.clone(),
        ports: numbers
            .iter()
            .map(|(name, number)| ((*name).to_owned(), *number))
            .collect(),
        nats_url: nats.shown(),
    });
    let _first = scraped.set(gateway.clone());
    for port in doors {
        info!(port = port.number, "{} listens", port.purpose.name());
        accept::open(&gateway, port);
    }
    let restarts = supervised
        .as_ref()
        .map(|server| Box::new(server.restart_counter()) as watch::Restarts);
    watch::start(&gateway, &readiness, restarts);
    tokio::spawn(crate::gateway::local::serve(gateway.clone()));
    tokio::spawn(gateway.clone().serve_pages());
    tokio::spawn(gateway.clone().serve_viewers());
    register(&gateway);
    readiness.started();
    let page = format!(
        "http://localhost:{}/",
        gateway.published("gateway").unwrap_or_default()
    );
    info!(gateway = %gateway_id, nats = %nats.shown(), supervised = supervised.is_some(), page, "ready");

    let signal = tokio::select! {
        signal = stopped(&mut terminate, &mut interrupt) => Some(signal),
        () = bus.broken() => None,
    };
    info!("{}: draining", signal.unwrap_or("no way back to NATS"));
    readiness.drain();
    drain.cancel();
    gateway.tasks.close();
    let grace = config.gateway.drain_spread + config.gateway.drain_grace;
    if tokio::time::timeout(grace, gateway.tasks.wait()).await.is_err() {
        warn!(
            left = gateway.tasks.len(),
            "the grace is over, connections are cut"
        );
    }
    if tokio::time::timeout(Duration::from_secs(5), bus.drain())
        .await
        .is_err()
    {
        warn!("NATS did not confirm the drain");
    }
    if let Some(supervised) = supervised {
        supervised.stop().await;
    }
    info!("stopped");
    signal.map(|_| ()).ok_or(StartError::Broken)
}

/// The store of large bodies, on a connection of its own.
async fn shelves(bus: &Bus, nats: &config::Nats, config: &Config) -> Result<Bodies, String> {
    let client = bus.freight(nats).await.map_err(|error| error.to_string())?;
    let events = &config.events;
    Bodies::open(client, &config.bodies, events.max_age, events.replicas)
        .await
        .map_err(|error| error.to_string())
}

/// Large bodies go through this store from now on.
fn stock(bus: &Bus, bodies: Bodies) {
    bus.set_bodies(Arc::new(bodies.clone()), Arc::new(bodies.clone()));
    tokio::spawn(async move { bodies.keep_swept().await });
}

/// A disk that was full may have room later.
async fn stock_later(bus: Bus, nats: config::Nats, config: Arc<Config>, metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(LONGEST_PAUSE).await;
        if let Ok(bodies) = shelves(&bus, &nats, &config).await {
            info!("the object store is there: large bodies are taken");
            metrics.object_store_refused.set(0);
            return stock(&bus, bodies);
        }
    }
}

/// Returns when somebody asks the process to end.
async fn stopped(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Connects to NATS, however long it takes to come: a name that does not resolve yet, a server that starts after us.
/// Whatever waiting does not cure ends the start.
async fn reach(
    nats: &config::Nats,
    config: &Config,
    gateway: &str,
    readiness: &Readiness,
) -> Result<Bus, BusError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let connecting = Bus::connect(nats, &config.events, &config.commands, gateway);
        match connecting.await {
            Err(error @ BusError::Unreachable { .. }) => {
                warn!(%error, again_in = ?pause, "waiting for NATS");
                readiness.bus_down(error.to_string());
            }
            ended => return ended,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Tells scripts on this machine where the viewer is, where the operator wants that.
fn register(gateway: &Arc<Gateway>) {
    let cad = &gateway.config.cad;
    if !cad.register {
        return;
    }
    match gateway.port("cad") {
        Some(port) if !cad.registry.as_os_str().is_empty() => {
            let entry = Entry::new(cad.registry.clone(), port);
            gateway.tasks.spawn(entry.keep(gateway.drain.clone()));
        }
        Some(_) => warn!("cad.register: there is no HOME in which scripts would look"),
        None => warn!("cad.register: cad.port is off, so there is nothing to tell scripts"),
    }
}

/// Each connection is a descriptor: take as many as the system allows.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "cannot raise the limit of open files");
    }
}

/// The kernel's table of descriptors grows by doubling, and in a process of several threads every time takes ten to
/// twenty milliseconds, in which the thread that accepts stands still. So it gets its full size before anybody comes.
fn prepare_descriptors(connections: usize) {
    let highest = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let highest = highest.unwrap_or(u64::MAX).saturating_sub(1);
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).min(highest);
    let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
    if let Err(error) = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), wanted) {
        debug!(%error, wanted, "the table of descriptors grows as they come");
    }
}
