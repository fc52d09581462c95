//! The bus as the gateway sees it: calls, appends, live traffic, history. NATS stays behind this door.

use std::sync::Arc;

use crate::message::{Body, Class, Command, Event, Fault, Nanos, Reply, Space};

/// Whether the broker is reachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Connected. The generation grows with every reconnect.
    Up {
        /// Counts connections since start, from 1.
        generation: u64,
    },
    /// Not connected, or silent.
    Down {
        /// For logs and `/readyz`.
        reason: String,
    },
}

/// Where answers go. Called from the inbox task; must not block.
pub trait Replies: Send + Sync {
    /// Hands over one answer. After a final one nothing follows for that call.
    fn reply(&self, reply: Reply);
}

/// A message of a stream, live or read back.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Event or state.
    pub class: Class,
    /// Topic, unescaped.
    pub topic: Arc<str>,
    /// Sequence in its stream; 0 without history.
    pub seq: u64,
    /// Live only: last sequence of the same subject before this one (`Nats-Last-Sequence`).
    pub previous: u64,
    /// `Gw-Time`, else the stored time, else the time of receipt.
    pub time: Nanos,
    /// Payload; a large one is already fetched. An expired large body has the content type `gw/expired`.
    pub body: Body,
    /// `Gw-Session`.
    pub from: Option<Arc<str>>,
    /// `traceparent`, when it came sampled.
    pub traceparent: Option<Arc<str>>,
}
