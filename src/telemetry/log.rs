//! Log lines: text on a terminal, JSON otherwise; the filter can be changed while running.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{Log, LogFormat};
use crate::telemetry::trace;

/// The broker client reports each dropped message and each event at `info`: too much unless asked for.
const QUIET: &str = "async_nats";

/// Why logging cannot be set up or changed.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("log.level: expected a filter such as \"info\" or \"causeway=debug,info\": {0}")]
    Filter(String),
    /// Another subscriber is in place.
    #[error("logging is already set up: {0}")]
    Taken(String),
}

/// Changes the filter of a running process.
#[derive(Clone)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    /// From now on logs what `level` says.
    ///
    /// # Errors
    /// [`LogError::Filter`]; the former filter stays.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        let filter = filter(level)?;
        self.0
            .reload(filter)
            .map_err(|error| LogError::Taken(error.to_string()))
    }
}

/// A layer beside the log lines.
pub type Beside = Box<dyn Layer<Registry> + Send + Sync>;

/// Logs to standard error from now on, with what else looks at spans.
///
/// # Errors
/// [`LogError`].
pub fn start(log: &Log, beside: Option<Beside>) -> Result<Level, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    } else {
        lines.with_ansi(terminal).boxed()
    };
    // the filter is that of the lines alone: what else looks at spans sees them at every level
    let mut layers = vec![lines.with_filter(filter).boxed()];
    layers.extend(beside);
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(|error| LogError::Taken(error.to_string()))?;
    Ok(Level(handle))
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let text = complete(level);
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| LogError::Filter(error.to_string()))
}

/// The operator's filter, quiet where it does not speak of the broker client, and without the collector's spans.
fn complete(level: &str) -> String {
    let ours = format!("{level},{}=off", trace::TARGET);
    if level.contains(QUIET) {
        ours
    } else {
        format!("{ours},{QUIET}=warn")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_client_is_quiet_unless_asked_for() {
        assert_eq!(complete("info"), "info,otel=off,async_nats=warn");
        assert_eq!(
            complete("info,async_nats=debug"),
            "info,async_nats=debug,otel=off"
        );
    }

    #[test]
    fn a_bad_filter_is_refused() {
        assert!(filter("causeway=debug,info").is_ok());
        assert!(matches!(filter("causeway=loud"), Err(LogError::Filter(_))));
    }
}
