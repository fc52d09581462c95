//! Where spans go, as the environment of OpenTelemetry says it.

use std::collections::BTreeMap;

use crate::config::problem::Problem;

/// Every variable that may name a collector, the weightiest first.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const PROTOCOLS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];

/// Whether spans leave the process, and what keeps them from doing so although they should.
pub(super) fn read(env: &BTreeMap<String, String>) -> (bool, Vec<Problem>) {
    let given = |name: &str| env.get(name).filter(|value| !value.trim().is_empty());
    let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, given(name)?)));
    let off = given("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || given("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    let Some((name, endpoint)) = first(ENDPOINTS).filter(|_| !off) else {
        return (false, Vec::new());
    };
    let mut problems = Vec::new();
    let mut report = |name: &str, text: String| {
        problems.push(Problem {
            key: name.to_owned(),
            origin: String::new(),
            text,
        });
    };
    if endpoint.starts_with("https://") {
        let text = "expected http://…: spans leave this process without TLS; run a collector beside it that forwards them";
        report(name, text.to_owned());
    } else if !endpoint.starts_with("http://") {
        report(
            name,
            format!("expected an address such as http://localhost:4318, got {endpoint:?}"),
        );
    }
    if let Some((name, protocol)) = first(PROTOCOLS)
        && protocol != "http/protobuf"
    {
        report(
            name,
            format!("expected http/protobuf, which collectors take on port 4318, got {protocol:?}"),
        );
    }
    (true, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pairs: &[(&str, &str)]) -> (bool, Vec<String>) {
        let env = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (export, problems) = read(&env.collect());
        (export, problems.into_iter().map(|problem| problem.key).collect())
    }

    #[test]
    fn what_could_never_arrive_is_refused_by_name() {
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
        let refused = |name: &str| (true, vec![name.to_owned()]);
        let taken = (true, Vec::new());
        assert_eq!(told(&[]), (false, Vec::new()));
        assert_eq!(told(&[(ALL, "http://c:4318")]), taken);
        assert_eq!(told(&[(ALL, "https://c:4318")]), refused(ALL));
        assert_eq!(told(&[(ALL, "c:4318")]), refused(ALL));
        // the one for traces is the one that counts
        assert_eq!(told(&[(ALL, "https://c"), (TRACES, "http://c/v1/traces")]), taken);
        assert_eq!(told(&[(ALL, "http://c"), (TRACES, "https://c")]), refused(TRACES));
        assert_eq!(
            told(&[(ALL, "http://c:4317"), (PROTOCOL, "grpc")]),
            refused(PROTOCOL)
        );
        assert_eq!(told(&[(ALL, "http://c"), (PROTOCOL, "http/protobuf")]), taken);
        // switched off it may be anything
        assert_eq!(
            told(&[(ALL, "https://c"), ("OTEL_SDK_DISABLED", "true")]),
            (false, Vec::new())
        );
        assert_eq!(told(&[(PROTOCOL, "grpc")]), (false, Vec::new()));
    }
}
