//! The metrics of one dialect, every handle resolved once: counting looks nothing up.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::message::{Answer, Code};
use crate::telemetry::metrics::make::Make;

/// Close codes with a series of their own; any other is counted as `other`.
const CLOSE_CODES: [(u16, &str); 9] = [
    (1000, "1000"),
    (1001, "1001"),
    (1002, "1002"),
    (1006, "1006"),
    (1007, "1007"),
    (1008, "1008"),
    (1009, "1009"),
    (1011, "1011"),
    (1013, "1013"),
];

/// How a command ended, as the label says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A worker's result.
    Done,
    /// Answered by the gateway itself.
    Local,
    /// An error, the gateway's or the worker's.
    Failed(Code),
}

impl Outcome {
    /// The outcome of a final answer; `None` for an interim one.
    #[must_use]
    pub const fn of(answer: &Answer) -> Option<Self> {
        match answer {
            Answer::Done(_) => Some(Self::Done),
            Answer::Failed(fault) => Some(Self::Failed(fault.code)),
            Answer::Ack(_) | Answer::Progress(_) => None,
        }
    }

    /// The label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Local => "local",
            Self::Failed(code) => code.name(),
        }
    }
}

/// Where the time of a message goes.
#[derive(Clone)]
pub struct Stages {
    /// Frame to command.
    pub decode: Histogram,
    /// Publish to final reply.
    pub bus: Histogram,
    /// The worker's part of that, by both ends' clocks.
    pub worker: Histogram,
    /// Answer or event to frame.
    pub encode: Histogram,
    /// A client that took no byte, until it had taken all that waited.
    pub queue: Histogram,
    /// One batch of events written to everybody in a room, or an answer to the one who asked.
    pub write: Histogram,
}

/// What the queue of a slow client led to.
#[derive(Clone)]
pub struct SlowActions {
    /// Closed with a code that says come back.
    pub close: IntCounter,
    /// Oldest events dropped.
    pub drop_oldest: IntCounter,
    /// State replaced by newer state.
    pub conflate: IntCounter,
}

/// Messages that did not reach a client, by reason.
#[derive(Clone)]
pub struct Dropped {
    /// Dropped under the policy for slow clients.
    pub slow: IntCounter,
    /// Replaced by newer state of the same topic.
    pub conflated: IntCounter,
    /// Meant for a connection that ended before it had them.
    pub closed: IntCounter,
}

/// The metrics of one dialect.
pub struct DialectMetrics {
    /// Open connections.
    pub connections: IntGauge,
    /// Connections opened.
    pub opened: IntCounter,
    /// How long connections lived.
    pub lifetime: Histogram,
    /// Messages from clients.
    pub received: IntCounter,
    /// Messages written to clients.
    pub sent: IntCounter,
    /// Payload bytes from clients.
    pub received_bytes: IntCounter,
    /// Bytes written to clients.
    pub sent_bytes: IntCounter,
    /// Commands without a final answer yet.
    pub in_flight: IntGauge,
    /// Where the time goes.
    pub stage: Stages,
    /// `Gw-Time` of an event to its write.
    pub delivery_lag: Histogram,
    /// Bytes queued for clients.
    pub queue_bytes: IntGauge,
    /// Slow clients, by what was done.
    pub slow: SlowActions,
    /// Messages that did not reach a client.
    pub dropped: Dropped,
    /// Resumes that got everything missed.
    pub recovered: IntCounter,
    /// Resumes whose history was gone.
    pub unrecovered: IntCounter,
    /// Messages given to resuming clients.
    pub recovered_messages: IntCounter,
    closed: [IntCounter; CLOSE_CODES.len()],
    closed_other: IntCounter,
    commands: [Histogram; Code::ALL.len()],
    commands_done: Histogram,
    commands_local: Histogram,
    offences: IntCounterVec,
    name: String,
}

impl DialectMetrics {
    /// Counts the end of a connection by its close code; 1006 is an end without one.
    pub fn closed(&self, code: u16) {
        match CLOSE_CODES
            .iter()
            .zip(&self.closed)
            .find(|((known, _), _)| *known == code)
        {
            Some((_, counter)) => counter.inc(),
            None => self.closed_other.inc(),
        }
    }

    /// The duration of commands with this outcome, from frame read to reply queued.
    #[must_use]
    pub fn command(&self, outcome: Outcome) -> &Histogram {
        match outcome {
            Outcome::Done => &self.commands_done,
            Outcome::Local => &self.commands_local,
            Outcome::Failed(code) => Code::ALL
                .iter()
                .zip(&self.commands)
                .find(|(known, _)| **known == code)
                .map_or(&self.commands_done, |(_, histogram)| histogram),
        }
    }

    /// Counts an offence. Codes are constants of the dialects, so the label stays bounded.
    pub fn offence(&self, code: &'static str) {
        self.offences.with_label_values(&[self.name.as_str(), code]).inc();
    }
}

