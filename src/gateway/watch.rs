//! Watches the broker and the services, and tells the clients whom it concerns.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{info, warn};

use crate::bus::Link;
use crate::dialect::{Dialect, Notice};
use crate::gateway::{Gateway, local, survey};
use crate::message::Space;
use crate::telemetry::ready::Readiness;

/// Reads how often the supervised broker was restarted.
pub type Restarts = Box<dyn Fn() -> u64 + Send + Sync>;

/// Starts the watchers; they live as long as the process.
pub fn start(gateway: &Arc<Gateway>, readiness: &Arc<Readiness>, restarts: Option<Restarts>) {
    tokio::spawn(link(gateway.clone(), readiness.clone()));
    tokio::spawn(services(gateway.clone()));
    tokio::spawn(counters(gateway.clone(), restarts));
    // where nobody looks, nobody is asked how he is either
    if gateway.metrics.counts() {
        gateway.bus.set_observer(survey::Timings::new(&gateway.metrics));
        tokio::spawn(survey::run(gateway.clone()));
    }
}

async fn link(gateway: Arc<Gateway>, readiness: Arc<Readiness>) {
    let mut link = gateway.bus.link();
    let mut was_up = None;
    loop {
        let now = link.borrow_and_update().clone();
        let up = now.is_up();
        match &now {
            Link::Up { .. } => readiness.bus_up(),
            Link::Down { reason } => readiness.bus_down(reason.clone()),
        }
        gateway.metrics.nats_connected.set(i64::from(up));
        if was_up.is_some_and(|was| was != up) {
            let notice = match &now {
                Link::Up { generation } => {
                    info!(generation, "NATS is back");
                    gateway.metrics.nats_reconnects.inc();
                    Notice::Restored("NATS is back".to_owned())
                }
                // at the end nobody is left to be told; an outage before has its own warning
                Link::Down { .. } if gateway.drain.is_cancelled() => return,
                Link::Down { reason } => {
                    warn!(%reason, "NATS is away");
                    Notice::Degraded("NATS is away; commands fail until it is back".to_owned())
                }
            };
            gateway.lobby.announce(&notice, |_| true).await;
        }
        was_up = Some(up);
        if link.changed().await.is_err() {
            return;
        }
    }
}

async fn services(gateway: Arc<Gateway>) {
    let mut changes = gateway.directory.changes();
    loop {
        let change = match changes.recv().await {
            Ok(change) => change,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        };
        let service = change.service.clone();
        let notice = if change.running {
            Notice::Restored(format!("service {service} runs"))
        } else {
            Notice::Degraded(format!("service {service} is gone"))
        };
        let concerned = |dialect: &dyn Dialect| dialect.services().contains(&service.as_str());
        gateway.lobby.announce(&notice, concerned).await;
        if let Ok(status) = local::answer(&gateway, &Space::default(), "get_status").await {
            let status = Notice::Services(status);
            gateway.lobby.announce(&status, concerned).await;
        }
    }
}

/// What the bus and the supervisor count themselves, carried over to the metrics.
async fn counters(gateway: Arc<Gateway>, restarts: Option<Restarts>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut last = [0_u64; 7];
    loop {
        tick.tick().await;
        let bus = gateway.bus.counters();
        let now = [
            bus.late.load(Ordering::Relaxed),
            bus.foreign.load(Ordering::Relaxed),
            bus.unconfirmed.load(Ordering::Relaxed),
            restarts.as_ref().map_or(0, |restarts| restarts()),
            bus.repeated.load(Ordering::Relaxed),
            bus.overflow.load(Ordering::Relaxed),
            bus.crowded.load(Ordering::Relaxed),
        ];
        let metrics = &gateway.metrics;
        let counters = [
            &metrics.late_replies,
            &metrics.live_ignored,
            &metrics.publish_errors,
            &metrics.nats_restarts,
            &metrics.append_retries,
            &metrics.overflows,
            &metrics.interim_dropped,
        ];
        for ((counter, now), last) in counters.iter().zip(now).zip(&mut last) {
            counter.inc_by(now.saturating_sub(*last));
            *last = now;
        }
    }
}
