//! Real nats-servers, alone or three in a cluster, that are killed, paused and started again.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::{self, stream};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::process::{Scratch, fetch, free_port, signal};
use crate::small_disk::{self, SmallDisk};
use crate::{Outcome, PATIENCE};

/// One server.
pub(crate) struct Nats {
    child: Option<Child>,
    scratch: Scratch,
    pub(crate) name: String,
    pub(crate) port: u16,
    /// The process whose disk it is to see.
    within: Option<u32>,
}

impl Nats {
    /// Alone.
    pub(crate) async fn start() -> Outcome<Self> {
        Self::with("alone".to_owned(), free_port()?, "").await
    }

    /// Alone on a given port.
    pub(crate) async fn start_at(port: u16) -> Outcome<Self> {
        Self::with("alone".to_owned(), port, "").await
    }

    /// Alone, its store on a disk that can be filled.
    pub(crate) async fn start_on(disk: &SmallDisk) -> Outcome<Self> {
        let scratch = Scratch::new()?;
        let port = free_port()?;
        let store = disk.path().join("store");
        // it must not know how little there is, or it refuses before the disk does
        let limits = "max_file_store: 16GiB, max_memory_store: 64MiB";
        let config = format!(
            "server_name: alone\nlisten: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\", {limits} }}\n",
            store.display()
        );
        std::fs::write(scratch.0.join("nats.conf"), config)?;
        let mut server = Self {
            child: None,
            scratch,
            name: "alone".to_owned(),
            port,
            within: Some(disk.holder()),
        };
        server.restart().await?;
        Ok(server)
    }

    /// Three with a common cluster.
    pub(crate) async fn cluster() -> Outcome<Vec<Self>> {
        let routes = [free_port()?, free_port()?, free_port()?];
        let list = routes.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
        let mut servers = Vec::new();
        for (at, route) in routes.iter().enumerate() {
            let cluster = format!(
                "cluster {{ name: faults, listen: \"127.0.0.1:{route}\", routes: [{list}], no_advertise: true }}\n"
            );
            servers.push(Self::with(format!("n{at}"), free_port()?, &cluster).await?);
        }
        Ok(servers)
    }

    /// Alone, and it can be asked how it is.
    pub(crate) async fn watched() -> Outcome<(Self, u16)> {
        let monitor = free_port()?;
        let extra = format!("http: \"127.0.0.1:{monitor}\"\n");
        let server = Self::with("alone".to_owned(), free_port()?, &extra).await?;
        Ok((server, monitor))
    }

    async fn with(name: String, port: u16, extra: &str) -> Outcome<Self> {
        let scratch = Scratch::new()?;
        let store = scratch.0.join("store");
        let config = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n{extra}",
            store.display()
        );
        std::fs::write(scratch.0.join("nats.conf"), config)?;
        let mut server = Self {
            child: None,
            scratch,
            name,
            port,
            within: None,
        };
        server.restart().await?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A client that is no gateway's.
    pub(crate) async fn client(&self) -> Outcome<Client> {
        Ok(async_nats::connect(self.url()).await?)
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it (again) on the same port with the same store.
    pub(crate) async fn restart(&mut self) -> Outcome<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.scratch.0.join("nats.log"))?;
        let mut command = match self.within {
            Some(holder) => small_disk::within(holder, "nats-server"),
            None => Command::new("nats-server"),
        };
        let child = command
            .arg("-c")
            .arg(self.scratch.0.join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("nats-server does not start ({error}); make setup installs it"))?;
        self.child = Some(child);
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if begun.elapsed() > PATIENCE {
                return Err("nats-server does not listen".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// It stands still but keeps its connections.
    pub(crate) fn pause(&self) -> Outcome<()> {
        self.child
            .as_ref()
            .map_or(Ok(()), |child| signal(child, Signal::STOP))
    }

    pub(crate) fn resume(&self) -> Outcome<()> {
        self.child
            .as_ref()
            .map_or(Ok(()), |child| signal(child, Signal::CONT))
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Subscriptions that a server serves.
pub(crate) async fn subscriptions(monitor: u16) -> Outcome<u64> {
    let page = fetch(monitor, "/varz").await?;
    let body = page.split("\r\n\r\n").nth(1).ok_or("no body")?;
    let figures: serde_json::Value = serde_json::from_str(body)?;
    Ok(figures["subscriptions"].as_u64().ok_or("no subscriptions")?)
}

/// Asks a stream until it answers.
pub(crate) async fn info(client: &Client, name: &str) -> Outcome<stream::Info> {
    let context = jetstream::new(client.clone());
    let begun = Instant::now();
    loop {
        match context.get_stream(name).await {
            Ok(stream) => return Ok(stream.cached_info().clone()),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
