//! Work that takes a while, on large messages or for many clients, kept from holding up the small messages of others.

use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use crate::telemetry::clock;

/// Below this it is over before anybody could notice.
const LARGE: usize = 2 << 20;

/// Does work on so many bytes. For many of them the thread first hands over everybody else it serves.
pub(super) fn apart<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let several =
        || Handle::try_current().is_ok_and(|now| now.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes >= LARGE && several() {
        block_in_place(work)
    } else {
        work()
    }
}

/// Bytes after which a connection lets others go first.
pub(super) const TURN: usize = 256 << 10;

/// How long work for many may keep a thread. The other threads may be asleep meanwhile, since nothing is ready that
/// they know of, and then nobody looks at the sockets of others.
const SPELL: Duration = Duration::from_micros(500);

/// Work for many clients, one after the other, in parts between which others have their turn.
pub struct Spell {
    since: Instant,
    others: Duration,
}

impl Spell {
    /// Begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            since: clock::now(),
            others: Duration::ZERO,
        }
    }

    /// After each client: when this part was long enough, others go first.
    pub async fn go_on(&mut self) {
        let now = clock::now();
        if now.duration_since(self.since) >= SPELL {
            tokio::task::yield_now().await;
            self.since = clock::now();
            self.others += self.since.duration_since(now);
        }
    }

    /// How long others had their turn meanwhile.
    #[must_use]
    pub fn others(&self) -> Duration {
        self.others
    }
}

/// After a long turn at a socket that always has or takes more: others go first.
pub(super) async fn others_first(long: bool) {
    if long {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use super::{SPELL, Spell};

    /// One thread, so that whoever has it keeps the others waiting.
    #[tokio::test]
    async fn the_time_of_others_is_told_apart() {
        const TURN: Duration = Duration::from_millis(20);
        let mut spell = Spell::begin();
        let other = tokio::spawn(async { sleep(TURN) });
        sleep(SPELL);
        spell.go_on().await;
        assert!(other.is_finished() && spell.others() >= TURN);
    }
}
