//! What the bus counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the bus counts; read by telemetry.
#[derive(Debug, Default)]
pub struct Counters {
    /// Answers to calls that had ended: late or repeated.
    pub late: AtomicU64,
    /// Live messages without the stream headers, ignored.
    pub foreign: AtomicU64,
    /// Interim answers dropped because a large body before them is still on its way.
    pub crowded: AtomicU64,
    /// Facts that were never confirmed.
    pub unconfirmed: AtomicU64,
    /// Appends tried again.
    pub repeated: AtomicU64,
    /// Times the broker client reported a full subscription; at least one message was dropped each time.
    pub overflow: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
