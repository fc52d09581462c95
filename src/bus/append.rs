//! Events and states on their way into the streams: stored once, confirmed, or told that they are not.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};
use ulid::Ulid;

use super::calls::header_map;
use super::connect::Core;
use super::contract::{self, headers};
use super::counters::Counters;
use super::inbox::Unanswered;
use super::{Bus, Link};
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

/// First wait for a confirmation, then between repetitions.
const CONFIRM: Duration = Duration::from_secs(2);
/// `err_code` of a compare-and-set that lost.
const WRONG_LAST: u64 = 10071;
/// `err_code` of a stream that takes nothing more.
const FULL: u64 = 10077;

impl Bus {
    /// Stores a fact and returns its sequence (0 without history). Retried with the same id for `events.retry`.
    ///
    /// # Errors
    /// [`Unstored::Conflict`] when `expected` does not hold; else the fault, `bus_down` when it was never confirmed.
    pub async fn append(&self, fact: Fact) -> Result<u64, Unstored> {
        let parcel = Parcel::pack(&self.core, fact).await?;
        let start = Instant::now();
        let stored = parcel.store(&self.core).await;
        self.core.confirmed(start, &stored);
        stored
    }

    /// Like [`Bus::append`], but says `bus_down`, "not confirmed", after two seconds, while the retries go on.
    /// At most 1,024 go on at once; beyond, the caller waits as in [`Bus::append`].
    ///
    /// # Errors
    /// As [`Bus::append`].
    pub async fn append_promptly(&self, fact: Fact) -> Result<u64, Unstored> {
        let core = &self.core;
        let parcel = Parcel::pack(core, fact).await?;
        let start = Instant::now();
        let once = parcel.attempt(core).await;
        if !matches!(once, Attempt::Again(_)) {
            let ended = once.ended();
            core.confirmed(start, &ended);
            return ended;
        }
        Counters::add(&core.counters.repeated);
        let Ok(permit) = Arc::clone(&core.background).try_acquire_owned() else {
            let stored = parcel.store(core).await;
            core.confirmed(start, &stored);
            return stored;
        };
        let core = Arc::clone(core);
        core.tasks.clone().spawn(async move {
            let stored = parcel.store(&core).await;
            core.confirmed(start, &stored);
            if let Err(unstored) = stored {
                let fault = Fault::from(unstored);
                tracing::warn!(subject = parcel.subject, %fault, "an event was given up");
            }
            drop(permit);
        });
        Err(Unstored::Fault(unconfirmed()))
    }
}

impl Core {
    /// How long a fact took that was stored.
    fn confirmed(&self, start: Instant, stored: &Result<u64, Unstored>) {
        if let (Some(observer), Ok(_)) = (self.observer.get(), stored) {
            observer.stored(start.elapsed());
        }
    }
}

fn unconfirmed() -> Fault {
    Fault::new(
        Code::BusDown,
        "not confirmed: the message bus is away; it may still be stored, so repeat it only if that is safe",
    )
}

/// A fact ready to be sent, as often as it takes.
struct Parcel {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

/// What one attempt led to.
enum Attempt {
    Stored(u64),
    Never(Unstored),
    Again(Fault),
}

impl Attempt {
    fn ended(self) -> Result<u64, Unstored> {
        match self {
            Self::Stored(seq) => Ok(seq),
            Self::Never(unstored) => Err(unstored),
            Self::Again(fault) => Err(Unstored::Fault(fault)),
        }
    }
}

impl Parcel {
    async fn pack(core: &Core, fact: Fact) -> Result<Self, Unstored> {
        let subject = contract::fact(fact.class, fact.space.as_str(), &fact.dialect, &fact.topic)
            .map_err(Unstored::Fault)?;
        let (payload, reference) = core
            .outgoing(fact.class, &fact.body)
            .await
            .map_err(Unstored::Fault)?;
        // the default ULID is all zeros: every fact after the first would be its repetition
        let id = match fact.id {
            Some(id) => id.to_string(),
            None => Ulid::new().to_string(),
        };
        let head = headers::FactHead {
            id: &id,
            time: fact.time,
            session: fact.from.as_deref(),
            content_type: fact.body.content_type.as_deref(),
            traceparent: fact.traceparent.as_deref(),
            expected: fact.expected,
        };
        Ok(Self {
            headers: header_map(head.list(), reference),
            subject,
            payload,
        })
    }

