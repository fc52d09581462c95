//! What one delivery costs when a thousand clients hear every event: CPU of the servers, not of the clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::nats::NatsSocket;
use crate::servers::Servers;
use crate::socket::{PATIENCE, Socket, tick};
use crate::{Outcome, Plan, SPACE};

/// Nanoseconds of CPU for each delivery, one entry a burst.
#[derive(Default)]
pub(crate) struct Fanout {
    /// The gateway's own.
    pub(crate) gateway: Vec<f64>,
    /// What the broker behind the gateway spent meanwhile, storing included.
    pub(crate) broker: Vec<f64>,
    /// nats-server serving the clients itself.
    pub(crate) nats: Vec<f64>,
}

/// What all clients of one side have got so far.
#[derive(Default)]
pub(crate) struct Tally {
    delivered: AtomicU64,
    /// Events that came out of turn: a side that loses or repeats is no side to compare with.
    astray: AtomicU64,
}

impl Tally {
    /// Notes an event and returns what must come next.
    pub(crate) fn note(&self, expected: Option<u64>, number: u64) -> u64 {
        if expected.is_some_and(|expected| expected != number) {
            self.astray.fetch_add(1, Ordering::Relaxed);
        }
        self.delivered.fetch_add(1, Ordering::Relaxed);
        number + 1
    }

    /// A side that loses, repeats or reorders fails the run.
    pub(crate) fn exact(&self, side: &str) -> Outcome<()> {
        match self.astray.load(Ordering::Relaxed) {
            0 => Ok(()),
            astray => Err(format!("{astray} events came out of turn through {side}").into()),
        }
    }
}

/// Connects all clients of both sides once, then sends bursts to each by turns.
pub(crate) async fn measure(plan: &Plan, servers: &Servers) -> Outcome<Fanout> {
    let publisher = async_nats::connect(&servers.url).await?;
    let mut tasks = JoinSet::new();
    let nats = Arc::new(Tally::default());
    for _ in 0..plan.clients {
        let mut client = NatsSocket::open(servers.nats.websocket).await?;
        client.subscribe("bench.fan").await?;
        tasks.spawn(hear_nats(client, nats.clone()));
    }
    let gateway = Arc::new(Tally::default());
    if let Some(server) = &servers.gateway {
        for _ in 0..plan.clients {
            let client = Socket::open(server.websocket, &format!("/events/{SPACE}")).await?;
            tasks.spawn(hear_gateway(client, gateway.clone()));
        }
    }
    // greetings are not deliveries
    sleep(Duration::from_secs(1)).await;

    let mut found = Fanout::default();
    let (mut through_nats, mut through_gateway) = (0, 0);
    // the first burst on each side warms up
    for burst in 0..=plan.repeats {
        let before = servers.nats.cpu()?;
        send(plan, &publisher, "bench.fan", &mut through_nats, 1).await?;
        arrived(plan, &nats, through_nats, &mut tasks).await?;
        if burst > 0 {
            found.nats.push((servers.nats.cpu()? - before) / deliveries(plan));
        }
        let Some(server) = &servers.gateway else { continue };
        let (before, broker) = (server.cpu()?, servers.nats.cpu()?);
        let subject = format!("gw.v1.evt.{SPACE}.voice.bench");
        send(plan, &publisher, &subject, &mut through_gateway, 1).await?;
        arrived(plan, &gateway, through_gateway, &mut tasks).await?;
        if burst > 0 {
            found.gateway.push((server.cpu()? - before) / deliveries(plan));
            found
                .broker
                .push((servers.nats.cpu()? - broker) / deliveries(plan));
        }
    }
    nats.exact("nats-server")?;
    gateway.exact("gateway")?;
    Ok(found)
}

/// Deliveries in one burst.
pub(crate) fn deliveries(plan: &Plan) -> f64 {
    plan.clients as f64 * plan.events as f64
}

async fn hear_nats(mut client: NatsSocket, tally: Arc<Tally>) -> Outcome<()> {
    let mut expected = None;
    loop {
        if let Some(number) = tick(client.next().await?) {
            expected = Some(tally.note(expected, number));
        }
    }
}

/// Hears events through a gateway.
pub(crate) async fn hear_gateway(mut client: Socket, tally: Arc<Tally>) -> Outcome<()> {
    let mut expected = None;
    loop {
        if let Some(number) = tick(client.next().await?) {
            expected = Some(tally.note(expected, number));
        }
    }
}

/// One burst, `together` events at a time, evenly spread; a machine that falls behind sends later, never faster.
pub(crate) async fn send(
    plan: &Plan,
    publisher: &async_nats::Client,
    subject: &str,
    next: &mut u64,
    together: u64,
) -> Outcome<()> {
    let mut pace = interval(Duration::from_secs(together) / u32::try_from(plan.rate.max(1))?);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for nth in 0..plan.events {
        if nth.is_multiple_of(together) {
            pace.tick().await;
        }
        // both sides get the same payload and the same headers: the size of a spoken sentence
        let body = format!(
            "{{\"tick\":{next},\"text\":\"the quick brown fox jumps over the lazy dog, and does so again and again until the sentence is long enough\",\"confidence\":0.91,\"duration_seconds\":0.7,\"language\":\"en\"}}"
        );
        let mut headers = HeaderMap::new();
        if subject.starts_with("gw.") {
            headers.insert("Nats-Msg-Id", format!("{subject}-{next}"));
        }
        let body = Bytes::from(body);
        let sent = if headers.is_empty() {
            publisher.publish(subject.to_owned(), body).await
        } else {
            publisher
                .publish_with_headers(subject.to_owned(), headers, body)
                .await
        };
        sent?;
        *next += 1;
    }
    timeout(PATIENCE, publisher.flush()).await??;
    Ok(())
}

/// Waits until every client has every event, and fails when that stops getting nearer.
pub(crate) async fn arrived(
    plan: &Plan,
    tally: &Tally,
    sent: u64,
    tasks: &mut JoinSet<Outcome<()>>,
) -> Outcome<()> {
    let wanted = plan.clients as u64 * sent;
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let delivered = tally.delivered.load(Ordering::Relaxed);
        if delivered >= wanted {
            return Ok(());
        }
        if let Some(ended) = tasks.try_join_next() {
            ended??;
        }
        if delivered > seen {
            (seen, since) = (delivered, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return Err(format!("{delivered} of {wanted} deliveries, and no more come").into());
        }
        sleep(Duration::from_millis(5)).await;
    }
}
