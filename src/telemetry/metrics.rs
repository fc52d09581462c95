//! Every metric named once, with handles resolved at start.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, Histogram, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

use crate::telemetry::metrics::dialect::Families;
pub use crate::telemetry::metrics::dialect::{DialectMetrics, Dropped, Outcome, SlowActions, Stages};
pub use crate::telemetry::metrics::handle::{Counter, Gauge, Times};
use crate::telemetry::metrics::make::Make;
pub use crate::telemetry::metrics::rejected::Rejected;
use crate::telemetry::metrics::services::Services;
pub use crate::telemetry::metrics::services::Work;
use crate::telemetry::metrics::streams::Streams;
pub use crate::telemetry::metrics::streams::{Kept, STREAMS, Used};

mod dialect;
mod handle;
mod make;
mod rejected;
mod services;
mod streams;

/// The two ways of something that goes both.
pub struct Directions {
    /// From clients or workers to the store.
    pub stored: IntCounter,
    /// From the store to clients.
    pub fetched: IntCounter,
}

/// What became of pictures that scripts asked for here.
#[derive(Clone)]
pub struct Screenshots {
    /// Asked for.
    pub asked: IntCounter,
    /// Not even asked of a page: none was open.
    pub no_page: IntCounter,
    /// Came, and the file is there.
    pub written: IntCounter,
    /// Came, and may not be written where the script wants it.
    pub refused: IntCounter,
}

/// Every metric of the process.
pub struct Metrics {
    counted: bool,
    registry: Registry,
    families: Families,
    dialects: Mutex<BTreeMap<String, Arc<DialectMetrics>>>,
    /// Turned away, by reason.
    pub rejected: Rejected,
    /// Pictures that scripts asked for.
    pub screenshots: Screenshots,
    /// Bytes of unfinished messages being received.
    pub receiving_bytes: IntGauge,
    /// Connections on client ports that could not be accepted at once.
    pub accept_errors: IntCounter,
    /// Connections and rooms that ended by a panic; each is a bug.
    pub panics: IntCounter,
    /// Pairs of space and dialect with sessions here.
    pub rooms: IntGauge,
    /// 1 while the broker answers.
    pub nats_connected: IntGauge,
    /// Connections to the broker after the first.
    pub nats_reconnects: IntCounter,
    /// Starts of the supervised server after the first.
    pub nats_restarts: IntCounter,
    /// Publishes the broker did not take.
    pub publish_errors: IntCounter,
    /// Final replies that came after the command's end.
    pub late_replies: IntCounter,
    /// Append to stored confirmation.
    pub append: Histogram,
    /// Appends tried again.
    pub append_retries: IntCounter,
    /// Live messages without stream headers, ignored.
    pub live_ignored: IntCounter,
    /// Gaps in live traffic refilled from the stream.
    pub live_gaps: IntCounter,
    /// Large bodies by direction.
    pub large_bodies: Directions,
    /// Bytes of large bodies by direction.
    pub large_body_bytes: Directions,
    /// 1 while NATS has no room for the object store: bodies above its payload limit are refused.
    pub object_store_refused: IntGauge,
    /// Subscriptions found full; messages were lost each time.
    pub overflows: IntCounter,
    /// Interim answers dropped behind a large body.
    pub interim_dropped: IntCounter,
    services: Services,
    streams: Streams,
}

impl Metrics {
    /// Registers everything, with all series of these dialects at 0.
    #[must_use]
    pub fn new(dialects: &[&str]) -> Arc<Self> {
        Self::counting(dialects, true)
    }

