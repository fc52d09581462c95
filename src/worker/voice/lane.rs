//! One flow at a time in each space, so that two conversations never interleave; spaces run side by side.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::message::{Code, Fault};

/// Flows that may wait for one that runs.
const WAITING: usize = 8;

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
pub(super) struct Turn(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

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
    /// Waits for the turn.
    pub(super) async fn turn(self) -> Result<Turn, Fault> {
        match self.lane.acquire_owned().await {
            Ok(permit) => Ok(Turn(permit)),
            Err(_) => Err(Fault::new(Code::WorkerError, "the queue is closed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_runs_eight_wait_and_the_next_is_told_busy() {
        let lanes = Lanes::default();
        let turn = lanes.enter("a").unwrap().turn().await.unwrap();
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
