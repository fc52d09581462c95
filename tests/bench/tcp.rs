//! Commands of scripting clients on raw TCP beside the same request sent to NATS itself, to the same worker.
//!
//! Both are asked by the same client code over plain TCP, one command at a time on each connection, by turns.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_nats::service::ServiceExt;
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::report::{head, median, row};
use crate::servers::Servers;
use crate::socket::{PATIENCE, find, tick};
use crate::{Outcome, Plan};

/// Connections at once.
const CONNECTIONS: usize = 50;
/// Commands in one block before the other side has its turn.
const BLOCK: u64 = 100;

/// What a connection speaks.
#[derive(Clone, Copy)]
enum Side {
    /// JSON documents, to the gateway.
    Gateway,
    /// The broker's own protocol.
    Nats,
}

/// One connection of either side.
struct Line {
    side: Side,
    stream: TcpStream,
    inbox: Vec<u8>,
    /// Makes reply subjects its own.
    name: usize,
}

impl Line {
    async fn open(side: Side, address: SocketAddr, name: usize) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let inbox = Vec::with_capacity(4096);
        let mut line = Self {
            side,
            stream,
            inbox,
            name,
        };
        if let Side::Nats = side {
            let hello = format!(
                "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB _INBOX.tcp{name}.* 1\r\nPING\r\n"
            );
            line.stream.write_all(hello.as_bytes()).await?;
            while find(&line.inbox, b"PONG\r\n").is_none() {
                line.fill().await?;
            }
        }
        Ok(line)
    }

    async fn fill(&mut self) -> Outcome<()> {
        if self.stream.read_buf(&mut self.inbox).await? == 0 {
            return Err("the server hung up".into());
        }
        Ok(())
    }

    /// A command there and back.
    async fn ask(&mut self, number: u64) -> Outcome<Duration> {
        let body = format!("{{\"tick\":{number}}}");
        let request = match self.side {
            Side::Gateway => format!("{{\"type\":\"ping\",\"params\":{body}}}"),
            Side::Nats => {
                let (name, size) = (self.name, body.len());
                format!("PUB gw.v1.cmd.main.blender.ping _INBOX.tcp{name}.{number} {size}\r\n{body}\r\n")
            }
        };
        self.inbox.clear();
        let begun = Instant::now();
        self.stream.write_all(request.as_bytes()).await?;
        loop {
            self.fill().await?;
            if tick(&self.inbox) == Some(number) && self.inbox.ends_with(self.end()) {
                return Ok(begun.elapsed());
            }
            if find(&self.inbox, b"\"status\":\"error\"").is_some() || find(&self.inbox, b"-ERR").is_some() {
                return Err(String::from_utf8_lossy(&self.inbox).into_owned().into());
            }
            if find(&self.inbox, b"PING\r\n").is_some() {
                self.stream.write_all(b"PONG\r\n").await?;
                self.inbox.clear();
            }
        }
    }

    fn end(&self) -> &'static [u8] {
        match self.side {
            Side::Gateway => b"}",
            Side::Nats => b"}\r\n",
        }
    }
}

/// What one side did.
struct Figures {
    times: Histogram<u64>,
    /// Commands a second over all connections, one entry a burst.
    rate: Vec<f64>,
    /// Nanoseconds of CPU for each of them: the gateway's, the broker's.
    cpu: [Vec<f64>; 2],
}

