//! One run of `nats-server`: found, configured, spawned so that it ends with the gateway, waited for.

use std::fs::{self, DirBuilder, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use ulid::Ulid;

use super::SuperviseError;

/// The server recovers its streams before it takes clients; a large store needs its time.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How often a starting server is looked at.
const START_POLL: Duration = Duration::from_millis(10);
/// Largest message; above it bodies go through the object store.
const MAX_PAYLOAD: usize = 1 << 20;
/// The streams and buckets reserve their own limits below this one.
const MAX_FILE_STORE: u64 = 64 << 30;
/// Room for leases and other streams in memory.
const MAX_MEMORY_STORE: u64 = 256 << 20;
/// Debian puts servers where only root's `PATH` looks.
const SYSTEM_PATHS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// What every run of the server has in common.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) program: PathBuf,
    pub(super) store: PathBuf,
    pub(super) port: u16,
    pub(super) lock: File,
}

/// A server that takes clients.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) process: Child,
    pub(super) address: SocketAddr,
    pub(super) monitoring: Option<SocketAddr>,
    last: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    _run: RunDir,
}

/// Configuration and ports file of one run; removed with it.
#[derive(Debug)]
struct RunDir(PathBuf);

impl Drop for RunDir {
    fn drop(&mut self) {
        // leftovers are removed by the next start
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The ports file, as the server writes it.
#[derive(Deserialize)]
struct Ports {
    #[serde(default)]
    nats: Vec<String>,
    #[serde(default)]
    monitoring: Vec<String>,
}

impl Server {
    /// Spawns the server and waits until it takes clients.
    pub(super) async fn start(plan: &Plan) -> Result<Self, SuperviseError> {
        let run = prepare(plan)?;
        let mut process = spawn(command(plan, &run.0)?)
            .await
            .map_err(|source| SuperviseError::Spawn {
                program: plan.program.clone(),
                source,
            })?;
        let last = Arc::new(Mutex::new(String::new()));
        let mut readers = Vec::with_capacity(2);
        if let Some(output) = process.stderr.take() {
            readers.push(tokio::spawn(relay(output, last.clone())));
        }
        if let Some(output) = process.stdout.take() {
            readers.push(tokio::spawn(relay(output, last.clone())));
        }
        let mut server = Self {
            process,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            monitoring: None,
            last,
            readers,
            _run: run,
        };
        let started = timeout(START_PATIENCE, server.ready()).await;
        match started {
            Ok(Ok(())) => Ok(server),
            Ok(Err(status)) => {
                // the pipe may still hold the line that says why
                for reader in server.readers.drain(..) {
                    let _ = timeout(Duration::from_secs(1), reader).await;
                }
                let last = server.last_line();
                Err(SuperviseError::Exited { status, last })
            }
            Err(_) => Err(SuperviseError::Silent(START_PATIENCE)),
        }
    }

    /// Waits for the ports file, then for the greeting of the client port; the status when the server ends instead.
    async fn ready(&mut self) -> Result<(), ExitStatus> {
        loop {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(status);
            }
            if let Some(ports) = self.ports()
                && let Some(address) = ports.nats.iter().find_map(|url| address_of(url))
                && greets(address).await
            {
                self.address = address;
                self.monitoring = ports.monitoring.iter().find_map(|url| address_of(url));
                return Ok(());
            }
            sleep(START_POLL).await;
        }
    }

    /// The ports file, once it is whole.
    fn ports(&self) -> Option<Ports> {
        let suffix = format!("_{}.ports", self.process.id()?);
        let file = fs::read_dir(&self._run.0)
            .ok()?
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().ends_with(&suffix))?;
        serde_json::from_slice(&fs::read(file.path()).ok()?).ok()
    }

    /// The last line the server printed.
    pub(super) fn last_line(&self) -> String {
        self.last.lock().clone()
    }

    /// Asks the server to end in order.
    pub(super) fn terminate(&self) {
        // the id is only there while the process is not reaped, so it cannot be someone else's
        let Some(pid) = self
            .process
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(rustix::process::Pid::from_raw)
        else {
            return;
        };
        if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM) {
            tracing::warn!(target: "nats", %error, "nats-server could not be told to end");
        }
    }
}

