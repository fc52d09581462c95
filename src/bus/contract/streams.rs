//! The three streams as data: what is created, what must not differ, what is adjusted.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config;
use crate::message::Class;

/// Where servers tell that a stream, of whomever, has a new leader.
pub const ELECTIONS: &str = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.*";
/// Events, in order, for replay.
pub const EVENTS: &str = "GW_EVENTS";
/// The last value of each topic.
pub const STATE: &str = "GW_STATE";
/// Who holds a stateful service.
pub const LEASES: &str = "GW_LEASES";

/// All of them.
pub const NAMES: [&str; 3] = [EVENTS, STATE, LEASES];

/// The stream of a class.
#[must_use]
pub const fn of(class: Class) -> &'static str {
    match class {
        Class::Event => EVENTS,
        Class::State => STATE,
    }
}

/// One stream: its name and its configuration in the words of the JetStream API.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Name.
    pub name: &'static str,
    /// Configuration; no field is newer than nats-server 2.9.
    pub config: Value,
}

/// A property that differs where it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which property.
    pub field: &'static str,
    /// What the contract says.
    pub expected: String,
    /// What the server has.
    pub found: String,
}

/// Properties that make a stream another one; never changed by us.
const IDENTITY: [&str; 10] = [
    "subjects",
    "republish",
    "retention",
    "storage",
    "discard",
    "max_msgs_per_subject",
    "allow_direct",
    "sealed",
    "no_ack",
    "mirror",
];

/// Properties an operator may change in our configuration; adjusted on the server.
const LIMITS: [&str; 4] = ["max_age", "max_bytes", "num_replicas", "duplicate_window"];

/// The three streams under a configuration.
#[must_use]
pub fn definitions(events: &config::Events) -> [Definition; 3] {
    let window = Duration::from_secs(120).min(positive(events.max_age));
    [
        Definition {
            name: EVENTS,
            config: json!({
                "name": EVENTS,
                "description": "Events for replay and resume; created by the gateway",
                "subjects": ["gw.v1.evt.>"],
                "retention": "limits", "storage": "file", "discard": "old",
                "max_age": nanos(events.max_age), "max_bytes": events.max_bytes,
                "max_msgs": -1, "max_msg_size": -1, "max_msgs_per_subject": -1, "max_consumers": -1,
                "num_replicas": events.replicas,
                "duplicate_window": nanos(window),
                "allow_direct": true, "deny_delete": true,
                "republish": {"src": "gw.v1.evt.>", "dest": "gw.v1.live.>"},
            }),
        },
        Definition {
            name: STATE,
            config: json!({
                "name": STATE,
                "description": "The last value of each state topic; created by the gateway",
                "subjects": ["gw.v1.state.>"],
                "retention": "limits", "storage": "file", "discard": "new",
                "max_age": 0, "max_bytes": events.state_max_bytes,
                "max_msgs": -1, "max_msg_size": -1, "max_msgs_per_subject": 1, "max_consumers": -1,
                "num_replicas": events.replicas,
                "duplicate_window": nanos(Duration::from_secs(120)),
                "allow_direct": true,
                "republish": {"src": "gw.v1.state.>", "dest": "gw.v1.live.>"},
            }),
        },
        Definition {
            name: LEASES,
            config: json!({
                "name": LEASES,
                "description": "Leases of stateful services; created by the gateway",
                "subjects": ["gw.v1.lease.>"],
                "retention": "limits", "storage": "memory", "discard": "old",
                "max_age": nanos(Duration::from_secs(10)), "max_bytes": -1,
                "max_msgs": -1, "max_msg_size": -1, "max_msgs_per_subject": 1, "max_consumers": -1,
                "num_replicas": events.replicas,
                "duplicate_window": nanos(Duration::from_secs(10)),
                "allow_direct": true,
            }),
        },
    ]
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An age of zero means no limit to the server.
fn positive(age: Duration) -> Duration {
    if age.is_zero() { Duration::MAX } else { age }
}

impl Definition {
    /// The first property of an existing stream that differs where it matters.
    #[must_use]
    pub fn difference(&self, found: &Value) -> Option<Difference> {
        IDENTITY.iter().find_map(|&field| {
            let (want, have) = (settled(&self.config[field]), settled(&found[field]));
            (want != have).then(|| Difference {
                field,
                expected: told(&want),
                found: told(&have),
            })
        })
    }

    /// The existing configuration with our limits, when a limit differs.
    #[must_use]
    pub fn adjusted(&self, found: &Value) -> Option<Value> {
        let mut config = found.clone();
        let mut changed = false;
        for field in LIMITS {
            if settled(&config[field]) != settled(&self.config[field]) {
                config[field] = self.config[field].clone();
                changed = true;
            }
        }
        changed.then_some(config)
    }
}

fn told(value: &Value) -> String {
    if value.is_null() {
        "not set".to_owned()
    } else {
        value.to_string()
    }
}

/// Absent, `false`, `0` and `-1` are the same to the server: not set.
fn settled(value: &Value) -> Value {
    match value {
        Value::Bool(false) => Value::Null,
        Value::Number(number) if matches!(number.as_i64(), Some(0 | -1)) => Value::Null,
        Value::Object(fields) => {
            let kept = fields.iter().filter_map(|(key, value)| {
                let value = settled(value);
                (!value.is_null()).then(|| (key.clone(), value))
            });
            Value::Object(kept.collect())
        }
        other => other.clone(),
    }
}
