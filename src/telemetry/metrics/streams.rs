//! What the streams hold and what JetStream uses, as the broker says it.

use prometheus::{IntCounter, IntGauge, IntGaugeVec};

use crate::telemetry::metrics::make::Make;

/// The streams of the contract; a name from elsewhere gets no series.
pub const STREAMS: [&str; 3] = ["GW_EVENTS", "GW_STATE", "GW_LEASES"];

/// What one stream keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes it may keep; 0 without a limit.
    pub limit: u64,
    /// Sequence of the last message ever stored.
    pub last: u64,
    /// Subjects with a message.
    pub subjects: u64,
}

/// What JetStream uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Bytes on disk.
    pub storage: u64,
    /// Bytes in memory.
    pub memory: u64,
    /// Requests to its API since the broker started.
    pub requests: u64,
    /// Of these, refused.
    pub errors: u64,
}

/// The series of streams.
pub(super) struct Streams {
    messages: IntGaugeVec,
    bytes: IntGaugeVec,
    limit: IntGaugeVec,
    last: IntGaugeVec,
    subjects: IntGaugeVec,
    storage: IntGauge,
    memory: IntGauge,
    api_requests: IntGauge,
    api_errors: IntGauge,
    failed: IntCounter,
}

impl Streams {
    pub(super) fn new(make: &Make<'_>) -> Self {
        const S: [&str; 1] = ["stream"];
        let made = Self {
            messages: make.gauges("stream_messages", "Messages a stream keeps.", &S),
            bytes: make.gauges("stream_bytes", "Bytes a stream keeps.", &S),
            limit: make.gauges(
                "stream_limit_bytes",
                "Bytes a stream may keep; 0 without a limit.",
                &S,
            ),
            last: make.gauges("stream_last_sequence", "Sequence of the last message stored.", &S),
            subjects: make.gauges("stream_subjects", "Subjects with a message.", &S),
            storage: make.gauge("jetstream_storage_bytes", "Bytes JetStream keeps on disk."),
            memory: make.gauge("jetstream_memory_bytes", "Bytes JetStream keeps in memory."),
            api_requests: make.gauge(
                "jetstream_api_requests",
                "Requests to the JetStream API since the broker started.",
            ),
            api_errors: make.gauge(
                "jetstream_api_errors",
                "Requests the JetStream API refused since the broker started.",
            ),
            failed: make.counter("survey_errors_total", "Surveys of the broker that got no answer."),
        };
        for name in STREAMS {
            made.set(name, Kept::default());
        }
        made
    }

    pub(super) fn set(&self, stream: &str, state: Kept) {
        let of = [stream];
        if !STREAMS.contains(&stream) {
            return;
        }
        self.messages.with_label_values(&of).set(signed(state.messages));
        self.bytes.with_label_values(&of).set(signed(state.bytes));
        self.limit.with_label_values(&of).set(signed(state.limit));
        self.last.with_label_values(&of).set(signed(state.last));
        self.subjects.with_label_values(&of).set(signed(state.subjects));
    }

    pub(super) fn set_jetstream(&self, state: Used) {
        self.storage.set(signed(state.storage));
        self.memory.set(signed(state.memory));
        self.api_requests.set(signed(state.requests));
        self.api_errors.set(signed(state.errors));
    }

    pub(super) fn failed(&self) {
        self.failed.inc();
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
