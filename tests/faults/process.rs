//! Processes under test: gateways on free ports, killed, paused and read through /proc by their own handle.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::{Outcome, PATIENCE};

/// A directory that goes with its owner.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Outcome<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("causeway-faults-{}-{next}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("FAULTS_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Sends a signal to a child of ours.
pub(crate) fn signal(child: &Child, signal: Signal) -> Outcome<()> {
    Ok(kill_process(Pid::from_child(child), signal)?)
}

/// The program under test: another build of it where `CAUSEWAY_BIN` names one.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("CAUSEWAY_BIN").map_or_else(|| env!("CARGO_BIN_EXE_causeway").into(), PathBuf::from)
}

/// A running gateway.
pub(crate) struct Gateway {
    command: Command,
    child: Child,
    scratch: Scratch,
    pub(crate) port: u16,
    pub(crate) ops: u16,
}

impl Gateway {
    /// Starts one and waits until it is ready. `settings` are environment variables without their prefix.
    pub(crate) async fn start(nats: &str, settings: &[(&str, &str)]) -> Outcome<Self> {
        let mut gateway = Self::spawn(nats, settings)?;
        gateway.ready().await?;
        Ok(gateway)
    }

    /// Starts one and waits for nothing.
    pub(crate) fn spawn(nats: &str, settings: &[(&str, &str)]) -> Outcome<Self> {
        Self::spawn_in(nats, settings, &[])
    }

    /// The same with more in its environment.
    pub(crate) fn spawn_in(
        nats: &str,
        settings: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Outcome<Self> {
        let scratch = Scratch::new()?;
        let (port, ops) = (free_port()?, free_port()?);
        let log = std::fs::File::create(scratch.0.join("gateway.log"))?;
        let mut command = Command::new(program());
        command
            .arg("serve")
            .env("GW_NATS_URL", nats)
            .env("GW_GATEWAY_PORT", port.to_string())
            .env("GW_OPS_PORT", ops.to_string())
            .env("GW_LOG_LEVEL", "info")
            .current_dir(&scratch.0);
        for dialect in causeway::dialect::ALL
            .iter()
            .filter(|dialect| dialect.name() != "echo")
        {
            command.env(format!("GW_{}_PORT", dialect.name().to_uppercase()), "off");
        }
        for (name, value) in settings {
            command.env(format!("GW_{name}"), value);
        }
        command.envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        Ok(Self {
            command,
            child,
            scratch,
            port,
            ops,
        })
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&mut self) -> Outcome<()> {
        let begun = Instant::now();
        while self.status("/readyz").await != Some(200) {
            let ended = self.exited()?;
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let log = self.log();
                return Err(format!("the gateway is not ready ({ended:?}):\n{log}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// How it ended, if it did.
    pub(crate) fn exited(&mut self) -> Outcome<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.0.join("gateway.log")).unwrap_or_default()
    }

    /// The status of a page of the operations port; `None` when nobody answers.
    pub(crate) async fn status(&self, path: &str) -> Option<u16> {
        let answer = self.get(path).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    /// The value of one metric, all labels summed.
    pub(crate) async fn metric(&self, name: &str) -> Outcome<f64> {
        self.sum(name, |_| true).await
    }

    /// The value of one metric over the series that have these values, separated by spaces, in their labels.
    pub(crate) async fn labelled(&self, name: &str, labels: &str) -> Outcome<f64> {
        let quoted: Vec<String> = labels.split(' ').map(|label| format!("\"{label}\"")).collect();
        self.sum(name, |line| quoted.iter().all(|label| line.contains(label)))
            .await
    }

    async fn sum(&self, name: &str, which: impl Fn(&str) -> bool) -> Outcome<f64> {
        let page = self.get("/metrics").await?;
        let lines = page.lines().filter(|line| !line.starts_with('#') && which(line));
        let ours = lines.filter(|line| line.split(['{', ' ']).next() == Some(name));
        Ok(ours
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    async fn get(&self, path: &str) -> Outcome<String> {
        fetch(self.ops, path).await
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts another one on the same ports, and waits until it is ready.
    pub(crate) async fn restart(&mut self) -> Outcome<()> {
        self.kill()?;
        self.child = self.command.spawn()?;
        self.ready().await
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) -> Outcome<()> {
        signal(&self.child, Signal::TERM)
    }

    /// How it ended.
    pub(crate) async fn ended(&mut self) -> Outcome<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > PATIENCE {
                return Err("the gateway does not end".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> Outcome<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Descriptors it can have before the kernel must make its table of them larger.
    pub(crate) fn descriptor_slots(&self) -> Outcome<usize> {
        Ok(self.status_field("FDSize:")?.parse()?)
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(&self) -> Outcome<f64> {
        self.memory("VmRSS:")
    }

    /// Highest resident memory since [`Gateway::forget_peak`], in MiB.
    pub(crate) fn peak(&self) -> Outcome<f64> {
        self.memory("VmHWM:")
    }

    /// Begins a new measurement of the peak; returns the base.
    pub(crate) fn forget_peak(&self) -> Outcome<f64> {
        // where the kernel does not allow it the peak since the start counts, which is only stricter
        let _refused = std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
        self.resident()
    }

    fn memory(&self, field: &str) -> Outcome<f64> {
        Ok(self.status_field(field)?.parse::<f64>()? / 1024.0)
    }

    fn status_field(&self, field: &str) -> Outcome<String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with(field));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(value.ok_or("unreadable /proc status")?.to_owned())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port nobody holds at this moment and none that was given before: below those that outgoing connections get, one of
/// which could take it between its choice and its use, or while its server is down.
pub(crate) fn free_port() -> Outcome<u16> {
    const FROM: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // programs that run beside each other begin far apart
    let own = std::process::id().wrapping_mul(2_654_435_761);
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FROM + own.wrapping_add(next) % COUNT)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free".into())
}

/// A page over HTTP from this machine, its head included.
pub(crate) async fn fetch(port: u16, path: &str) -> Outcome<String> {
    let ask = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    Ok(timeout(Duration::from_secs(5), ask).await??)
}

/// Every connection is a descriptor here too.
pub(crate) fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("cannot raise the limit of open files: {error}");
    }
}
