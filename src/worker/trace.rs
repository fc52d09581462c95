//! The trace a command came in, continued: spans for the work, for what it asks of others and for what it states.
//!
//! They are spans of `tracing`; the program decides whether they leave it. Those with target [`TARGET`] are for the
//! collector alone; the one called `command` is for log lines, which name trace, session and command by it.

use std::collections::HashMap;
use std::sync::OnceLock;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Instrument, Span, error_span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::job::Work;
use crate::bus::contract::headers;
use crate::message::{Class, Fault};

/// The target of spans for the collector. Their level is the highest, so that no log filter stands in their way.
const TARGET: &str = "otel";

/// The broker: every span of a message names it.
static BROKER: OnceLock<(String, u16)> = OnceLock::new();

/// Names the broker in spans from now on.
pub(super) fn broker(host: String, port: u16) {
    let _named_before = BROKER.set((host, port));
}

fn address() -> Option<&'static str> {
    BROKER.get().map(|(host, _)| host.as_str())
}

fn port() -> Option<i64> {
    BROKER.get().map(|(_, port)| i64::from(*port))
}

/// A span of a message: what all of them say, then what only this one does.
macro_rules! span {
    ([$($named:tt)*] $($own:tt)*) => {
        error_span!(
            target: TARGET, $($named)*,
            otel.status_code = field::Empty,
            error.type = field::Empty,
            messaging.system = "nats",
            server.address = address(),
            server.port = port(),
            $($own)*
        )
    };
}

/// Runs the work on one command in its spans: below the request that sent it.
pub(super) fn process<F: Future>(
    service: &'static str,
    work: &Work,
    performed: F,
) -> impl Future<Output = F::Output> + use<F> {
    let (logged, span) = spans(service, work);
    // both are entered: a log line takes the innermost span that is not the collector's
    performed.instrument(span).instrument(logged)
}

fn spans(service: &'static str, work: &Work) -> (Span, Span) {
    let sampled = work
        .traceparent
        .as_deref()
        .filter(|header| headers::sampled(header));
    let logged = error_span!(
        "command",
        id = work.id,
        session = work.session,
        trace_id = sampled.and_then(|header| header.get(3..35)),
    );
    let Some(header) = sampled else {
        return (logged, Span::none());
    };
    let span = span!(
        [parent: None, "process"]
        otel.name = "process gw.v1.cmd.{space}.{service}.{action}",
        otel.kind = "consumer",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.template = "gw.v1.cmd.{space}.{service}.{action}",
        messaging.consumer.group.name = service,
        messaging.message.id = work.id,
        messaging.message.conversation_id = work.correlation,
        messaging.message.body.size = bytes(work.body.len()),
        gw.service = service,
        gw.action = work.action,
    );
    let carried = HashMap::from([("traceparent".to_owned(), header.to_owned())]);
    // without a collector there is nothing that could take a parent
    let _ = span.set_parent(TraceContextPropagator::new().extract(&carried));
    (logged, span)
}

/// A command to another worker, until its final answer.
pub(super) fn request(service: &str, action: &str, id: &str) -> Span {
    span!(
        ["request"]
        otel.name = "request gw.v1.cmd.{space}.{service}.{action}",
        otel.kind = "client",
        messaging.operation.name = "request",
        messaging.operation.type = "send",
        messaging.destination.template = "gw.v1.cmd.{space}.{service}.{action}",
        messaging.consumer.group.name = service,
        messaging.message.id = id,
        gw.service = service,
        gw.action = action,
    )
}

/// An event or a state, until it is stored.
pub(super) fn publish(class: Class, dialect: &str, topic: &str, id: &str, size: usize) -> Span {
    let (name, template) = match class {
        Class::Event => (
            "publish gw.v1.evt.{space}.{dialect}.{topic}",
            "gw.v1.evt.{space}.{dialect}.{topic}",
        ),
        Class::State => (
            "publish gw.v1.state.{space}.{dialect}.{topic}",
            "gw.v1.state.{space}.{dialect}.{topic}",
        ),
    };
    span!(
        ["publish"]
        otel.name = name,
        otel.kind = "producer",
        messaging.operation.name = "publish",
        messaging.operation.type = "send",
        messaging.destination.template = template,
        messaging.message.id = id,
        messaging.message.body.size = bytes(size),
        gw.dialect = dialect,
        gw.topic = topic,
    )
}

/// Work that goes on after its command was answered: in the same trace, without keeping the command's span open.
pub(super) fn outliving() -> Span {
    let span = error_span!(
        target: TARGET, parent: None, "continue",
        otel.name = "continue after the answer",
        otel.kind = "internal",
    );
    let _ = span.set_parent(Span::current().context());
    span
}

/// The header that makes the receiver's span a child of `span`; `None` where nothing is traced.
pub(super) fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let sampled = context.span().span_context().is_sampled();
    if !sampled {
        return None;
    }
    let mut carried = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carried);
    carried.remove("traceparent")
}

/// What went wrong, by the word of its code.
pub(super) fn failed(span: &Span, fault: &Fault) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", fault.code.name());
}

fn bytes(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
