//! The composition root: what starts in which order, and what stops in which.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::bus::bodies::Bodies;
use crate::bus::directory::Directory;
use crate::bus::supervise::{SuperviseError, Supervised};
use crate::bus::{Bus, BusError};
use crate::config::Config;
use crate::edge::ports::{PortError, Purpose};
use crate::edge::{accept, ops, ports};
use crate::gateway::{Gateway, Parts, watch};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::ready::Readiness;

/// Why the gateway did not start. Each text says what to do.
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
    /// The system refused something basic.
    #[error("cannot listen for signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// Runs the gateway until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`] when it cannot start; once started it only ends by a signal.
pub async fn serve(config: Config) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    raise_descriptors();
    let config = Arc::new(config);
    let ports = ports::bind_all(&config)?;
    let supervised = match config.nats.url.is_empty() {
        true => Some(Supervised::start(&config.nats).await?),
        false => None,
    };
    let mut nats = config.nats.clone();
    if let Some(supervised) = &supervised {
        nats.url = vec![supervised.url()];
    }
    let gateway_id = ulid::Ulid::new().to_string();
    let bus = Bus::connect(
        &nats,
        &config.events,
        &config.commands,
        &config.bodies,
        &gateway_id,
    )
    .await?;
    if config.events.history {
        match Bodies::open(
            bus.ingress().clone(),
            &config.bodies,
            config.events.max_age,
            config.events.replicas,
        )
        .await
        {
            Ok(bodies) => {
                bus.set_bodies(Arc::new(bodies.clone()), Arc::new(bodies.clone()));
                tokio::spawn(async move { bodies.keep_swept().await });
            }
            Err(error) => warn!(%error, "no object store: bodies above the broker's limit are refused"),
        }
    }
    let directory = Directory::start(bus.ingress().clone());
    bus.set_running(directory.as_running());
    let names: Vec<&str> = crate::dialect::ALL.iter().map(|dialect| dialect.name()).collect();
    let metrics = Metrics::new(&names);
    let readiness = Arc::new(Readiness::default());
    let numbers: BTreeMap<&str, u16> = ports
        .iter()
        .map(|port| (port.purpose.name(), port.number))
        .collect();
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
        nats_url: nats.url.join(", "),
    });
    for port in ports {
        info!(port = port.number, "{} listens", port.purpose.name());
        match port.purpose {
            Purpose::Ops => {
                let scraped = gateway.clone();
                let scrape: ops::Scrape = Arc::new(move || scraped.scrape());
                ops::open(port, &ops::routes(metrics.clone(), readiness.clone(), scrape));
            }
            _ => accept::open(&gateway, port),
        }
    }
    let restarts = supervised
        .as_ref()
        .map(|server| Box::new(server.restart_counter()) as watch::Restarts);
    watch::start(&gateway, &readiness, restarts);
    tokio::spawn(crate::gateway::local::serve(gateway.clone()));
    tokio::spawn(gateway.clone().serve_pages());
    readiness.started();
    info!(gateway = %gateway_id, nats = %nats.url.join(", "), supervised = supervised.is_some(), "ready");

    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: draining"),
        _ = interrupt.recv() => info!("SIGINT: draining"),
    }
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
    Ok(())
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
