//! One connection with its own reply inbox: a single wildcard subscription, answers told apart by token.
//!
//! The broker client's own request map keeps an entry for ever when no answer comes, and its publish waits without
//! limit while disconnected; hence this.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, StatusCode};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::connect::State;
use crate::message::{Code, Fault};

/// No publish waits longer for room in the connection's queue.
pub(super) const PUBLISH: Duration = Duration::from_secs(2);

/// Answers by token, for everything but commands.
pub(super) struct Inbox {
    prefix: String,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Message>>>,
}

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A command.
    Call(u64),
    /// A question of the gateway itself.
    Ask(u64),
}

impl Inbox {
    /// `seed` is random, so that answers to an earlier run of the same gateway find nobody.
    pub(super) fn new(prefix: String, seed: u64) -> Self {
        Self {
            prefix,
            next: AtomicU64::new(seed >> 1),
            waiting: Mutex::default(),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn wildcard(&self) -> String {
        format!("{}.*", self.prefix)
    }

    pub(super) fn subject(&self, token: Token) -> String {
        match token {
            Token::Call(number) => format!("{}.c{number:x}", self.prefix),
            Token::Ask(number) => format!("{}.q{number:x}", self.prefix),
        }
    }

    /// A subject for a subscription of its own; not matched by the wildcard.
    pub(super) fn own(&self) -> String {
        format!("{}.r.{:x}", self.prefix, self.number())
    }

    pub(super) fn token(&self, subject: &str) -> Option<Token> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let number = u64::from_str_radix(rest.get(1..)?, 16).ok()?;
        match rest.as_bytes().first()? {
            b'c' => Some(Token::Call(number)),
            b'q' => Some(Token::Ask(number)),
            _ => None,
        }
    }

    /// Expects up to `capacity` answers; the expectation ends when the value is dropped.
    pub(super) fn open(self: &Arc<Self>, capacity: usize) -> Expected {
        let number = self.number();
        let (sender, messages) = mpsc::channel(capacity);
        self.waiting.lock().insert(number, sender);
        Expected {
            inbox: Arc::clone(self),
            number,
            messages,
        }
    }

    /// Hands an answer over; `false` when nobody waits for it.
    pub(super) fn deliver(&self, number: u64, message: Message) -> bool {
        let sender = self.waiting.lock().get(&number).cloned();
        sender.is_some_and(|sender| sender.try_send(message).is_ok())
    }
}

/// Answers that are expected.
pub(super) struct Expected {
    inbox: Arc<Inbox>,
    number: u64,
    pub(super) messages: mpsc::Receiver<Message>,
}

impl Expected {
    pub(super) fn subject(&self) -> String {
        self.inbox.subject(Token::Ask(self.number))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.inbox.waiting.lock().remove(&self.number);
    }
}

/// Why a question got no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// It could not be sent.
    Unsent(Fault),
    /// Nobody listens on the subject.
    Nobody,
    /// Silence.
    Silence,
}

impl From<Unanswered> for Fault {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Unsent(fault) => fault,
            Unanswered::Nobody => Self::new(
                Code::BusDown,
                "the message bus has no JetStream right now; try again in a moment",
            ),
            Unanswered::Silence => Self::new(
                Code::BusDown,
                "the message bus did not answer in time; try again in a moment",
            ),
        }
    }
}

/// One connection to the broker.
pub(super) struct Wire {
    pub(super) client: Client,
    pub(super) inbox: Arc<Inbox>,
    pub(super) state: watch::Sender<State>,
}

impl Wire {
    /// Publishes; waits at most [`PUBLISH`].
    pub(super) async fn publish(
        &self,
        subject: String,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), Fault> {
        use async_nats::client::PublishErrorKind as Kind;
        let sending = async {
            match (reply, headers) {
                (Some(reply), Some(headers)) => {
                    self.client
                        .publish_with_reply_and_headers(subject, reply, headers, payload)
                        .await
                }
                (Some(reply), None) => self.client.publish_with_reply(subject, reply, payload).await,
                (None, Some(headers)) => self.client.publish_with_headers(subject, headers, payload).await,
                (None, None) => self.client.publish(subject, payload).await,
            }
        };
        match timeout(PUBLISH, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(match error.kind() {
                Kind::MaxPayloadExceeded => too_large(self.client.max_payload()),
                Kind::InvalidSubject => Fault::new(
                    Code::Invalid,
                    "a name in this message cannot be used; choose another one",
                ),
                Kind::Send => down(),
            }),
            Err(_) => Err(down()),
        }
    }

    /// Asks one question and waits for one answer.
    pub(super) async fn ask(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        within: Duration,
    ) -> Result<Message, Unanswered> {
        let mut expected = self.inbox.open(1);
        self.publish(subject, Some(expected.subject()), headers, payload)
            .await
            .map_err(Unanswered::Unsent)?;
        match timeout(within, expected.messages.recv()).await {
            Ok(Some(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => Err(Unanswered::Nobody),
            Ok(Some(message)) => Ok(message),
            Ok(None) | Err(_) => Err(Unanswered::Silence),
        }
    }

    /// Whether the broker has processed everything sent before on this connection: a message to ourselves.
    pub(super) async fn round_trip(&self, within: Duration) -> bool {
        let mut expected = self.inbox.open(1);
        let subject = expected.subject();
        let there = self.publish(subject, None, None, Bytes::new()).await;
        there.is_ok() && matches!(timeout(within, expected.messages.recv()).await, Ok(Some(_)))
    }
}

/// The fault of everything that needs the broker while it is away.
pub(super) fn down() -> Fault {
    Fault::new(
        Code::BusDown,
        "the gateway has no connection to the message bus right now; try again in a moment",
    )
}

pub(super) fn too_large(limit: usize) -> Fault {
    Fault::new(
        Code::TooLarge,
        format!("the message is larger than the {limit} bytes the message bus carries; send less at once"),
    )
}

impl Wire {
    /// Subscribes; the broker has not yet taken note when this returns.
    pub(super) async fn subscribe(&self, subject: String) -> Result<async_nats::Subscriber, Fault> {
        match timeout(PUBLISH, self.client.subscribe(subject)).await {
            Ok(Ok(subscriber)) => Ok(subscriber),
            Ok(Err(_)) | Err(_) => Err(down()),
        }
    }
}
