//! Spans of `tracing` on their way to a collector: how the reference workers' spans leave the process.
//!
//! Not for the gateway: a layer that looks at every span and log line costs a microsecond a message. There the spans
//! are built by hand, for sampled messages only.

use std::sync::OnceLock;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use crate::config::Trace;
use crate::telemetry::trace::export::{FLUSH, TraceError, exporter, resource};

/// Spans with this target are for the collector, and for no log line.
pub const TARGET: &str = "otel";

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// A layer that exports the spans of a process that continues traces and begins none; `None` without a collector.
///
/// # Errors
/// [`TraceError`]; the process runs as well without.
pub fn layer<S>(trace: &Trace) -> Result<Option<Box<dyn Layer<S> + Send + Sync>>, TraceError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    if !trace.export {
        return Ok(None);
    }
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter()?)
        // a trace begins where a client's message comes in
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
        .with_resource(resource())
        .build();
    let tracer = provider.tracer("causeway");
    PROVIDER.set(provider).map_err(|_| TraceError::Taken)?;
    let ours = filter_fn(|metadata| metadata.target() == TARGET).with_max_level_hint(LevelFilter::ERROR);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(ours);
    Ok(Some(layer.boxed()))
}

/// Sends what is left, for at most 3 s.
pub(super) fn stop() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown_with_timeout(FLUSH)
    {
        tracing::warn!(%error, "the last traces are lost");
    }
}
