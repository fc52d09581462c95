//! Runs the gateway's own `nats-server` when no URL is configured: started, restarted, ended with the gateway.

mod child;
mod holder;

use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config;
use child::{Plan, Server};
pub use holder::Holder;

/// First pause before a restart; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A server that lived this long starts again without the pauses of its past.
const STEADY: Duration = Duration::from_secs(10);
/// SIGTERM lets the server write out its streams; after this it is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// A predecessor that is still ending holds the store this long at most.
const LOCK_PATIENCE: Duration = Duration::from_secs(8);

/// Why the supervised server did not start. Each text names what mends it.
#[derive(Debug, Error)]
pub enum SuperviseError {
    /// The binary is nowhere in `PATH` nor where packages put it.
    #[error(
        "`{}` was not found: install it with `apt-get install nats-server`, name it with nats.server, or set nats.url to use a NATS that already runs",
        .0.display()
    )]
    Missing(PathBuf),
    /// Something else listens on the port.
    #[error(
        "port {port} on 127.0.0.1 is taken{}: if that is a NATS to be used, set nats.url = \"nats://127.0.0.1:{port}\"; else stop it or set nats.port to another port (0 = any)",
        By(.holder.as_ref())
    )]
    PortTaken {
        /// The configured port.
        port: u16,
        /// Who holds it, where /proc tells.
        holder: Option<Holder>,
    },
    /// The port cannot be bound for another reason.
    #[error("port {port} on 127.0.0.1 cannot be bound ({source}): set nats.port to another port")]
    Port {
        /// The configured port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store cannot be created or written.
    #[error(
        "the store {} cannot be written ({source}): make it writable with `chown -R \"$USER\" {0}` or set nats.store to another directory",
        .path.display()
    )]
    Store {
        /// The configured store, or what in it failed.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another gateway's server uses the store.
    #[error(
        "the store {} is in use by another gateway's nats-server: stop that gateway, set nats.store to another directory, or set nats.url to share its NATS",
        .0.display()
    )]
    StoreInUse(PathBuf),
    /// The process could not be created.
    #[error("{} could not be started ({source}): check that it is executable", .program.display())]
    Spawn {
        /// What was to run.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server ended before it took clients.
    #[error(
        "nats-server ended at once ({status}); its last line: {last}; try it by hand: `nats-server -js -a 127.0.0.1`"
    )]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The last line it printed.
        last: String,
    },
    /// The server runs but took no clients in time.
    #[error(
        "nats-server took no clients within {0:?}; a very large store may need longer, see its log lines (target `nats`)"
    )]
    Silent(Duration),
}

/// " by <holder>", or nothing where nobody is known.
struct By<'a>(Option<&'a Holder>);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(holder) => write!(f, " by {holder}"),
            None => Ok(()),
        }
    }
}

/// What readers see of the running server.
#[derive(Debug, Default)]
struct Shared {
    restarts: AtomicU64,
    now: RwLock<Status>,
}

/// The server of this moment.
#[derive(Debug, Default)]
struct Status {
    pid: Option<u32>,
    monitoring: Option<SocketAddr>,
}

/// The gateway's own `nats-server`. Dropping it asks the server to end; [`Supervised::stop`] waits for that.
#[derive(Debug)]
pub struct Supervised {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    keeper: Option<JoinHandle<()>>,
}

impl Supervised {
    /// Starts the server and returns when it takes clients.
    ///
    /// # Errors
    /// [`SuperviseError`], whose text tells what mends it.
    pub async fn start(nats: &config::Nats) -> Result<Self, SuperviseError> {
        let program =
            child::find(&nats.server).ok_or_else(|| SuperviseError::Missing(nats.server.clone()))?;
        let lock = lock(&nats.store).await?;
        probe(nats.port).await?;
        let mut plan = Plan {
            program,
            store: nats.store.clone(),
            port: nats.port,
            lock,
        };
        let server = Server::start(&plan).await?;
        let address = server.address;
        // a restart must come back where the clients look for it
        plan.port = address.port();

        let shared = Arc::new(Shared::default());
        shared.note(&server);
        let stop = CancellationToken::new();
        let keeper = tokio::spawn(keep(server, plan, shared.clone(), stop.clone()));
        Ok(Self {
            address,
            shared,
            stop,
            keeper: Some(keeper),
        })
    }

