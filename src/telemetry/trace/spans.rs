//! The spans of a command, with the attributes of the messaging conventions. Built for sampled messages only.

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use ulid::Ulid;

use crate::message::{Command, Nanos};
use crate::telemetry::clock::unix;
use crate::telemetry::trace::TraceContext;
use crate::telemetry::trace::export::{Finished, Pipeline, pipeline};

pub(super) const COMMAND: &str = "gw.v1.cmd.{space}.{service}.{action}";

/// A client's command from frame to final answer: a server span, and below it the request on the bus, which is the
/// parent of the worker's own span. A worker that continues the trace is the parent of the reply's way to the client.
pub struct CommandSpan {
    frame: TraceContext,
    request: TraceContext,
    /// The reply, and when it came.
    reply: Option<(TraceContext, Nanos)>,
    start: Nanos,
    /// Whether it went to the bus at all.
    sent: bool,
    /// Its id there.
    id: Option<Ulid>,
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
            reply: None,
            start: unix(),
            sent: true,
            id: None,
            attributes,
        }
    }

    /// The gateway answers it itself.
    #[must_use]
    pub fn here(mut self) -> Self {
        self.sent = false;
        self
    }

    /// The request is out, with this message id.
    pub fn sent(&mut self, id: Ulid) {
        self.id = Some(id);
    }

    /// Where the span of what is made of its outcome belongs, as an event that tells others: below the reply, or the
    /// frame.
    #[must_use]
    pub fn outcome(&self) -> TraceContext {
        self.reply.map_or(self.frame, |(reply, _)| reply).child()
    }

    /// The final reply is here; `traceparent` is its own. A reply of another trace is not believed.
    pub fn replied(&mut self, traceparent: &str) {
        if let Some((worker, true)) = TraceContext::parse(traceparent)
            && worker.trace == self.frame.trace
        {
            self.reply = Some((worker.child(), unix()));
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

    /// The client has its final answer; `error` names what went wrong.
    pub fn end(self, error: Option<&'static str>) {
        if let Some(pipeline) = pipeline() {
            self.record(pipeline, error);
        }
    }

    fn record(self, pipeline: &Pipeline, error: Option<&'static str>) {
        let end = unix();
        if self.sent {
            let mut attributes = self.attributes.clone();
            attributes.extend(operation("request", "send"));
            attributes.extend(self.id.map(|id| message_id(id.to_string())));
            pipeline.record(Finished {
                context: self.request,
                kind: SpanKind::Client,
                name: "request gw.v1.cmd.{space}.{service}.{action}",
                start: self.start,
                end: self.reply.map_or(end, |(_, came)| came),
                error,
                link: None,
                attributes,
            });
        }
        if let Some((context, start)) = self.reply {
            let mut attributes = self.attributes.clone();
            attributes.extend(operation("process", "process"));
            pipeline.record(Finished {
                context,
                kind: SpanKind::Consumer,
                name: "process reply",
                start,
                end,
                error: None,
                link: None,
                attributes,
            });
        }
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

pub(super) fn operation(name: &'static str, kind: &'static str) -> [KeyValue; 2] {
    [
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.operation.type", kind),
    ]
}

pub(super) fn message_id(id: String) -> KeyValue {
    KeyValue::new("messaging.message.id", id)
}

pub(super) fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
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

    pub(in super::super) fn recorded(record: impl FnOnce(&Pipeline)) -> Vec<SpanData> {
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

    pub(in super::super) fn attribute(span: &SpanData, key: &str) -> Option<String> {
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
    fn a_reply_hangs_on_the_worker_that_sent_it() {
        let mut span = CommandSpan::start(&TraceContext::root(), "voice", &command());
        let (request, _) = TraceContext::parse(&span.traceparent()).unwrap();
        // another trace is nobody's reply
        span.replied(&TraceContext::root().traceparent());
        assert!(span.reply.is_none());
        let worker = request.child();
        span.replied(&worker.traceparent());
        let spans = recorded(|pipeline| span.record(pipeline, None));
        let [request, reply, frame] = &spans[..] else {
            panic!("{spans:?}")
        };
        assert_eq!(reply.parent_span_id.to_bytes(), worker.span.to_be_bytes());
        assert!(reply.parent_span_is_remote);
        assert_eq!(reply.span_context.trace_id(), frame.span_context.trace_id());
        assert!(request.end_time <= reply.start_time && reply.end_time <= frame.end_time);
    }

    #[test]
    fn what_the_gateway_answers_itself_was_never_sent() {
        let span = CommandSpan::start(&TraceContext::root(), "voice", &command()).here();
        let spans = recorded(|pipeline| span.record(pipeline, None));
        let kinds: Vec<_> = spans.iter().map(|span| span.span_kind.clone()).collect();
        assert_eq!(kinds, [SpanKind::Server]);
    }

    #[test]
    fn without_a_collector_nothing_is_kept() {
        assert!(pipeline().is_none());
        CommandSpan::start(&TraceContext::root(), "voice", &command()).end(None);
    }
}
