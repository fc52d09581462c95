//! Socket.IO beside npm's `socket.io`: what an idle client holds, what one delivery costs when all hear every event.
//!
//! Events come one by one and in groups, for a write costs the same whatever is in it. How much of an event that comes
//! alone is the kernel's price of a write is shown by a process that only writes.
//! Both servers are told by NATS what to say; the clients are the same, by WebSocket in the namespace `/ws`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::bare;
use crate::fanout::{Tally, arrived, deliveries, send};
use crate::idle::{Side, per_connection};
use crate::report::{head, median, row, spread, verdict};
use crate::servers::{Server, Servers, announced};
use crate::socket::{PATIENCE, Socket, TEXT, tick};
use crate::{Outcome, Plan, SPACE};

/// Bytes an idle connection may hold.
const IDLE_BYTES: f64 = 8.0 * 1024.0;
/// CPU of a delivery, against npm's server.
const FANOUT_RATIO: f64 = 0.5;
/// Events of a group: what a progress bar, an answer and the states after it make.
const TOGETHER: u64 = 10;

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

/// A server under measurement and what its deliveries cost.
struct Contender<'s> {
    name: &'static str,
    server: &'s Server,
    /// Where its events are published.
    subject: String,
    tally: Arc<Tally>,
    sent: u64,
    /// Nanoseconds of CPU for each delivery, one entry a burst: events that come alone, and in groups.
    costs: [Vec<f64>; 2],
}

impl<'s> Contender<'s> {
    fn new(name: &'static str, server: &'s Server, subject: String) -> Self {
        Self {
            name,
            server,
            subject,
            tally: Arc::default(),
            sent: 0,
            costs: Default::default(),
        }
    }
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
    let bare = bare::start(&servers.url).await?;
    println!("socket.io: idle connections ...");
    // memory first, while both heaps are as fresh as they get
    let idle = match &servers.gateway {
        Some(server) => Some(per_connection(plan, server, Side::SocketIo).await?),
        None => None,
    };
    let idle_npm = per_connection(plan, &npm, Side::SocketIo).await?;
    println!("socket.io: fan-out ...");
    let mut sides = vec![
        Contender::new("socket.io", &npm, "bench.io".to_owned()),
        Contender::new("bare writes", &bare, bare::SUBJECT.to_owned()),
    ];
    if let Some(server) = &servers.gateway {
        let subject = format!("gw.v1.evt.{SPACE}.assistant.bench");
        sides.push(Contender::new("gateway", server, subject));
    }
    fan_out(plan, &servers.url, &mut sides).await?;
    head("socket.io");
    row(
        "idle memory, KB a connection",
        idle.map(|bytes| bytes / 1024.0),
        idle_npm / 1024.0,
        idle.map(|bytes| verdict("<= 8 KB", bytes <= IDLE_BYTES)),
    );
    let [npm, bare, gateway] = [0, 1, 2].map(|side| Costs::of(sides.get(side)));
    let target = |ours: f64, theirs: f64| verdict("<= 0.5 x", ours <= FANOUT_RATIO * theirs);
    let line = |name, ours: Option<f64>, theirs: Option<f64>, judged: bool| {
        let theirs = theirs.unwrap_or(f64::NAN);
        let verdict = ours.filter(|_| judged).map(|ours| target(ours, theirs));
        row(name, ours.map(|ns| ns / 1e3), theirs / 1e3, verdict);
    };
    line("fan-out, us CPU a delivery", gateway.mean(), npm.mean(), true);
    line("  events that come alone", gateway.alone, npm.alone, true);
    line("    of that, a bare write", bare.alone, npm.alone, false);
    line("  ten at a time", gateway.together, npm.together, true);
    for side in &sides {
        for (costs, how) in side.costs.iter().zip(["alone", "ten at a time"]) {
            spread(&format!("{}, {how}", side.name), costs);
        }
    }
    Ok(())
}

/// Medians of one side.
#[derive(Clone, Copy, Default)]
struct Costs {
    alone: Option<f64>,
    together: Option<f64>,
}

impl Costs {
    fn of(side: Option<&Contender<'_>>) -> Self {
        side.map_or_else(Self::default, |side| Self {
            alone: median(&side.costs[0]),
            together: median(&side.costs[1]),
        })
    }

    /// A delivery of either kind; as many of each were made.
    fn mean(self) -> Option<f64> {
        Some(f64::midpoint(self.alone?, self.together?))
    }
}

/// Connects all clients of all sides once, then sends bursts to each by turns.
async fn fan_out(plan: &Plan, nats: &str, sides: &mut [Contender<'_>]) -> Outcome<()> {
    let publisher = async_nats::connect(nats).await?;
    let mut tasks = JoinSet::new();
    for side in sides.iter() {
        for _ in 0..plan.clients {
            let client = IoSocket::open(side.server.websocket).await?;
            tasks.spawn(hear(client, side.tally.clone()));
        }
    }
    // greetings are not deliveries
    sleep(Duration::from_secs(1)).await;
    // the first burst on each side warms up
    for burst in 0..=plan.repeats {
        for (kind, together) in [1, TOGETHER].into_iter().enumerate() {
            for side in sides.iter_mut() {
                let before = side.server.cpu()?;
                send(plan, &publisher, &side.subject, &mut side.sent, together).await?;
                arrived(plan, &side.tally, side.sent, &mut tasks).await?;
                if burst > 0 {
                    side.costs[kind].push((side.server.cpu()? - before) / deliveries(plan));
                }
            }
        }
    }
    sides.iter().try_for_each(|side| side.tally.exact(side.name))
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

/// npm's server.
async fn start_npm(modules: &std::path::Path, nats: &str) -> Outcome<Server> {
    let child = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/socketio.mjs"))
        .env("CAUSEWAY_NODE", modules.parent().unwrap_or(modules))
        .env("NATS_URL", nats)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("node does not start ({error}); make setup installs it"))?;
    announced(child).await
}