/// Measures and prints.
pub(crate) async fn run(plan: &Plan) -> Outcome<()> {
    let servers = Servers::start(plan).await?;
    let Some(gateway) = &servers.gateway else {
        return Ok(());
    };
    println!("tcp: commands ...");
    let worker = tokio::spawn(worker(async_nats::connect(&servers.url).await?));
    let nats: SocketAddr = servers.url.trim_start_matches("nats://").parse()?;
    let sides = [(Side::Gateway, gateway.websocket), (Side::Nats, nats)];
    let mut figures = Vec::new();
    let mut single = Vec::new();
    for (side, address) in sides {
        let mut line = Line::open(side, address, CONNECTIONS).await?;
        await_worker(&mut line).await?;
        single.push(line);
        figures.push(Figures {
            times: Histogram::new(3)?,
            rate: Vec::new(),
            cpu: Default::default(),
        });
    }
    // the first block on each side warms up
    for block in 0..=plan.calls / BLOCK {
        for (line, found) in single.iter_mut().zip(&mut figures) {
            for number in block * BLOCK..(block + 1) * BLOCK {
                let time = timeout(PATIENCE, line.ask(number)).await??;
                if block > 0 {
                    found.times.record(time.as_nanos() as u64)?;
                }
            }
        }
    }
    println!("tcp: {CONNECTIONS} connections ...");
    for _ in 0..plan.repeats {
        for ((side, address), found) in sides.iter().zip(&mut figures) {
            let before = [gateway.cpu()?, servers.nats.cpu()?];
            let begun = Instant::now();
            let commands = burst(*side, *address, plan.calls).await? as f64;
            found.rate.push(commands / begun.elapsed().as_secs_f64());
            let after = [gateway.cpu()?, servers.nats.cpu()?];
            for (at, costs) in found.cpu.iter_mut().enumerate() {
                costs.push((after[at] - before[at]) / commands);
            }
        }
    }
    worker.abort();
    if let [through, direct] = &figures[..] {
        print(through, direct);
    }
    Ok(())
}

/// The worker answers once it is known to the broker, and through the gateway to its directory too.
async fn await_worker(line: &mut Line) -> Outcome<()> {
    let begun = Instant::now();
    loop {
        // NATS itself says nothing when nobody listens to a client that did not ask to be told
        match timeout(Duration::from_secs(1), line.ask(0)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) if begun.elapsed() > PATIENCE => return Err(error),
            Err(_) if begun.elapsed() > PATIENCE => return Err("the bench worker does not answer".into()),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// All connections ask at once, each one command after the other; returns how many commands were answered.
async fn burst(side: Side, address: SocketAddr, calls: u64) -> Outcome<u64> {
    let each = (calls / CONNECTIONS as u64).max(1) * 5;
    let mut lines = JoinSet::new();
    for name in 0..CONNECTIONS {
        let mut line = Line::open(side, address, name).await?;
        lines.spawn(async move {
            for number in 1..=each {
                timeout(PATIENCE, line.ask(number)).await??;
            }
            Outcome::Ok(each)
        });
    }
    let mut answered = 0;
    while let Some(done) = lines.join_next().await {
        answered += done??;
    }
    Ok(answered)
}

/// Answers every command of service `blender` with what it came with.
async fn worker(client: async_nats::Client) -> Outcome<()> {
    let service = client
        .service_builder()
        .queue_group("blender")
        .start("blender", "0.0.1")
        .await?;
    let endpoint = service.endpoint_builder().name("ping");
    let mut commands = endpoint.add("gw.v1.cmd.*.blender.*").await?;
    while let Some(command) = commands.next().await {
        let body = [b"{\"result\":", &command.message.payload[..], b"}"].concat();
        command.respond(Ok(body.into())).await?;
    }
    Ok(())
}

fn print(through: &Figures, direct: &Figures) {
    let quantile = |found: &Figures, at| found.times.value_at_quantile(at) as f64 / 1e3;
    let middle = |values: &[f64]| median(values).unwrap_or(f64::NAN);
    head("NATS itself");
    let (ours, theirs) = (quantile(through, 0.5), quantile(direct, 0.5));
    row("TCP command round trip p50, us", Some(ours), theirs, None);
    let (ours, theirs) = (quantile(through, 0.99), quantile(direct, 0.99));
    row("TCP command round trip p99, us", Some(ours), theirs, None);
    let name = format!("commands a second, {CONNECTIONS} at once");
    row(&name, Some(middle(&through.rate)), middle(&direct.rate), None);
    let [gateway, beside] = through.cpu.each_ref().map(|costs| middle(costs) / 1e3);
    let broker = middle(&direct.cpu[1]) / 1e3;
    row("CPU a command, us", Some(gateway), broker, None);
    row("  with the broker's share", Some(gateway + beside), broker, None);
}
