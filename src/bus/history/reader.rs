//! One read: finds where to begin, pulls batch by batch, stops exactly.

use std::collections::VecDeque;

use async_nats::Message;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::super::Stored;
use super::super::calls::header;
use super::super::connect::Core;
use super::super::contract::{self, headers, streams};
use super::super::inbox::Unanswered;
use super::super::live::stored;
use super::super::streams::{ANSWER, Refused};
use super::Since;
use crate::message::{Body, Class, Code, Fault, Nanos};

/// Messages asked for at once.
const BATCH: u64 = 256;
/// Bytes asked for at once, unless a single message may be larger.
const BATCH_BYTES: usize = 4 << 20;
/// Guesses at where the last N begin.
const PROBES: usize = 16;

/// What is read.
pub(super) struct Reader<'a> {
    pub(super) core: &'a Core,
    pub(super) class: Class,
    pub(super) filter: String,
    pub(super) since: Since,
    pub(super) up_to: u64,
    pub(super) max_bytes: usize,
}

/// What was pulled, and whether older ones gave way to the bound on bytes.
#[derive(Default)]
pub(super) struct Pulled {
    kept: VecDeque<Raw>,
    bytes: usize,
    trimmed: bool,
}

/// A consumer that lives for one read. Its messages come with the subject they were stored under, so the common inbox
/// could not tell them apart: it has a subscription of its own.
struct Consumer<'a> {
    core: &'a Core,
    stream: &'static str,
    name: String,
    pending: u64,
    inbox: String,
    messages: async_nats::Subscriber,
}

/// A message of the stream with its place.
pub(super) struct Raw {
    pub(super) seq: u64,
    pub(super) time: Nanos,
    pub(super) pending: u64,
    pub(super) message: Message,
}

impl Pulled {
    /// Adds the newest and keeps the last `keep`, as far as they fit.
    pub(super) fn add(&mut self, raw: Raw, keep: usize, reader: &Reader<'_>) -> Result<(), Fault> {
        self.bytes += raw.size();
        self.kept.push_back(raw);
        while self.kept.len() > keep || reader.exceeds(self.bytes, self.kept.len())? {
            self.trimmed |= self.kept.len() <= keep;
            self.bytes -= self.kept.pop_front().map_or(0, |raw| raw.size());
        }
        Ok(())
    }
}

