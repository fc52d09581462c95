//! The state of a space as its sessions see it, and changes that keep what others said.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::message::Event;

/// The last value of every state topic of a space, tombstones included.
pub type States = BTreeMap<Arc<str>, Event>;

/// What a session may look at without asking the bus.
pub struct View<'a> {
    /// Last values by topic.
    pub states: &'a States,
    /// Whether a service runs.
    pub running: &'a dyn Fn(&str) -> bool,
    /// Whether a session is connected, to this gateway or another.
    pub present: &'a dyn Fn(&str) -> bool,
    /// The dialect's own settings as a JSON object, read anew where they may have changed.
    pub settings: &'a dyn Fn() -> Bytes,
}

impl View<'_> {
    /// The last value of a topic; `None` when there was none or it is a tombstone.
    #[must_use]
    pub fn value(&self, topic: &str) -> Option<&Event> {
        self.states.get(topic).filter(|event| !event.body.is_empty())
    }
}

/// A state topic as a dialect sees it when it decides what a newcomer gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Topic.
    pub topic: Arc<str>,
    /// Sequence of its last value.
    pub seq: u64,
    /// Whether that is a tombstone, which no newcomer gets.
    pub gone: bool,
}

/// Keys to be set in a state topic whose value is a [`Merged`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Topic.
    pub topic: &'static str,
    /// A JSON object; its keys replace those of the same name.
    pub keys: Bytes,
    /// What was said, kept beside the merged keys and delivered to those who want it verbatim; empty = the keys.
    pub said: Bytes,
    /// The topic that makes earlier keys void once it has a newer value.
    pub voided_by: Option<&'static str>,
    /// Whether keys may be gathered for a moment, so that a storm becomes a few updates.
    pub gather: bool,
}

/// The body of a merged state: all keys so far, and the last thing said as it was said.
#[derive(Serialize, Deserialize)]
pub struct Merged<'a> {
    /// Every key ever set, in order of name.
    #[serde(borrow)]
    pub merged: &'a RawValue,
    /// What was said last.
    #[serde(borrow)]
    pub said: &'a RawValue,
}

impl<'a> Merged<'a> {
    /// Reads a body; `None` when it is no merged state.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

/// Both sets of keys in one object, the later ones winning; `None` when one is no JSON object.
#[must_use]
pub fn gathered(earlier: &[u8], later: &[u8]) -> Option<Bytes> {
    let mut all: BTreeMap<String, &RawValue> = serde_json::from_slice(earlier).ok()?;
    let set: BTreeMap<String, &RawValue> = serde_json::from_slice(later).ok()?;
    all.extend(set);
    serde_json::to_vec(&all).ok().map(Bytes::from)
}

/// Names in a merged state. Viewers have less than a hundred; without an end, clients that make up names fill the store.
const NAMES: usize = 1000;

/// Sets `keys` in what `before` holds and returns the new body; `None` when `keys` is no JSON object, or it would be one
/// of more than a thousand names.
#[must_use]
pub fn merged(before: Option<&[u8]>, keys: &[u8], said: &[u8]) -> Option<Vec<u8>> {
    type Keys<'a> = BTreeMap<String, &'a RawValue>;
    let set: Keys = serde_json::from_slice(keys).ok()?;
    let held = before.and_then(Merged::read);
    let mut all: Keys = held
        .and_then(|held| serde_json::from_str(held.merged.get()).ok())
        .unwrap_or_default();
    all.extend(set);
    if all.len() > NAMES {
        return None;
    }
    let all = serde_json::to_string(&all).ok()?;
    let all: &RawValue = serde_json::from_str(&all).ok()?;
    let said: &RawValue = serde_json::from_slice(if said.is_empty() { keys } else { said }).ok()?;
    serde_json::to_vec(&Merged { merged: all, said }).ok()
}

#[cfg(test)]
mod tests {
    use super::{Merged, NAMES, merged};

    #[test]
    fn later_keys_win_and_what_was_said_stays_as_it_was() {
        let one = merged(None, br#"{"a":1,"b":{"x": 1}}"#, b"").unwrap();
        let two = merged(Some(&one), br#"{"a":2}"#, br#"{"type":"ui", "config":{"a":2}}"#).unwrap();
        let read = Merged::read(&two).unwrap();
        assert_eq!(read.merged.get(), r#"{"a":2,"b":{"x": 1}}"#);
        assert_eq!(read.said.get(), r#"{"type":"ui", "config":{"a":2}}"#);
    }

    #[test]
    fn names_that_are_made_up_find_an_end() {
        let mut state = None;
        for n in 0..NAMES {
            let key = format!(r#"{{"k{n}":{n}}}"#);
            state = merged(state.as_deref(), key.as_bytes(), b"");
        }
        assert!(merged(state.as_deref(), br#"{"one more":1}"#, b"").is_none());
        let changed = merged(state.as_deref(), br#"{"k7":"changed"}"#, b"").unwrap();
        let read = Merged::read(&changed).unwrap();
        assert!(
            read.merged.get().contains(r#""k7":"changed""#) && read.merged.get().contains(r#""k999":999"#)
        );
    }

    #[test]
    fn what_is_no_object_changes_nothing() {
        for keys in ["", "1", "[1]", "null", "{", "\"a\""] {
            assert_eq!(merged(None, keys.as_bytes(), b""), None, "{keys}");
        }
        // a foreign value of the topic counts as none
        let fresh = merged(Some(b"[1]"), b"{\"a\":1}", b"").unwrap();
        assert_eq!(fresh, br#"{"merged":{"a":1},"said":{"a":1}}"#);
    }
}
