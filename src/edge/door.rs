//! What an address asks for: which dialect, which space, whose events, from where on.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use crate::dialect::{self, Dialect, Opening, Transport};
use crate::edge::accept::Peer;
use crate::edge::http::refuse;
use crate::edge::ports::Purpose;
use crate::gateway::Gateway;
use crate::gateway::connection::{self, Guest};
use crate::gateway::ring::Carrier;
use crate::message::{Code, Fault, Offset, Space};
use crate::telemetry::trace;

/// Header in which clients that can set one bring their offset.
const SINCE: &str = "gw-since";

/// What a client on its way in wants.
pub struct Wish {
    dialect: &'static dyn Dialect,
    space: Space,
    listens: Vec<&'static dyn Dialect>,
    since: Option<Option<Offset>>,
    target: Arc<str>,
    traceparent: Option<Box<str>>,
}

impl Wish {
    /// Reads the address and headers of a request.
    ///
    /// # Errors
    /// The refusal, ready to be sent.
    #[expect(clippy::result_large_err, reason = "an answer that is sent at once")]
    pub fn read(
        gateway: &Gateway,
        peer: &Peer,
        path: &str,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Self, Response<Bytes>> {
        let Some((dialect, rest)) = door(gateway, peer.purpose, path) else {
            gateway.metrics.rejected.handshake.inc();
            let text = format!(
                "no WebSocket at {path}; there is one at {}",
                paths(gateway).join(", ")
            );
            return Err(refuse(StatusCode::NOT_FOUND, &Fault::new(Code::Invalid, text)));
        };
        let settings = gateway.config.dialects.get(dialect.name());
        let named = parameter(query, "space").or_else(|| space_in(rest).map(str::to_owned));
        let default = settings.map_or(Space::MAIN, |own| own.space.as_str());
        let space = Space::parse(named.as_deref().unwrap_or(default)).map_err(|fault| {
            gateway.metrics.rejected.space.inc();
            refuse(StatusCode::BAD_REQUEST, &fault)
        })?;
        let listens = listens(dialect, parameter(query, "topics").as_deref())
            .map_err(|fault| refuse(StatusCode::BAD_REQUEST, &fault))?;
        let header = headers
            .get(SINCE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let since = parameter(query, "since")
            .or(header)
            .map(|text| Offset::parse(&text));
        let target = if query.is_empty() {
            path.into()
        } else {
            format!("{path}?{query}").into()
        };
        Ok(Self {
            dialect,
            space,
            listens,
            since,
            target,
            traceparent: trace::of(headers),
        })
    }

    /// Whether it asks at an Engine.IO path of its dialect.
    #[must_use]
    pub fn is_engine(&self) -> bool {
        let path = self.target.split('?').next().unwrap_or_default();
        path.ends_with(".io/") && self.dialect.paths().contains(&path)
    }

    /// The largest message its dialect takes.
    #[must_use]
    pub fn max_message(&self, gateway: &Gateway) -> usize {
        let settings = gateway.config.dialects.get(self.dialect.name());
        settings.map_or(connection::MAX_MESSAGE, |own| own.max_message)
    }

    /// The client with a place of its own.
    #[must_use]
    pub fn guest(self, gateway: &Gateway, peer: &Peer, place: OwnedSemaphorePermit) -> Guest {
        Guest {
            dialect: self.dialect,
            carrier: Carrier::WebSocket,
            opening: Opening {
                session: ulid::Ulid::new().to_string().into(),
                space: self.space,
                routes: gateway.routes(self.dialect.name()),
                target: self.target,
            },
            listens: self.listens,
            since: self.since,
            traceparent: self.traceparent,
            peer: peer.address,
            early: Bytes::new(),
            place,
        }
    }
}

/// The dialect served at a path of a port, and what of the path is left.
fn door<'p>(gateway: &Gateway, purpose: Purpose, path: &'p str) -> Option<(&'static dyn Dialect, &'p str)> {
    let mut best: Option<(&'static dyn Dialect, &str, usize)> = None;
    for dialect in dialect::ALL
        .iter()
        .copied()
        .filter(|dialect| served(gateway, *dialect))
    {
        let home = matches!(purpose, Purpose::Legacy(home) if home.name() == dialect.name());
        if !home && !matches!(purpose, Purpose::Gateway) {
            continue;
        }
        for prefix in dialect.paths() {
            let Some(rest) = path.strip_prefix(prefix) else {
                continue;
            };
            let whole = rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/');
            if whole && best.is_none_or(|(_, _, len)| prefix.len() > len) {
                best = Some((dialect, rest, prefix.len()));
            }
        }
        if home && best.is_none() {
            // these clients never cared about the path
            best = Some((dialect, if path.starts_with("/s/") { path } else { "" }, 0));
        }
    }
    best.map(|(dialect, rest, _)| (dialect, rest))
}

fn served(gateway: &Gateway, dialect: &dyn Dialect) -> bool {
    dialect.transport() == Transport::WebSocket
        && (dialect.name() != "echo" || gateway.config.gateway.test_echo)
}

/// The paths with a WebSocket on the gateway port.
#[must_use]
pub fn paths(gateway: &Gateway) -> Vec<&'static str> {
    let dialects = dialect::ALL.iter().filter(|dialect| served(gateway, **dialect));
    dialects
        .flat_map(|dialect| dialect.paths().iter().copied())
        .collect()
}

/// `/<space>` or `/s/<space>` after a dialect's path.
fn space_in(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix("/s/").or_else(|| rest.strip_prefix('/'))?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    (!rest.is_empty()).then_some(rest)
}

/// `?topics=voice,assistant`: the dialects whose events a client gets, its own when it does not say.
fn listens(own: &'static dyn Dialect, topics: Option<&str>) -> Result<Vec<&'static dyn Dialect>, Fault> {
    let Some(topics) = topics else {
        return Ok(vec![own]);
    };
    let mut chosen: Vec<&'static dyn Dialect> = Vec::new();
    for name in topics.split(',').filter(|name| !name.is_empty()) {
        let Some(dialect) = dialect::named(name) else {
            let text = format!("topics: there is no dialect {name:?}");
            return Err(Fault::new(Code::Invalid, text));
        };
        if chosen.iter().all(|known| known.name() != dialect.name()) {
            chosen.push(dialect);
        }
    }
    if chosen.iter().all(|known| known.name() != own.name()) {
        chosen.insert(0, own);
    }
    Ok(chosen)
}

/// A query parameter, percent-decoded.
#[must_use]
pub fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| decode(value))
    })
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        if let Some(value) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(value);
            at += 3;
        } else {
            out.push(if byte == b'+' { b' ' } else { byte });
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_stand_after_the_path() {
        assert_eq!(space_in(""), None);
        assert_eq!(space_in("/"), None);
        assert_eq!(space_in("/team"), Some("team"));
        assert_eq!(space_in("/s/team/"), Some("team"));
        assert_eq!(space_in("/a/b"), Some("a/b"), "refused by the space's own rule");
    }

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(
            parameter("a=1&space=te%61m+x", "space").as_deref(),
            Some("team x")
        );
        assert_eq!(parameter("space=%zz%", "space").as_deref(), Some("%zz%"));
        assert_eq!(parameter("spaces=1", "space"), None);
        assert_eq!(parameter("since", "since").as_deref(), Some(""));
    }
}