    /// Where clients connect: `nats://127.0.0.1:<port>`, the same for life.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// The client port, the same for life.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where the server's own `/varz` and `/jsz` are; another port after each restart, `None` while it is down.
    #[must_use]
    pub fn monitoring(&self) -> Option<SocketAddr> {
        self.shared.now.read().monitoring
    }

    /// The server's process, `None` while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.shared.now.read().pid
    }

    /// How often it had to be started again.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Relaxed)
    }

    /// Reads the same for as long as anybody asks, also after [`Supervised::stop`].
    pub fn restart_counter(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || shared.restarts.load(Ordering::Relaxed)
    }

    /// Ends the server: SIGTERM, a bounded wait, SIGKILL. Returns when the process is gone.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let Some(keeper) = self.keeper.take() else {
            return;
        };
        // the keeper bounds each of its own steps; this only guards against a kernel that never reaps
        if timeout(STOP_GRACE * 3, keeper).await.is_err() {
            tracing::error!(target: "nats", "nats-server did not end after SIGKILL");
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn note(&self, server: &Server) {
        *self.now.write() = Status {
            pid: server.process.id(),
            monitoring: server.monitoring,
        };
    }

    fn clear(&self) {
        *self.now.write() = Status::default();
    }
}

/// Keeps the server alive until told to stop.
async fn keep(mut server: Server, plan: Plan, shared: Arc<Shared>, stop: CancellationToken) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let since = Instant::now();
        let status = tokio::select! {
            status = server.process.wait() => status,
            () = stop.cancelled() => {
                end(server).await;
                shared.clear();
                return;
            }
        };
        shared.clear();
        tracing::error!(
            target: "nats",
            status = %status.map_or_else(|error| error.to_string(), |status| status.to_string()),
            last = %server.last_line(),
            "nats-server ended, starting it again"
        );
        drop(server);
        if since.elapsed() >= STEADY {
            backoff = BACKOFF_MIN;
        }
        server = loop {
            tokio::select! {
                () = sleep(backoff) => {}
                () = stop.cancelled() => return,
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
            shared.restarts.fetch_add(1, Ordering::Relaxed);
            // dropping a half-started server kills it
            let started = tokio::select! {
                started = Server::start(&plan) => started,
                () = stop.cancelled() => return,
            };
            match started {
                Ok(server) => break server,
                Err(error) => {
                    tracing::error!(target: "nats", %error, "nats-server could not be started again");
                }
            }
        };
        shared.note(&server);
        tracing::info!(target: "nats", pid = server.process.id(), "nats-server is back");
    }
}

/// SIGTERM, a bounded wait, SIGKILL.
async fn end(mut server: Server) {
    server.terminate();
    if timeout(STOP_GRACE, server.process.wait()).await.is_err() {
        tracing::warn!(target: "nats", "nats-server ignored SIGTERM, killing it");
        if let Err(error) = timeout(STOP_GRACE, server.process.kill()).await {
            tracing::error!(target: "nats", %error, "nats-server could not be killed");
        }
    }
}

/// Creates the store and takes its lock, which server and gateway hold together: two servers on one store would
/// spoil it, and a killed gateway's server lives a moment longer than the gateway.
async fn lock(store: &Path) -> Result<File, SuperviseError> {
    let failed = |source| SuperviseError::Store {
        path: store.to_path_buf(),
        source,
    };
    std::fs::create_dir_all(store).map_err(failed)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(store.join("lock"))
        .map_err(failed)?;
    let patience = Instant::now() + LOCK_PATIENCE;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < patience => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(target: "nats", store = %store.display(), "the store is in use; waiting for its gateway to end");
                }
                sleep(Duration::from_millis(50)).await;
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(SuperviseError::StoreInUse(store.to_path_buf()));
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
}

/// Binds the port for a moment, so that a taken one is reported by its holder and not by a server's last line.
async fn probe(port: u16) -> Result<(), SuperviseError> {
    if port == 0 {
        return Ok(());
    }
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let holder = tokio::task::spawn_blocking(move || Holder::of(port)).await;
            Err(SuperviseError::PortTaken {
                port,
                holder: holder.ok().flatten(),
            })
        }
        Err(source) => Err(SuperviseError::Port { port, source }),
    }
}
