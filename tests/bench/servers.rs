//! The servers under measurement, started on free ports, read through /proc, ended with the run.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::socket::PATIENCE;
use crate::{Outcome, Plan};

/// What a gateway says that goes on without large bodies: their parts would wait for them in vain.
const NO_STORE: &str = "no object store";

/// A server process and where its clients connect.
pub(crate) struct Server {
    child: Child,
    pub(crate) websocket: SocketAddr,
}

/// What the run talks to.
pub(crate) struct Servers {
    pub(crate) nats: Server,
    pub(crate) gateway: Option<Server>,
    /// For the publisher and the worker.
    pub(crate) url: String,
    scratch: PathBuf,
}

impl Servers {
    /// Starts the broker, then the gateway in front of it.
    pub(crate) async fn start(plan: &Plan) -> Outcome<Self> {
        let scratch = std::env::temp_dir().join(format!("causeway-bench-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        let (port, websocket) = (free_port()?, free_port()?);
        let nats = start_nats(&scratch, port, websocket)?;
        let mut servers = Self {
            nats,
            gateway: None,
            url: format!("nats://127.0.0.1:{port}"),
            scratch,
        };
        wait_open(port).await?;
        wait_open(websocket).await?;
        if !plan.nats_only {
            servers.gateway = Some(servers.gateway("gateway", &[]).await?);
        }
        Ok(servers)
    }

    /// One more gateway in front of the broker, with these settings above the usual ones.
    pub(crate) async fn gateway(&self, name: &str, settings: &[(&str, &str)]) -> Outcome<Server> {
        start_gateway(&self.scratch, name, &self.url, settings).await
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.gateway = None;
        self.nats.end();
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl Server {
    /// A process that serves WebSocket clients at a port of this machine; it ends with the value.
    pub(crate) fn new(child: Child, port: u16) -> Self {
        let websocket = (Ipv4Addr::LOCALHOST, port).into();
        Self { child, websocket }
    }

    fn end(&mut self) {
        // an end that fails leaves nothing to do: the process is gone already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// CPU time the process has used, in nanoseconds, all threads, user and system.
    pub(crate) fn cpu(&self) -> Outcome<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // the command name may hold spaces; what follows its bracket does not
        let (_, rest) = stat.rsplit_once(") ").ok_or("unreadable /proc stat")?;
        let mut fields = rest.split(' ').skip(11);
        let mut ticks = || fields.next().and_then(|field| field.parse::<f64>().ok());
        let (Some(user), Some(system)) = (ticks(), ticks()) else {
            return Err("unreadable /proc stat".into());
        };
        Ok((user + system) * 1e9 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// As [`Server::cpu`], by the scheduler's own books, which know more than ticks. Threads that end take theirs along.
    pub(crate) fn cpu_exact(&self) -> Outcome<f64> {
        let mut spent = 0.0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // a thread may be gone by now
            let Ok(books) = std::fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let first = books.split(' ').next();
            spent += first
                .and_then(|ns| ns.parse::<f64>().ok())
                .ok_or("unreadable /proc schedstat")?;
        }
        Ok(spent)
    }

    /// Lets the peak of resident memory begin anew.
    pub(crate) fn forget_peak(&self) -> Outcome<()> {
        Ok(std::fs::write(
            format!("/proc/{}/clear_refs", self.child.id()),
            "5",
        )?)
    }

    /// The most resident memory since then, in bytes.
    pub(crate) fn peak(&self) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        Ok(kib.ok_or("unreadable /proc status")? * 1024.0)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Outcome<f64> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages = statm
            .split(' ')
            .nth(1)
            .and_then(|field| field.parse::<f64>().ok());
        Ok(pages.ok_or("unreadable /proc statm")? * rustix::param::page_size() as f64)
    }
}

/// A server that says its port on its first line, once it listens and hears NATS.
pub(crate) async fn announced(mut child: Child) -> Outcome<Server> {
    let said = child.stdout.take();
    let mut server = Server::new(child, 0);
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        said.map(|said| BufReader::new(said).read_line(&mut line));
        line
    });
    let line = timeout(PATIENCE, line).await??;
    let port: u16 = line.trim().parse().map_err(|_| "a server said no port")?;
    server.websocket.set_port(port);
    Ok(server)
}

fn start_nats(scratch: &Path, port: u16, websocket: u16) -> Outcome<Server> {
    let store = scratch.join("nats");
    let file = scratch.join("nats.conf");
    std::fs::write(
        &file,
        format!(
            "host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: \"{}\" }}\n\
             websocket {{ host: 127.0.0.1, port: {websocket}, no_tls: true, compression: false }}\n",
            store.display()
        ),
    )?;
    let child = Command::new("nats-server")
        .arg("-c")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("nats-server does not start ({error}); make setup installs it"))?;
    Ok(Server::new(child, websocket))
}

async fn start_gateway(scratch: &Path, name: &str, nats: &str, settings: &[(&str, &str)]) -> Outcome<Server> {
    let binary = std::env::var_os("CAUSEWAY_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_causeway")), PathBuf::from);
    let (port, ops) = (free_port()?, free_port()?);
    let told = scratch.join(format!("{name}.log"));
    let log = std::fs::File::create(&told)?;
    let mut command = Command::new(&binary);
    command.arg("serve").env("GW_NATS_URL", nats);
    for (key, port) in [("GATEWAY", port), ("OPS", ops), ("VOICE", free_port()?)] {
        command.env(format!("GW_{key}_PORT"), port.to_string());
    }
    // legacy ports of the other dialects would collide with a gateway that runs beside the benchmark
    let known = Command::new(&binary).args(["config", "default"]).output()?;
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    for dialect in ["cad", "assistant", "scripting"] {
        if known.contains(&format!("[{dialect}]")) {
            command.env(format!("GW_{}_PORT", dialect.to_uppercase()), "off");
        }
    }
    // enough for every part, and set aside at the start whether it is used or not
    command.env("GW_BODIES_MAX_BYTES", "1GiB");
    command.env("GW_LOG_LEVEL", "warn").current_dir(scratch);
    command.envs(settings.iter().copied());
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let mut server = Server::new(child, port);
    let begun = Instant::now();
    while !ready(ops).await {
        let ended = server.child.try_wait()?;
        if ended.is_some() || begun.elapsed() > Duration::from_secs(30) {
            server.end();
            let log = std::fs::read_to_string(&told)?;
            return Err(format!("{} is not ready ({ended:?}):\n{log}", binary.display()).into());
        }
        sleep(Duration::from_millis(100)).await;
    }
    if std::fs::read_to_string(&told)?.contains(NO_STORE) {
        return Err(format!(
            "NATS sets about 6 GB aside for what the gateway keeps, and {} has less: make room there, or name a larger disk with TMPDIR",
            scratch.display()
        )
        .into());
    }
    Ok(server)
}

/// Whether `/readyz` says yes.
async fn ready(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    matches!(timeout(Duration::from_secs(2), ask).await, Ok(Ok(true)))
}

async fn wait_open(port: u16) -> Outcome<()> {
    for _ in 0..100 {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(format!("nats-server does not listen on {port}").into())
}

/// A port nobody holds at this moment.
pub(crate) fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Every connection is a descriptor here too.
pub(crate) fn raise_descriptor_limit(wanted: u64) -> Outcome<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if maximum.is_some_and(|maximum| maximum < wanted) {
        return Err(format!("{wanted} descriptors needed; ulimit -Hn allows fewer").into());
    }
    if current.is_some_and(|current| current < wanted) {
        let current = maximum;
        setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    }
    Ok(())
}
