//! What the core counts at its seams, in one word each: a connection, a frame, a command, a delivery.

use std::time::{Duration, Instant};

use crate::message::Nanos;
use crate::telemetry::clock;
use crate::telemetry::metrics::{DialectMetrics, Outcome};

impl DialectMetrics {
    /// The clock, for whatever only the metrics want to know.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Instant {
        self.still.unwrap_or_else(clock::now)
    }

    /// A connection opened.
    pub fn connected(&self) {
        self.opened.inc();
        self.connections.inc();
    }

    /// A connection that opened at `since` is over.
    pub fn disconnected(&self, code: u16, since: Instant) {
        self.connections.dec();
        self.closed(code);
        self.lifetime.since(since);
    }

    /// A message of a client was read; its bytes are counted as they come.
    pub fn frame_in(&self, started: Instant) {
        self.received.inc();
        self.stage.decode.since(started);
    }

    /// A client's socket took so many bytes, and with them the last one of so many messages.
    #[inline]
    pub fn written(&self, messages: u64, bytes: usize) {
        if messages > 0 {
            self.sent.inc_by(messages);
        }
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// A command that came at `since` got its final answer, or was withdrawn.
    pub fn command_ended(&self, since: Instant, outcome: Outcome) {
        self.command(outcome).since(since);
    }

    /// Events were encoded for everybody, or an answer for the one who asked.
    pub fn encoded(&self, took: Duration) {
        self.stage.encode.took(took);
    }

    /// Events that entered the system at `times` were given to the clients of a room.
    pub fn delivered(&self, times: &[Nanos]) {
        if self.still.is_some() {
            return;
        }
        let now = clock::unix();
        for time in times {
            self.delivery_lag
                .took(Duration::from_nanos(now.saturating_sub(*time)));
        }
    }

    /// A client was given this many messages it had missed.
    pub fn resumed(&self, messages: u64) {
        self.recovered.inc();
        self.recovered_messages.inc_by(messages);
    }
}
