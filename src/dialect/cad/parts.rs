//! What messages are taken apart into, and the steps and offences made of the parts.

use std::ops::Range;

use bytes::Bytes;

use crate::dialect::{Append, Fate, Offence, Step};
use crate::message::{Body, Class, Close};
use crate::wire::json::Members;

/// The answer to `C:"status"`, also how a worker hears of a report.
pub(super) fn status(text: &str) -> String {
    format!(r#"{{"command":"status","text":{text}}}"#)
}

pub(super) fn broken(code: &'static str, reason: &'static str) -> Offence {
    Offence {
        code,
        fate: Fate::Close(Close::new(1007, reason)),
    }
}

/// The originals say nothing, so nothing is said.
pub(super) fn ignored(code: &'static str) -> Offence {
    Offence {
        code,
        fate: Fate::Continue,
    }
}

pub(super) fn state(topic: &str, bytes: Bytes) -> Step {
    Step::Append(Append {
        class: Class::State,
        topic: topic.to_owned(),
        body: Body::json(bytes),
    })
}

pub(super) fn event(topic: &str, bytes: Bytes) -> Step {
    Step::Append(Append {
        class: Class::Event,
        topic: topic.to_owned(),
        body: Body::json(bytes),
    })
}

/// Two members of an object, by name; an error when it is no JSON object.
pub(super) fn two(payload: &[u8], names: [&str; 2]) -> Result<[Option<Range<usize>>; 2], Offence> {
    let mut found = [None, None];
    let mut members = Members::new(payload);
    for member in members.by_ref() {
        let name = &payload[member.name];
        if let Some(at) = names.iter().position(|known| known.as_bytes() == name) {
            found[at] = Some(member.value);
        }
    }
    if members.whole() {
        Ok(found)
    } else {
        Err(broken("bad_json", "the payload is no JSON object"))
    }
}

/// The bytes of a member that was found, empty when it was not.
pub(super) fn of(payload: &[u8], range: Option<&Range<usize>>) -> Bytes {
    range.map_or_else(Bytes::new, |range| {
        Bytes::copy_from_slice(&payload[range.clone()])
    })
}

pub(super) fn is_object(payload: &[u8], range: Option<&Range<usize>>) -> bool {
    range.is_some_and(|range| payload[range.start] == b'{')
}
