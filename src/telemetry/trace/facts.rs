//! The spans of events and states, with the attributes of the messaging conventions. Built for sampled ones only.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use ulid::Ulid;

use crate::message::{Class, Nanos, Origin};
use crate::telemetry::clock::unix;
use crate::telemetry::trace::TraceContext;
use crate::telemetry::trace::export::{Finished, Pipeline, pipeline};
use crate::telemetry::trace::spans::{message_id, operation, size};

const EVENT: &str = "gw.v1.evt.{space}.{dialect}.{topic}";
const STATE: &str = "gw.v1.state.{space}.{dialect}.{topic}";

/// A client's event or state from frame to stored.
pub struct AppendSpan {
    context: TraceContext,
    /// `None` where it goes in one message with others.
    id: Option<Ulid>,
    class: Class,
    start: Nanos,
    dialect: &'static str,
    topic: String,
    size: usize,
}

impl AppendSpan {
    /// The append begins now.
    #[must_use]
    pub fn start(
        context: &TraceContext,
        dialect: &'static str,
        class: Class,
        topic: &str,
        size: usize,
    ) -> Self {
        Self {
            context: *context,
            id: Some(Ulid::new()),
            class,
            start: unix(),
            dialect,
            topic: topic.to_owned(),
            size,
        }
    }

    /// It goes in one message with what others said.
    #[must_use]
    pub fn gathered(mut self) -> Self {
        self.id = None;
        self
    }

    /// The id for the message.
    #[must_use]
    pub fn id(&self) -> Option<Ulid> {
        self.id
    }

    /// The header for the message.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.context.traceparent()
    }

    /// The stream has it, or not.
    pub fn end(self, error: Option<&'static str>) {
        if let Some(pipeline) = pipeline() {
            self.record(pipeline, error);
        }
    }

    fn record(self, pipeline: &Pipeline, error: Option<&'static str>) {
        let (name, template) = match self.class {
            Class::Event => ("publish gw.v1.evt.{space}.{dialect}.{topic}", EVENT),
            Class::State => ("publish gw.v1.state.{space}.{dialect}.{topic}", STATE),
        };
        let mut attributes = common(template, self.dialect, &self.topic, self.size);
        attributes.extend(operation("publish", "send"));
        attributes.extend(self.id.map(|id| message_id(id.to_string())));
        pipeline.record(Finished {
            context: self.context,
            kind: SpanKind::Producer,
            name,
            start: self.start,
            end: unix(),
            error,
            link: None,
            attributes,
        });
    }
}

/// One event given to this gateway's clients, linked to and below the span that published it.
pub struct DeliverSpan {
    context: TraceContext,
    origin: TraceContext,
    id: Option<Arc<str>>,
    start: Nanos,
}

impl DeliverSpan {
    /// The delivery begins now, if the event came sampled and spans are exported.
    #[must_use]
    pub fn start(origin: Option<&Origin>) -> Option<Self> {
        pipeline()?;
        let origin = origin?;
        Self::of(&origin.traceparent, Some(origin.id.clone()))
    }

    fn of(traceparent: &str, id: Option<Arc<str>>) -> Option<Self> {
        let (origin, sampled) = TraceContext::parse(traceparent)?;
        sampled.then(|| Self {
            context: origin.child(),
            origin,
            id,
            start: unix(),
        })
    }

    /// Every client's queue has it.
    pub fn end(self, dialect: &'static str, class: Class, topic: &str, size: usize, clients: usize) {
        if let Some(pipeline) = pipeline() {
            self.record(pipeline, dialect, class, topic, size, clients);
        }
    }

    fn record(
        self,
        pipeline: &Pipeline,
        dialect: &'static str,
        class: Class,
        topic: &str,
        bytes: usize,
        clients: usize,
    ) {
        let (name, template) = match class {
            Class::Event => ("process gw.v1.evt.{space}.{dialect}.{topic}", EVENT),
            Class::State => ("process gw.v1.state.{space}.{dialect}.{topic}", STATE),
        };
        let mut attributes = common(template, dialect, topic, bytes);
        attributes.extend(operation("process", "process"));
        attributes.push(KeyValue::new("gw.clients", size(clients)));
        attributes.extend(self.id.map(|id| message_id(id.to_string())));
        pipeline.record(Finished {
            context: self.context,
            kind: SpanKind::Consumer,
            name,
            start: self.start,
            end: unix(),
            error: None,
            link: Some(self.origin),
            attributes,
        });
    }
}

fn common(template: &'static str, dialect: &'static str, topic: &str, bytes: usize) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "nats"),
        KeyValue::new("messaging.destination.template", template),
        KeyValue::new("messaging.message.body.size", size(bytes)),
        KeyValue::new("gw.dialect", dialect),
        KeyValue::new("gw.topic", topic.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::spans::tests::{attribute, recorded};

    #[test]
    fn a_delivery_is_linked_to_its_origin_and_of_its_trace() {
        let published = AppendSpan::start(&TraceContext::root(), "voice", Class::Event, "stt_final", 7);
        let header = published.traceparent();
        let delivered = DeliverSpan::of(&header, Some("m1".into())).unwrap();
        let spans = recorded(|pipeline| {
            published.record(pipeline, None);
            delivered.record(pipeline, "voice", Class::Event, "stt_final", 7, 3);
        });
        let [produced, consumed] = &spans[..] else {
            panic!("{spans:?}")
        };
        assert_eq!(
            (&produced.span_kind, &consumed.span_kind),
            (&SpanKind::Producer, &SpanKind::Consumer)
        );
        assert_eq!(consumed.span_context.trace_id(), produced.span_context.trace_id());
        assert_eq!(consumed.parent_span_id, produced.span_context.span_id());
        assert!(consumed.parent_span_is_remote);
        assert_eq!(
            consumed.links.links[0].span_context.span_id(),
            produced.span_context.span_id()
        );
        assert_eq!(attribute(consumed, "gw.clients").as_deref(), Some("3"));
        assert_eq!(attribute(consumed, "messaging.message.id").as_deref(), Some("m1"));
        assert!(attribute(produced, "messaging.message.id").is_some());
        assert!(DeliverSpan::of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", None).is_none());
    }

    #[test]
    fn without_a_collector_nothing_is_kept() {
        assert!(pipeline().is_none());
        let origin = Origin {
            traceparent: TraceContext::root().traceparent().into(),
            id: "m1".into(),
        };
        assert!(DeliverSpan::start(Some(&origin)).is_none());
    }
}
