//! What happens now, in one space and dialect.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{HeaderMap, Message, Subscriber};
use futures_util::{FutureExt, Stream, StreamExt};

use super::calls::header;
use super::connect::Core;
use super::contract::{self, headers};
use super::counters::Counters;
use super::inbox::down;
use super::{Bus, Stored};
use crate::message::{Body, Class, Fault, Nanos, Origin, Space};

/// Topics whose name is kept ready; a space has far fewer.
const TOPICS: usize = 256;
/// How long the broker may take to note a subscription.
const NOTED: Duration = Duration::from_secs(2);

type Fetching = Pin<Box<dyn Future<Output = Result<Body, Fault>> + Send>>;

/// A live subscription. Survives reconnects; what was missed meanwhile shows as a gap in the sequences.
pub struct Live {
    core: Arc<Core>,
    /// One, or without history two: events and states.
    subscribers: Vec<Subscriber>,
    /// Which one is asked first, so that neither starves.
    turn: usize,
    topics: HashMap<String, (Class, Arc<str>)>,
    /// Where large bodies of states lie, by topic, with their sequences, as far as they came live.
    held: HashMap<Arc<str>, (u64, String)>,
    /// A large body on its way. Kept here so that `next` may be dropped half way.
    fetching: Option<(Stored, Fetching)>,
    /// Losses on the way that were possible when the subscription was last known to be whole.
    losses: Losses,
    /// Tells, before anything the new one sends, that a stream has another leader. The old one may have stored
    /// messages that it did not live to send.
    elections: Option<Subscriber>,
    /// It did.
    elected: bool,
}

/// What may have cost messages: the connection made anew, a full queue of a subscription.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Losses {
    connects: u64,
    overflows: u64,
}

