//! What was turned away, by reason.

use prometheus::IntCounter;

use crate::telemetry::metrics::make::Make;

/// Connections and messages turned away before they belonged to a dialect's conversation.
pub struct Rejected {
    /// Origin not allowed.
    pub origin: IntCounter,
    /// No valid upgrade.
    pub handshake: IntCounter,
    /// Too many connections, or too much being received.
    pub limit: IntCounter,
    /// Message or head above its limit.
    pub too_large: IntCounter,
    /// Violates the framing.
    pub bad_frame: IntCounter,
    /// Came during shutdown.
    pub draining: IntCounter,
    /// Invalid space, or too many.
    pub space: IntCounter,
    /// Request head not complete in time.
    pub header_timeout: IntCounter,
    /// Said nothing, or nothing recognised.
    pub first_byte: IntCounter,
    /// A message began and did not go on.
    pub stalled: IntCounter,
}

impl Rejected {
    pub(super) fn new(make: &Make<'_>) -> Self {
        let reasons = make.counters("rejected_total", "Turned away, by reason.", &["reason"]);
        let reason = |reason| reasons.with_label_values(&[reason]);
        Self {
            origin: reason("origin"),
            handshake: reason("handshake"),
            limit: reason("limit"),
            too_large: reason("too_large"),
            bad_frame: reason("bad_frame"),
            draining: reason("draining"),
            space: reason("space"),
            header_timeout: reason("header_timeout"),
            first_byte: reason("first_byte"),
            stalled: reason("stalled"),
        }
    }
}
