//! Why a connection is over: counted once, logged once.

use std::fmt;

use crate::message::Close;

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client closed, with this code where it gave one.
    Left(Option<u16>),
    /// The socket failed or ended without a goodbye.
    Lost,
    /// The client broke the protocol or a limit; we closed with this.
    Broken(Close),
    /// The session asked for the end.
    Closed(Close),
    /// The client read too slowly.
    Slow,
    /// A ping was not answered in time.
    Silent,
    /// The gateway drains.
    Drained,
    /// A bug of ours.
    Panicked,
}

impl Ending {
    /// The end by a close of ours.
    #[must_use]
    pub fn by(close: Close) -> Self {
        if close == Close::SLOW {
            Self::Slow
        } else {
            Self::Closed(close)
        }
    }

    /// The close code for metrics: what was sent, or 1006 where nothing could be.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Left(code) => code.unwrap_or(1005),
            Self::Lost | Self::Silent => 1006,
            Self::Broken(close) | Self::Closed(close) => close.code,
            Self::Slow => Close::SLOW.code,
            Self::Drained => Close::DRAIN.code,
            Self::Panicked => Close::INTERNAL.code,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Left(_) => "client left",
            Self::Lost => "connection lost",
            Self::Broken(_) => "protocol broken",
            Self::Closed(_) => "closed by session",
            Self::Slow => "too slow",
            Self::Silent => "ping unanswered",
            Self::Drained => "drained",
            Self::Panicked => "panicked",
        })
    }
}