/// The families behind [`DialectMetrics`].
pub(super) struct Families {
    connections: IntGaugeVec,
    opened: IntCounterVec,
    closed: IntCounterVec,
    lifetime: HistogramVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    received_bytes: IntCounterVec,
    sent_bytes: IntCounterVec,
    commands: HistogramVec,
    in_flight: IntGaugeVec,
    stage: HistogramVec,
    delivery_lag: HistogramVec,
    queue_bytes: IntGaugeVec,
    slow: IntCounterVec,
    dropped: IntCounterVec,
    offences: IntCounterVec,
    recoveries: IntCounterVec,
    recovered_messages: IntCounterVec,
}

impl Families {
    pub(super) fn new(make: &Make<'_>) -> Self {
        const D: &str = "dialect";
        Self {
            connections: make.gauges("connections", "Open connections.", &[D]),
            opened: make.counters("connections_opened_total", "Connections opened.", &[D]),
            closed: make.counters(
                "connections_closed_total",
                "Connections ended, by close code; 1006 is an end without one.",
                &[D, "code"],
            ),
            lifetime: make.lifetimes("connection_duration_seconds", "How long connections lived.", &[D]),
            received: make.counters("messages_received_total", "Messages from clients.", &[D]),
            sent: make.counters("messages_sent_total", "Messages written whole to clients.", &[D]),
            received_bytes: make.counters("received_bytes_total", "Payload bytes from clients.", &[D]),
            sent_bytes: make.counters("sent_bytes_total", "Bytes written to clients.", &[D]),
            commands: make.latencies(
                "command_duration_seconds",
                "Commands from frame read to final reply queued, by outcome.",
                &[D, "outcome"],
            ),
            in_flight: make.gauges("commands_in_flight", "Commands without a final answer yet.", &[D]),
            stage: make.latencies(
                "stage_duration_seconds",
                "Where the time of a message goes.",
                &[D, "stage"],
            ),
            delivery_lag: make.latencies(
                "delivery_lag_seconds",
                "From the time an event entered the system to its write to a client.",
                &[D],
            ),
            queue_bytes: make.gauges("send_queue_bytes", "Bytes queued for clients.", &[D]),
            slow: make.counters(
                "slow_consumer_total",
                "Clients whose queue was full, by what was done.",
                &[D, "action"],
            ),
            dropped: make.counters(
                "messages_dropped_total",
                "Messages meant for a client that it was not given, by reason; with those sent, all there were.",
                &[D, "reason"],
            ),
            offences: make.counters("offences_total", "Client mistakes, by code.", &[D, "code"]),
            recoveries: make.counters(
                "recoveries_total",
                "Clients that came back with an offset, by whether everything missed was given.",
                &[D, "recovered"],
            ),
            recovered_messages: make.counters(
                "recovered_messages_total",
                "Messages given to clients that came back.",
                &[D],
            ),
        }
    }

    /// Resolves and thereby registers every series of a dialect, so that idle panels show 0.
    pub(super) fn resolve(&self, name: &str) -> DialectMetrics {
        let of = [name];
        let stage = |stage| self.stage.with_label_values(&[name, stage]);
        let slow = |action| self.slow.with_label_values(&[name, action]);
        let dropped = |reason| self.dropped.with_label_values(&[name, reason]);
        let command = |outcome: Outcome| self.commands.with_label_values(&[name, outcome.name()]);
        let closed = |code| self.closed.with_label_values(&[name, code]);
        let recovered = |whole| self.recoveries.with_label_values(&[name, whole]);
        self.offences.with_label_values(&[name, "bad_json"]);
        DialectMetrics {
            connections: self.connections.with_label_values(&of),
            opened: self.opened.with_label_values(&of),
            lifetime: self.lifetime.with_label_values(&of),
            received: self.received.with_label_values(&of),
            sent: self.sent.with_label_values(&of),
            received_bytes: self.received_bytes.with_label_values(&of),
            sent_bytes: self.sent_bytes.with_label_values(&of),
            in_flight: self.in_flight.with_label_values(&of),
            stage: Stages {
                decode: stage("decode"),
                bus: stage("bus"),
                worker: stage("worker"),
                encode: stage("encode"),
                queue: stage("queue"),
                write: stage("write"),
            },
            delivery_lag: self.delivery_lag.with_label_values(&of),
            queue_bytes: self.queue_bytes.with_label_values(&of),
            slow: SlowActions {
                close: slow("close"),
                drop_oldest: slow("drop_oldest"),
                conflate: slow("conflate"),
            },
            dropped: Dropped {
                slow: dropped("slow"),
                conflated: dropped("conflated"),
                closed: dropped("closed"),
            },
            recovered: recovered("true"),
            unrecovered: recovered("false"),
            recovered_messages: self.recovered_messages.with_label_values(&of),
            closed: CLOSE_CODES.map(|(_, code)| closed(code)),
            closed_other: closed("other"),
            commands: Code::ALL.map(|code| command(Outcome::Failed(code))),
            commands_done: command(Outcome::Done),
            commands_local: command(Outcome::Local),
            offences: self.offences.clone(),
            name: name.to_owned(),
        }
    }
}
