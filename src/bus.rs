//! The bus as the gateway sees it: calls, appends, live traffic, history. NATS stays behind this door.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::message::{Body, CallId, Class, Fault, Nanos, Origin, Reply, Space};

pub mod append;
pub mod ask;
pub mod bodies;
pub mod calls;
pub mod connect;
pub mod contract;
pub mod counters;
pub mod directory;
pub mod error;
pub mod freight;
mod history;
pub mod lease;
pub mod live;
pub mod login;
pub mod observe;
pub mod streams;
pub mod supervise;
pub mod survey;
pub mod sys;

mod inbox;
mod link;

pub use append::{Fact, Unstored};
pub use calls::Call;
pub use connect::Bus;
pub use contract::Tail;
pub use counters::Counters;
pub use error::BusError;
pub use history::Since;
pub use live::Live;
pub use observe::Observe;
pub use sys::{Sys, SysMessage};

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

impl Link {
    /// Whether the broker is reachable.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }
}

/// Where answers go. Called from the inbox task, for interim answers under a lock: must not block nor call the bus.
pub trait Replies: Send + Sync {
    /// Hands over one answer. After a final one nothing follows for that call.
    fn reply(&self, reply: Reply);

    /// The final answer that follows came with this `traceparent`.
    fn traced(&self, _id: CallId, _traceparent: &str) {}
}

/// Gets large bodies that a message only refers to.
pub trait Fetch: Send + Sync {
    /// The body behind the value of a `Gw-Body` header, its hash verified, within a deadline of its own.
    /// One that expired is `Ok` with an empty body of the type `gw/expired`.
    fn fetch<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Body, Fault>>;
}

/// Puts away bodies that are too large for a message.
pub trait Store: Send + Sync {
    /// Stores the body and returns the value of the `Gw-Body` header that refers to it.
    /// Bodies of state live as long as the state; commands, replies and events use [`Class::Event`].
    fn put<'a>(&'a self, class: Class, body: &'a Body) -> BoxFuture<'a, Result<String, Fault>>;

    /// A state no longer refers to this body: it goes when who still reads it has had time for that.
    fn replaced(&self, reference: String);
}

/// Whether the directory shows a service running for a space; tells `unknown_action` from `no_worker`.
pub type Running = Arc<dyn Fn(&str, &Space) -> bool + Send + Sync>;

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
    /// Where it comes from in a trace, when it came sampled.
    pub origin: Option<Origin>,
}
