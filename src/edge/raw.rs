//! Raw TCP: JSON documents back to back, without any handshake.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::dialect::{self, Dialect, Opening, Transport};
use crate::gateway::Gateway;
use crate::gateway::connection::{self, Guest, Line};
use crate::gateway::ring::Carrier;
use crate::message::Space;

/// Whether a dialect's clients speak without a handshake.
#[must_use]
pub fn is_raw(dialect: &dyn Dialect) -> bool {
    dialect.transport() == Transport::Tcp
}

/// The dialect that raw JSON on the gateway port belongs to.
#[must_use]
pub fn dialect() -> Option<&'static dyn Dialect> {
    dialect::ALL.iter().copied().find(|dialect| is_raw(*dialect))
}

/// Sets up a raw connection; the future runs it to its end.
pub fn serve(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    dialect: &'static dyn Dialect,
    place: OwnedSemaphorePermit,
) -> impl Future<Output = ()> + Send + use<> {
    let settings = gateway.config.dialects.get(dialect.name());
    let space = settings
        .and_then(|own| Space::parse(&own.space).ok())
        .unwrap_or_default();
    let guest = Guest {
        dialect,
        carrier: Carrier::Raw,
        opening: Opening {
            session: ulid::Ulid::new().to_string().into(),
            space,
            routes: gateway.routes(dialect.name()),
            target: "".into(),
        },
        listens: vec![dialect],
        since: None,
        traceparent: None,
        peer,
        early: Bytes::new(),
        place,
    };
    connection::run(gateway, Line::Socket(stream), guest)
}
