//! One flow at a time in each space, so that two conversations never interleave; spaces run side by side.
//!
//! Within a process that is a queue. Between processes it is the lease of the space, held while a flow runs: any
//! instance takes any command, but only one speaks. Who dies leaves a lease that runs out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Client;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use super::DIALECT;
use crate::bus::lease::{Lease, Leases};
use crate::message::{Code, Fault, Space};

/// Flows that may wait for one that runs.
const WAITING: usize = 8;
/// How often who waits for another instance looks whether it has ended.
const LOOK: Duration = Duration::from_millis(100);
/// When the broker does not answer for so long, an instance speaks as if it were alone: better than silence.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who speaks in which space, over all instances.
pub(super) struct Floor {
    client: Client,
    holder: String,
    /// Leases were there once, so that they are only away for a moment when they are not.
    kept: AtomicBool,
}

impl Floor {
    /// The broker is asked at each flow, not before: it may come later than we do, and forgets leases when it restarts.
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            holder: format!("voice {}", std::process::id()),
            kept: AtomicBool::new(false),
        }
    }

    /// Waits until no other instance speaks in the space. `None` where no leases are kept.
    async fn take(&self, space: &str) -> Option<Lease> {
        let space = Space::parse(space).ok()?;
        let mut heard = Instant::now();
        loop {
            let fault = match self.try_take(&space).await {
                Ok(Some(lease)) => return Some(lease),
                Ok(None) => {
                    heard = Instant::now();
                    sleep(LOOK).await;
                    continue;
                }
                Err(fault) => fault,
            };
            if !self.kept.load(Ordering::Relaxed) {
                tracing::debug!(%space, %fault, "no leases are kept: speaking as if alone");
                return None;
            }
            if heard.elapsed() >= PATIENCE {
                tracing::warn!(%space, %fault, "speaking without a lease: other instances may interrupt");
                return None;
            }
            sleep(LOOK).await;
        }
    }

    async fn try_take(&self, space: &Space) -> Result<Option<Lease>, Fault> {
        let leases = Leases::open(self.client.clone()).await?;
        self.kept.store(true, Ordering::Relaxed);
        leases.acquire(space, DIALECT, &self.holder).await
    }
}

/// Spaces in which something runs or waits. Whoever runs or waits holds a reference to the lane, so that the count of
/// references is the length of the queue.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<String, Arc<Semaphore>>>);

/// A place in the queue.
pub(super) struct Waiting {
    /// Flows before this one.
    pub(super) ahead: usize,
    lane: Arc<Semaphore>,
}

/// The right to speak in a space, given back when dropped.
pub(super) struct Turn {
    lease: Option<Lease>,
    _place: OwnedSemaphorePermit,
}

impl Turn {
    /// Speaks, to the end or until another instance may begin to; then gives the turn back before the next one here
    /// asks for it.
    pub(super) async fn speaks(self, flow: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
        let said = tokio::select! {
            said = flow => said,
            () = self.lost() => {
                let text = "the worker was cut off from NATS for too long; what it said is not complete";
                Err(Fault::new(Code::WorkerError, text))
            }
        };
        self.end().await;
        said
    }

    /// Returns when this instance could not renew its lease in time.
    async fn lost(&self) {
        match &self.lease {
            Some(lease) => lease.lost().await,
            None => std::future::pending().await,
        }
    }

    async fn end(mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release().await;
        }
    }
}

impl Lanes {
    /// Joins the queue of a space.
    pub(super) fn enter(&self, space: &str) -> Result<Waiting, Fault> {
        let mut lanes = self.0.lock();
        lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        let lane = lanes
            .entry(space.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(1)));
        let ahead = Arc::strong_count(lane) - 1;
        if ahead > WAITING {
            return Err(Fault::new(
                Code::Busy,
                format!("{WAITING} conversations are waiting in this space; try again later"),
            ));
        }
        Ok(Waiting {
            ahead,
            lane: lane.clone(),
        })
    }
}

impl Waiting {
    /// Waits for the turn here, then among all instances.
    pub(super) async fn turn(self, floor: &Floor, space: &str) -> Result<Turn, Fault> {
        let place = self.here().await?;
        Ok(Turn {
            lease: floor.take(space).await,
            _place: place,
        })
    }

    async fn here(self) -> Result<OwnedSemaphorePermit, Fault> {
        let closed = |_| Fault::new(Code::WorkerError, "the queue is closed");
        self.lane.acquire_owned().await.map_err(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_runs_eight_wait_and_the_next_is_told_busy() {
        let lanes = Lanes::default();
        let turn = lanes.enter("a").unwrap().here().await.unwrap();
        let waiting: Vec<_> = (1..=8).map(|_| lanes.enter("a").unwrap()).collect();
        assert_eq!(
            waiting.iter().map(|w| w.ahead).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6, 7, 8]
        );
        assert_eq!(lanes.enter("a").map(|_| ()).unwrap_err().code, Code::Busy);
        assert_eq!(lanes.enter("b").unwrap().ahead, 0);
        drop(waiting);
        drop(turn);
        assert_eq!(lanes.enter("a").unwrap().ahead, 0);
        assert_eq!(lanes.0.lock().len(), 1, "idle spaces are forgotten");
    }
}
