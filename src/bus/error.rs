//! Why the bus cannot start, in sentences that say what to do.

use std::error::Error as _;

use async_nats::{ConnectError, ConnectErrorKind, ServerAddr};
use thiserror::Error;

/// Why [`super::Bus::connect`] failed.
#[derive(Debug, Error)]
pub enum BusError {
    /// Nobody answers at any of the addresses.
    #[error(
        "no NATS server answers at {urls} ({cause}); start one there, or set nats.url (GW_NATS_URL) to one that runs"
    )]
    Unreachable {
        /// The addresses tried.
        urls: String,
        /// The last failure.
        cause: String,
    },
    /// The server does not accept who we are.
    #[error(
        "the NATS server at {urls} refuses us ({cause}); check nats.user and nats.password, nats.token, nats.credentials or nats.nkey"
    )]
    Unauthorized {
        /// The addresses tried.
        urls: String,
        /// The server's words.
        cause: String,
    },
    /// The server lets us in but not near the subjects we need.
    #[error(
        "the NATS account may not use {what} ({cause}); give the gateway's user the permissions that deploy/docs/contract.md lists"
    )]
    Forbidden {
        /// What was tried.
        what: String,
        /// The server's words, or that it stayed silent.
        cause: String,
    },
    /// A file or value of the configuration cannot be used.
    #[error("{key} cannot be used ({cause}); correct it and start again")]
    Setting {
        /// Configuration key.
        key: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// TLS did not come about.
    #[error(
        "TLS with the NATS server at {urls} failed ({cause}); check nats.tls, nats.tls_ca, nats.tls_cert and nats.tls_key"
    )]
    Tls {
        /// The addresses tried.
        urls: String,
        /// The last failure.
        cause: String,
    },
    /// The server runs without JetStream.
    #[error(
        "the NATS server has no JetStream for this account ({cause}); start it with -js, or set events.history = false and do without replay, resume and state"
    )]
    NoJetStream {
        /// The server's words.
        cause: String,
    },
    /// A stream exists that is not the one we need.
    #[error(
        "the stream {stream} exists but its {field} is {found} instead of {expected}; back it up and delete it (nats stream rm {stream}), the gateway creates it again and never replaces one by itself"
    )]
    StreamDiffers {
        /// Which stream.
        stream: &'static str,
        /// Which property.
        field: &'static str,
        /// What the contract says.
        expected: String,
        /// What the server has.
        found: String,
    },
    /// A stream cannot be created, read or updated.
    #[error(
        "the stream {stream} cannot be set up ({cause}); check disk space, replicas and events.max_bytes against the limits of the NATS account"
    )]
    Stream {
        /// Which stream.
        stream: &'static str,
        /// The server's words.
        cause: String,
    },
}

/// Why nobody of these servers lets us in.
pub(super) fn refused(servers: &[ServerAddr], error: &ConnectError) -> BusError {
    // host and port only: the URL itself may hold a password
    let names: Vec<String> = servers
        .iter()
        .map(|server| format!("{}:{}", server.host(), server.port()))
        .collect();
    let (urls, cause) = (names.join(", "), error.to_string());
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            BusError::Unauthorized { urls, cause }
        }
        ConnectErrorKind::ServerParse => BusError::Setting {
            key: "nats.url",
            cause,
        },
        ConnectErrorKind::Tls => BusError::Tls { urls, cause },
        // a server is there: its certificate, ours, or that it speaks no TLS
        ConnectErrorKind::Io if garbled(error) => BusError::Tls { urls, cause },
        ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => BusError::Unreachable { urls, cause },
    }
}

/// Whether what came could not be taken for TLS, or for a TLS we trust; what is wrong with NATS's own protocol is
/// invalid input.
fn garbled(error: &ConnectError) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData) {
            return true;
        }
        source = cause.source();
    }
    false
}
