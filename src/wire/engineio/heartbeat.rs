//! The Engine.IO heartbeat: the server asks, the client answers in time. Time comes in as an argument.

use std::time::Duration;

/// The two intervals announced in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// From a sign of life to the next ping.
    pub interval: Duration,
    /// From a ping to the last moment of its pong.
    pub timeout: Duration,
}

impl Default for Beat {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(25),
            timeout: Duration::from_secs(20),
        }
    }
}

/// What a heartbeat wants at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// Nothing yet.
    Quiet,
    /// Send a ping now.
    Ping,
    /// The client is gone.
    Dead,
}

/// Where a heartbeat stands.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    beat: Beat,
    due: Duration,
    asked: bool,
}

impl Heartbeat {
    /// Begins when the session opens.
    #[must_use]
    pub fn new(now: Duration, beat: Beat) -> Self {
        Self {
            beat,
            due: now.saturating_add(beat.interval),
            asked: false,
        }
    }

    /// A packet arrived. While a pong is owed, any packet will do: a client that is sending is alive, and its
    /// pong may queue behind a long message. Otherwise nothing changes, so unsolicited pongs have no effect.
    pub fn heard(&mut self, now: Duration) {
        if self.asked {
            *self = Self::new(now, self.beat);
        }
    }

    /// Time passed.
    pub fn pulse(&mut self, now: Duration) -> Pulse {
        if now < self.due {
            Pulse::Quiet
        } else if self.asked {
            Pulse::Dead
        } else {
            self.asked = true;
            // counted from now: a late wake-up must not shorten the client's time
            self.due = now.saturating_add(self.beat.timeout);
            Pulse::Ping
        }
    }

    /// When [`Heartbeat::pulse`] next has something to say.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.due
    }
}
