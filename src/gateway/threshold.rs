//! The threshold: however many come at once, those who are here go first.
//!
//! A handshake is ten times the work of a small message, and what is ready to run runs in the order in which it became
//! ready. So whoever is here would wait for everybody who comes, and several times for each command: where it is read,
//! where it goes to the broker, where its answer comes back. Therefore few newcomers at a time are among what is ready;
//! the others wait here in their order. A newcomer takes up a place only while there is work on it, never while it is
//! waited for: one that stops half-way is in nobody's way.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::ready;

use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

/// Where newcomers wait for their turn.
pub struct Threshold(Arc<Semaphore>);

impl Default for Threshold {
    fn default() -> Self {
        // half of the processors at most: the rest is for those who are here
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((processors / 2).max(1))
    }
}

impl Threshold {
    /// So many at a time.
    #[must_use]
    pub fn new(abreast: usize) -> Self {
        Self(Arc::new(Semaphore::new(abreast)))
    }

    /// Does the work on a newcomer, each part of it in its turn; from when on `here` holds it is no newcomer any more.
    pub async fn pass<T>(&self, work: impl Future<Output = T>, here: impl Fn() -> bool) -> T {
        let mut work = pin!(work);
        let mut turns = PollSemaphore::new(self.0.clone());
        poll_fn(|context| {
            let _turn = match here() {
                true => None,
                false => ready!(turns.poll_acquire(context)),
            };
            work.as_mut().poll(context)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use super::Threshold;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn who_is_waited_for_keeps_nobody_waiting() {
        let threshold = Threshold::new(1);
        let mut stuck = Box::pin(threshold.pass(pending::<()>(), || false));
        assert!(stuck.as_mut().now_or_never().is_none());
        assert_eq!(threshold.pass(async { 1 }, || false).now_or_never(), Some(1));
    }

    #[tokio::test]
    async fn they_pass_in_the_order_in_which_they_came() {
        let threshold = Threshold::new(1);
        let order = RefCell::new(Vec::new());
        let pass = |n: u32| {
            let order = &order;
            threshold.pass(async move { order.borrow_mut().push(n) }, || false)
        };
        let held = threshold.0.clone().acquire_owned().await.unwrap();
        let mut newcomers: Vec<_> = (0..5).map(|n| Box::pin(pass(n))).collect();
        for newcomer in &mut newcomers {
            assert!(newcomer.as_mut().now_or_never().is_none());
        }
        // who is here already is not in that line
        assert_eq!(
            threshold.pass(async { "here" }, || true).now_or_never(),
            Some("here")
        );
        drop(held);
        futures_util::future::join_all(newcomers).await;
        assert_eq!(*order.borrow(), [0, 1, 2, 3, 4]);
    }
}
