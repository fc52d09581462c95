//! A command there and back: through the gateway, and as a NATS request over nats-server's WebSocket.

use std::time::{Duration, Instant};

use async_nats::service::ServiceExt;
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use tokio::time::timeout;

use crate::nats::NatsSocket;
use crate::servers::{Server, Servers};
use crate::socket::{PATIENCE, Socket, TEXT, tick};
use crate::{Outcome, Plan, SPACE};

/// Times of both roads to the same worker.
pub(crate) struct Roundtrip {
    pub(crate) gateway: Option<Times>,
    /// The gateway's CPU for one command, in nanoseconds.
    pub(crate) cpu: Option<f64>,
    pub(crate) nats: Times,
}

/// Nanoseconds.
pub(crate) struct Times {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Commands in one block before the other side has its turn.
const BLOCK: u64 = 100;

/// Runs both by turns, so that a busy moment of the machine meets both alike.
pub(crate) async fn measure(plan: &Plan, servers: &Servers) -> Outcome<Roundtrip> {
    let worker = tokio::spawn(worker(async_nats::connect(&servers.url).await?));
    let mut nats = NatsSocket::open(servers.nats.websocket).await?;
    nats.subscribe("_INBOX.bench.*").await?;
    let mut gateway = match &servers.gateway {
        Some(server) => Some(Socket::open(server.websocket, &format!("/events/{SPACE}")).await?),
        None => None,
    };
    let mut times = [Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?];
    wait_for_worker(&mut nats).await?;
    let cpu = || servers.gateway.as_ref().map(Server::cpu).transpose();
    let mut before = cpu()?;
    // the first block on each side warms up
    for block in 0..=plan.calls / BLOCK {
        for tick in block * BLOCK..(block + 1) * BLOCK {
            let time = timeout(PATIENCE, ask_nats(&mut nats, tick)).await??;
            if block > 0 {
                times[0].record(time.as_nanos() as u64)?;
            }
        }
        if block == 1 {
            before = cpu()?;
        }
        let Some(gateway) = &mut gateway else { continue };
        for tick in block * BLOCK..(block + 1) * BLOCK {
            let time = timeout(PATIENCE, ask_gateway(gateway, tick)).await??;
            if block > 0 {
                times[1].record(time.as_nanos() as u64)?;
            }
        }
    }
    worker.abort();
    let asked = (plan.calls / BLOCK * BLOCK) as f64;
    let cpu = before.zip(cpu()?).map(|(before, after)| (after - before) / asked);
    let [nats, through] = times.map(|histogram| Times {
        p50: histogram.value_at_quantile(0.5) as f64,
        p99: histogram.value_at_quantile(0.99) as f64,
    });
    Ok(Roundtrip {
        gateway: gateway.map(|_| through),
        cpu,
        nats,
    })
}

/// Answers every command of service `voice` with the body it came with.
pub(crate) async fn worker(client: async_nats::Client) -> Outcome<()> {
    let service = client
        .service_builder()
        .queue_group("voice")
        .start("voice", "0.0.1")
        .await?;
    let endpoint = service.endpoint_builder().name("echo");
    let mut commands = endpoint.add("gw.v1.cmd.*.voice.*").await?;
    while let Some(command) = commands.next().await {
        let body = command.message.payload.clone();
        command.respond(Ok(body)).await?;
    }
    Ok(())
}

/// The worker's subscription is known to the server once an answer came.
async fn wait_for_worker(nats: &mut NatsSocket) -> Outcome<()> {
    let begun = Instant::now();
    // without a worker the answer is a status line, which the client reports as a refusal
    while ask_nats(nats, 0).await.is_err() {
        if begun.elapsed() > PATIENCE {
            return Err("the bench worker does not answer".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn ask_nats(client: &mut NatsSocket, number: u64) -> Outcome<Duration> {
    let body = format!("{{\"tick\":{number}}}");
    let request = format!(
        "PUB gw.v1.cmd.{SPACE}.voice.get_system_info _INBOX.bench.{number} {}\r\n{body}\r\n",
        body.len()
    );
    let begun = Instant::now();
    client.say(request.as_bytes()).await?;
    while tick(client.next().await?) != Some(number) {}
    Ok(begun.elapsed())
}

/// Asks and waits for the answer.
pub(crate) async fn ask_gateway(client: &mut Socket, number: u64) -> Outcome<Duration> {
    let command = format!("{{\"type\":\"get_system_info\",\"data\":{{\"tick\":{number}}}}}");
    let begun = Instant::now();
    client.send(TEXT, command.as_bytes()).await?;
    loop {
        let frame = client.next().await?;
        if tick(frame) == Some(number) {
            return Ok(begun.elapsed());
        }
        // anything typed `error` is the end of the comparison; greetings and notices pass
        if frame.starts_with(b"{\"type\":\"error\"") {
            return Err(String::from_utf8_lossy(frame).into_owned().into());
        }
    }
}
