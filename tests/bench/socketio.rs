//! Socket.IO beside npm's `socket.io`: what an idle client holds, what one delivery costs when all hear every event.
//!
//! Both servers are told by NATS what to say; the clients are the same, by WebSocket in the namespace `/ws`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::fanout::{Tally, arrived, deliveries, send};
use crate::idle::{Side, per_connection};
use crate::report::{head, median, row, spread, verdict};
use crate::servers::{Server, Servers};
use crate::socket::{PATIENCE, Socket, TEXT, tick};
use crate::{Outcome, Plan, SPACE};

/// Bytes an idle connection may hold.
const IDLE_BYTES: f64 = 8.0 * 1024.0;
/// CPU of a delivery, against npm's server.
const FANOUT_RATIO: f64 = 0.5;

/// A Socket.IO client in the namespace `/ws`.
pub(crate) struct IoSocket(Socket);

impl IoSocket {
    /// Connects by WebSocket and joins.
    pub(crate) async fn open(address: SocketAddr) -> Outcome<Self> {
        let path = format!("/socket.io/?EIO=4&transport=websocket&space={SPACE}");
        let mut client = Self(Socket::open(address, &path).await?);
        timeout(PATIENCE, async {
            while !client.next().await?.starts_with(b"0{") {}
            client.0.send(TEXT, b"40/ws,").await?;
            while !client.next().await?.starts_with(b"40/ws,{") {}
            Outcome::Ok(())
        })
        .await??;
        Ok(client)
    }

    /// The next packet; answers the engine's pings on the way. Waits as long as it takes.
    pub(crate) async fn next(&mut self) -> Outcome<&[u8]> {
        loop {
            if self.0.next().await? != b"2" {
                return Ok(self.0.last());
            }
            self.0.send(TEXT, b"3").await?;
        }
    }
}

/// Nanoseconds of CPU for each delivery, one entry a burst.
#[derive(Default)]
struct Costs {
    gateway: Vec<f64>,
    npm: Vec<f64>,
}

/// Measures and prints.
pub(crate) async fn run(plan: &Plan) -> Outcome<()> {
    let modules = modules();
    if !modules.join("socket.io").is_dir() {
        println!();
        println!(
            "socket.io: left out, {} has none; `make setup` installs it",
            modules.display()
        );
        return Ok(());
    }
    let servers = Servers::start(plan).await?;
    let npm = start_npm(&modules, &servers.url).await?;
    println!("socket.io: idle connections ...");
    // memory first, while both heaps are as fresh as they get
    let idle = match &servers.gateway {
        Some(server) => Some(per_connection(plan, server, Side::SocketIo).await?),
        None => None,
    };
    let idle_npm = per_connection(plan, &npm, Side::SocketIo).await?;
    println!("socket.io: fan-out ...");
    let costs = fan_out(plan, &servers, &npm).await?;
    head("socket.io");
    row(
        "idle memory, KB a connection",
        idle.map(|bytes| bytes / 1024.0),
        idle_npm / 1024.0,
        idle.map(|bytes| verdict("<= 8 KB", bytes <= IDLE_BYTES)),
    );
    let theirs = median(&costs.npm).unwrap_or(f64::NAN);
    let ours = median(&costs.gateway);
    row(
        "fan-out, us CPU a delivery",
        ours.map(|ns| ns / 1e3),
        theirs / 1e3,
        ours.map(|ns| verdict("<= 0.5 x", ns <= FANOUT_RATIO * theirs)),
    );
    spread("gateway", &costs.gateway);
    spread("socket.io", &costs.npm);
    Ok(())
}

/// Connects all clients of both sides once, then sends bursts to each by turns.
async fn fan_out(plan: &Plan, servers: &Servers, npm: &Server) -> Outcome<Costs> {
    let publisher = async_nats::connect(&servers.url).await?;
    let mut tasks = JoinSet::new();
    let event = format!("gw.v1.evt.{SPACE}.assistant.bench");
    let mut sides = vec![(
        "socket.io",
        npm,
        "bench.io",
        Arc::new(Tally::default()),
        0,
        Vec::new(),
    )];
    if let Some(server) = &servers.gateway {
        sides.push((
            "gateway",
            server,
            &event,
            Arc::new(Tally::default()),
            0,
            Vec::new(),
        ));
    }
    for (_, server, _, tally, ..) in &sides {
        for _ in 0..plan.clients {
            tasks.spawn(hear(IoSocket::open(server.websocket).await?, tally.clone()));
        }
    }
    // greetings are not deliveries
    sleep(Duration::from_secs(1)).await;
    // the first burst on each side warms up
    for burst in 0..=plan.repeats {
        for (_, server, subject, tally, sent, costs) in &mut sides {
            let before = server.cpu()?;
            send(plan, &publisher, subject, sent).await?;
            arrived(plan, tally, *sent, &mut tasks).await?;
            if burst > 0 {
                costs.push((server.cpu()? - before) / deliveries(plan));
            }
        }
    }
    let mut found = Costs::default();
    for (name, _, _, tally, _, costs) in sides {
        tally.exact(name)?;
        match name {
            "gateway" => found.gateway = costs,
            _ => found.npm = costs,
        }
    }
    Ok(found)
}

async fn hear(mut client: IoSocket, tally: Arc<Tally>) -> Outcome<()> {
    let mut expected = None;
    loop {
        if let Some(number) = tick(client.next().await?) {
            expected = Some(tally.note(expected, number));
        }
    }
}

/// Where `make setup` puts packages.
fn modules() -> PathBuf {
    std::env::var_os("CAUSEWAY_NODE_MODULES").map_or_else(
        || {
            let home = std::env::var_os("HOME").map_or_else(PathBuf::new, PathBuf::from);
            let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
            cache.join("causeway/node/node_modules")
        },
        PathBuf::from,
    )
}

/// npm's server; it says its port once it listens and hears NATS.
async fn start_npm(modules: &std::path::Path, nats: &str) -> Outcome<Server> {
    let mut child = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/socketio.mjs"))
        .env("CAUSEWAY_NODE", modules.parent().unwrap_or(modules))
        .env("NATS_URL", nats)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("node does not start ({error}); make setup installs it"))?;
    let said = child.stdout.take();
    let mut server = Server::new(child, 0);
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        said.map(|said| BufReader::new(said).read_line(&mut line));
        line
    });
    let line = timeout(PATIENCE, line).await??;
    let port: u16 = line.trim().parse().map_err(|_| "npm's server said no port")?;
    server.websocket.set_port(port);
    Ok(server)
}
