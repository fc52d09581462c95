//! Reading what the client library cannot take. Headers and subjects that break its rules cost it the connection they come on, and a
//! message that is stored with such headers would cost every connection it is read on. So where two reads in a row broke
//! off, the next one asks for each message as JSON, which has the headers as bytes, and takes from them what can be read.

use std::collections::HashMap;
use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::connect::Core;
use super::super::contract::streams;
use super::super::inbox::down;
use super::super::streams::Refused;
use super::reader::{Pulled, Raw, Reader};
use super::unix;
use crate::message::{Class, Fault};

/// Filters that are read with care; beyond, all are tried anew.
const MOST: usize = 4096;

/// Where such messages lie or may lie, by stream and filter.
#[derive(Default)]
pub(in crate::bus) struct Suspects(Mutex<HashMap<(bool, String), Suspicion>>);

#[derive(Default)]
struct Suspicion {
    /// Reads in a row that broke off.
    broken: u32,
    /// Up to where such messages lie; 0 while none is known or likely.
    last: u64,
}

impl Suspects {
    /// Whether one may lie at `start` or behind it.
    pub(super) fn may_lie(&self, class: Class, filter: &str, start: u64) -> bool {
        let known = self.0.lock();
        let suspicion = (!known.is_empty())
            .then(|| known.get(&key(class, filter)))
            .flatten();
        suspicion.is_some_and(|suspicion| suspicion.last >= start.max(1))
    }

    /// A read broke off. The first time NATS itself may be the reason; then anything that is there to be read.
    fn broke(&self, class: Class, filter: &str) {
        let mut known = self.0.lock();
        if known.len() >= MOST {
            known.clear();
        }
        let suspicion = known.entry(key(class, filter)).or_default();
        suspicion.broken += 1;
        if suspicion.broken > 1 {
            suspicion.last = u64::MAX;
        }
    }

    /// A read was not broken off: what broke one before was something else.
    pub(super) fn calm(&self, class: Class, filter: &str) {
        let mut known = self.0.lock();
        if !known.is_empty() && known.get(&key(class, filter)).is_some_and(|it| it.last == 0) {
            known.remove(&key(class, filter));
        }
    }

    /// A read with care came to its end; `last` is the last such message in it.
    fn ended(&self, class: Class, filter: &str, last: u64) {
        let mut known = self.0.lock();
        if last > 0 {
            known.insert(key(class, filter), Suspicion { broken: 0, last });
        } else if !known.is_empty() {
            known.remove(&key(class, filter));
        }
    }
}

fn key(class: Class, filter: &str) -> (bool, String) {
    (class == Class::Event, filter.to_owned())
}

impl Core {
    /// Waits for an answer with a message of the stream, unless the connection goes meanwhile.
    pub(super) async fn unless_lost<T>(
        &self,
        class: Class,
        filter: &str,
        answer: impl Future<Output = T>,
    ) -> Result<T, Fault> {
        let mut link = self.link.subscribe();
        let now = link.borrow_and_update().clone();
        tokio::select! {
            answer = answer => Ok(answer),
            _ = link.wait_for(|link| *link != now) => {
                self.suspects.broke(class, filter);
                Err(down())
            }
        }
    }

    /// The last message of a filter, without its headers being read by the client library; `None` if there is none.
    pub(super) async fn last_as_json(&self, class: Class, filter: &str) -> Result<Option<u64>, Fault> {
        let found = self.message(class, &json!({ "last_by_subj": filter })).await?;
        Ok(found.map(|raw| raw.0.seq))
    }

    /// One message as JSON, and whether the client library could have taken it.
    async fn message(&self, class: Class, which: &Value) -> Result<Option<(Raw, bool)>, Fault> {
        let operation = format!("STREAM.MSG.GET.{}", streams::of(class));
        let found = match self.jetstream(&operation, which).await {
            Ok(found) => found,
            Err(Refused::Api { status: 404, .. }) => return Ok(None),
            Err(refused) => return Err(refused.into()),
        };
        Ok(Some(raw(&found["message"]).ok_or(Refused::Garbled)?))
    }
}

