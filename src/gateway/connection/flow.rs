//! How much a client may say: a bucket that fills at a rate, without a timer.

use std::time::{Duration, Instant};

/// Seconds' worth of messages that may come at once.
const BURST: Duration = Duration::from_secs(2);

/// How much a client says: when all it said so far is paid for.
pub(super) struct Flow(Instant);

impl Flow {
    /// Nothing said yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Counts a message; `false` when it is one too many for `rate` a second (0 = no limit).
    pub(super) fn take(&mut self, now: Instant, rate: usize) -> bool {
        let Some(rate) = u32::try_from(rate).ok().filter(|rate| *rate > 0) else {
            return true;
        };
        let paid = self.0.max(now) + Duration::from_secs(1) / rate;
        let within = paid.duration_since(now) <= BURST;
        if within {
            self.0 = paid;
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock;

    #[test]
    fn two_seconds_worth_may_come_at_once_then_only_the_rate() {
        let start = clock::now();
        let mut flow = Flow::new(start);
        let taken = (0..1000).filter(|_| flow.take(start, 100)).count();
        assert_eq!(taken, 200);
        let later = start + Duration::from_millis(500);
        let taken = (0..1000).filter(|_| flow.take(later, 100)).count();
        assert_eq!(taken, 50);
        assert!((0..1000).all(|_| flow.take(later, 0)), "0 is no limit");
    }
}
