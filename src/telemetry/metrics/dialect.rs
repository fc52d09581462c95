//! The metrics of one dialect, every handle resolved once: counting looks nothing up.

use std::time::Instant;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use crate::message::{Answer, Code};
use crate::telemetry::clock;
use crate::telemetry::metrics::handle::{Counter, Gauge, Times};
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
    pub decode: Times,
    /// Publish to final reply.
    pub bus: Times,
    /// The worker's part of that, by both ends' clocks.
    pub worker: Times,
    /// Answer or event to frame.
    pub encode: Times,
    /// A client that took no byte, until it had taken all that waited.
    pub queue: Times,
    /// One batch of events written to everybody in a room, or an answer to the one who asked; the turns that others
    /// have in between are left out.
    pub write: Times,
}

/// What the queue of a slow client led to.
#[derive(Clone)]
pub struct SlowActions {
    /// Closed with a code that says come back.
    pub close: Counter,
    /// Oldest events dropped.
    pub drop_oldest: Counter,
    /// State replaced by newer state.
    pub conflate: Counter,
}

/// Messages that did not reach a client, by reason.
#[derive(Clone)]
pub struct Dropped {
    /// Dropped under the policy for slow clients.
    pub slow: Counter,
    /// Replaced by newer state of the same topic.
    pub conflated: Counter,
    /// Meant for a connection that ended before it had them.
    pub closed: Counter,
}

/// The metrics of one dialect.
pub struct DialectMetrics {
    /// Open connections.
    pub connections: Gauge,
    /// Connections opened.
    pub opened: Counter,
    /// How long connections lived.
    pub lifetime: Times,
    /// Messages from clients.
    pub received: Counter,
    /// Messages written to clients.
    pub sent: Counter,
    /// Payload bytes from clients.
    pub received_bytes: Counter,
    /// Bytes written to clients.
    pub sent_bytes: Counter,
    /// Commands without a final answer yet.
    pub in_flight: Gauge,
    /// Where the time goes.
    pub stage: Stages,
    /// `Gw-Time` of an event to its write.
    pub delivery_lag: Times,
    /// Bytes queued for clients.
    pub queue_bytes: Gauge,
    /// Slow clients, by what was done.
    pub slow: SlowActions,
    /// Messages that did not reach a client.
    pub dropped: Dropped,
    /// Resumes that got everything missed.
    pub recovered: Counter,
    /// Resumes whose history was gone.
    pub unrecovered: Counter,
    /// Messages given to resuming clients.
    pub recovered_messages: Counter,
    closed: [Counter; CLOSE_CODES.len()],
    closed_other: Counter,
    commands: [Times; Code::ALL.len()],
    commands_done: Times,
    commands_local: Times,
    offences: IntCounterVec,
    name: String,
    /// Where nothing is counted, the clock that is read for it stands still.
    pub(in crate::telemetry) still: Option<Instant>,
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
    pub fn command(&self, outcome: Outcome) -> &Times {
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
        if self.still.is_none() {
            self.offences.with_label_values(&[self.name.as_str(), code]).inc();
        }
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

    /// Resolves and thereby registers every series of a dialect, so that idle panels show 0. What is not counted has
    /// handles that do nothing.
    pub(super) fn resolve(&self, name: &str, counted: bool) -> DialectMetrics {
        let of = [name];
        let counter =
            |of: &IntCounterVec, labels: &[&str]| Counter(counted.then(|| of.with_label_values(labels)));
        let gauge = |of: &IntGaugeVec| Gauge(counted.then(|| of.with_label_values(&[name])));
        let times = |of: &HistogramVec, labels: &[&str]| Times(counted.then(|| of.with_label_values(labels)));
        let stage = |stage| times(&self.stage, &[name, stage]);
        let slow = |action| counter(&self.slow, &[name, action]);
        let dropped = |reason| counter(&self.dropped, &[name, reason]);
        let command = |outcome: Outcome| times(&self.commands, &[name, outcome.name()]);
        let closed = |code| counter(&self.closed, &[name, code]);
        let recovered = |whole| counter(&self.recoveries, &[name, whole]);
        if counted {
            self.offences.with_label_values(&[name, "bad_json"]);
        }
        DialectMetrics {
            connections: gauge(&self.connections),
            opened: counter(&self.opened, &of),
            lifetime: times(&self.lifetime, &of),
            received: counter(&self.received, &of),
            sent: counter(&self.sent, &of),
            received_bytes: counter(&self.received_bytes, &of),
            sent_bytes: counter(&self.sent_bytes, &of),
            in_flight: gauge(&self.in_flight),
            stage: Stages {
                decode: stage("decode"),
                bus: stage("bus"),
                worker: stage("worker"),
                encode: stage("encode"),
                queue: stage("queue"),
                write: stage("write"),
            },
            delivery_lag: times(&self.delivery_lag, &of),
            queue_bytes: gauge(&self.queue_bytes),
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
            recovered_messages: counter(&self.recovered_messages, &of),
            closed: CLOSE_CODES.map(|(_, code)| closed(code)),
            closed_other: closed("other"),
            commands: Code::ALL.map(|code| command(Outcome::Failed(code))),
            commands_done: command(Outcome::Done),
            commands_local: command(Outcome::Local),
            offences: self.offences.clone(),
            name: name.to_owned(),
            still: (!counted).then(clock::now),
        }
    }
}
