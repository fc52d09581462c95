//! From finished spans to a collector. The processor's own thread sends; a full queue drops; nobody waits.

use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor,
};
use thiserror::Error;

use crate::config::Trace;
use crate::message::Nanos;
use crate::telemetry::trace::{TraceContext, layer};

/// What is not sent within this at shutdown is lost.
pub(super) const FLUSH: Duration = Duration::from_secs(3);

/// One pipeline a process, as there is one log.
static PIPELINE: OnceLock<Pipeline> = OnceLock::new();

/// The broker, which all spans of messages name.
static BROKER: OnceLock<[KeyValue; 2]> = OnceLock::new();

/// Names the broker in every span from now on.
pub fn broker(host: String, port: u16) {
    let named = [
        KeyValue::new("server.address", host),
        KeyValue::new("server.port", i64::from(port)),
    ];
    let _named_before = BROKER.set(named);
}

/// Why spans cannot leave the process.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The exporter refuses what `OTEL_*` says.
    #[error("traces: the exporter cannot be built from OTEL_EXPORTER_OTLP_*: {0}")]
    Exporter(String),
    /// Spans are already exported.
    #[error("traces are already exported")]
    Taken,
}

pub(super) struct Pipeline {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

/// Exports spans from now on if `OTEL_*` names a collector; whether it is there does not matter.
///
/// # Errors
/// [`TraceError`]; the gateway runs as well without.
pub fn start(trace: &Trace) -> Result<(), TraceError> {
    if !trace.export {
        return Ok(());
    }
    PIPELINE
        .set(Pipeline::new(exporter()?))
        .map_err(|_| TraceError::Taken)
}

pub(super) fn exporter() -> Result<opentelemetry_otlp::SpanExporter, TraceError> {
    opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .build()
        .map_err(|error| TraceError::Exporter(error.to_string()))
}

/// Sends what is left, for at most 3 s. Blocks: to be called outside the runtime, as the last thing.
pub fn stop() {
    if let Some(pipeline) = PIPELINE.get() {
        pipeline.stop();
    }
    layer::stop();
}

/// The process's pipeline, where there is one.
pub(super) fn pipeline() -> Option<&'static Pipeline> {
    PIPELINE.get()
}

/// A span that has ended.
pub(super) struct Finished {
    pub(super) context: TraceContext,
    pub(super) kind: SpanKind,
    pub(super) name: &'static str,
    pub(super) start: Nanos,
    pub(super) end: Nanos,
    pub(super) error: Option<&'static str>,
    pub(super) link: Option<TraceContext>,
    pub(super) attributes: Vec<KeyValue>,
}

impl Pipeline {
    pub(super) fn new(exporter: impl SpanExporter + 'static) -> Self {
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource());
        let scope = InstrumentationScope::builder("causeway")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Self { processor, scope }
    }

    pub(super) fn record(&self, span: Finished) {
        let mut attributes = span.attributes;
        // a server span is the gateway's own door, not the broker's
        if span.kind != SpanKind::Server {
            attributes.extend(BROKER.get().into_iter().flatten().cloned());
        }
        let status = match span.error {
            Some(error) => {
                attributes.push(KeyValue::new("error.type", error));
                Status::error(error)
            }
            None => Status::Unset,
        };
        let mut links = SpanLinks::default();
        links
            .links
            .extend(span.link.map(|link| Link::new(identity(&link), Vec::new(), 0)));
        self.processor.on_end(SpanData {
            span_context: identity(&span.context),
            parent_span_id: SpanId::from_bytes(span.context.parent.to_be_bytes()),
            parent_span_is_remote: span.context.remote,
            span_kind: span.kind,
            name: span.name.into(),
            start_time: UNIX_EPOCH + Duration::from_nanos(span.start),
            end_time: UNIX_EPOCH + Duration::from_nanos(span.end.max(span.start)),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status,
            instrumentation_scope: self.scope.clone(),
        });
    }

    pub(super) fn stop(&self) {
        if let Err(error) = self.processor.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last traces are lost");
        }
    }
}

fn identity(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace.to_be_bytes()),
        SpanId::from_bytes(context.span.to_be_bytes()),
        TraceFlags::SAMPLED,
        context.remote,
        TraceState::NONE,
    )
}

/// Who we are, as `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say it, with our own words for what they leave open.
pub(super) fn resource() -> Resource {
    let told = Resource::builder().build();
    let mut own = vec![
        KeyValue::new("service.name", "causeway"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", ulid::Ulid::new().to_string()),
    ];
    own.retain(|attribute| match told.get(&attribute.key) {
        Some(value) => value.as_str().starts_with("unknown_service"),
        None => true,
    });
    Resource::builder().with_attributes(own).build()
}
