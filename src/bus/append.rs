//! Events and states on their way into the streams: stored once, confirmed, or told that they are not.

use std::sync::Arc;

use ulid::Ulid;

use super::Bus;
use crate::message::{Body, Class, Code, Fault, Nanos, Space};

/// Something to store.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Event or state.
    pub class: Class,
    /// Where.
    pub space: Space,
    /// For whom.
    pub dialect: Arc<str>,
    /// What about; any text, escaped in the subject.
    pub topic: String,
    /// The payload. An empty state is a tombstone.
    pub body: Body,
    /// When it entered the system.
    pub time: Nanos,
    /// `<dialect>/<session>` of the client that said it.
    pub from: Option<String>,
    /// Makes a retry be stored once; a new one is made when absent.
    pub id: Option<Ulid>,
    /// Compare and set: the topic's last sequence, 0 for none.
    pub expected: Option<u64>,
    /// W3C, when sampled.
    pub traceparent: Option<String>,
}

/// Why a fact was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unstored {
    /// Compare and set lost: somebody else wrote the topic. Read, merge, try again.
    Conflict,
    /// Anything else.
    Fault(Fault),
}

impl From<Unstored> for Fault {
    fn from(unstored: Unstored) -> Self {
        match unstored {
            Unstored::Conflict => Self::new(
                Code::Busy,
                "somebody else changed this at the same moment; read it and send your change again",
            ),
            Unstored::Fault(fault) => fault,
        }
    }
}

impl Bus {
    /// Stores a fact and returns its sequence (0 without history). Retried with the same id for `events.retry`.
    ///
    /// # Errors
    /// [`Unstored::Conflict`] when `expected` does not hold; else the fault, `bus_down` when it was never confirmed.
    pub async fn append(&self, _fact: Fact) -> Result<u64, Unstored> {
        Err(Unstored::Fault(Fault::new(Code::BusDown, "not built yet")))
    }

    /// Like [`Bus::append`], but says `bus_down`, "not confirmed", after two seconds, while the retries go on.
    ///
    /// # Errors
    /// As [`Bus::append`].
    pub async fn append_promptly(&self, _fact: Fact) -> Result<u64, Unstored> {
        Err(Unstored::Fault(Fault::new(Code::BusDown, "not built yet")))
    }
}
