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
    pub(super) up_to: u64,
    pub(super) max_bytes: usize,
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
struct Raw {
    seq: u64,
    time: Nanos,
    pending: u64,
    message: Message,
}

impl Reader<'_> {
    pub(super) async fn read(&self, since: Since) -> Result<Vec<Stored>, Fault> {
        let raw = match since {
            Since::After(seq) => {
                if seq >= self.up_to {
                    return Ok(Vec::new());
                }
                let mut consumer = self.open(seq + 1).await?;
                let kept = self.pull(&mut consumer, usize::MAX).await;
                consumer.close().await;
                kept?
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
            let mut consumer = self.open(start).await?;
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
            let kept = self.pull(&mut consumer, count).await;
            consumer.close().await;
            let kept = kept?;
            // matches may have come after `up_to`: then the guess was too short
            if kept.len() < count && start > 1 {
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

    /// Pulls up to `up_to`, keeping the last `keep` messages.
    async fn pull(&self, consumer: &mut Consumer<'_>, keep: usize) -> Result<VecDeque<Raw>, Fault> {
        let mut kept = VecDeque::new();
        let mut bytes = 0_usize;
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
                    return Ok(kept);
                }
                bytes += raw.size();
                kept.push_back(raw);
                if kept.len() > keep {
                    bytes -= kept.pop_front().map_or(0, |raw| raw.size());
                }
                if bytes > self.max_bytes {
                    return Err(self.too_much());
                }
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
        Ok(kept)
    }

    fn too_much(&self) -> Fault {
        let limit = self.max_bytes;
        Fault::new(
            Code::TooLarge,
            format!(
                "more than {limit} bytes of history; ask for less, or let the operator raise events.memory"
            ),
        )
    }

    /// Turns what was pulled into what is given out, large bodies fetched.
    async fn resolve(&self, raw: VecDeque<Raw>) -> Result<Vec<Stored>, Fault> {
        let mut out = Vec::with_capacity(raw.len());
        let mut bytes: usize = raw.iter().map(Raw::size).sum();
        for raw in raw {
            let Some((class, topic)) = contract::topic(&raw.message.subject) else {
                continue;
            };
            let mut stored = stored(class, topic.into(), raw.seq, 0, raw.time, &raw.message);
            if let Some(reference) = header(raw.message.headers.as_ref(), headers::BODY) {
                let size = headers::declared_size(reference).unwrap_or_default();
                bytes = bytes.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
                if bytes > self.max_bytes {
                    return Err(self.too_much());
                }
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
            out.push(stored);
        }
        Ok(out)
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
