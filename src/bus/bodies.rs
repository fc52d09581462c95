//! Large bodies: put into the object store once, fetched once per gateway, whatever the number of viewers.

mod cache;
mod objects;
pub mod reference;
mod sweep;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

pub use super::contract::headers::EXPIRED;
use super::{Fetch, Store};
use crate::config;
use crate::message::{Body, Class, Code, Fault};
use cache::Cache;
use objects::{Objects, Trouble};
pub use reference::{BadReference, Bucket, MAX_SIZE, Reference};

/// Bytes of bodies kept in memory unless told otherwise.
pub const CACHE: usize = 128 << 20;
/// Bodies outlive their events by this, so that a replay finds them.
const GRACE: Duration = Duration::from_secs(3600);
/// Bytes being fetched at once, in KiB; more wait their turn.
const FETCHING: u32 = 512 << 10;
/// Deletions that wait at once; beyond, the sweeper does it.
const DELETIONS: usize = 1024;

/// Why the buckets cannot be used.
#[derive(Debug, Error)]
#[error(
    "the bucket {bucket} of large bodies cannot be set up ({cause}); check disk space, replicas and bodies.max_bytes against the limits of the NATS account"
)]
pub struct BodiesError {
    bucket: &'static str,
    cause: String,
}

/// Who has read a state has this long to read its body, though a newer one came.
const READERS: Duration = Duration::from_secs(60);
/// How often bodies of state are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(120);
/// Longer than a put and the retries of the state that names it take together.
const SWEEP_GRACE: Duration = Duration::from_secs(600);

/// What is counted; read by telemetry.
#[derive(Debug, Default)]
pub struct BodyCounters {
    /// Bodies put.
    pub puts: AtomicU64,
    /// Bodies got from the object store.
    pub gets: AtomicU64,
    /// Fetches served from memory.
    pub hits: AtomicU64,
    /// Fetches that joined one under way.
    pub joined: AtomicU64,
    /// Fetches that found the body gone.
    pub expired: AtomicU64,
    /// Puts and gets that failed.
    pub failed: AtomicU64,
}

/// A body on its way, shared by all who wait for it.
type Flight = Shared<BoxFuture<'static, Result<Body, Fault>>>;

struct Inner {
    objects: Objects,
    timeout: Duration,
    cache: Mutex<Cache>,
    flights: Mutex<HashMap<Arc<str>, Flight>>,
    fetching: Arc<Semaphore>,
    deletions: Arc<Semaphore>,
    counters: BodyCounters,
}

/// The claim check. Cheap to clone.
#[derive(Clone)]
pub struct Bodies(Arc<Inner>);

impl Bodies {
    /// Finds or creates both buckets; `events_max_age` is that of `GW_EVENTS`.
    ///
    /// # Errors
    /// [`BodiesError`], naming the bucket and the server's words.
    pub async fn open(
        client: async_nats::Client,
        bodies: &config::Bodies,
        events_max_age: Duration,
        replicas: usize,
    ) -> Result<Self, BodiesError> {
        let max_age = events_max_age.saturating_add(GRACE);
        let opening = Objects::open(client, bodies.max_bytes, max_age, replicas);
        let objects = timeout(bodies.timeout, opening)
            .await
            .unwrap_or_else(|_| Err((Bucket::Bodies, "no answer in time".to_owned())))
            .map_err(|(bucket, cause)| BodiesError {
                bucket: bucket.name(),
                cause,
            })?;
        Ok(Self(Arc::new(Inner {
            objects,
            timeout: bodies.timeout,
            cache: Mutex::new(Cache::new(CACHE)),
            flights: Mutex::default(),
            fetching: Arc::new(Semaphore::new(FETCHING as usize)),
            deletions: Arc::new(Semaphore::new(DELETIONS)),
            counters: BodyCounters::default(),
        })))
    }

    /// The same with another bound on the bytes kept in memory.
    #[must_use]
    pub fn with_cache(self, limit: usize) -> Self {
        *self.0.cache.lock() = Cache::new(limit);
        self
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &BodyCounters {
        &self.0.counters
    }

    /// Bytes of bodies kept in memory.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.0.cache.lock().held()
    }