/// The program's path: as given when it has a directory, else from `PATH` and the system's own places.
pub(super) fn find(program: &Path) -> Option<PathBuf> {
    let runs =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if program.components().count() > 1 {
        return Some(program.to_path_buf()).filter(runs);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_PATHS.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(runs)
}

/// A fresh directory with the server's configuration. What a killed gateway left behind goes.
fn prepare(plan: &Plan) -> Result<RunDir, SuperviseError> {
    let runs = plan.store.join("run");
    let path = runs.join(Ulid::new().to_string());
    let failed = |source| SuperviseError::Store {
        path: path.clone(),
        source,
    };
    // nobody else runs on this store: its lock is ours
    let _ = fs::remove_dir_all(&runs);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .map_err(failed)?;
    let run = RunDir(path.clone());
    let port = match plan.port {
        0 => "-1".to_owned(),
        port => port.to_string(),
    };
    let text = format!(
        "# written by the gateway for its own NATS; set nats.url to run another\n\
         server_name: causeway\n\
         host: 127.0.0.1\n\
         port: {port}\n\
         http: \"127.0.0.1:-1\"\n\
         ports_file_dir: {run}\n\
         max_payload: {MAX_PAYLOAD}\n\
         jetstream {{\n  store_dir: {store}\n  max_file_store: {MAX_FILE_STORE}\n  max_memory_store: {MAX_MEMORY_STORE}\n}}\n",
        run = quoted(&path),
        store = quoted(&plan.store),
    );
    fs::write(path.join("nats.conf"), text).map_err(failed)?;
    Ok(run)
}

/// A path as a string of the server's configuration language.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The command line: through `setpriv`, which has the kernel end the server with the thread that spawned it.
fn command(plan: &Plan, run: &Path) -> Result<Command, SuperviseError> {
    let mut command = if let Some(setpriv) = find(Path::new("setpriv")) {
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "TERM", "--"]);
        command.arg(&plan.program);
        command
    } else {
        tracing::warn!(
            target: "nats",
            "setpriv was not found (`apt-get install util-linux`): a killed gateway will leave its nats-server running"
        );
        Command::new(&plan.program)
    };
    let lock = plan.lock.try_clone().map_err(|source| SuperviseError::Store {
        path: plan.store.clone(),
        source,
    })?;
    command
        .arg("-c")
        .arg(run.join("nats.conf"))
        // the server never reads its input; holding the lock there keeps the store taken until it has ended
        .stdin(Stdio::from(lock))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // a Ctrl-C in the terminal is for the gateway, which then ends the server in its own order
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

/// A command for the spawning thread, with the runtime that will reap the child.
struct Order {
    command: Command,
    runtime: Handle,
    done: oneshot::Sender<std::io::Result<Child>>,
}

/// Spawns from one thread that lives as long as the process: the kernel's death signal is sent when the *thread*
/// that spawned ends, and the runtime's own threads come and go.
async fn spawn(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Option<mpsc::SyncSender<Order>>> = OnceLock::new();
    let gone = || std::io::Error::other("the spawning thread is gone");
    let spawner = SPAWNER
        .get_or_init(|| {
            let (orders, inbox) = mpsc::sync_channel::<Order>(4);
            let serve = move || {
                for mut order in inbox {
                    let _entered = order.runtime.enter();
                    let _ = order.done.send(order.command.spawn());
                }
            };
            let thread = std::thread::Builder::new().name("nats-spawn".to_owned());
            thread.spawn(serve).ok().map(|_| orders)
        })
        .as_ref()
        .ok_or_else(gone)?;
    let (done, child) = oneshot::channel();
    let order = Order {
        command,
        runtime: Handle::current(),
        done,
    };
    spawner.try_send(order).map_err(|_| gone())?;
    timeout(START_PATIENCE, child)
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
        .map_err(|_| gone())?
}

/// Passes the server's lines on to the log and keeps the last one.
async fn relay(output: impl AsyncRead + Unpin, last: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let text = strip(&line);
        if line.contains("[ERR]") || line.contains("[FTL]") {
            tracing::error!(target: "nats", "{text}");
        } else if line.contains("[WRN]") {
            tracing::warn!(target: "nats", "{text}");
        } else {
            tracing::debug!(target: "nats", "{text}");
        }
        if !text.is_empty() {
            text.clone_into(&mut last.lock());
        }
    }
}

/// A line without the server's own process id, time and level.
fn strip(line: &str) -> &str {
    let levels = ["[INF] ", "[WRN] ", "[ERR] ", "[FTL] ", "[DBG] ", "[TRC] "];
    let text = levels
        .iter()
        .find_map(|level| line.split_once(level))
        .map_or(line, |(_, text)| text);
    text.trim()
}

/// The address in a URL without path.
fn address_of(url: &str) -> Option<SocketAddr> {
    let (_, rest) = url.split_once("://")?;
    rest.trim_end_matches('/').parse().ok()
}

/// Whether the server says its `INFO`.
async fn greets(address: SocketAddr) -> bool {
    let greeting = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let mut first = [0; 5];
        stream.read_exact(&mut first).await.ok()?;
        (&first == b"INFO ").then_some(())
    };
    matches!(timeout(Duration::from_secs(2), greeting).await, Ok(Some(())))
}
