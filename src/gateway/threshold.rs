//! The threshold: however many come at once, those who are here go first.
//!
//! A handshake is ten times the work of a small message, and what is ready to run runs in the order in which it became
//! ready. So whoever is here would wait for everybody who comes, and several times for each command: where it is read,
//! where it goes to the broker, where its answer comes back. Therefore newcomers are served by threads of their own, half
//! as many as there are processors: the system divides its time among threads, however long the line before one of them.
//! Who is in goes over to the threads of those who are here. None of them is less urgent to the system than the others:
//! it would be stopped for long while it holds a lock that those who are here need.

use std::future::poll_fn;
use std::task::Poll;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Where newcomers are served.
pub struct Threshold {
    /// Without it everybody is served inside.
    outside: Option<Runtime>,
    inside: Handle,
}

impl Threshold {
    /// Before the runtime this is called in: that is inside.
    #[must_use]
    pub fn open() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let outside = Builder::new_multi_thread()
            .worker_threads((processors / 2).max(1))
            .thread_name("newcomers")
            .enable_all()
            .build()
            .inspect_err(|error| warn!(%error, "no threads for newcomers: a crowd of them will be noticed"))
            .ok();
        Self {
            outside,
            inside: Handle::current(),
        }
    }

    /// Where those are served who are on their way in.
    #[must_use]
    pub fn outside(&self) -> &Handle {
        self.outside.as_ref().map_or(&self.inside, Runtime::handle)
    }

    /// Where those are served who are in. Sockets are looked after here from the beginning.
    #[must_use]
    pub fn inside(&self) -> &Handle {
        &self.inside
    }

    /// Does the work on a newcomer as long as it is one; what is left when `here` holds is done inside.
    pub async fn pass(
        &self,
        tasks: &TaskTracker,
        work: impl Future<Output = ()> + Send + 'static,
        here: impl Fn() -> bool,
    ) {
        let mut work = Box::pin(work);
        let done = poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if here() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        });
        if !done.await {
            tasks.spawn_on(work, &self.inside);
        }
    }
}

impl Drop for Threshold {
    fn drop(&mut self) {
        if let Some(outside) = self.outside.take() {
            // the last to leave may be one of its own tasks, or one of another runtime: neither can wait
            outside.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::runtime::Handle;
    use tokio::sync::oneshot;
    use tokio_util::task::TaskTracker;

    use super::Threshold;

    #[tokio::test]
    async fn who_is_in_is_served_inside() {
        let threshold = Arc::new(Threshold::open());
        let tasks = TaskTracker::new();
        let house = Handle::current().id();
        let (say, said) = oneshot::channel();
        let (ask, asked) = oneshot::channel();
        let here = Arc::new(AtomicBool::new(false));
        let came = here.clone();
        let work = async move {
            let before = Handle::current().id();
            came.store(true, Ordering::Relaxed);
            let _asked = asked.await;
            let _told = say.send((before, Handle::current().id()));
        };
        let (own, all) = (threshold.clone(), tasks.clone());
        let passing = async move { own.pass(&all, work, || here.load(Ordering::Relaxed)).await };
        tasks.spawn_on(passing, threshold.outside()).await.unwrap();
        // it waits for this one, and is tracked meanwhile
        assert_eq!(tasks.len(), 1);
        ask.send(()).unwrap();
        let (before, after) = said.await.unwrap();
        assert_ne!(before, house);
        assert_eq!(after, house);
        tasks.close();
        tasks.wait().await;
    }
}
