//! Many listening clients that come back when they lose their connection, and count what they got.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::load::micros;
use crate::process::Gateway;
use crate::talk::{self, Socket};
use crate::{Outcome, PATIENCE, Scale};

/// What all clients of a crowd saw together.
#[derive(Default)]
pub(crate) struct Seen {
    /// Connections that were greeted.
    pub(crate) greeted: AtomicU64,
    /// Handshakes that failed; tried again.
    pub(crate) refused: AtomicU64,
    /// Connections that ended without the client's will.
    pub(crate) ended: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) repeats: AtomicU64,
    /// Told that what was missed cannot be given.
    pub(crate) unrecovered: AtomicU64,
    /// Events that gap notices spoke of.
    pub(crate) announced: AtomicU64,
    pub(crate) degraded: AtomicU64,
    pub(crate) restored: AtomicU64,
    /// Close codes; 1006 = none came.
    pub(crate) codes: Mutex<BTreeMap<u16, u64>>,
    /// When connections ended.
    pub(crate) ends: Mutex<Vec<Instant>>,
    /// Microseconds from the producer to a client, while somebody measures.
    pub(crate) lags: Mutex<Option<Vec<u64>>>,
}

/// What a crowd in a process of its own says it saw, and when: microseconds, as all programs of this machine have them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) at: u64,
    pub(crate) events: u64,
    pub(crate) gaps: u64,
    pub(crate) repeats: u64,
    pub(crate) announced: u64,
    pub(crate) unrecovered: u64,
    pub(crate) refused: u64,
}

impl Seen {
    /// All of it so far.
    pub(crate) fn tally(&self) -> Tally {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Tally {
            at: micros(),
            events: read(&self.events),
            gaps: read(&self.gaps),
            repeats: read(&self.repeats),
            announced: read(&self.announced),
            unrecovered: read(&self.unrecovered),
            refused: read(&self.refused),
        }
    }

    pub(crate) fn code(&self, code: u16) -> u64 {
        self.codes.lock().get(&code).copied().unwrap_or(0)
    }

    /// Measures how long events take until the future ends.
    pub(crate) async fn measure(&self, during: impl Future<Output = Outcome<()>>) -> Outcome<Vec<u64>> {
        *self.lags.lock() = Some(Vec::new());
        let ended = during.await;
        let lags = self.lags.lock().take().unwrap_or_default();
        ended.map(|()| lags)
    }

    /// How connections ended over a window of whole seconds from a moment on: the most in one second over the mean.
    pub(crate) fn crowding(&self, from: Instant, seconds: u64) -> f64 {
        let ends = self.ends.lock();
        let mut buckets = vec![0_u32; usize::try_from(seconds).unwrap_or(1).max(1)];
        for end in ends.iter() {
            let second = usize::try_from(end.saturating_duration_since(from).as_secs()).unwrap_or(usize::MAX);
            let last = buckets.len() - 1;
            buckets[second.min(last)] += 1;
        }
        let most = buckets.iter().max().copied().unwrap_or(0);
        f64::from(most) * buckets.len() as f64 / (ends.len().max(1) as f64)
    }
}

/// One client's position.
#[derive(Default)]
struct Place {
    last: AtomicU64,
    greeted: AtomicBool,
}

/// Many clients.
pub(crate) struct Crowd {
    pub(crate) seen: Arc<Seen>,
    places: Vec<Arc<Place>>,
    stop: CancellationToken,
    shaken: watch::Sender<u64>,
    tasks: JoinSet<()>,
}

/// How a crowd behaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manner {
    /// Gateway ports; a client goes to the next one each time it comes back.
    pub(crate) ports: Vec<u16>,
    /// Whether clients come back, with the offset they have.
    pub(crate) comes_back: bool,
    /// Whether clients begin on all ports, or all on the first.
    pub(crate) spread: bool,
    pub(crate) seed: u64,
}

