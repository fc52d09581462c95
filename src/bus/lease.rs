//! Leases: which one of several instances of a stateful service serves a space.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use super::contract;
use crate::message::{Code, Fault, Space};

/// The stream that keeps leases.
pub const STREAM: &str = contract::streams::LEASES;
/// A lease that is not renewed ends after this.
const AGE: Duration = Duration::from_secs(10);
/// One exchange with the broker.
const EXCHANGE: Duration = Duration::from_secs(2);
/// A renewal that failed is tried again after this.
const AGAIN: Duration = Duration::from_millis(500);
/// How often who stands by tries.
const STAND_BY: Duration = Duration::from_secs(1);

/// What a lease says on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who holds it, for people.
    pub holder: String,
    /// One holding of it.
    pub id: String,
}

/// The place where leases are taken. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leases {
    context: Context,
    stream: Stream,
    age: Duration,
}

/// A lease held; renewed until it is lost, released or dropped, which releases it without waiting.
#[derive(Debug)]
pub struct Lease {
    lost: CancellationToken,
    release: CancellationToken,
    keeper: Option<JoinHandle<()>>,
}

/// One holding: what to publish, and what it replaces.
struct Holding {
    leases: Leases,
    subject: String,
    claim: Claim,
    payload: Vec<u8>,
    sequence: u64,
    /// When the last confirmed claim was sent: it runs from then at the earliest.
    since: Instant,
}

/// Why a claim was not stored.
enum Refused {
    /// The subject's last message is not the expected one.
    Taken,
    /// The broker's words, or its silence.
    Bus(String),
}

impl Leases {
    /// Finds the stream, or creates it for a worker that is here before any gateway.
    ///
    /// # Errors
    /// `bus_down` with the broker's words.
    pub async fn open(client: Client) -> Result<Self, Fault> {
        let context = jetstream::new(client);
        let finding = async {
            match context.get_stream(STREAM).await {
                Ok(stream) => Ok(stream),
                Err(error) => match error.kind() {
                    GetStreamErrorKind::JetStream(answer) if answer.code() == 404 => context
                        .create_stream(config())
                        .await
                        .map_err(|error| error.to_string()),
                    _ => Err(error.to_string()),
                },
            }
        };
        let stream = timeout(EXCHANGE * 2, finding)
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
            .map_err(down)?;
        let age = match stream.cached_info().config.max_age {
            Duration::ZERO => AGE,
            age => age,
        };
        Ok(Self { context, stream, age })
    }

    /// Takes the lease if nobody holds it; `None` when somebody does.
    ///
    /// # Errors
    /// `invalid` for a service that is no subject token, `bus_down`.
    pub async fn acquire(&self, space: &Space, service: &str, holder: &str) -> Result<Option<Lease>, Fault> {
        let claim = Claim {
            holder: holder.to_owned(),
            id: Ulid::new().to_string(),
        };
        let mut holding = Holding {
            leases: self.clone(),
            subject: subject(space, service)?,
            payload: serde_json::to_vec(&claim).map_err(|error| down(error.to_string()))?,
            claim,
            sequence: 0,
            since: Instant::now(),
        };
        match holding.claim(0).await {
            Ok(()) => Ok(Some(Lease::keep(holding))),
            Err(Refused::Taken) => Ok(None),
            Err(Refused::Bus(why)) => {
                // it may have been stored all the same; then nobody must wait for its end
                match holding.check().await {
                    Ok(true) => Ok(Some(Lease::keep(holding))),
                    _ => Err(down(why)),
                }
            }
        }
    }

    /// Waits until the lease is free and takes it. Ends only so; drop it to give up.
    ///
    /// # Errors
    /// `invalid` for a service that is no subject token.
    pub async fn stand_by(&self, space: &Space, service: &str, holder: &str) -> Result<Lease, Fault> {
        loop {
            match self.acquire(space, service, holder).await {
                Ok(Some(lease)) => return Ok(lease),
                Ok(None) => {}
                Err(fault) if fault.code == Code::Invalid => return Err(fault),
                Err(fault) => tracing::debug!(%fault, service, "standing by"),
            }
            sleep(STAND_BY).await;
        }
    }

    /// Who holds the lease now.
    ///
    /// # Errors
    /// `invalid` for a service that is no subject token, `bus_down`.
    pub async fn holder(&self, space: &Space, service: &str) -> Result<Option<Claim>, Fault> {
        let subject = subject(space, service)?;
        let last = self.last(&subject).await.map_err(down)?;
        Ok(last.map(|(_, claim)| claim))
    }

