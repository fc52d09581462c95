//! The clocks: what pure code is handed as [`Now`], and what measuring begins with.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::message::{Nanos, Now};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Both clocks at once.
#[must_use]
pub fn read() -> Now {
    Now {
        unix: unix(),
        mono: START.elapsed(),
    }
}

/// Unix time in nanoseconds.
#[must_use]
pub fn unix() -> Nanos {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

/// The monotonic clock, for measuring.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The instant at which the monotonic reading of [`Now`] was or will be `mono`.
#[must_use]
pub fn at(mono: std::time::Duration) -> Instant {
    *START + mono
}