    /// Whether messages are counted at all; [`Metrics::text`] tells nothing of them where they are not.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.counted
    }

    /// As [`Metrics::new`], or without counting a message, for whoever looks at no figures.
    #[must_use]
    pub fn counting(dialects: &[&str], counted: bool) -> Arc<Self> {
        let registry = Registry::new();
        // absent where /proc is; the rest of the metrics does not depend on it
        let _ = registry.register(Box::new(ProcessCollector::for_self()));
        let make = Make(&registry);
        make.gauges(
            "build_info",
            "Version of the running program; always 1.",
            &["version"],
        )
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
        let metrics = Self {
            counted,
            families: Families::new(&make),
            dialects: Mutex::default(),
            rejected: Rejected::new(&make),
            screenshots: Screenshots::new(&make),
            receiving_bytes: make.gauge("receiving_bytes", "Bytes of unfinished messages being received."),
            accept_errors: make.counter("accept_errors_total", "Accept calls on client ports that failed."),
            panics: make.counter(
                "panics_total",
                "Connections and rooms that ended by a panic; each is a bug.",
            ),
            rooms: make.gauge(
                "rooms",
                "Pairs of space and dialect with sessions on this gateway.",
            ),
            nats_connected: make.gauge("nats_connected", "1 while the broker answers."),
            nats_reconnects: make.counter(
                "nats_reconnects_total",
                "Connections to the broker after the first.",
            ),
            nats_restarts: make.counter(
                "nats_supervised_restarts_total",
                "Starts of the gateway's own server after the first.",
            ),
            publish_errors: make.counter("bus_publish_errors_total", "Publishes the broker did not take."),
            late_replies: make.counter(
                "late_replies_total",
                "Final replies that came after the command's end.",
            ),
            append: make.latency("append_seconds", "From append to stored confirmation."),
            append_retries: make.counter("append_retries_total", "Appends tried again."),
            live_ignored: make.counter(
                "live_ignored_total",
                "Live messages without stream headers, ignored.",
            ),
            live_gaps: make.counter(
                "live_gaps_total",
                "Gaps in live traffic refilled from the stream.",
            ),
            large_bodies: Directions::new(
                &make,
                "large_bodies_total",
                "Bodies above the broker's payload limit.",
            ),
            large_body_bytes: Directions::new(
                &make,
                "large_body_bytes_total",
                "Bytes of bodies above the broker's payload limit.",
            ),
            object_store_refused: make.gauge(
                "object_store_refused",
                "1 while there is no object store: bodies above the broker's payload limit are refused.",
            ),
            overflows: make.counter(
                "bus_overflows_total",
                "Subscriptions found full; messages were lost each time.",
            ),
            interim_dropped: make.counter(
                "interim_replies_dropped_total",
                "Interim answers dropped because a large one before them was still on its way.",
            ),
            services: Services::new(&make),
            streams: Streams::new(&make),
            registry: registry.clone(),
        };
        for name in dialects {
            metrics.dialect(name);
        }
        Arc::new(metrics)
    }

    /// The metrics of a dialect; take them once for each connection or listener, not for each message.
    pub fn dialect(&self, name: &str) -> Arc<DialectMetrics> {
        let mut dialects = self.dialects.lock();
        if let Some(known) = dialects.get(name) {
            return known.clone();
        }
        let new = Arc::new(self.families.resolve(name, self.counted));
        dialects.insert(name.to_owned(), new.clone());
        new
    }

    /// Sets how many instances of each service run; services seen before and missing now are at 0.
    /// Beyond 64 names the rest is counted as `other`.
    pub fn set_instances<'a>(&self, running: impl IntoIterator<Item = (&'a str, usize)>) {
        self.services.set_instances(running);
    }

    /// Takes over what instances say they have done; one that said nothing keeps its series while it is `running`
    /// (service, instance).
    pub fn set_work(&self, reports: Vec<Work>, running: impl Fn(&str, &str) -> bool) {
        self.services.set_work(reports, running);
    }

    /// Sets what a stream holds.
    pub fn set_stream(&self, stream: &str, state: Kept) {
        self.streams.set(stream, state);
    }

    /// Sets what JetStream uses.
    pub fn set_jetstream(&self, state: Used) {
        self.streams.set_jetstream(state);
    }

    /// The broker did not answer a question about itself.
    pub fn survey_failed(&self) {
        self.streams.failed();
    }

    /// Everything in the text format that monitoring systems read.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = Vec::with_capacity(64 * 1024);
        // writing to memory fails only on a metric without samples, which is not gathered
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}