impl Reader<'_> {
    /// What [`Reader::pull`] does, one message at a time.
    pub(super) async fn one_by_one(&self, start: u64, keep: usize) -> Result<Pulled, Fault> {
        let mut pulled = Pulled::default();
        let (mut next, mut last) = (start, 0);
        loop {
            let which = json!({ "seq": next, "next_by_subj": self.filter });
            let found = self.core.message(self.class, &which).await?;
            let Some((raw, readable)) = found.filter(|(raw, _)| raw.seq <= self.up_to) else {
                break;
            };
            next = raw.seq + 1;
            if !readable {
                tracing::warn!(
                    seq = raw.seq, subject = %raw.message.subject,
                    "a message has headers or a subject that break NATS's rules; its publisher should be mended"
                );
                last = raw.seq;
            }
            pulled.add(raw, keep, self)?;
        }
        self.core.suspects.ended(self.class, &self.filter, last);
        Ok(pulled)
    }
}

fn raw(message: &Value) -> Option<(Raw, bool)> {
    let bytes = |name: &str| match message[name].as_str() {
        Some(text) => STANDARD.decode(text).ok(),
        None => Some(Vec::new()),
    };
    let (head, payload) = (bytes("hdrs")?, Bytes::from(bytes("data")?));
    let (headers, readable) = headers(&head);
    let subject = message["subject"].as_str()?;
    // to the server only ASCII's own are white space, and bytes that are no text as good as others
    let torn = |sign: char| sign.is_whitespace() || sign == char::REPLACEMENT_CHARACTER;
    let readable = readable && !subject.contains(torn);
    let raw = Raw {
        seq: message["seq"].as_u64()?,
        time: unix(message["time"].as_str()?)?,
        pending: 0,
        message: Message {
            subject: subject.into(),
            reply: None,
            length: subject.len() + head.len() + payload.len(),
            payload,
            headers: Some(headers),
            status: None,
            description: None,
        },
    };
    Some((raw, readable))
}

/// The headers that can be read, and whether all can.
fn headers(head: &[u8]) -> (HeaderMap, bool) {
    let mut map = HeaderMap::new();
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut readable = head.is_empty() || lines.next() == Some("NATS/1.0");
    readable &= std::str::from_utf8(head).is_ok();
    for line in lines.filter(|line| !line.is_empty()) {
        let field = line.split_once(':').and_then(|(name, value)| {
            let value = HeaderValue::from_str(value.trim()).ok()?;
            Some((HeaderName::from_str(name).ok()?, value))
        });
        match field {
            Some((name, value)) => map.append(name, value),
            None => readable = false,
        }
    }
    (map, readable)
}

#[cfg(test)]
mod tests {
    use super::headers;

    #[test]
    fn what_can_be_read_is_taken_and_what_breaks_the_rules_is_told() {
        for (head, readable) in [
            (&b""[..], true),
            (b"NATS/1.0\r\nGw-Time: 7\r\n\r\n", true),
            (b"NATS/1.0\r\nGw-Time:7\r\nGw-Time: 8\r\n\r\n", true),
            (b"NATS/1.0\r\nA B: 1\r\nGw-Time: 7\r\n\r\n", false),
            (b"NATS/1.0\r\nGw-Time: 7\r\nX: one\ntwo\r\n\r\n", false),
            (b"NATS/1.0\r\nGw-Time: 7\r\nX: one\rtwo\r\n\r\n", false),
            (b"NATS/1.0\r\nGw-Time: 7\r\nnothing\r\n\r\n", false),
            (b"NATS/1.0\r\nGw-Time: 7\r\nX: \xff\r\n\r\n", false),
            (b"NATS/1.0 what\r\nGw-Time: 7\r\n\r\n", false),
        ] {
            let (map, all) = headers(head);
            let time = map.get("Gw-Time").map(async_nats::HeaderValue::as_str);
            assert_eq!(
                (time, all),
                ((!head.is_empty()).then_some("7"), readable),
                "{head:?}"
            );
        }
    }
}