    /// The claim that stands, with its sequence.
    async fn last(&self, subject: &str) -> Result<Option<(u64, Claim)>, String> {
        // by the stream's leader: a direct get could be answered by a replica that lags
        let getting = self.stream.get_last_raw_message_by_subject(subject);
        match timeout(EXCHANGE, getting).await {
            Ok(Ok(message)) => {
                let claim = serde_json::from_slice(&message.payload).unwrap_or_else(|_| Claim {
                    holder: "unknown".to_owned(),
                    id: String::new(),
                });
                Ok(Some((message.sequence, claim)))
            }
            Ok(Err(error)) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(answer) if answer.code() == 404 => Ok(None),
                _ => Err(error.to_string()),
            },
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

impl Lease {
    fn keep(holding: Holding) -> Self {
        let lost = CancellationToken::new();
        let release = CancellationToken::new();
        let keeper = tokio::spawn(holding.keep(lost.clone(), release.clone()));
        Self {
            lost,
            release,
            keeper: Some(keeper),
        }
    }

    /// Whether it is still ours.
    #[must_use]
    pub fn held(&self) -> bool {
        !self.lost.is_cancelled()
    }

    /// Returns when it is no longer ours, in time to stop serving before another instance begins.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Gives it up, so that who stands by need not wait for its end.
    pub async fn release(mut self) {
        self.release.cancel();
        if let Some(keeper) = self.keeper.take() {
            // bounded: the keeper ends within two exchanges
            let _ = timeout(EXCHANGE * 3, keeper).await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release.cancel();
    }
}

impl Holding {
    /// Renews until released or lost.
    async fn keep(mut self, lost: CancellationToken, release: CancellationToken) {
        // renewed after three tenths of its age; given up at eight tenths, before anybody else can have it
        let (renew, give_up) = (self.leases.age * 3 / 10, self.leases.age * 8 / 10);
        let mut next = self.since + renew;
        loop {
            tokio::select! {
                () = release.cancelled() => {
                    self.remove().await;
                    lost.cancel();
                    return;
                }
                () = sleep_until(next) => {}
            }
            let end = self.since + give_up;
            let kept = tokio::time::timeout_at(end, self.renew()).await;
            next = match kept {
                Ok(Ok(true)) => self.since + renew,
                Ok(Ok(false)) => {
                    tracing::warn!(lease = self.subject, "the lease was taken by another instance");
                    break;
                }
                Ok(Err(why)) if Instant::now() + AGAIN < end => {
                    tracing::warn!(
                        lease = self.subject,
                        why,
                        "the lease was not renewed, trying again"
                    );
                    Instant::now() + AGAIN
                }
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(lease = self.subject, "the lease ran out");
                    break;
                }
            };
        }
        lost.cancel();
    }

    /// `Ok(false)` when it is somebody else's.
    async fn renew(&mut self) -> Result<bool, String> {
        match self.claim(self.sequence).await {
            Ok(()) => Ok(true),
            Err(Refused::Bus(why)) => Err(why),
            // an unconfirmed renewal of our own, or a broker that restarted and forgot
            Err(Refused::Taken) => self.check().await,
        }
    }

    /// Whether the claim that stands is ours; takes the lease again where none stands.
    async fn check(&mut self) -> Result<bool, String> {
        let expected = match self.leases.last(&self.subject).await? {
            Some((sequence, claim)) if claim.id == self.claim.id => sequence,
            Some(_) => return Ok(false),
            None => 0,
        };
        match self.claim(expected).await {
            Ok(()) => Ok(true),
            Err(Refused::Taken) => Ok(false),
            Err(Refused::Bus(why)) => Err(why),
        }
    }

    /// Publishes the claim in place of the one with the sequence `expected`, 0 for none.
    async fn claim(&mut self, expected: u64) -> Result<(), Refused> {
        let sent_at = Instant::now();
        let message = PublishMessage::build()
            .payload(self.payload.clone().into())
            .expected_last_subject_sequence(expected);
        let sending = async {
            let sent = self.leases.context.send_publish(self.subject.clone(), message);
            sent.await?.await
        };
        match timeout(EXCHANGE, sending).await {
            Ok(Ok(ack)) => {
                self.sequence = ack.sequence;
                self.since = sent_at;
                Ok(())
            }
            Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => Err(Refused::Taken),
            Ok(Err(error)) => Err(Refused::Bus(error.to_string())),
            Err(_) => Err(Refused::Bus("no answer in time".to_owned())),
        }
    }

    /// Removes exactly our claim; what cannot be removed runs out.
    async fn remove(&self) {
        let removing = self.leases.stream.delete_message(self.sequence);
        if !matches!(timeout(EXCHANGE, removing).await, Ok(Ok(_))) {
            tracing::debug!(lease = self.subject, "the lease is left to run out");
        }
    }
}

/// The stream as the contract has it.
fn config() -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["gw.v1.lease.>".to_owned()],
        storage: stream::StorageType::Memory,
        max_messages_per_subject: 1,
        max_age: AGE,
        duplicate_window: AGE,
        allow_direct: true,
        ..stream::Config::default()
    }
}

fn subject(space: &Space, service: &str) -> Result<String, Fault> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if service.is_empty() || !service.bytes().all(plain) {
        return Err(Fault::new(
            Code::Invalid,
            "a service is named by the characters A-Z a-z 0-9 _ -",
        ));
    }
    contract::lease(space.as_str(), service)
}

fn down(why: impl std::fmt::Display) -> Fault {
    Fault::new(
        Code::BusDown,
        format!("the lease cannot be taken ({why}); trying again may help"),
    )
}

#[cfg(test)]
mod tests {
    use super::{STREAM, config};
    use crate::bus::contract::streams::definitions;
    use crate::config::Config;

    #[test]
    fn a_worker_that_comes_first_creates_the_gateways_own_stream() {
        let events = Config::defaults().events;
        let ours = serde_json::to_value(config()).expect("json");
        let theirs = definitions(&events);
        let theirs = theirs.iter().find(|definition| definition.name == STREAM);
        assert_eq!(theirs.expect("leases").difference(&ours), None);
    }
}
