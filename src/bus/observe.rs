//! Who measures what only the bus sees: the way to a worker and back, and confirmations of the streams.

use std::sync::Arc;
use std::time::Duration;

use super::Bus;

/// Measures. Called on hot paths: must neither block nor call the bus.
pub trait Observe: Send + Sync {
    /// A number for a dialect, so that nothing is looked up by name when the answer comes.
    fn lane(&self, dialect: &str) -> u8;

    /// A command of this lane got its final answer: publish to answer, and the worker's part of it where the reply
    /// says when it was sent.
    fn answered(&self, lane: u8, bus: Duration, worker: Option<Duration>);

    /// A body above the payload limit was put into the object store, or fetched from it.
    fn large(&self, stored: bool, bytes: usize);

    /// A fact was confirmed by its stream.
    fn stored(&self, took: Duration);
}

impl Bus {
    /// Wires whoever measures; the first one stays.
    pub fn set_observer(&self, observer: Arc<dyn Observe>) {
        // a second one would split the figures
        let _ = self.core.observer.set(observer);
    }
}