impl Screenshots {
    fn new(make: &Make<'_>) -> Self {
        let results = make.counters(
            "screenshots_total",
            "Pictures that CAD scripts asked for, and what became of them.",
            &["result"],
        );
        let result = |result| results.with_label_values(&[result]);
        Self {
            asked: result("asked"),
            no_page: result("no_page"),
            written: result("written"),
            refused: result("refused"),
        }
    }
}

impl Directions {
    fn new(make: &Make<'_>, name: &str, help: &str) -> Self {
        let both: IntCounterVec = make.counters(name, help, &["direction"]);
        Self {
            stored: both.with_label_values(&["stored"]),
            fetched: both.with_label_values(&["fetched"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::Code;
    use crate::telemetry::metrics::services::MAX_SERVICES;

    #[test]
    fn idle_series_are_there_at_zero() {
        let text = Metrics::new(&["voice"]).text();
        for line in [
            "gw_connections{dialect=\"voice\"} 0",
            "gw_connections_closed_total{code=\"1013\",dialect=\"voice\"} 0",
            "gw_command_duration_seconds_count{dialect=\"voice\",outcome=\"no_worker\"} 0",
            "gw_stage_duration_seconds_bucket{dialect=\"voice\",stage=\"write\",le=\"0.0001\"} 0",
            "gw_rejected_total{reason=\"origin\"} 0",
            "gw_recoveries_total{dialect=\"voice\",recovered=\"false\"} 0",
            "gw_large_bodies_total{direction=\"fetched\"} 0",
            "gw_nats_connected 0",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line}\nmissing in\n{text}"
            );
        }
        assert!(text.contains("gw_build_info{version="));
        assert!(text.contains("process_resident_memory_bytes"));
    }

    #[test]
    fn where_nothing_is_counted_nothing_is_told() {
        let metrics = Metrics::counting(&["voice"], false);
        let voice = metrics.dialect("voice");
        let began = voice.now();
        voice.connected();
        voice.frame_in(began);
        voice.offence("no_type");
        voice.written(1, 10);
        voice.command_ended(began, Outcome::Done);
        voice.delivered(&[1]);
        assert_eq!((voice.sent.get(), voice.command(Outcome::Done).count()), (0, 0));
        assert_eq!(voice.now(), began, "the clock is not read");
        assert!(!metrics.text().contains("dialect=\"voice\""));
    }

    #[test]
    fn each_outcome_and_code_has_its_own_series() {
        let metrics = Metrics::new(&["voice"]);
        let voice = metrics.dialect("voice");
        for code in Code::ALL {
            voice
                .command(Outcome::Failed(code))
                .took(Duration::from_millis(200));
        }
        voice.command(Outcome::Local).took(Duration::from_millis(200));
        voice.closed(1009);
        voice.closed(4999);
        voice.offence("no_type");
        let text = metrics.text();
        for code in Code::ALL {
            let line = format!(
                "gw_command_duration_seconds_count{{dialect=\"voice\",outcome=\"{}\"}} 1",
                code.name()
            );
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.contains("gw_command_duration_seconds_count{dialect=\"voice\",outcome=\"done\"} 0"));
        assert!(text.contains("gw_connections_closed_total{code=\"1009\",dialect=\"voice\"} 1"));
        assert!(text.contains("gw_connections_closed_total{code=\"other\",dialect=\"voice\"} 1"));
        assert!(text.contains("gw_offences_total{code=\"no_type\",dialect=\"voice\"} 1"));
    }

    #[test]
    fn service_names_from_the_bus_stay_bounded() {
        let metrics = Metrics::new(&[]);
        let names: Vec<String> = (0..10_000).map(|n| format!("s{n}")).collect();
        metrics.set_instances(names.iter().map(|name| (name.as_str(), 1)));
        let text = metrics.text();
        let series = text
            .lines()
            .filter(|line| line.starts_with("gw_service_instances{"))
            .count();
        assert_eq!(series, MAX_SERVICES + 1);
        assert!(text.contains("gw_service_instances{service=\"other\"} 9936"));
        metrics.set_instances([("s1", 3)]);
        let text = metrics.text();
        assert!(text.contains("gw_service_instances{service=\"s1\"} 3"));
        assert!(text.contains("gw_service_instances{service=\"s2\"} 0"));
    }
}
