//! From an HTTP request to a WebSocket session: checks, space, dialect, offset; then the socket is ours.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tracing::debug;

use crate::edge::accept::Peer;
use crate::edge::door::Wish;
use crate::edge::http::{plain, refuse};
use crate::edge::{cors, polling};
use crate::gateway::Gateway;
use crate::gateway::connection::{self, Guest, Line};
use crate::message::{Code, Fault};
use crate::wire::handshake::{self, Key};

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
    if let Err(refusal) = cors::check(gateway, &headers) {
        return refusal;
    }
    let wish = match Wish::read(gateway, &peer, &path, &query, &headers) {
        Ok(wish) => wish,
        Err(refusal) => return refusal,
    };
    if wish.is_engine() {
        match polling::upgrading(gateway, &headers, &method, &query) {
            Ok(None) => {}
            Ok(Some(visits)) => {
                if let Some(upgrade) = upgrade {
                    gateway.tasks.spawn(polling::take_over(upgrade, visits));
                }
                return switching(&key);
            }
            Err(refusal) => return refusal,
        }
    }
    let (Some(upgrade), Some(place)) = (upgrade, peer.place.lock().take()) else {
        gateway.metrics.rejected.handshake.inc();
        let fault = Fault::new(
            Code::Invalid,
            "this connection cannot be upgraded; open a new one",
        );
        return refuse(StatusCode::BAD_REQUEST, &fault);
    };
    let guest = wish.guest(gateway, &peer, place);
    gateway.tasks.spawn(take_over(gateway.clone(), upgrade, guest));
    switching(&key)
}

/// The answer that makes a WebSocket of the connection.
#[must_use]
pub fn switching(key: &Key) -> Response<Bytes> {
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
    let Some((stream, early)) = released(upgrade).await else {
        return;
    };
    guest.early = early;
    // a task of its own, so that what the handshake needed is not kept for the life of the connection
    let session = connection::run(gateway.clone(), Line::Socket(stream), guest);
    gateway.tasks.spawn_on(session, gateway.threshold.inside());
}

/// The socket behind an upgrade, and the bytes that came with the handshake.
pub async fn released(upgrade: OnUpgrade) -> Option<(TcpStream, Bytes)> {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            debug!(%error, "the client left during the upgrade");
            return None;
        }
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        debug!("the upgraded connection is no TCP socket");
        return None;
    };
    // copied, so that hyper's buffer is not kept for the life of the connection
    Some((parts.io.into_inner(), Bytes::copy_from_slice(&parts.read_buf)))
}