    /// Stores a body and returns its reference.
    ///
    /// # Errors
    /// `too_large` above [`MAX_SIZE`] or when the bucket is full, `timeout`, `bus_down`.
    pub async fn put(&self, class: Class, body: &Body) -> Result<Reference, Fault> {
        let size = body.bytes.len() as u64;
        if size == 0 || size > MAX_SIZE {
            return Err(Fault::new(
                Code::TooLarge,
                format!("a large body has 1 to {MAX_SIZE} bytes, this one {size}"),
            ));
        }
        let inner = &self.0;
        inner.connected()?;
        let putting = inner.objects.put(Bucket::of(class), body.bytes.clone());
        let reference = inner.bounded("stored", putting).await?;
        inner.counters.puts.fetch_add(1, Ordering::Relaxed);
        // the live message comes back to this gateway too: its viewers need no fetch
        let key: Arc<str> = reference.to_string().into();
        inner.cache.lock().insert(key, body.bytes.clone());
        Ok(reference)
    }

    /// The body a reference names, hash verified. Many at once for the same body are one get.
    /// The content type is that of the message and not known here, except [`EXPIRED`] for a body that is gone.
    ///
    /// # Errors
    /// `invalid` for what is no reference of ours, `worker_error` for a damaged body, `timeout`, `bus_down`.
    pub async fn fetch(&self, reference: &str) -> Result<Body, Fault> {
        let inner = &self.0;
        if let Some(bytes) = inner.cache.lock().get(reference) {
            inner.counters.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Body::json(bytes));
        }
        let parsed: Reference = reference
            .parse()
            .map_err(|bad: BadReference| Fault::new(Code::Invalid, bad.to_string()))?;
        inner.connected()?;
        let flight = {
            let mut flights = inner.flights.lock();
            if let Some(flight) = flights.get(reference) {
                inner.counters.joined.fetch_add(1, Ordering::Relaxed);
                flight.clone()
            } else {
                let key: Arc<str> = reference.into();
                let flight = inner.clone().start(key.clone(), parsed);
                flights.insert(key, flight.clone());
                flight
            }
        };
        flight.await
    }

    /// Removes an object now. One that is gone already is fine.
    ///
    /// # Errors
    /// `invalid`, `timeout`, `bus_down`.
    pub async fn delete(&self, reference: &str) -> Result<(), Fault> {
        let parsed: Reference = reference
            .parse()
            .map_err(|bad: BadReference| Fault::new(Code::Invalid, bad.to_string()))?;
        let inner = &self.0;
        inner.cache.lock().remove(reference);
        inner.connected()?;
        let deleting = inner.objects.delete(parsed.bucket, &parsed.name);
        inner.bounded("deleted", deleting).await
    }

    /// Removes an object after `wait`: for replaced state, whose readers may still hold the reference.
    /// What is not deleted by then (too many waiting, the bus away, a restart) the sweeper takes.
    pub fn delete_after(&self, reference: String, wait: Duration) {
        let Ok(permit) = self.0.deletions.clone().try_acquire_owned() else {
            return;
        };
        let bodies = self.clone();
        tokio::spawn(async move {
            sleep(wait).await;
            if let Err(fault) = bodies.delete(&reference).await {
                tracing::debug!(%fault, reference, "a replaced body is left to the sweeper");
            }
            drop(permit);
        });
    }

    /// Removes bodies of state that no state refers to and that are older than `grace`, which covers the time
    /// between the put of a body and the state that names it. Returns how many went.
    ///
    /// # Errors
    /// `timeout`, `bus_down`; then nothing is lost, the next sweep takes it.
    pub async fn sweep(&self, grace: Duration) -> Result<usize, Fault> {
        let inner = &self.0;
        inner.connected()?;
        let sweeping = inner.objects.sweep(Bucket::StateBodies, grace);
        inner.bounded("swept", sweeping).await
    }

    /// Sweeps again and again until dropped; for a task of the gateway.
    pub async fn keep_swept(&self) {
        loop {
            sleep(SWEEP_EVERY).await;
            match self.sweep(SWEEP_GRACE).await {
                Ok(0) | Err(_) => {}
                Ok(count) => tracing::info!(count, "bodies that no state names were removed"),
            }
        }
    }
}

