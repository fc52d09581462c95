//! Gateways among themselves: `gw.v1.sys.…`.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::Bus;
use super::connect::Core;
use super::contract;
use super::inbox::down;
use crate::message::Fault;

/// A message of another gateway (or our own).
#[derive(Clone, Debug)]
pub struct SysMessage {
    /// What follows `gw.v1.sys.`.
    pub path: String,
    /// The payload.
    pub body: Bytes,
    /// Where an answer is expected, if one is.
    pub reply: Option<String>,
}

/// A subscription to `gw.v1.sys.…`.
pub struct Sys {
    subscriber: Subscriber,
    _core: Arc<Core>,
}

impl std::fmt::Debug for Sys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sys").finish_non_exhaustive()
    }
}

impl Sys {
    /// The next message; `None` when the bus is closed. Safe to drop half way.
    pub async fn next(&mut self) -> Option<SysMessage> {
        let message = self.subscriber.next().await?;
        Some(SysMessage {
            path: message
                .subject
                .strip_prefix(contract::SYS)
                .unwrap_or_default()
                .to_owned(),
            body: message.payload,
            reply: message.reply.map(|reply| reply.to_string()),
        })
    }
}

impl Bus {
    /// Publishes to `gw.v1.sys.<path>`; `path` is our own words, tokens joined by dots.
    ///
    /// # Errors
    /// `bus_down`, or `invalid`.
    pub async fn publish_sys(&self, path: &str, body: Bytes) -> Result<(), Fault> {
        let subject = contract::sys(path)?;
        self.ready()?;
        self.core.ingress.publish(subject, None, None, body).await
    }

    /// Subscribes to `gw.v1.sys.<pattern>`, wildcards allowed; returns when the broker has taken note.
    ///
    /// # Errors
    /// `bus_down`, or `invalid`.
    pub async fn subscribe_sys(&self, pattern: &str) -> Result<Sys, Fault> {
        let subject = contract::sys(pattern)?;
        self.ready()?;
        let subscriber = self.core.egress.subscribe(subject).await?;
        if !self.core.egress.round_trip(Duration::from_secs(2)).await {
            return Err(down());
        }
        Ok(Sys {
            subscriber,
            _core: Arc::clone(&self.core),
        })
    }

    /// Answers a message that expects it.
    ///
    /// # Errors
    /// `bus_down`.
    pub async fn answer_sys(&self, to: &SysMessage, body: Bytes) -> Result<(), Fault> {
        let Some(reply) = to.reply.clone() else {
            return Ok(());
        };
        self.ready()?;
        self.core.ingress.publish(reply, None, None, body).await
    }

    /// Asks all gateways and gathers what they answer within `window`, at most `limit` answers.
    ///
    /// # Errors
    /// `bus_down`, or `invalid`.
    pub async fn gather_sys(
        &self,
        path: &str,
        body: Bytes,
        window: Duration,
        limit: usize,
    ) -> Result<Vec<Bytes>, Fault> {
        let subject = contract::sys(path)?;
        self.ready()?;
        let ingress = &self.core.ingress;
        let mut expected = ingress.inbox.open(limit.max(1));
        let end = Instant::now() + window;
        ingress
            .publish(subject, Some(expected.subject()), None, body)
            .await?;
        let mut answers = Vec::new();
        while answers.len() < limit {
            match timeout_at(end, expected.messages.recv()).await {
                Ok(Some(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => break,
                Ok(Some(message)) => answers.push(message.payload),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(answers)
    }

    fn ready(&self) -> Result<(), Fault> {
        if self.core.is_up() { Ok(()) } else { Err(down()) }
    }
}
