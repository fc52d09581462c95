//! A real nats-server of a test's own: free port, scratch store, killed, paused and restarted by its own handle.
#![allow(dead_code, unreachable_pub, clippy::expect_used)] // each test target uses a part of this

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use causeway::bus::{Bus, BusError};
use causeway::config;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test gives up. Generous: machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; ends with the value.
pub struct Server {
    child: Child,
    scratch: PathBuf,
    pub port: u16,
}

impl Server {
    /// With JetStream.
    pub async fn start() -> Self {
        Self::with("jetstream { store_dir: \"STORE\" }").await
    }

    /// With a configuration of its own; `STORE` stands for the scratch directory.
    pub async fn with(extra: &str) -> Self {
        Self::on(0, extra).await
    }

    /// On a given port (0 = any).
    pub async fn on(port: u16, extra: &str) -> Self {
        let scratch = std::env::temp_dir().join(format!("causeway-nats-{}", ulid::Ulid::new()));
        std::fs::create_dir_all(&scratch).expect("scratch directory");
        let store = scratch.join("store");
        let extra = extra.replace("STORE", &store.display().to_string());
        std::fs::write(scratch.join("nats.conf"), extra).expect("configuration");
        let child = spawn(&scratch, port);
        let mut server = Self { child, scratch, port };
        server.learn_port().await;
        server
    }

    async fn learn_port(&mut self) {
        let file = self
            .scratch
            .join(format!("nats-server_{}.ports", self.child.id()));
        for _ in 0..600 {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let ports: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let url = ports["nats"][0].as_str().unwrap_or_default();
            if let Some(port) = url.rsplit(':').next().and_then(|port| port.parse().ok()) {
                self.port = port;
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("nats-server did not start");
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A client that is not the gateway.
    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.expect("connect")
    }

    pub fn settings(&self) -> config::Nats {
        config::Nats {
            url: vec![self.url()],
            ..config::Nats::default()
        }
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Starts it again on the same port, with the same store.
    pub async fn restart(&mut self) {
        self.child = spawn(&self.scratch, self.port);
        self.learn_port().await;
    }

    /// Returns when it stands still.
    pub async fn pause(&self) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/stat", self.child.id());
        let stopped = || std::fs::read_to_string(&status).expect("stat").contains(") T ");
        while !stopped() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signal");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

fn spawn(scratch: &std::path::Path, port: u16) -> Child {
    let port = if port == 0 {
        "-1".to_owned()
    } else {
        port.to_string()
    };
    Command::new("nats-server")
        .args(["-a", "127.0.0.1", "-p", &port, "-c"])
        .arg(scratch.join("nats.conf"))
        .arg("--ports_file_dir")
        .arg(scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server must be installed: apt-get install nats-server")
}

/// A port nobody uses right now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").port()
}

/// What a bus is configured with, at the defaults.
pub struct Plan {
    pub nats: config::Nats,
    pub events: config::Events,
    pub commands: config::Commands,
}

impl Plan {
    pub fn at(server: &Server) -> Self {
        Self {
            nats: server.settings(),
            events: config::Config::defaults().events,
            commands: config::Commands {
                deadline: Duration::from_secs(30),
                limit: Duration::from_secs(300),
                limits: std::iter::once(("blender".to_owned(), Duration::from_secs(3600))).collect(),
                per_connection: 256,
                per_service: 4096,
                start: std::collections::BTreeMap::new(),
            },
        }
    }

    pub async fn connect(&self) -> Result<Bus, BusError> {
        let start = Bus::connect(&self.nats, &self.events, &self.commands, "gw-test");
        tokio::time::timeout(PATIENCE, start)
            .await
            .expect("start is bounded")
    }
}

/// Waits for something under the common patience.
pub async fn patiently<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it did not happen in time")
}