    /// Repeats attempts until it is stored, refused, or the time is up.
    async fn store(&self, core: &Core) -> Result<u64, Unstored> {
        let deadline = Instant::now() + core.settings.events.retry;
        let mut link = core.link.subscribe();
        loop {
            let attempt = self.attempt(core).await;
            let Attempt::Again(_) = attempt else {
                return attempt.ended();
            };
            // while the link is down nothing is sent; at once when it is back
            let back = async {
                sleep(Duration::from_millis(100)).await;
                let _ = link.wait_for(Link::is_up).await;
            };
            let closing = core.stop.cancelled();
            tokio::select! {
                () = back => {}
                () = sleep_until(deadline) => {}
                () = closing => {}
            }
            if Instant::now() >= deadline || core.stop.is_cancelled() {
                Counters::add(&core.counters.unconfirmed);
                return Err(Unstored::Fault(unconfirmed()));
            }
            Counters::add(&core.counters.repeated);
        }
    }

    async fn attempt(&self, core: &Core) -> Attempt {
        if !core.is_up() {
            return Attempt::Again(unconfirmed());
        }
        let (subject, headers) = (self.subject.clone(), Some(self.headers.clone()));
        let payload = self.payload.clone();
        if !core.settings.events.history {
            return match core.ingress.publish(subject, None, headers, payload).await {
                Ok(()) => Attempt::Stored(0),
                Err(fault) => Attempt::of(fault),
            };
        }
        let mut link = core.link.subscribe();
        let asked = core.ingress.ask(subject, headers, payload, CONFIRM);
        let answer = tokio::select! {
            answer = asked => answer,
            // no need to wait for an answer that cannot come
            _ = link.wait_for(|link| !link.is_up()) => return Attempt::Again(unconfirmed()),
        };
        match answer {
            Ok(message) => acknowledged(&message.payload),
            Err(Unanswered::Unsent(fault)) => Attempt::of(fault),
            Err(Unanswered::Nobody) => {
                core.repair_streams().await;
                Attempt::Again(unconfirmed())
            }
            Err(Unanswered::Silence) => Attempt::Again(unconfirmed()),
        }
    }
}

impl Attempt {
    fn of(fault: Fault) -> Self {
        if fault.code == Code::BusDown {
            Self::Again(fault)
        } else {
            Self::Never(Unstored::Fault(fault))
        }
    }
}

/// A `PubAck` of JetStream.
#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    code: u64,
    #[serde(default)]
    description: String,
}

fn acknowledged(payload: &[u8]) -> Attempt {
    let Ok(ack) = serde_json::from_slice::<Ack>(payload) else {
        return Attempt::Again(unconfirmed());
    };
    let Some(error) = ack.error else {
        return Attempt::Stored(ack.seq);
    };
    match error.err_code {
        WRONG_LAST => Attempt::Never(Unstored::Conflict),
        FULL => Attempt::Never(Unstored::Fault(full())),
        _ if error.description.contains("maximum bytes") => Attempt::Never(Unstored::Fault(full())),
        // the server is busy or looks for a leader
        _ if error.code == 503 => Attempt::Again(unconfirmed()),
        _ => Attempt::Never(Unstored::Fault(Fault::new(
            Code::BusDown,
            format!(
                "the message bus did not store it ({}); send it again",
                error.description
            ),
        ))),
    }
}

fn full() -> Fault {
    Fault::new(
        Code::TooLarge,
        "the store is full and keeps what it has; clear something, or let the operator raise events.state_max_bytes",
    )
}