impl Reader<'_> {
    pub(super) async fn read(&self) -> Result<Vec<Stored>, Fault> {
        let raw = match self.since {
            Since::After(seq) => {
                if seq >= self.up_to {
                    return Ok(Vec::new());
                }
                let start = seq + 1;
                let consumer = match self.is_suspect(start) {
                    true => None,
                    false => Some(self.open(start).await?),
                };
                self.take(consumer, start, usize::MAX).await?.kept
            }
            Since::Last(count) => self.last(count).await?,
        };
        self.resolve(raw).await
    }

    /// The last `count`. There is no such request before nats-server 2.11, so the beginning is guessed by density;
    /// the count of matches comes with the creation of a consumer.
    async fn last(&self, count: usize) -> Result<VecDeque<Raw>, Fault> {
        let wanted = count as u64;
        let mut back = wanted;
        // a distance known to hold too few
        let mut few = 0;
        for probe in 0.. {
            let start = self.up_to.saturating_add(1).saturating_sub(back).max(1);
            let consumer = self.open(start).await?;
            let matches = consumer.pending;
            let last_chance = start == 1 || probe >= PROBES;
            if matches < wanted && !last_chance {
                consumer.close().await;
                few = back;
                let by_density = back.saturating_mul(wanted).checked_div(matches);
                back = by_density.map_or(back.saturating_mul(64), |back| back.saturating_mul(13) / 10 + 1);
                back = back.max(few + 1);
                continue;
            }
            let far = matches > wanted.saturating_mul(4).saturating_add(BATCH);
            let middle = few + (back - few) / 2;
            if far && probe < PROBES && middle > few {
                consumer.close().await;
                back = middle;
                continue;
            }
            let consumer = Some(consumer).filter(|_| !self.is_suspect(start));
            let Pulled { kept, trimmed, .. } = self.take(consumer, start, count).await?;
            // matches may have come after `up_to`: then the guess was too short
            if kept.len() < count && start > 1 && !trimmed {
                few = back;
                back = back.saturating_mul(2).saturating_add(matches);
                continue;
            }
            return Ok(kept);
        }
        Ok(VecDeque::new())
    }

    async fn open(&self, start: u64) -> Result<Consumer<'_>, Fault> {
        let stream = streams::of(self.class);
        let body = json!({
            "stream_name": stream,
            "config": {
                "deliver_policy": "by_start_sequence", "opt_start_seq": start,
                "ack_policy": "none", "replay_policy": "instant",
                "filter_subject": self.filter,
                "inactive_threshold": 10_000_000_000_u64,
                "mem_storage": true, "num_replicas": 1,
            },
        });
        let inbox = self.core.ingress.inbox.own();
        let info = self
            .core
            .jetstream(&format!("CONSUMER.CREATE.{stream}"), &body)
            .await?;
        Ok(Consumer {
            core: self.core,
            stream,
            name: info["name"].as_str().ok_or(Refused::Garbled)?.to_owned(),
            pending: info["num_pending"].as_u64().ok_or(Refused::Garbled)?,
            messages: self.core.ingress.subscribe(inbox.clone()).await?,
            inbox,
        })
    }

    fn is_suspect(&self, start: u64) -> bool {
        self.core.suspects.may_lie(self.class, &self.filter, start)
    }

    /// From `start` by a consumer, or without one by one.
    async fn take(&self, consumer: Option<Consumer<'_>>, start: u64, keep: usize) -> Result<Pulled, Fault> {
        let Some(mut consumer) = consumer else {
            return self.one_by_one(start, keep).await;
        };
        let pulling = self.pull(&mut consumer, keep);
        let pulled = self.core.unless_lost(self.class, &self.filter, pulling).await;
        consumer.close().await;
        if let Ok(Ok(_)) = &pulled {
            self.core.suspects.calm(self.class, &self.filter);
        }
        pulled?
    }

    /// Pulls up to `up_to`, keeping the last `keep` messages.
    async fn pull(&self, consumer: &mut Consumer<'_>, keep: usize) -> Result<Pulled, Fault> {
        let mut pulled = Pulled::default();
        let mut pending = consumer.pending;
        let mut fruitless = 0;
        while pending > 0 {
            let batch = pending.min(BATCH);
            consumer.ask(batch).await?;
            let mut got = 0;
            while got < batch {
                let message = timeout(ANSWER, consumer.messages.next()).await;
                let Ok(Some(message)) = message else {
                    return Err(Unanswered::Silence.into());
                };
                if message.status.is_some() {
                    // the end of the batch by bytes, or nothing more there
                    break;
                }
                let raw = Raw::read(message).ok_or(Refused::Garbled)?;
                got += 1;
                pending = raw.pending;
                if raw.seq > self.up_to {
                    return Ok(pulled);
                }
                pulled.add(raw, keep, self)?;
            }
            if got == 0 {
                // they expired between the count and the pull, or the server broke the batch off
                fruitless += 1;
                pending = consumer.left().await?;
                if pending > 0 && fruitless > 3 {
                    return Err(Unanswered::Silence.into());
                }
            }
        }
        Ok(pulled)
    }

    /// Whether the oldest of so many must give way. Of the last ones only the newest is given whatever its size; what
    /// came after a place is given whole or not at all.
    fn exceeds(&self, bytes: usize, count: usize) -> Result<bool, Fault> {
        match self.since {
            _ if bytes <= self.max_bytes => Ok(false),
            Since::Last(_) => Ok(count > 1),
            Since::After(_) => {
                let limit = self.max_bytes;
                Err(Fault::new(
                    Code::TooLarge,
                    format!(
                        "more than {limit} bytes of history; ask for less, or let the operator raise events.memory"
                    ),
                ))
            }
        }
    }

    /// Turns what was pulled into what is given out, large bodies fetched; the newest first, since the others may have
    /// to give way to it.
    async fn resolve(&self, raw: VecDeque<Raw>) -> Result<Vec<Stored>, Fault> {
        let mut out = VecDeque::with_capacity(raw.len());
        let mut bytes = 0_usize;
        for raw in raw.into_iter().rev() {
            let Some((class, topic)) = contract::topic(&raw.message.subject) else {
                continue;
            };
            let mut stored = stored(class, topic.into(), raw.seq, 0, raw.time, &raw.message);
            if let Some(reference) = header(raw.message.headers.as_ref(), headers::BODY) {
                let body = std::mem::take(&mut stored.body);
                stored.body = match self.core.incoming(reference, body).await {
                    Ok(body) => body,
                    Err(fault) if fault.code == Code::BusDown => return Err(fault),
                    Err(fault) => {
                        tracing::warn!(%fault, seq = raw.seq, "a large body is missing");
                        Body::typed("", headers::EXPIRED)
                    }
                };
            }
            // what a body is said to have counts for nothing: anybody may say anything
            bytes = bytes.saturating_add(raw.message.length.max(stored.body.bytes.len()));
            if self.exceeds(bytes, out.len() + 1)? {
                break;
            }
            out.push_front(stored);
        }
        Ok(out.into())
    }
}

impl Consumer<'_> {
    async fn ask(&self, batch: u64) -> Result<(), Fault> {
        let bytes = BATCH_BYTES.max(self.core.ingress.client.max_payload() + (64 << 10));
        let body = json!({ "batch": batch, "no_wait": true, "max_bytes": bytes });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name);
        let payload = body.to_string().into();
        self.core
            .ingress
            .publish(subject, Some(self.inbox.clone()), None, payload)
            .await
    }

    async fn left(&self) -> Result<u64, Fault> {
        let operation = format!("CONSUMER.INFO.{}.{}", self.stream, self.name);
        let info = self.core.jetstream(&operation, &Value::Null).await?;
        Ok(info["num_pending"].as_u64().ok_or(Refused::Garbled)?)
    }

    /// Told, not asked: the server forgets an idle one by itself.
    async fn close(&self) {
        let subject = format!("$JS.API.CONSUMER.DELETE.{}.{}", self.stream, self.name);
        let _ = self
            .core
            .ingress
            .publish(subject, None, None, bytes::Bytes::new())
            .await;
    }
}

impl Raw {
    /// `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<seq>.<consumer seq>.<time>.<pending>[.<random>]`
    fn read(message: Message) -> Option<Self> {
        let reply = message.reply.as_ref()?;
        let tokens: Vec<&str> = reply.split('.').collect();
        let offset = if tokens.len() >= 11 { 2 } else { 0 };
        let number = |at: usize| tokens.get(at + offset)?.parse::<u64>().ok();
        let (seq, time, pending) = (number(5)?, number(7)?, number(8)?);
        Some(Self {
            seq,
            time,
            pending,
            message,
        })
    }

    fn size(&self) -> usize {
        self.message.length
    }
}
