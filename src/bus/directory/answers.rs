//! What services answer to `PING`, `INFO` and `STATS`, read with patience for older and other libraries. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// One endpoint of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Endpoint {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// What it listens on.
    #[serde(default)]
    pub subject: String,
    /// Who shares its load.
    #[serde(default)]
    pub queue_group: String,
    /// What the service says about it.
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
}

/// What an endpoint has done since its instance started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct EndpointStats {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// What it listens on.
    #[serde(default)]
    pub subject: String,
    /// Requests taken.
    #[serde(default, rename = "num_requests", deserialize_with = "or_default")]
    pub requests: u64,
    /// Requests that failed.
    #[serde(default, rename = "num_errors", deserialize_with = "or_default")]
    pub errors: u64,
    /// The last failure.
    #[serde(default, deserialize_with = "or_default")]
    pub last_error: Option<LastError>,
    /// Time spent on requests, in all.
    #[serde(default, deserialize_with = "nanoseconds")]
    pub processing_time: Duration,
}

impl EndpointStats {
    /// What several have done together. Nobody checks what services count, so sums end where numbers do.
    #[must_use]
    pub fn total(all: &[Self]) -> Self {
        all.iter().fold(Self::default(), |sum, one| Self {
            requests: sum.requests.saturating_add(one.requests),
            errors: sum.errors.saturating_add(one.errors),
            processing_time: sum.processing_time.saturating_add(one.processing_time),
            ..sum
        })
    }
}

/// The last failure of an endpoint: libraries write a text, or code and text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum LastError {
    /// As a text.
    Text(String),
    /// As code and text.
    Coded {
        /// The code.
        #[serde(default)]
        code: u64,
        /// The text.
        #[serde(default, alias = "status")]
        description: String,
    },
}

/// What an instance has done since it started.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Stats {
    /// The service.
    pub name: String,
    /// The instance.
    pub id: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// RFC 3339.
    #[serde(default)]
    pub started: String,
    /// By endpoint.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoints: Vec<EndpointStats>,
}

/// An answer to `PING` or `INFO`.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    #[serde(rename = "type", default)]
    kind: String,
    pub(super) name: String,
    pub(super) id: String,
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) metadata: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) endpoints: Vec<Endpoint>,
}

impl Answer {
    /// Reads an answer; `None` for anything that is not one or whose names could not be subject tokens.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let answer: Self = serde_json::from_slice(payload).ok()?;
        (plain(&answer.name) && plain(&answer.id)).then_some(answer)
    }

    /// Whether it tells the endpoints.
    pub(super) fn is_info(&self) -> bool {
        self.kind.ends_with("info_response")
    }
}

impl Stats {
    /// Reads an answer to `STATS`.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let stats: Self = serde_json::from_slice(payload).ok()?;
        (plain(&stats.name) && plain(&stats.id)).then_some(stats)
    }
}

/// Whether a name can be a token of a subject.
pub(super) fn plain(name: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=128).contains(&name.len()) && name.bytes().all(safe)
}

/// Go services write `null` where others leave out.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Go and Rust write whole nanoseconds, JavaScript may write a fraction.
fn nanoseconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let value = Option::<f64>::deserialize(from)?.unwrap_or_default();
    Ok(Duration::try_from_secs_f64(value / 1e9).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{Answer, EndpointStats, LastError, Stats};
    use std::time::Duration;

    #[test]
    fn answers_of_several_libraries_are_read() {
        let ping = r#"{"type":"io.nats.micro.v1.ping_response","name":"voice","id":"A1","version":"1.0.0","metadata":null}"#;
        let ping = Answer::parse(ping.as_bytes()).expect("ping");
        assert!(!ping.is_info() && ping.metadata.is_empty());
        let info = r#"{"type":"io.nats.micro.v1.info_response","name":"voice","id":"A1","version":"1.0.0",
            "description":"speech","metadata":{"exposed":"false"},"endpoints":[{"name":"stt_start",
            "subject":"gw.v1.cmd.*.voice.stt_start","queue_group":"voice","metadata":null}]}"#;
        let info = Answer::parse(info.as_bytes()).expect("info");
        assert!(info.is_info());
        assert_eq!(info.endpoints[0].queue_group, "voice");
        let stats = r#"{"type":"io.nats.micro.v1.stats_response","name":"voice","id":"A1","version":"1.0.0",
            "started":"2026-01-01T00:00:00Z","endpoints":[{"name":"a","subject":"s","num_requests":3,"num_errors":1,
            "last_error":"500:boom","processing_time":1500,"average_processing_time":500},
            {"name":"b","last_error":{"code":500,"description":"boom"},"processing_time":2.5e9,"data":{"x":1}}]}"#;
        let stats = Stats::parse(stats.as_bytes()).expect("stats");
        assert_eq!((stats.endpoints[0].requests, stats.endpoints[0].errors), (3, 1));
        assert_eq!(stats.endpoints[0].processing_time, Duration::from_nanos(1500));
        assert_eq!(stats.endpoints[1].processing_time, Duration::from_millis(2500));
        assert!(matches!(
            stats.endpoints[1].last_error,
            Some(LastError::Coded { code: 500, .. })
        ));
    }

    #[test]
    fn sums_end_where_numbers_do() {
        let endpoint = r#"{"num_requests":18446744073709551615,"num_errors":2,"processing_time":1.8e28}"#;
        let text = format!(r#"{{"name":"voice","id":"A1","endpoints":[{endpoint},{endpoint}]}}"#);
        let stats = Stats::parse(text.as_bytes()).expect("stats");
        let total = EndpointStats::total(&stats.endpoints);
        assert_eq!((total.requests, total.errors), (u64::MAX, 4));
        assert_eq!(total.processing_time, Duration::MAX);
    }

    #[test]
    fn names_that_mean_something_in_a_subject_are_refused() {
        for name in ["", "a.b", "a b", ">", "*", "ä"] {
            let text = format!(r#"{{"type":"x","name":"{name}","id":"A1"}}"#);
            assert!(Answer::parse(text.as_bytes()).is_none(), "{name}");
            let text = format!(r#"{{"type":"x","name":"voice","id":"{name}"}}"#);
            assert!(Answer::parse(text.as_bytes()).is_none(), "{name}");
        }
        assert!(Answer::parse(b"[]").is_none() && Answer::parse(b"").is_none());
    }
}