impl Losses {
    /// Read from what the client library counts before it hands over the first message of a new connection; the
    /// link, which speaks of the same, may be told later than that.
    fn now(core: &Core) -> Self {
        Self {
            connects: core.egress.client.statistics().connects.load(Ordering::Acquire),
            overflows: core.counters.overflow.load(Ordering::Acquire),
        }
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Live {
    /// The next message; `None` when the bus is closed. Safe to drop half way.
    pub async fn next(&mut self) -> Option<Stored> {
        loop {
            if let Some((stored, fetching)) = &mut self.fetching {
                let fetched = fetching.await;
                stored.body = fetched.unwrap_or_else(|fault| {
                    tracing::warn!(%fault, topic = %stored.topic, "a large body is missing");
                    Body::typed("", headers::EXPIRED)
                });
                return self.fetching.take().map(|(stored, _)| stored);
            }
            let message = self.message().await?;
            if let Some(stored) = self.read(message) {
                return Some(stored);
            }
        }
    }

    /// A message that is already here.
    pub fn try_next(&mut self) -> Option<Stored> {
        self.next().now_or_never().flatten()
    }

    /// Whether messages may have been lost since it was last known to be whole. A message taken before this was asked
    /// belongs to the doubtful ones: read the stream, not the message.
    #[must_use]
    pub fn interrupted(&mut self) -> bool {
        self.hear_elections();
        self.elected || self.losses != Losses::now(&self.core)
    }

    /// Notes elections that are here already: they came before the messages that are here.
    fn hear_elections(&mut self) {
        if let Some(elections) = &mut self.elections {
            while elections.next().now_or_never().flatten().is_some() {
                self.elected = true;
            }
        }
    }

    /// Returns when the broker is known to send everything again; what was stored from then on comes.
    ///
    /// # Errors
    /// `bus_down`.
    pub async fn settle(&mut self) -> Result<(), Fault> {
        let losses = Losses::now(&self.core);
        self.hear_elections();
        if !self.core.egress.round_trip(NOTED).await {
            return Err(down());
        }
        self.losses = losses;
        self.elected = false;
        Ok(())
    }

    async fn message(&mut self) -> Option<Message> {
        std::future::poll_fn(|context| {
            let count = self.subscribers.len();
            self.turn = self.turn.wrapping_add(1);
            let mut ended = 0;
            for step in 0..count {
                let at = (self.turn + step) % count;
                match Pin::new(&mut self.subscribers[at]).poll_next(context) {
                    std::task::Poll::Ready(Some(message)) => {
                        return std::task::Poll::Ready(Some(message));
                    }
                    std::task::Poll::Ready(None) => ended += 1,
                    std::task::Poll::Pending => {}
                }
            }
            if ended == count {
                std::task::Poll::Ready(None)
            } else {
                std::task::Poll::Pending
            }
        })
        .await
    }

    /// A message as stored; `None` when it is not ours or its body must be fetched first.
    fn read(&mut self, message: Message) -> Option<Stored> {
        let map = message.headers.as_ref();
        let (subject, seq, previous) = if self.core.settings.events.history {
            let number = |name| server_header(map, name).and_then(|text| text.parse().ok());
            let republished = server_header(map, headers::SUBJECT)
                .zip(number(headers::SEQUENCE))
                .filter(|_| server_header(map, headers::STREAM).is_some());
            let Some((subject, seq)) = republished else {
                Counters::add(&self.core.counters.foreign);
                return None;
            };
            let previous = number(headers::LAST_SEQUENCE).unwrap_or_default();
            (subject, seq, previous)
        } else {
            (message.subject.as_str(), 0, 0)
        };
        let Some((class, topic)) = self.topic(subject) else {
            Counters::add(&self.core.counters.foreign);
            return None;
        };
        let stored = stored(class, topic, seq, previous, now(), &message);
        let reference = header(map, headers::BODY).map(str::to_owned);
        if class == Class::State {
            self.replace(&stored, reference.as_ref());
        }
        let Some(reference) = reference else {
            return Some(stored);
        };
        let (core, body) = (Arc::clone(&self.core), stored.body.clone());
        let fetching = Box::pin(async move { core.incoming(&reference, body).await });
        self.fetching = Some((stored, fetching));
        None
    }

    /// A state has a new value: nothing refers to the large body of the one before.
    fn replace(&mut self, stored: &Stored, reference: Option<&String>) {
        let known = self.held.get(&stored.topic);
        if known.is_some_and(|(seq, _)| *seq >= stored.seq) {
            // sent by a leader of before, and late
            return;
        }
        let before = self.held.remove(&stored.topic);
        if let Some(reference) = reference
            && self.held.len() < TOPICS
        {
            let held = (stored.seq, reference.clone());
            self.held.insert(stored.topic.clone(), held);
        }
        if let Some((_, before)) = before.filter(|(_, before)| Some(before) != reference)
            && let Some((_, store)) = &*self.core.bodies.read()
        {
            store.replaced(before);
        }
    }

    fn topic(&mut self, subject: &str) -> Option<(Class, Arc<str>)> {
        if let Some((class, topic)) = self.topics.get(subject) {
            return Some((*class, Arc::clone(topic)));
        }
        let (class, topic) = contract::topic(subject)?;
        let topic: Arc<str> = topic.into();
        if self.topics.len() >= TOPICS {
            self.topics.clear();
        }
        self.topics
            .insert(subject.to_owned(), (class, Arc::clone(&topic)));
        Some((class, topic))
    }
}

/// A header that the server adds behind those of the publisher, who may have sent on one of the same name.
pub(super) fn server_header<'a>(map: Option<&'a HeaderMap>, name: &'static str) -> Option<&'a str> {
    map?.get_last(name).map(async_nats::HeaderValue::as_str)
}

/// The parts of a message that live traffic and history share.
pub(super) fn stored(
    class: Class,
    topic: Arc<str>,
    seq: u64,
    previous: u64,
    otherwise: Nanos,
    message: &Message,
) -> Stored {
    let map = message.headers.as_ref();
    let text = |name| header(map, name);
    Stored {
        class,
        topic,
        seq,
        previous,
        time: text(headers::TIME)
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise),
        body: Body {
            bytes: message.payload.clone(),
            content_type: text(headers::CONTENT_TYPE).and_then(headers::content_type),
        },
        from: text(headers::SESSION).map(Into::into),
        origin: text(headers::TRACEPARENT)
            .filter(|text| headers::sampled(text))
            .map(|traceparent| Origin {
                traceparent: traceparent.into(),
                id: text(headers::MSG_ID).map_or_else(
                    || format!("{}:{seq}", contract::streams::of(class)).into(),
                    Into::into,
                ),
            }),
    }
}

fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
}

impl Bus {
    /// Subscribes and returns when the broker is known to have taken note.
    ///
    /// # Errors
    /// `bus_down`, or `invalid` for names no subject can carry.
    pub async fn live(&self, space: &Space, dialect: &str) -> Result<Live, Fault> {
        let core = &self.core;
        if !core.is_up() {
            return Err(down());
        }
        let subjects = if core.settings.events.history {
            vec![contract::live(space.as_str(), dialect)?]
        } else {
            vec![
                contract::facts(Class::Event, space.as_str(), dialect)?,
                contract::facts(Class::State, space.as_str(), dialect)?,
            ]
        };
        let losses = Losses::now(core);
        let mut subscribers = Vec::with_capacity(subjects.len());
        for subject in subjects {
            subscribers.push(core.egress.subscribe(subject).await?);
        }
        let elections = match core.settings.events.history {
            true => Some(
                core.egress
                    .subscribe(contract::streams::ELECTIONS.to_owned())
                    .await?,
            ),
            false => None,
        };
        if !core.egress.round_trip(NOTED).await {
            return Err(down());
        }
        Ok(Live {
            core: Arc::clone(core),
            subscribers,
            turn: 0,
            topics: HashMap::new(),
            held: HashMap::new(),
            fetching: None,
            losses,
            elections,
            elected: false,
        })
    }
}
