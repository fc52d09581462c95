//! What messages are counted by: handles resolved once, that do nothing where nobody is to look.

use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounter, IntGauge};

/// What only grows.
#[derive(Clone)]
pub struct Counter(pub(super) Option<IntCounter>);

impl Counter {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// So many more.
    #[inline]
    pub fn inc_by(&self, more: u64) {
        if let Some(counter) = &self.0 {
            counter.inc_by(more);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.as_ref().map_or(0, IntCounter::get)
    }
}

/// What comes and goes.
#[derive(Clone)]
pub struct Gauge(pub(super) Option<IntGauge>);

impl Gauge {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// One less.
    #[inline]
    pub fn dec(&self) {
        self.add(-1);
    }

    /// So many more, or less.
    #[inline]
    pub fn add(&self, more: i64) {
        if let Some(gauge) = &self.0 {
            gauge.add(more);
        }
    }
}

/// How long something takes, each time.
#[derive(Clone)]
pub struct Times(pub(super) Option<Histogram>);

impl Times {
    /// It took this.
    #[inline]
    pub fn took(&self, time: Duration) {
        if let Some(histogram) = &self.0 {
            histogram.observe(time.as_secs_f64());
        }
    }

    /// It began then and ends now: the clock is read only where that is counted.
    #[inline]
    pub fn since(&self, began: Instant) {
        if self.0.is_some() {
            self.took(began.elapsed());
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::get_sample_count)
    }
}
