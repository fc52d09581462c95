//! Request bodies: read whole, within a size, a deadline and the gateway's budget.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::gateway::Gateway;
use crate::message::{Code, Fault};

/// The bytes of a request as they come.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send + Sync>>;

/// A body makes progress within this, or the request is given up.
const QUIET: Duration = Duration::from_secs(10);
/// A whole body takes at most this.
const WHOLE: Duration = Duration::from_secs(300);
/// Bodies up to this size are not counted against the budget of large ones.
const SMALL: usize = 64 * 1024;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBody {
    /// Declared or counted beyond the limit.
    TooLarge,
    /// The gateway receives too much at once.
    Busy,
    /// Too slow.
    Late,
    /// The client left, or its framing is broken.
    Lost,
}

impl NoBody {
    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::Lost => StatusCode::BAD_REQUEST,
        }
    }

    /// The same in words.
    #[must_use]
    pub fn fault(self, limit: usize) -> Fault {
        match self {
            Self::TooLarge => Fault::new(Code::TooLarge, format!("the body is above {limit} bytes")),
            Self::Busy => Fault::new(Code::Busy, "too many large requests at once; try again"),
            Self::Late => Fault::new(Code::Timeout, "the body did not come in time"),
            Self::Lost => Fault::new(Code::Invalid, "the body is not complete"),
        }
    }
}

/// What a body holds of the budget; given back when dropped.
struct Held<'a> {
    gateway: &'a Gateway,
    bytes: u64,
}

impl Held<'_> {
    fn grow(&mut self, to: usize) -> Result<(), NoBody> {
        let want = if to > SMALL { to as u64 } else { 0 };
        let more = want.saturating_sub(self.bytes);
        if more > 0 {
            self.bytes += more;
            let before = self.gateway.receiving.fetch_add(more, Ordering::Relaxed);
            if before + more > self.gateway.config.gateway.max_receiving {
                return Err(NoBody::Busy);
            }
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.gateway.receiving.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// [`NoBody`], counted.
pub async fn read(
    gateway: &Arc<Gateway>,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Bytes, NoBody> {
    let read = collect(gateway, headers, body, limit).await;
    if read == Err(NoBody::TooLarge) {
        gateway.metrics.rejected.too_large.inc();
    }
    read
}

async fn collect(
    gateway: &Arc<Gateway>,
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
) -> Result<Bytes, NoBody> {
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|declared| declared > limit) {
        return Err(NoBody::TooLarge);
    }
    let mut held = Held { gateway, bytes: 0 };
    held.grow(declared.unwrap_or(0))?;
    let end = Instant::now() + WHOLE;
    // not the declared size at once: a client may declare and never send
    let mut whole = BytesMut::new();
    loop {
        let next = timeout_at(end.min(Instant::now() + QUIET), body.next());
        match next.await {
            Err(_) => return Err(NoBody::Late),
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(_))) => return Err(NoBody::Lost),
            Ok(Some(Ok(chunk))) => {
                if whole.len() + chunk.len() > limit {
                    return Err(NoBody::TooLarge);
                }
                held.grow(whole.len() + chunk.len())?;
                whole.extend_from_slice(&chunk);
            }
        }
    }
}