impl Inner {
    /// A get in a task of its own: a waiter that leaves takes nothing from the others.
    fn start(self: Arc<Self>, key: Arc<str>, reference: Reference) -> Flight {
        let task = tokio::spawn(async move {
            let fetched = self.get(&reference).await;
            if let Ok(body) = &fetched
                && body.content_type.is_none()
            {
                self.cache.lock().insert(key.clone(), body.bytes.clone());
            }
            self.flights.lock().remove(&key);
            fetched
        });
        async move {
            task.await
                .unwrap_or_else(|_| Err(Fault::new(Code::BusDown, "the gateway is stopping")))
        }
        .boxed()
        .shared()
    }

    async fn get(&self, reference: &Reference) -> Result<Body, Fault> {
        let kib = u32::try_from(reference.size.div_ceil(1024)).unwrap_or(FETCHING);
        let getting = async {
            let room = self.fetching.acquire_many(kib.min(FETCHING)).await;
            let _room = room.map_err(|_| Trouble::Bus("the gateway is stopping".into()))?;
            self.counters.gets.fetch_add(1, Ordering::Relaxed);
            match self.objects.get(reference).await {
                Err(Trouble::Gone) => Ok(None),
                other => other.map(Some),
            }
        };
        let Some(bytes) = self.bounded("fetched", getting).await? else {
            self.counters.expired.fetch_add(1, Ordering::Relaxed);
            return Ok(Body::typed(Bytes::new(), EXPIRED));
        };
        Ok(Body::json(bytes))
    }

    /// Runs under the deadline and puts what goes wrong into the client's words.
    async fn bounded<T>(
        &self,
        done: &'static str,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Fault> {
        let trouble = match timeout(self.timeout, work).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(trouble)) => trouble.into(),
            Err(_) if self.connected().is_err() => away(),
            Err(_) => Fault::new(
                Code::Timeout,
                format!("a large body was not {done} within {:?}; try again", self.timeout),
            ),
        };
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(fault = %trouble, "a large body was not {done}");
        Err(trouble)
    }

    fn connected(&self) -> Result<(), Fault> {
        if self.objects.client().connection_state() == State::Connected {
            Ok(())
        } else {
            Err(away())
        }
    }
}

fn away() -> Fault {
    Fault::new(
        Code::BusDown,
        "the gateway has no NATS right now, try again in a moment",
    )
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Full => Self::new(
                Code::TooLarge,
                "the store of large bodies is full; free some or raise bodies.max_bytes",
            ),
            Trouble::Gone => Self::new(Code::Invalid, "the large body is gone"),
            Trouble::Damaged(what) => Self::new(
                Code::WorkerError,
                format!("a large body is damaged ({what}); send it again"),
            ),
            Trouble::Bus(what) => Self::new(
                Code::BusDown,
                format!("the object store failed ({what}); try again"),
            ),
        }
    }
}

impl Fetch for Bodies {
    fn fetch<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Body, Fault>> {
        Self::fetch(self, reference).boxed()
    }
}

impl Store for Bodies {
    fn put<'a>(&'a self, class: Class, body: &'a Body) -> BoxFuture<'a, Result<String, Fault>> {
        Self::put(self, class, body)
            .map(|put| put.map(|reference| reference.to_string()))
            .boxed()
    }

    fn replaced(&self, reference: String) {
        // an event's body is not a state's to remove, whoever referred to it
        let kept = |reference: &Reference| reference.bucket == Bucket::StateBodies;
        if reference.parse().is_ok_and(|reference| kept(&reference)) {
            self.delete_after(reference, READERS);
        }
    }
}
