//! Which bodies of state nothing refers to any more.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::StreamExt;
use ulid::Ulid;

use super::objects::Trouble;
use super::reference::{Bucket, Reference};
use crate::bus::contract::headers;
use crate::bus::contract::streams::STATE;

/// Names of objects, whole or half-written, that are older than `grace`. Pure.
/// Only names that are ULIDs, as gateways give them, tell their age; others are left alone.
pub(super) fn stale(
    subjects: &[String],
    bucket: Bucket,
    now: SystemTime,
    grace: Duration,
) -> BTreeSet<String> {
    let prefix = format!("$O.{}.", bucket.name());
    subjects
        .iter()
        .filter_map(|subject| name(subject.strip_prefix(&prefix)?))
        .filter(|name| old(name, now, grace))
        .collect()
}

/// Names of all bodies that states refer to, read from the headers alone.
pub(super) async fn named(context: &Context) -> Result<BTreeSet<String>, Trouble> {
    let stream = match context.get_stream(STATE).await {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(answer) if answer.code() == 404 => {
                return Ok(BTreeSet::new());
            }
            _ => return Err(Trouble::bus(error)),
        },
    };
    let config = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::LastPerSubject,
        filter_subject: "gw.v1.state.>".to_owned(),
        headers_only: true,
        ..pull::OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(Trouble::bus)?;
    let mut left = consumer.cached_info().num_pending;
    let mut names = BTreeSet::new();
    if left == 0 {
        return Ok(names);
    }
    let mut messages = consumer.messages().await.map_err(Trouble::bus)?;
    // to the end or not at all: half a list would take bodies that are in use
    while left > 0 {
        let Some(message) = messages.next().await else {
            return Err(Trouble::Bus("the list of states ended early".to_owned()));
        };
        let message = message.map_err(Trouble::bus)?;
        let reference = message.headers.as_ref().and_then(|map| map.get(headers::BODY));
        if let Some(reference) = reference
            && let Ok(reference) = reference.as_str().parse::<Reference>()
        {
            names.insert(reference.name);
        }
        left = message
            .info()
            .map_err(|_| Trouble::Bus("a state without its place".to_owned()))?
            .pending;
    }
    Ok(names)
}

/// The object a subject belongs to.
fn name(rest: &str) -> Option<String> {
    match rest.split_once('.')? {
        ("C", nuid) => Some(nuid.to_owned()),
        ("M", encoded) => String::from_utf8(URL_SAFE.decode(encoded).ok()?).ok(),
        _ => None,
    }
}

fn old(name: &str, now: SystemTime, grace: Duration) -> bool {
    let Ok(id) = Ulid::from_string(name) else {
        return false;
    };
    // a clock that runs ahead makes a body young, never old
    now.duration_since(id.datetime()).is_ok_and(|age| age >= grace)
}

#[cfg(test)]
mod tests {
    use super::stale;
    use crate::bus::bodies::objects::{chunks, description_of};
    use crate::bus::bodies::reference::Bucket;
    use std::time::{Duration, SystemTime};
    use ulid::Ulid;

    #[test]
    fn only_old_bodies_of_the_bucket_are_stale() {
        let now = SystemTime::now();
        let bucket = Bucket::StateBodies;
        let at = |ago| Ulid::from_datetime(now - Duration::from_secs(ago)).to_string();
        let (old, half, young) = (at(901), at(902), at(5));
        let mut subjects = Vec::new();
        for name in [&old, &young] {
            subjects.push(chunks(bucket, name));
            subjects.push(description_of(bucket, name));
        }
        subjects.push(chunks(bucket, &half));
        subjects.push(chunks(bucket, "somebody_elses"));
        subjects.push(chunks(Bucket::Bodies, &at(999)));
        let found = stale(&subjects, bucket, now, Duration::from_secs(600));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [half, old]);
    }
}