impl Manner {
    /// All on the first of these ports; they come back.
    pub(crate) fn on(ports: &[u16], scale: Scale) -> Self {
        Self {
            ports: ports.to_vec(),
            comes_back: true,
            spread: false,
            seed: scale.seed,
        }
    }
}

impl Crowd {
    /// So many clients of one gateway, who come back to it.
    pub(crate) async fn on(gateway: &Gateway, scale: Scale, count: usize) -> Outcome<Self> {
        Self::join(Manner::on(&[gateway.port], scale), count).await
    }

    /// Connects `count` clients and returns when every one was greeted.
    pub(crate) async fn join(manner: Manner, count: usize) -> Outcome<Self> {
        let mut crowd = Self {
            seen: Arc::default(),
            places: Vec::new(),
            stop: CancellationToken::new(),
            shaken: watch::Sender::new(0),
            tasks: JoinSet::new(),
        };
        for number in 0..count {
            let place = Arc::<Place>::default();
            crowd.places.push(place.clone());
            let client = Client {
                number,
                manner: manner.clone(),
                seen: crowd.seen.clone(),
                place,
                shaken: crowd.shaken.subscribe(),
                offset: None,
                fresh: true,
            };
            crowd.tasks.spawn(client.live(crowd.stop.clone()));
        }
        crowd.greeted().await?;
        Ok(crowd)
    }

    /// Waits until every client has the event with this sequence.
    pub(crate) async fn reach(&self, seq: u64) -> Outcome<()> {
        self.everyone(|place| place.last.load(Ordering::Relaxed) >= seq, "up to date", 0)
            .await
    }

    /// Waits until every client is past its handshake again.
    pub(crate) async fn greeted(&self) -> Outcome<()> {
        self.greeted_but(0).await
    }

    /// The same for all but a few.
    pub(crate) async fn greeted_but(&self, few: usize) -> Outcome<()> {
        self.everyone(|place| place.greeted.load(Ordering::Relaxed), "greeted", few)
            .await
    }

