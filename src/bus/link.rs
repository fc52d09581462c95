//! Watches both connections: down at once when one is lost or silent, up only when everything is proven again.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State as Connection;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Link;
use super::connect::{Core, State};
use super::inbox::Wire;

/// How often each connection is probed, and how long an answer may take.
const PROBE: Duration = Duration::from_secs(2);
/// This many probes without an answer in a row mean a silent broker.
const MISSES: u32 = 3;

/// Runs until the bus is closed.
pub(super) async fn keep(core: Arc<Core>) {
    let mut ingress = core.ingress.state.subscribe();
    let mut egress = core.egress.state.subscribe();
    let mut seen = (ingress.borrow().times, egress.borrow().times);
    let mut generation = 1;
    loop {
        let reason = tokio::select! {
            // our own doing, and nothing to warn of
            () = core.stop.cancelled() => return core.go_down("the bus is closed"),
            () = core.broken.cancelled() => "the connection to NATS ended for good".to_owned(),
            reason = lost(&mut ingress, seen.0) => reason,
            reason = lost(&mut egress, seen.1) => reason,
            reason = silent(&core.ingress) => reason,
            reason = silent(&core.egress) => reason,
        };
        tracing::warn!(%reason, "message bus lost");
        core.go_down(&reason);
        if core.broken.is_cancelled() {
            return;
        }
        seen = tokio::select! {
            () = core.stop.cancelled() => return,
            seen = proven(&core, &mut ingress, &mut egress) => seen,
        };
        generation += 1;
        tracing::info!(generation, "message bus back");
        core.go_up(generation);
        core.cancel_orphans().await;
    }
}

/// Returns when the connection is lost, or was lost and is back.
async fn lost(state: &mut watch::Receiver<State>, times: u64) -> String {
    let gone = |state: &State| !state.up || state.times != times;
    match state.wait_for(gone).await {
        Ok(state) if state.up => "the connection to NATS was interrupted".to_owned(),
        Ok(_) => "the connection to NATS is lost".to_owned(),
        Err(_) => "the connection to NATS is closed".to_owned(),
    }
}

/// Returns when the broker stays silent on a connection that looks open.
async fn silent(wire: &Wire) -> String {
    let mut misses = 0;
    let mut next = Instant::now() + PROBE;
    loop {
        sleep_until(next).await;
        next += PROBE;
        if wire.round_trip(PROBE).await {
            misses = 0;
            next = next.max(Instant::now());
        } else {
            misses += 1;
        }
        if misses >= MISSES {
            reconnect(wire).await;
            return "NATS does not answer".to_owned();
        }
    }
}

/// Gives up a connection that looks open but carries nothing.
async fn reconnect(wire: &Wire) {
    // the client's queue may be full; its own pings end the connection then
    if !matches!(timeout(PROBE, wire.client.force_reconnect()).await, Ok(Ok(()))) {
        tracing::debug!("the silent connection could not be given up yet");
    }
}

/// Returns when both connections are open, carry a round trip, and the streams are in order.
async fn proven(
    core: &Core,
    ingress: &mut watch::Receiver<State>,
    egress: &mut watch::Receiver<State>,
) -> (u64, u64) {
    let mut pause = Duration::from_millis(20);
    let mut fruitless = 0;
    loop {
        for (wire, state) in [(&core.ingress, &mut *ingress), (&core.egress, &mut *egress)] {
            open(wire, state).await;
        }
        let seen = (ingress.borrow().times, egress.borrow().times);
        let (there, back) = tokio::join!(core.ingress.round_trip(PROBE), core.egress.round_trip(PROBE));
        if there && back {
            fruitless = 0;
            match core.check_streams().await {
                Ok(()) => return seen,
                Err(error) => {
                    tracing::warn!(%error, "streams are not in order yet");
                    core.explain(&error.to_string());
                }
            }
        } else {
            fruitless += 1;
            if fruitless >= MISSES {
                fruitless = 0;
                for (wire, answers) in [(&core.ingress, there), (&core.egress, back)] {
                    if !answers {
                        reconnect(wire).await;
                    }
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Returns when the connection is open. Its event may have been lost in a flood of others, so the client is asked too.
async fn open(wire: &Wire, state: &mut watch::Receiver<State>) {
    while timeout(PROBE, state.wait_for(|state| state.up)).await.is_err() {
        if wire.client.connection_state() == Connection::Connected {
            wire.state.send_modify(|state| {
                state.up = true;
                state.times += 1;
            });
        }
    }
}

impl Core {
    fn go_down(&self, reason: &str) {
        self.link.send_replace(Link::Down {
            reason: reason.to_owned(),
        });
        self.calls.close();
    }

    fn explain(&self, reason: &str) {
        self.link.send_if_modified(|link| match link {
            Link::Down { reason: known } if known != reason => {
                reason.clone_into(known);
                true
            }
            _ => false,
        });
    }

    fn go_up(&self, generation: u64) {
        self.calls.open();
        *self.back.write() = Some(Instant::now());
        self.link.send_replace(Link::Up { generation });
    }
}
