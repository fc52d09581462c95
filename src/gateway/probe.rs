//! Whether a client that will say no more still listens.
//!
//! A closed socket and a half-closed one look alike until something is written, and an answer may be an hour away.
//! White space between documents means nothing to whoever still listens; whoever is gone answers it with a reset,
//! and the write after it fails.

use std::time::{Duration, Instant};

use crate::wire::frame::Packet;

/// Answers that come sooner than this are not preceded by white space.
const EVERY: Duration = Duration::from_secs(1);

/// When a half-closed connection is written to next.
#[derive(Default)]
pub struct Probe(Option<Instant>);

impl Probe {
    /// The client has said its last.
    pub fn begin(&mut self, now: Instant) {
        self.0 = Some(now + EVERY);
    }

    /// The next moment something must be written.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.0
    }

    /// What to write now, if anything.
    pub fn turn(&mut self, now: Instant) -> Option<Packet> {
        self.0.filter(|due| *due <= now)?;
        self.0 = Some(now + EVERY);
        Some(Packet::new(bytes::Bytes::from_static(b"\n")))
    }
}
