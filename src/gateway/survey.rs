//! Asks services and broker how they are, for the metrics; and measures for the bus.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::bus::Observe;
use crate::bus::directory::EndpointStats;
use crate::gateway::Gateway;
use crate::telemetry::metrics::{DialectMetrics, Kept, Metrics, Used, Work};

/// Finer than usual scrape intervals, coarse enough to cost nothing.
const EVERY: Duration = Duration::from_secs(5);
/// Instances that answer later are shown with their last figures.
const WITHIN: Duration = Duration::from_millis(500);
/// Everything the broker is asked in one round.
const BROKER: Duration = Duration::from_secs(2);

/// Surveys as long as the process lives.
pub async fn run(gateway: Arc<Gateway>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // while the broker is away the last figures stand, and gw_nats_connected says why
        if gateway.bus.link().borrow().is_up() {
            services(&gateway).await;
            streams(&gateway).await;
        }
    }
}

async fn services(gateway: &Gateway) {
    let Ok(stats) = gateway.directory.stats(WITHIN).await else {
        gateway.metrics.survey_failed();
        return;
    };
    let reports = stats
        .into_iter()
        .map(|stats| {
            let total = EndpointStats::total(&stats.endpoints);
            Work {
                requests: total.requests,
                errors: total.errors,
                seconds: total.processing_time.as_secs_f64(),
                service: stats.name,
                worker: stats.id,
            }
        })
        .collect();
    let instances = gateway.directory.snapshot();
    let running: BTreeSet<(&str, &str)> = instances
        .iter()
        .map(|instance| (instance.name.as_str(), instance.id.as_str()))
        .collect();
    gateway
        .metrics
        .set_work(reports, |service, worker| running.contains(&(service, worker)));
}

async fn streams(gateway: &Gateway) {
    let asked = timeout(BROKER, async {
        if gateway.bus.history() {
            let state = gateway.bus.jetstream_state().await?;
            gateway.metrics.set_jetstream(Used {
                storage: state.storage,
                memory: state.memory,
                requests: state.requests,
                errors: state.errors,
            });
        }
        gateway.bus.stream_states().await
    });
    match asked.await {
        Ok(Ok(states)) => {
            for state in states {
                let kept = Kept {
                    messages: state.messages,
                    bytes: state.bytes,
                    limit: state.limit.unwrap_or_default(),
                    last: state.last,
                    subjects: state.subjects,
                };
                gateway.metrics.set_stream(state.name, kept);
            }
        }
        Ok(Err(_)) | Err(_) => gateway.metrics.survey_failed(),
    }
}

/// Counts what the bus measures by dialect.
pub struct Timings {
    metrics: Arc<Metrics>,
    lanes: Vec<(&'static str, Arc<DialectMetrics>)>,
}

impl Timings {
    /// For every dialect there is.
    #[must_use]
    pub fn new(metrics: &Arc<Metrics>) -> Arc<Self> {
        let dialects = crate::dialect::ALL.iter().map(|dialect| dialect.name());
        Arc::new(Self {
            lanes: dialects.map(|name| (name, metrics.dialect(name))).collect(),
            metrics: metrics.clone(),
        })
    }
}

impl Observe for Timings {
    fn lane(&self, dialect: &str) -> u8 {
        let found = self.lanes.iter().position(|(name, _)| *name == dialect);
        found.and_then(|lane| u8::try_from(lane).ok()).unwrap_or(u8::MAX)
    }

    fn answered(&self, lane: u8, bus: Duration, worker: Option<Duration>) {
        let Some((_, dialect)) = self.lanes.get(usize::from(lane)) else {
            return;
        };
        dialect.stage.bus.took(bus);
        if let Some(worker) = worker {
            dialect.stage.worker.took(worker);
        }
    }

    fn large(&self, stored: bool, bytes: usize) {
        let (bodies, sizes) = (&self.metrics.large_bodies, &self.metrics.large_body_bytes);
        let (count, size) = match stored {
            true => (&bodies.stored, &sizes.stored),
            false => (&bodies.fetched, &sizes.fetched),
        };
        count.inc();
        size.inc_by(bytes as u64);
    }

    fn stored(&self, took: Duration) {
        self.metrics.append.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_streams_with_series_are_those_of_the_contract() {
        assert_eq!(
            crate::telemetry::metrics::STREAMS,
            crate::bus::contract::streams::NAMES
        );
    }
}