    async fn everyone(&self, is: impl Fn(&Place) -> bool, what: &str, few: usize) -> Outcome<()> {
        let begun = Instant::now();
        loop {
            let missing = self.places.iter().filter(|place| !is(place)).count();
            if missing <= few {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{missing} of {} clients are not {what}", self.places.len()).into());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until so many connections have ended.
    pub(crate) async fn ended(&self, count: u64) -> Outcome<()> {
        let begun = Instant::now();
        while self.seen.ended.load(Ordering::Relaxed) < count {
            if begun.elapsed() > PATIENCE {
                let ended = self.seen.ended.load(Ordering::Relaxed);
                return Err(format!("{ended} of {count} connections ended").into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Everybody drops the connection at once and comes back; returns when all were greeted.
    pub(crate) async fn shake(&self) -> Outcome<()> {
        for place in &self.places {
            place.greeted.store(false, Ordering::Relaxed);
        }
        self.shaken.send_modify(|round| *round += 1);
        self.greeted().await
    }

    /// Everybody leaves.
    pub(crate) async fn leave(mut self) {
        self.stop.cancel();
        let _late = timeout(PATIENCE, async {
            while self.tasks.join_next().await.is_some() {}
        })
        .await;
    }
}

struct Client {
    number: usize,
    manner: Manner,
    seen: Arc<Seen>,
    place: Arc<Place>,
    shaken: watch::Receiver<u64>,
    offset: Option<String>,
    /// The next event may have any sequence: a newcomer's.
    fresh: bool,
}

impl Client {
    async fn live(mut self, stop: CancellationToken) {
        let ports = self.manner.ports.clone();
        let mut turn = if self.manner.spread { self.number } else { 0 };
        let mut shaken = self.shaken.clone();
        let mut pause =
            Pause(self.manner.seed ^ (self.number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        while !stop.is_cancelled() {
            let path = match &self.offset {
                Some(offset) => format!("/events?since={offset}"),
                None => "/events".to_owned(),
            };
            let Ok(socket) = talk::open(ports[turn % ports.len()], &path).await else {
                self.seen.refused.fetch_add(1, Ordering::Relaxed);
                turn += 1;
                sleep(pause.next()).await;
                continue;
            };
            let code = tokio::select! {
                code = self.listen(socket) => Some(code),
                _ = shaken.changed() => None,
                () = stop.cancelled() => return,
            };
            let Some(code) = code else { continue };
            self.place.greeted.store(false, Ordering::Relaxed);
            self.seen.ended.fetch_add(1, Ordering::Relaxed);
            *self.seen.codes.lock().entry(code).or_default() += 1;
            self.seen.ends.lock().push(Instant::now());
            if !self.manner.comes_back {
                return;
            }
            turn += 1;
            sleep(pause.next()).await;
        }
    }

    /// Reads until the connection ends; returns the close code.
    async fn listen(&mut self, mut socket: Socket) -> u16 {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => self.hear(text.as_str()),
                Some(Ok(Message::Close(frame))) => return frame.map_or(1005, |frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return 1006,
            }
        }
    }

    fn hear(&mut self, text: &str) {
        if text.starts_with("{\"type\":\"connection_status\"") {
            self.status(text);
        } else if text.starts_with("{\"type\":\"replay\"") {
            let frame: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            // only a newcomer, or one treated as such, gets it
            self.fresh = true;
            for event in frame["events"].as_array().into_iter().flatten() {
                self.event(event["seq"].as_u64().unwrap_or(0));
            }
        } else if let (Some(seq), Some(offset)) = (number(text, "\"seq\":"), word(text, "\"offset\":\"")) {
            self.event(seq);
            if let (Some(lags), Some(at)) = (&mut *self.seen.lags.lock(), number(text, "\"at\":")) {
                lags.push(micros().saturating_sub(at));
            }
            match &mut self.offset {
                Some(known) => offset.clone_into(known),
                None => self.offset = Some(offset.to_owned()),
            }
        }
    }

    fn status(&mut self, text: &str) {
        let frame: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let data = &frame["data"];
        match data["status"].as_str() {
            Some("connected") => {
                if data["recovered"] == false {
                    self.seen.unrecovered.fetch_add(1, Ordering::Relaxed);
                    self.fresh = true;
                }
                self.offset = data["offset"].as_str().map(str::to_owned);
                self.seen.greeted.fetch_add(1, Ordering::Relaxed);
                self.place.greeted.store(true, Ordering::Relaxed);
                // the greeting's offset covers everything before it
                let last = self
                    .offset
                    .as_deref()
                    .and_then(|offset| offset.split('.').nth(1)?.parse().ok());
                if self.fresh {
                    self.place.last.store(last.unwrap_or(0), Ordering::Relaxed);
                    self.fresh = false;
                }
            }
            Some("gap") => {
                let missed = data["missed"].as_u64().unwrap_or(0);
                self.seen.announced.fetch_add(missed, Ordering::Relaxed);
            }
            Some("degraded") => drop(self.seen.degraded.fetch_add(1, Ordering::Relaxed)),
            Some("ok") => drop(self.seen.restored.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    /// One space and one dialect use the stream, so its sequences have no holes of their own.
    fn event(&mut self, seq: u64) {
        self.seen.events.fetch_add(1, Ordering::Relaxed);
        let last = self.place.last.load(Ordering::Relaxed);
        if self.fresh {
            self.fresh = false;
        } else if seq <= last {
            self.seen.repeats.fetch_add(1, Ordering::Relaxed);
            return;
        } else {
            self.seen.gaps.fetch_add(seq - last - 1, Ordering::Relaxed);
        }
        self.place.last.store(seq, Ordering::Relaxed);
    }
}

/// Pauses before coming back: 20 to 270 ms, by seed.
struct Pause(u64);

impl Pause {
    fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(20 + self.0 % 250)
    }
}

fn number(text: &str, name: &str) -> Option<u64> {
    let at = text.rfind(name)? + name.len();
    let digits = text[at..].split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn word<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let at = text.rfind(name)? + name.len();
    text[at..].split('"').next()
}
