//! What a worker says to everybody: events and state, stored before they count as said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::DirectGetErrorKind;
use async_nats::{Client, HeaderMap, RequestErrorKind, jetstream};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;
use ulid::Ulid;

use super::{large, trace};
use crate::bus::contract::{self, headers};
use crate::message::{Class, Code, Fault, Nanos};

/// One publish and its confirmation.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Retries of one fact, all with the same id.
const RETRY: Duration = Duration::from_secs(60);
/// One question to the state stream.
const READ: Duration = Duration::from_secs(5);

/// Where events and state go. Cheap to clone.
#[derive(Clone)]
pub struct Outlet {
    client: Client,
    jetstream: jetstream::Context,
    /// Whether a confirmation ever came. Before that, a missing stream means a gateway without history, which hears
    /// the plain publish; after that, it means a stream that is away for a moment.
    confirmed: Arc<AtomicBool>,
}

/// Why a fact was not stored.
#[derive(Debug)]
pub(super) enum Refused {
    /// Somebody else wrote this state first.
    Conflict,
    /// Anything else.
    Fault(Fault),
}

impl Outlet {
    /// An outlet on a connection.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            jetstream: jetstream::new(client.clone()),
            client,
            confirmed: Arc::default(),
        }
    }

    /// The connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Says an event to everybody in a space who speaks a dialect.
    ///
    /// # Errors
    /// `invalid` for names that make no subject, `too_large` for what no store takes, `bus_down` when it was not confirmed within a minute.
    pub async fn event(&self, space: &str, dialect: &str, topic: &str, body: Bytes) -> Result<(), Fault> {
        let subject = contract::fact(Class::Event, space, dialect, topic)?;
        let id = Ulid::new().to_string();
        let span = trace::publish(Class::Event, dialect, topic, &id, body.len());
        let body = large::outgoing(&self.client, body).await?;
        match self.traced(span, subject, &id, body, None).await {
            Ok(()) => Ok(()),
            Err(Refused::Conflict) => Err(Fault::new(Code::WorkerError, "the stream refused the event")),
            Err(Refused::Fault(fault)) => Err(fault),
        }
    }

    /// Sets a state topic, if its last sequence still is `expected`.
    pub(super) async fn set(
        &self,
        space: &str,
        dialect: &str,
        topic: &str,
        body: Bytes,
        expected: u64,
    ) -> Result<(), Refused> {
        let subject = contract::fact(Class::State, space, dialect, topic).map_err(Refused::Fault)?;
        let id = Ulid::new().to_string();
        let span = trace::publish(Class::State, dialect, topic, &id, body.len());
        self.traced(span, subject, &id, (body, None), Some(expected))
            .await
    }

    /// Reads a state topic: its last sequence (0 = never set) and body.
    pub(super) async fn get(&self, space: &str, dialect: &str, topic: &str) -> Result<(u64, Bytes), Fault> {
        let subject = contract::fact(Class::State, space, dialect, topic)?;
        let gone = |cause: String| {
            Fault::new(
                Code::BusDown,
                format!("the state stream does not answer: {cause}"),
            )
        };
        let stream = self.jetstream.get_stream_no_info(contract::streams::STATE);
        let read = async {
            let stream = stream.await.map_err(|error| gone(error.to_string()))?;
            match stream.direct_get_last_for_subject(subject).await {
                Ok(message) => Ok((message.sequence, message.payload)),
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok((0, Bytes::new())),
                Err(error) => Err(gone(error.to_string())),
            }
        };
        timeout(READ, read)
            .await
            .unwrap_or_else(|_| Err(gone("no answer in time".to_owned())))
    }

    async fn traced(
        &self,
        span: tracing::Span,
        subject: String,
        id: &str,
        body: (Bytes, Option<String>),
        expected: Option<u64>,
    ) -> Result<(), Refused> {
        let stored = self
            .store(subject, id, body, expected)
            .instrument(span.clone())
            .await;
        match &stored {
            Err(Refused::Fault(fault)) => trace::failed(&span, fault),
            // to lose a race is no failure: the writer reads and tries again
            Ok(()) | Err(Refused::Conflict) => {}
        }
        stored
    }

    async fn store(
        &self,
        subject: String,
        id: &str,
        (body, reference): (Bytes, Option<String>),
        expected: Option<u64>,
    ) -> Result<(), Refused> {
        let mut head = HeaderMap::new();
        head.insert(headers::MSG_ID, id);
        head.insert(headers::TIME, unix_now().to_string());
        if let Some(reference) = reference {
            head.insert(headers::BODY, reference);
        }
        if let Some(expected) = expected {
            head.insert(headers::EXPECTED, expected.to_string());
        }
        if let Some(traceparent) = trace::traceparent(&tracing::Span::current()) {
            head.insert(headers::TRACEPARENT, traceparent);
        }
        let until = Instant::now() + RETRY;
        let mut pause = Duration::from_millis(50);
        let unconfirmed = !self.confirmed.load(Ordering::Relaxed);
        if unconfirmed && self.is_unkept(expected.is_some()).await {
            return match expected {
                Some(_) => Err(Refused::Fault(no_state())),
                None => self.say(subject, head, body).await,
            };
        }
        loop {
            let attempt = async {
                let sent = self
                    .jetstream
                    .publish_with_headers(subject.clone(), head.clone(), body.clone());
                sent.await?.await
            };
            let cause = match timeout(ATTEMPT, attempt).await {
                Ok(Ok(_)) => {
                    self.confirmed.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(Err(error)) => match error.kind() {
                    PublishErrorKind::WrongLastSequence => return Err(Refused::Conflict),
                    PublishErrorKind::MaxPayloadExceeded => {
                        let fault =
                            Fault::new(Code::TooLarge, "the body is above the broker's payload limit");
                        return Err(Refused::Fault(fault));
                    }
                    PublishErrorKind::StreamNotFound if expected.is_some() => {
                        return Err(Refused::Fault(no_state()));
                    }
                    PublishErrorKind::StreamNotFound if unconfirmed => {
                        tracing::debug!(subject, "no stream; said without confirmation");
                        return Ok(());
                    }
                    _ => error.to_string(),
                },
                Err(_) => "no confirmation in time".to_owned(),
            };
            if Instant::now() + pause > until {
                let text = format!("{subject} is not confirmed: {cause}");
                return Err(Refused::Fault(Fault::new(Code::BusDown, text)));
            }
            tracing::debug!(subject, cause, "not confirmed yet; trying again");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

impl Outlet {
    /// Whether there is no such stream. A gateway without history listens to what is said itself, so that a
    /// confirmation would be waited for in vain, and what was not confirmed said again.
    async fn is_unkept(&self, state: bool) -> bool {
        let stream = if state {
            contract::streams::STATE
        } else {
            contract::streams::EVENTS
        };
        let asked = self
            .client
            .request(format!("$JS.API.STREAM.INFO.{stream}"), Bytes::new());
        match timeout(READ, asked).await {
            Ok(Ok(answer)) => {
                let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
                // no such stream; JetStream is not for us
                answer["error"]["code"] == 404 || answer["error"]["err_code"] == 10_039
            }
            Ok(Err(error)) => error.kind() == RequestErrorKind::NoResponders,
            Err(_) => false,
        }
    }

    /// Says it to who listens now.
    async fn say(&self, subject: String, head: HeaderMap, body: Bytes) -> Result<(), Refused> {
        let told = self.client.publish_with_headers(subject, head, body);
        match timeout(ATTEMPT, told).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Refused::Fault(Fault::new(Code::BusDown, error.to_string()))),
            Err(_) => Err(Refused::Fault(Fault::new(Code::BusDown, "NATS takes nothing"))),
        }
    }
}

fn no_state() -> Fault {
    Fault::new(Code::BusDown, "no stream keeps state: is a gateway running?")
}

/// The wall clock.
pub(super) fn unix_now() -> Nanos {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
