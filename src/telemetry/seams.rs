//! What the core counts at its seams, in one word each: a connection, a frame, a command, a delivery.

use std::time::{Duration, Instant};

use crate::message::Nanos;
use crate::telemetry::clock;
use crate::telemetry::metrics::{DialectMetrics, Outcome};

impl DialectMetrics {
    /// A connection opened.
    pub fn connected(&self) {
        self.opened.inc();
        self.connections.inc();
    }

    /// A connection that opened at `since` is over.
    pub fn disconnected(&self, code: u16, since: Instant) {
        self.connections.dec();
        self.closed(code);
        self.lifetime.observe(since.elapsed().as_secs_f64());
    }

    /// A message of a client was read; its bytes are counted as they come.
    pub fn frame_in(&self, started: Instant) {
        self.received.inc();
        self.stage.decode.observe(started.elapsed().as_secs_f64());
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
        self.command(outcome).observe(since.elapsed().as_secs_f64());
    }

    /// Events were encoded for everybody, or an answer for the one who asked.
    pub fn encoded(&self, took: Duration) {
        self.stage.encode.observe(took.as_secs_f64());
    }

    /// Events that entered the system at `times` were given to the clients of a room.
    pub fn delivered(&self, times: &[Nanos]) {
        let now = clock::unix();
        for time in times {
            self.delivery_lag.observe(now.saturating_sub(*time) as f64 / 1e9);
        }
    }

    /// A client was given this many messages it had missed.
    pub fn resumed(&self, messages: u64) {
        self.recovered.inc();
        self.recovered_messages.inc_by(messages);
    }
}
