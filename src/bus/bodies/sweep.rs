//! Which bodies of a bucket nothing refers to any more. Pure.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use ulid::Ulid;

use super::reference::Bucket;

/// Names of objects, whole or half-written, that are not in `live` and older than `grace`.
/// Only names that are ULIDs, as gateways give them, tell their age; others are left alone.
pub(super) fn stale(
    subjects: &[String],
    bucket: Bucket,
    live: &HashSet<String>,
    now: SystemTime,
    grace: Duration,
) -> BTreeSet<String> {
    let prefix = format!("$O.{}.", bucket.name());
    subjects
        .iter()
        .filter_map(|subject| name(subject.strip_prefix(&prefix)?))
        .filter(|name| !live.contains(name) && old(name, now, grace))
        .collect()
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
    use std::collections::HashSet;
    use std::time::{Duration, SystemTime};
    use ulid::Ulid;

    #[test]
    fn only_old_bodies_without_a_reference_are_stale() {
        let now = SystemTime::now();
        let bucket = Bucket::StateBodies;
        let at = |ago| Ulid::from_datetime(now - Duration::from_secs(ago)).to_string();
        let (live, orphan, half, young) = (at(900), at(901), at(902), at(5));
        let mut subjects = Vec::new();
        for name in [&live, &orphan, &young] {
            subjects.push(chunks(bucket, name));
            subjects.push(description_of(bucket, name));
        }
        subjects.push(chunks(bucket, &half));
        subjects.push(chunks(bucket, "somebody_elses"));
        subjects.push(chunks(Bucket::Bodies, &at(999)));
        let live = HashSet::from([live]);
        let found = stale(&subjects, bucket, &live, now, Duration::from_secs(600));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [half, orphan]);
    }
}
