//! What an HTTP request of long polling is answered with.

use bytes::Bytes;

use crate::wire::engineio::Refusal;

/// What an HTTP request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// 200 with packets, `text/plain; charset=UTF-8`.
    Payload(Bytes),
    /// 200 `ok`, `text/html`.
    Accepted,
    /// 400 with an empty body: a second GET while one is pending.
    Overlap,
    /// 413 with an empty body.
    TooLarge,
    /// 400 with a JSON body.
    Refused(Refusal),
}

impl Response {
    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Payload(_) | Self::Accepted => 200,
            Self::Overlap | Self::Refused(_) => 400,
            Self::TooLarge => 413,
        }
    }

    /// The `Content-Type`, none for empty bodies.
    #[must_use]
    pub const fn content_type(&self) -> Option<&'static str> {
        match self {
            Self::Payload(_) => Some("text/plain; charset=UTF-8"),
            Self::Accepted => Some("text/html"),
            Self::Refused(_) => Some("application/json"),
            Self::Overlap | Self::TooLarge => None,
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Bytes {
        match self {
            Self::Payload(body) => body.clone(),
            Self::Accepted => Bytes::from_static(b"ok"),
            Self::Refused(refusal) => Bytes::from_static(refusal.body().as_bytes()),
            Self::Overlap | Self::TooLarge => Bytes::new(),
        }
    }
}
