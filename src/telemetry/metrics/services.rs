//! What services report about themselves (`$SRV.STATS`), so that a worker in any language is seen without code.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use prometheus::{CounterVec, IntCounterVec, IntGaugeVec};

use crate::telemetry::metrics::make::Make;

/// Services with a series of their own; names come from the bus, so their number must be bounded here.
pub(super) const MAX_SERVICES: usize = 64;
/// Instances with series of their own; beyond, they are summed as `other`.
pub(super) const MAX_WORKERS: usize = 256;
const OTHER: &str = "other";

/// What one instance has done since it started, all endpoints together.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The service.
    pub service: String,
    /// The instance.
    pub worker: String,
    /// Requests taken.
    pub requests: u64,
    /// Of these, failed.
    pub errors: u64,
    /// Seconds spent on them.
    pub seconds: f64,
}

type Key = (String, String);

/// The series of services.
pub(super) struct Services {
    instances: IntGaugeVec,
    requests: IntCounterVec,
    errors: IntCounterVec,
    seconds: CounterVec,
    names: Mutex<BTreeSet<String>>,
    workers: Mutex<BTreeMap<Key, Work>>,
}

impl Services {
    pub(super) fn new(make: &Make<'_>) -> Self {
        // not `instance`: that is the gateway's, and two gateways report the same worker
        const W: [&str; 2] = ["service", "worker"];
        Self {
            instances: make.gauges(
                "service_instances",
                "Running instances of a service.",
                &["service"],
            ),
            requests: make.counters(
                "service_requests_total",
                "Requests an instance says it took; every gateway reports all instances.",
                &W,
            ),
            errors: make.counters(
                "service_errors_total",
                "Requests an instance says failed; every gateway reports all instances.",
                &W,
            ),
            seconds: make.seconds(
                "service_processing_seconds_total",
                "Time an instance says it spent on requests; every gateway reports all instances.",
                &W,
            ),
            names: Mutex::default(),
            workers: Mutex::default(),
        }
    }

    pub(super) fn set_instances<'a>(&self, running: impl IntoIterator<Item = (&'a str, usize)>) {
        let mut services = self.names.lock();
        let mut now: BTreeMap<&str, i64> = BTreeMap::new();
        for (name, count) in running {
            let known = services.contains(name) || services.len() < MAX_SERVICES;
            let label = if known { name } else { OTHER };
            if !services.contains(label) {
                services.insert(label.to_owned());
            }
            *now.entry(label).or_default() += i64::try_from(count).unwrap_or(i64::MAX);
        }
        for name in services.iter() {
            let count = now.get(name.as_str()).copied().unwrap_or_default();
            self.instances.with_label_values(&[name.as_str()]).set(count);
        }
    }

    /// Takes over what instances say; `running` tells whether one that said nothing still runs and keeps its series.
    pub(super) fn set_work(&self, reports: Vec<Work>, running: impl Fn(&str, &str) -> bool) {
        let mut workers = self.workers.lock();
        let heard: BTreeSet<Key> = reports.iter().map(key).collect();
        workers.retain(|key, _| {
            let stays = heard.contains(key) || running(&key.0, &key.1);
            if !stays {
                self.forget(key);
            }
            stays
        });
        for report in reports {
            let known = key(&report);
            let before = workers.get(&known).cloned();
            let full = before.is_none() && workers.len() >= MAX_WORKERS;
            if full {
                // no memory of it, so no growth to add: that it is there is all that is shown
                self.series(&(OTHER.to_owned(), OTHER.to_owned()), &report, Some(&report));
                continue;
            }
            self.series(&known, &report, before.as_ref());
            workers.insert(known, report);
        }
    }

    /// Adds the growth since `before`; an instance that counts from 0 again is taken whole.
    fn series(&self, key: &Key, now: &Work, before: Option<&Work>) {
        let labels = [key.0.as_str(), key.1.as_str()];
        let (mut requests, mut errors, mut seconds) = (now.requests, now.errors, now.seconds);
        if let Some(before) = before.filter(|before| before.requests <= now.requests) {
            requests -= before.requests;
            errors = errors.saturating_sub(before.errors);
            seconds -= before.seconds;
        }
        self.requests.with_label_values(&labels).inc_by(requests);
        self.errors.with_label_values(&labels).inc_by(errors);
        self.seconds.with_label_values(&labels).inc_by(seconds.max(0.0));
    }

    fn forget(&self, key: &Key) {
        let labels = [key.0.as_str(), key.1.as_str()];
        // an error means that it has none
        let _ = self.requests.remove_label_values(&labels);
        let _ = self.errors.remove_label_values(&labels);
        let _ = self.seconds.remove_label_values(&labels);
    }
}

fn key(work: &Work) -> Key {
    (work.service.clone(), work.worker.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn work(worker: &str, requests: u64, errors: u64, seconds: f64) -> Work {
        Work {
            service: "voice".into(),
            worker: worker.into(),
            requests,
            errors,
            seconds,
        }
    }

    #[test]
    fn counters_follow_what_instances_say_and_restarts_count_on() {
        let metrics = Metrics::new(&[]);
        metrics.set_work(vec![work("a", 3, 1, 0.5)], |_, _| true);
        metrics.set_work(vec![work("a", 5, 1, 0.75)], |_, _| true);
        let text = metrics.text();
        let line = |name: &str, value: &str| {
            format!("gw_service_{name}{{service=\"voice\",worker=\"a\"}} {value}\n")
        };
        assert!(text.contains(&line("requests_total", "5")), "{text}");
        assert!(text.contains(&line("errors_total", "1")), "{text}");
        assert!(text.contains(&line("processing_seconds_total", "0.75")), "{text}");
        metrics.set_work(vec![work("a", 2, 0, 0.25)], |_, _| true);
        assert!(metrics.text().contains(&line("requests_total", "7")));
    }

    #[test]
    fn a_silent_instance_keeps_its_series_while_it_runs_and_loses_them_after() {
        let metrics = Metrics::new(&[]);
        metrics.set_work(vec![work("a", 3, 0, 0.5)], |_, _| true);
        metrics.set_work(Vec::new(), |_, _| true);
        assert!(metrics.text().contains("worker=\"a\""));
        metrics.set_work(Vec::new(), |_, _| false);
        assert!(!metrics.text().contains("worker=\"a\""));
    }

    #[test]
    fn instances_stay_bounded() {
        let metrics = Metrics::new(&[]);
        let crowd = (0..10_000).map(|n| work(&format!("w{n}"), 1, 0, 0.1)).collect();
        metrics.set_work(crowd, |_, _| true);
        let text = metrics.text();
        let series = text
            .lines()
            .filter(|line| line.starts_with("gw_service_requests_total{"))
            .count();
        assert_eq!(series, MAX_WORKERS + 1);
    }
}
