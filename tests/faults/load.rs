//! What other producers do: events stored one after the other, each until it is confirmed, with the same id.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::Outcome;

/// Topics the events rotate over: a loss must show whatever comes next.
const TOPICS: u64 = 5;

/// A producer at a steady rate.
pub(crate) struct Load {
    stop: CancellationToken,
    stored: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<u64>,
}

impl Load {
    /// Starts to publish `rate` events a second of about `size` bytes.
    pub(crate) fn start(client: Client, rate: u32, size: usize) -> Self {
        let (stop, stored) = (CancellationToken::new(), Arc::<AtomicU64>::default());
        let producer = produce(client, rate, size, stop.clone(), stored.clone());
        Self {
            stop,
            stored,
            task: tokio::spawn(producer),
        }
    }

    /// Events confirmed so far.
    pub(crate) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Waits until so many more are confirmed.
    pub(crate) async fn more(&self, count: u64) -> Outcome<()> {
        let target = self.stored() + count;
        timeout(crate::PATIENCE, async {
            while self.stored() < target {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .map_err(|_late| "events are no longer stored".into())
    }

    /// Ends it; returns the sequence of the last event.
    pub(crate) async fn stop(self) -> Outcome<u64> {
        self.stop.cancel();
        Ok(timeout(crate::PATIENCE, self.task).await??)
    }
}

async fn produce(
    client: Client,
    rate: u32,
    size: usize,
    stop: CancellationToken,
    stored: Arc<AtomicU64>,
) -> u64 {
    let gap = Duration::from_secs(1) / rate;
    let mut next = Instant::now();
    let mut last = 0;
    for n in 0_u64.. {
        if stop.is_cancelled() {
            break;
        }
        sleep_until(next).await;
        // after an outage the pace goes on, nothing is made up for
        next = (next + gap).max(Instant::now());
        last = store(&client, n, size).await;
        stored.fetch_add(1, Ordering::Relaxed);
    }
    last
}

/// Now, as all programs of this machine have it.
pub(crate) fn micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// Stores one event, however long it takes; returns its sequence.
pub(crate) async fn store(client: &Client, n: u64, size: usize) -> u64 {
    let subject = format!("gw.v1.evt.main.voice.tick{}", n % TOPICS);
    let fill = "x".repeat(size);
    let body = format!("{{\"n\":{n},\"at\":{},\"fill\":\"{fill}\"}}", micros());
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", ulid::Ulid::new().to_string());
    loop {
        let asked = client.request_with_headers(subject.clone(), headers.clone(), body.clone().into());
        if let Ok(Ok(answer)) = timeout(Duration::from_secs(2), asked).await {
            let ack: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
            if let Some(seq) = ack["seq"].as_u64().filter(|_| ack["error"].is_null()) {
                return seq;
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}
