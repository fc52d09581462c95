//! The span of a command that a gateway performs itself, as a service on the bus. Built for sampled messages only.

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use crate::message::Nanos;
use crate::telemetry::clock::unix;
use crate::telemetry::trace::TraceContext;
use crate::telemetry::trace::export::{Finished, pipeline};
use crate::telemetry::trace::spans::{COMMAND, message_id, operation, size};

/// A command from the bus to its answer, below the request that sent it.
pub struct WorkSpan {
    context: TraceContext,
    start: Nanos,
    attributes: Vec<KeyValue>,
}

impl WorkSpan {
    /// The work begins now, if the command came sampled.
    #[must_use]
    pub fn start(
        traceparent: Option<&str>,
        id: Option<&str>,
        service: &'static str,
        action: &str,
        bytes: usize,
    ) -> Option<Self> {
        let (request, sampled) = TraceContext::parse(traceparent?)?;
        if !sampled {
            return None;
        }
        let mut attributes = vec![
            KeyValue::new("messaging.system", "nats"),
            KeyValue::new("messaging.destination.template", COMMAND),
            KeyValue::new("messaging.message.body.size", size(bytes)),
            KeyValue::new("messaging.consumer.group.name", service),
            KeyValue::new("gw.service", service),
            KeyValue::new("gw.action", action.to_owned()),
        ];
        attributes.extend(id.map(|id| message_id(id.to_owned())));
        attributes.extend(operation("process", "process"));
        Some(Self {
            context: request.child(),
            start: unix(),
            attributes,
        })
    }

    /// The header for the answer.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.context.traceparent()
    }

    /// It is answered; `error` names what went wrong.
    pub fn end(self, error: Option<&'static str>) {
        let Some(pipeline) = pipeline() else { return };
        pipeline.record(Finished {
            context: self.context,
            kind: SpanKind::Consumer,
            name: "process gw.v1.cmd.{space}.{service}.{action}",
            start: self.start,
            end: unix(),
            error,
            link: None,
            attributes: self.attributes,
        });
    }
}
