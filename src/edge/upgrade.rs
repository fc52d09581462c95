//! From an HTTP request to a WebSocket session: checks, space, dialect, offset; then the socket is ours.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tracing::debug;

use crate::dialect::{self, Dialect, Opening, Transport};
use crate::edge::accept::Peer;
use crate::edge::http::{plain, refuse};
use crate::edge::ports::Purpose;
use crate::gateway::Gateway;
use crate::gateway::connection::{self, Guest};
use crate::gateway::ring::Carrier;
use crate::message::{Code, Fault, Offset, Space};
use crate::wire::handshake;

/// What of a request an upgrade looks at.
pub struct Request {
    /// Method.
    pub method: Method,
    /// Path.
    pub path: String,
    /// Query without `?`; empty when there is none.
    pub query: String,
    /// Header fields.
    pub headers: HeaderMap,
    /// Who asks.
    pub peer: Peer,
    /// The connection behind it.
    pub upgrade: Option<OnUpgrade>,
}

/// Header in which clients that can set one bring their offset.
const SINCE: &str = "gw-since";

/// Answers an upgrade request; on success the session runs in a task of its own.
#[must_use]
pub fn answer(gateway: &Arc<Gateway>, request: Request) -> Response<Bytes> {
    let Request {
        method,
        path,
        query,
        headers,
        peer,
        upgrade,
    } = request;
    if gateway.drain.is_cancelled() {
        gateway.metrics.rejected.draining.inc();
        let fault = Fault::new(Code::Busy, "the gateway restarts; connect again in a few seconds");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &fault);
    }
    let key = match handshake::check(&headers, &method, Version::HTTP_11) {
        Ok(key) => key,
        Err(refusal) => {
            gateway.metrics.rejected.handshake.inc();
            let mut response = plain(refusal.status(), &format!("{}\n", refusal.text()));
            if let Some((name, value)) = refusal.header() {
                let value = http::HeaderValue::from_static(value);
                response
                    .headers_mut()
                    .insert(http::HeaderName::from_static(name), value);
            }
            return response;
        }
    };
    if !handshake::origin_allowed(&headers, &gateway.config.gateway.origins) {
        gateway.metrics.rejected.origin.inc();
        let fault = Fault::new(
            Code::Unauthorized,
            "pages of this origin may not connect; add it to gateway.origins (GW_GATEWAY_ORIGINS)",
        );
        return refuse(StatusCode::FORBIDDEN, &fault);
    }
    let Some((dialect, rest)) = door(gateway, peer.purpose, &path) else {
        gateway.metrics.rejected.handshake.inc();
        let text = format!(
            "no WebSocket at {path}; there is one at {}",
            paths(gateway).join(", ")
        );
        return refuse(StatusCode::NOT_FOUND, &Fault::new(Code::Invalid, text));
    };
    let settings = gateway.config.dialects.get(dialect.name());
    let named = parameter(&query, "space").or_else(|| space_in(rest).map(str::to_owned));
    let default = settings.map_or(Space::MAIN, |own| own.space.as_str());
    let space = match Space::parse(named.as_deref().unwrap_or(default)) {
        Ok(space) => space,
        Err(fault) => {
            gateway.metrics.rejected.space.inc();
            return refuse(StatusCode::BAD_REQUEST, &fault);
        }
    };
    let listens = match listens(dialect, parameter(&query, "topics").as_deref()) {
        Ok(listens) => listens,
        Err(fault) => return refuse(StatusCode::BAD_REQUEST, &fault),
    };
    let header = headers
        .get(SINCE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let since = parameter(&query, "since")
        .or(header)
        .map(|text| Offset::parse(&text));
    let (Some(upgrade), Some(place)) = (upgrade, peer.place.lock().take()) else {
        gateway.metrics.rejected.handshake.inc();
        let fault = Fault::new(
            Code::Invalid,
            "this connection cannot be upgraded; open a new one",
        );
        return refuse(StatusCode::BAD_REQUEST, &fault);
    };
    let target = if query.is_empty() {
        path
    } else {
        format!("{path}?{query}")
    };
    let opening = Opening {
        session: ulid::Ulid::new().to_string().into(),
        space,
        routes: gateway.routes(dialect.name()),
        target: target.into(),
    };
    let guest = Guest {
        dialect,
        carrier: Carrier::WebSocket,
        opening,
        listens,
        since,
        peer: peer.address,
        early: Bytes::new(),
        place,
    };
    gateway.tasks.spawn(take_over(gateway.clone(), upgrade, guest));
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert(UPGRADE, http::HeaderValue::from_static("websocket"));
    fields.insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = http::HeaderValue::from_str(key.accept()) {
        fields.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Waits for hyper to let go of the socket, then runs the session on it.
async fn take_over(gateway: Arc<Gateway>, upgrade: OnUpgrade, mut guest: Guest) {
    let stream = {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return debug!(%error, "the client left during the upgrade"),
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
            return debug!("the upgraded connection is no TCP socket");
        };
        // copied, so that hyper's buffer is not kept for the life of the connection
        guest.early = Bytes::copy_from_slice(&parts.read_buf);
        parts.io.into_inner()
    };
    // a task of its own, so that what the handshake needed is not kept for the life of the connection
    gateway
        .tasks
        .spawn(connection::run(gateway.clone(), stream, guest));
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
