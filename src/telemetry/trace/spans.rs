//! The spans of a message, with the attributes of the messaging conventions. Built for sampled messages only.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use crate::message::{Class, Command, Nanos};
use crate::telemetry::trace::TraceContext;
use crate::telemetry::trace::export::{Finished, Pipeline, pipeline};

const COMMAND: &str = "gw.v1.cmd.{space}.{service}.{action}";
const EVENT: &str = "gw.v1.evt.{space}.{dialect}.{topic}";
const STATE: &str = "gw.v1.state.{space}.{dialect}.{topic}";

/// A client's command from frame to final answer: a server span, and below it the request on the bus,
/// which is the parent of the worker's own span.
pub struct CommandSpan {
    frame: TraceContext,
    request: TraceContext,
    start: Nanos,
    attributes: Vec<KeyValue>,
}

impl CommandSpan {
    /// The command begins now.
    #[must_use]
    pub fn start(context: &TraceContext, dialect: &'static str, command: &Command) -> Self {
        let mut attributes = vec![
            KeyValue::new("messaging.system", "nats"),
            KeyValue::new("messaging.destination.template", COMMAND),
            KeyValue::new("messaging.message.body.size", size(command.body.bytes.len())),
            KeyValue::new("messaging.consumer.group.name", command.service.to_string()),
            KeyValue::new("gw.dialect", dialect),
            KeyValue::new("gw.service", command.service.to_string()),
            KeyValue::new("gw.action", command.action.clone()),
        ];
        if let Some(correlation) = &command.correlation {
            let id = correlation.clone();
            attributes.push(KeyValue::new("messaging.message.conversation_id", id));
        }
        Self {
            frame: *context,
            request: context.child(),
            start: unix(),
            attributes,
        }
    }

    /// The header for the request.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.request.traceparent()
    }

    /// The id of the trace, for log lines.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.frame.trace_id()
    }

    /// The final answer came; `error` names what went wrong.
    pub fn end(self, error: Option<&'static str>) {
        if let Some(pipeline) = pipeline() {
            self.record(pipeline, error);
        }
    }

    fn record(self, pipeline: &Pipeline, error: Option<&'static str>) {
        let end = unix();
        let mut attributes = self.attributes.clone();
        attributes.extend(operation("request", "send"));
        pipeline.record(Finished {
            context: self.request,
            kind: SpanKind::Client,
            name: "request gw.v1.cmd.{space}.{service}.{action}",
            start: self.start,
            end,
            error,
            link: None,
            attributes,
        });
        let mut attributes = self.attributes;
        attributes.extend(operation("receive", "receive"));
        pipeline.record(Finished {
            context: self.frame,
            kind: SpanKind::Server,
            name: "receive command",
            start: self.start,
            end,
            error,
            link: None,
            attributes,
        });
    }
}

/// A client's event or state from frame to stored.
pub struct AppendSpan {
    context: TraceContext,
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
            class,
            start: unix(),
            dialect,
            topic: topic.to_owned(),
            size,
        }
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
    start: Nanos,
}

impl DeliverSpan {
    /// The delivery begins now, if the event came sampled and spans are exported.
    #[must_use]
    pub fn start(traceparent: Option<&str>) -> Option<Self> {
        pipeline()?;
        Self::of(traceparent?)
    }

    fn of(traceparent: &str) -> Option<Self> {
        let (origin, sampled) = TraceContext::parse(traceparent)?;
        sampled.then(|| Self {
            context: origin.child(),
            origin,
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

fn operation(name: &'static str, kind: &'static str) -> [KeyValue; 2] {
    [
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.operation.type", kind),
    ]
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn unix() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{SpanId, Status};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SpanData, SpanExporter};

    use super::*;
    use crate::message::{Body, CallId};

    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    fn recorded(record: impl FnOnce(&Pipeline)) -> Vec<SpanData> {
        let kept = Kept::default();
        let pipeline = Pipeline::new(kept.clone());
        record(&pipeline);
        pipeline.stop();
        let spans = kept.0.lock().unwrap();
        spans.clone()
    }

    fn command() -> Command {
        Command {
            id: CallId(1),
            service: "voice".into(),
            action: "stt_start".to_owned(),
            body: Body::json("{}"),
            correlation: Some("c1".to_owned()),
            traceparent: None,
        }
    }

    fn attribute(span: &SpanData, key: &str) -> Option<String> {
        let found = span
            .attributes
            .iter()
            .find(|attribute| attribute.key.as_str() == key)?;
        Some(found.value.as_str().into_owned())
    }

    #[test]
    fn a_command_is_a_server_span_over_a_request() {
        let context = TraceContext::root();
        let span = CommandSpan::start(&context, "voice", &command());
        let header = span.traceparent();
        let spans = recorded(|pipeline| span.record(pipeline, Some("no_worker")));
        let [request, frame] = &spans[..] else {
            panic!("{spans:?}")
        };
        assert_eq!(
            (&frame.span_kind, &request.span_kind),
            (&SpanKind::Server, &SpanKind::Client)
        );
        assert_eq!(frame.parent_span_id, SpanId::INVALID);
        assert_eq!(request.parent_span_id, frame.span_context.span_id());
        assert_eq!(frame.span_context.trace_id(), request.span_context.trace_id());
        let (worker_sees, _) = TraceContext::parse(&header).unwrap();
        assert_eq!(
            worker_sees.span.to_be_bytes(),
            request.span_context.span_id().to_bytes()
        );
        assert_eq!(frame.status, Status::error("no_worker"));
        assert_eq!(attribute(frame, "error.type").as_deref(), Some("no_worker"));
        assert_eq!(
            attribute(frame, "messaging.message.conversation_id").as_deref(),
            Some("c1")
        );
        assert_eq!(
            attribute(request, "messaging.operation.name").as_deref(),
            Some("request")
        );
        // names stay few whatever clients ask for
        assert!(spans.iter().all(|span| !span.name.contains("stt_start")));
        assert!(frame.end_time >= frame.start_time);
    }

    #[test]
    fn a_delivery_is_linked_to_its_origin_and_of_its_trace() {
        let published = AppendSpan::start(&TraceContext::root(), "voice", Class::Event, "stt_final", 7);
        let header = published.traceparent();
        let delivered = DeliverSpan::of(&header).unwrap();
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
        assert!(DeliverSpan::of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").is_none());
    }

    #[test]
    fn without_a_collector_nothing_is_kept() {
        assert!(pipeline().is_none());
        assert!(DeliverSpan::start(Some(&TraceContext::root().traceparent())).is_none());
        CommandSpan::start(&TraceContext::root(), "voice", &command()).end(None);
    }
}
