//! Settings of what is seen from outside.

use figment::value::Value;

use crate::config::settings::{Setting, row};
use crate::config::value::{self as kind, Kind, Parsed};

/// An address that a page may link.
const LINK: Kind<Option<String>> = Kind {
    name: "URL",
    parse: link,
};

fn link(value: &Value) -> Parsed<Option<String>> {
    let text = value.as_str().unwrap_or_default();
    let http = text.starts_with("http://") || text.starts_with("https://");
    if !http || text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        let wrong = format!("expected an address such as http://localhost:3000, got {text:?}");
        return Err(vec![wrong.into()]);
    }
    Ok(Some(text.to_owned()))
}

/// Logs, traces and the pages beside the gateway.
pub(super) fn all() -> Vec<Setting> {
    vec![
        row(
            "log.level",
            kind::FILTER,
            r#""info""#,
            "Log filter such as `info` or `causeway=debug,info`.",
            |c| &mut c.log.level,
        ),
        row(
            "log.format",
            kind::FORMAT,
            r#""auto""#,
            "Log lines: `text`, `json`, or `auto` for text on a terminal and JSON otherwise.",
            |c| &mut c.log.format,
        ),
        row(
            "trace.ratio",
            kind::RATIO,
            "0.01",
            "Share of messages that start a trace; a sampled `traceparent` always continues. Spans leave the process only when `OTEL_EXPORTER_OTLP_ENDPOINT` is set.",
            |c| &mut c.trace.ratio,
        ),
        row(
            "links.grafana",
            LINK,
            "",
            "Where people find Grafana; the landing page links it.",
            |c| &mut c.links.grafana,
        ),
        row(
            "links.prometheus",
            LINK,
            "",
            "Where people find Prometheus; the landing page links it.",
            |c| &mut c.links.prometheus,
        ),
        row(
            "links.traces",
            LINK,
            "",
            "Where people find traces; the landing page links it, and what is run there links its own trace: `/trace/<id>` after this, or `{id}` in it.",
            |c| &mut c.links.traces,
        ),
        row(
            "links.ports",
            kind::PORTS,
            "",
            "Ports as others reach them, where something in front publishes ours under other numbers: `gateway`, `ops`, `nats` and those of the dialects. The landing page shows these, and messages name them.",
            |c| &mut c.links.ports,
        ),
    ]
}
