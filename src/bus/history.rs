//! What happened before: exact reads from the streams, bounded in time and bytes.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_nats::StatusCode;
use serde_json::json;

use super::contract::{self, Tail, headers, streams};
use super::inbox::down;
use super::live::server_header;
use super::streams::{ANSWER, Refused};
use super::{Bus, Stored};
use crate::message::{Class, Code, Fault, Nanos, Space};

mod careful;
mod reader;

pub(super) use careful::Suspects;
use reader::Reader;

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Everything with a higher sequence.
    After(u64),
    /// The last so many.
    Last(usize),
}

impl Bus {
    /// Where a whole stream stands, asked of its leader: the `H` of the exact cut. All zero without history.
    ///
    /// # Errors
    /// `bus_down`.
    pub async fn tail(&self, class: Class) -> Result<Tail, Fault> {
        Ok(self.stand(class).await?.0)
    }

    /// The same, and in a cluster a number for the server that leads the stream. A new leader sends nothing live of
    /// what it took over from the old one.
    ///
    /// # Errors
    /// `bus_down`.
    pub async fn stand(&self, class: Class) -> Result<(Tail, u64), Fault> {
        let core = &self.core;
        if !self.history() {
            return Ok((Tail::default(), 0));
        }
        if !core.is_up() {
            return Err(down());
        }
        let info = core.stream_info(streams::of(class)).await?;
        let number = |field: &str| info["state"][field].as_u64().unwrap_or_default();
        let created = info["created"].as_str().and_then(unix);
        let leader = info["cluster"]["leader"].as_str().map_or(0, |name| {
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            hasher.finish()
        });
        let tail = Tail {
            epoch: created.ok_or(Refused::Garbled)?,
            first_seq: number("first_seq"),
            last_seq: number("last_seq"),
        };
        Ok((tail, leader))
    }

    /// The last sequence in one space and dialect; 0 if there is none. Cheap, but in a cluster a replica may answer
    /// that is a moment behind: for finding lost messages, not for the cut.
    ///
    /// # Errors
    /// `bus_down`, or `invalid` for names no subject can carry.
    pub async fn last_of(&self, class: Class, space: &Space, dialect: &str) -> Result<u64, Fault> {
        let core = &self.core;
        if !self.history() {
            return Ok(0);
        }
        if !core.is_up() {
            return Err(down());
        }
        let filter = contract::facts(class, space.as_str(), dialect)?;
        let subject = format!("$JS.API.DIRECT.GET.{}", streams::of(class));
        let body = json!({ "last_by_subj": filter }).to_string();
        if core.suspects.may_lie(class, &filter, 0) {
            return Ok(core.last_as_json(class, &filter).await?.unwrap_or(0));
        }
        let asking = core.ingress.ask(subject, None, body.into(), ANSWER);
        let message = core.unless_lost(class, &filter, asking).await??;
        let map = message.headers.as_ref();
        let sequence = server_header(map, headers::SEQUENCE).and_then(|text| text.parse().ok());
        match (sequence, message.status) {
            (Some(sequence), _) => Ok(sequence),
            (None, Some(StatusCode::NOT_FOUND)) => Ok(0),
            (None, _) => Err(Refused::Garbled.into()),
        }
    }

    /// The topics of one space and dialect of which the stream holds something, asked of its leader.
    ///
    /// # Errors
    /// `bus_down`, or `invalid` for names no subject can carry.
    pub async fn topics(
        &self,
        class: Class,
        space: &Space,
        dialect: &str,
    ) -> Result<BTreeSet<Arc<str>>, Fault> {
        let core = &self.core;
        if !self.history() {
            return Ok(BTreeSet::new());
        }
        if !core.is_up() {
            return Err(down());
        }
        let filter = contract::facts(class, space.as_str(), dialect)?;
        let subjects = core.stream_subjects(streams::of(class), &filter).await?;
        let names = subjects.as_object().into_iter().flat_map(|map| map.keys());
        let topics = names.filter_map(|subject| contract::topic(subject));
        Ok(topics.map(|(_, topic)| topic.into()).collect())
    }

    /// Reads one space and dialect, oldest first, up to and including the sequence `up_to`.
    /// State: the last value of each topic, tombstones included. Empty without history.
    /// [`Since::Last`] gives as many as `max_bytes` hold, at least the newest.
    ///
    /// # Errors
    /// `bus_down`, `invalid`, or `too_large` for more than `max_bytes` after a place.
    pub async fn read(
        &self,
        class: Class,
        space: &Space,
        dialect: &str,
        since: Since,
        up_to: u64,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, Fault> {
        if !self.history() || since == Since::Last(0) {
            return Ok(Vec::new());
        }
        if !self.core.is_up() {
            return Err(down());
        }
        let reader = Reader {
            core: &self.core,
            class,
            filter: contract::facts(class, space.as_str(), dialect)?,
            since,
            up_to,
            max_bytes,
        };
        let read = reader.read().await?;
        let expired = |stored: &Stored| stored.body.content_type.as_deref() == Some(headers::EXPIRED);
        if class == Class::State && read.iter().any(expired) {
            // the value was replaced and its body removed between the two reads
            return reader.read().await;
        }
        Ok(read)
    }
}

impl Bus {
    /// Makes streams that somebody deleted while we run. Those that exist are left as they are.
    ///
    /// # Errors
    /// `bus_down`, in the words of a start that fails.
    pub async fn restore_streams(&self) -> Result<(), Fault> {
        let restored = self.core.check_streams().await;
        restored.map_err(|error| Fault::new(Code::BusDown, error.to_string()))
    }
}

/// RFC 3339 as Unix nanoseconds.
fn unix(text: &str) -> Option<Nanos> {
    let time = humantime::parse_rfc3339(text).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Nanos::try_from(since.as_nanos()).ok()
}
