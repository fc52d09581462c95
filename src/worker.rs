//! Reference workers: NATS micro services that use only the contract, and so prove that it is enough.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config;

mod ask;
mod command_processor;
mod connect;
mod job;
mod language;
mod large;
mod outlet;
pub mod screenshots;
mod service;
mod trace;
mod vision;
mod voice;

pub use job::{Job, Work};
pub use outlet::Outlet;
pub use service::Worker;

/// Workers this binary can run.
pub const NAMES: &[&str] = &["command_processor", "language", "vision", "voice"];

/// How long jobs under way may take to finish after the signal to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Why a worker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No such worker.
    #[error("there is no worker named \"{name}\"; known are: {}", NAMES.join(", "))]
    Unknown {
        /// As asked for.
        name: String,
    },
    /// A setting that cannot be used.
    #[error("{key}: {cause}")]
    Setting {
        /// Which.
        key: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// The broker refuses us.
    #[error("NATS refuses the worker: {cause}; check the credentials in nats.*")]
    Refused {
        /// What it said.
        cause: String,
    },
    /// The service cannot be registered.
    #[error("the service {name} cannot be registered: {cause}")]
    Register {
        /// Which service.
        name: &'static str,
        /// What the client said.
        cause: String,
    },
    /// Signals cannot be heard.
    #[error("signals cannot be heard: {0}")]
    Signals(#[from] std::io::Error),
}

/// Settings of the workers themselves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Leaves flite, espeak-ng, pocketsphinx and the microphone alone, even where they are installed.
    pub speech_off: bool,
    /// A Python that can import pocketsphinx. Default: `python3` in `PATH`.
    pub python: Option<PathBuf>,
}

impl Options {
    /// Reads `CAUSEWAY_SPEECH` (`auto` or `off`) and `CAUSEWAY_PYTHON` from a look-up such as the environment.
    ///
    /// # Errors
    /// [`WorkerError::Setting`].
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, WorkerError> {
        let speech_off = match lookup("CAUSEWAY_SPEECH").as_deref() {
            None | Some("" | "auto") => false,
            Some("off") => true,
            Some(other) => {
                return Err(WorkerError::Setting {
                    key: "CAUSEWAY_SPEECH",
                    cause: format!("expected `auto` or `off`, found `{other}`"),
                });
            }
        };
        let python = lookup("CAUSEWAY_PYTHON").filter(|path| !path.is_empty());
        Ok(Self {
            speech_off,
            python: python.map(PathBuf::from),
        })
    }
}

/// What SIGTERM and SIGINT cancel.
fn until_told() -> Result<CancellationToken, WorkerError> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

/// Runs workers with the options of the environment until SIGTERM or SIGINT.
///
/// # Errors
/// [`WorkerError`].
pub async fn run(names: &[String], nats: &config::Nats) -> Result<(), WorkerError> {
    run_with(names, nats, &Options::read(|key| std::env::var(key).ok())?).await
}

/// Runs workers until SIGTERM or SIGINT; then no new work is taken, work under way finishes, the connection drains.
///
/// # Errors
/// [`WorkerError`].
pub async fn run_with(names: &[String], nats: &config::Nats, options: &Options) -> Result<(), WorkerError> {
    if let Some(name) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        return Err(WorkerError::Unknown { name: name.clone() });
    }
    let stop = until_told()?;
    let Some(connected) = connect::open(nats, &names.join("+"), &stop).await? else {
        return Ok(());
    };
    let (host, port) = nats.server();
    trace::broker(host, port);
    let outlet = Outlet::new(connected.client.clone());
    let mut running = Vec::new();
    for name in names {
        let worker: Arc<dyn Worker> = match name.as_str() {
            "command_processor" => Arc::new(command_processor::CommandProcessor::new(outlet.clone())),
            "language" => Arc::new(language::Language),
            "vision" => Arc::new(vision::Vision),
            "voice" => Arc::new(voice::Voice::start(options, outlet.clone(), stop.clone()).await),
            _ => return Err(WorkerError::Unknown { name: name.clone() }),
        };
        running.push(service::start(worker, &outlet, &stop).await?);
        tracing::info!(worker = %name, "worker ready");
    }
    stop.cancelled().await;
    tracing::info!("worker stops: finishing what is under way");
    for service in running {
        service.finish(GRACE).await;
    }
    connected.close().await;
    Ok(())
}
