//! Who is connected, over all gateways: announced as it happens, repaired by counting, cleared when a gateway dies.
//!
//! Every gateway says it is alive and how many sessions it has. Whoever counts otherwise asks again, so a lost
//! announcement heals itself; a gateway that falls silent is declared lost by the smallest survivor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{debug, info};
use ulid::Ulid;

use crate::bus::{Bus, Sys, SysMessage};
use crate::dialect;
use crate::message::{Fault, Space};
use crate::telemetry::clock;

/// How often a gateway says it is alive.
const BEAT: Duration = Duration::from_secs(3);
/// Silence after which a gateway is lost.
const SILENCE: Duration = Duration::from_secs(10);
/// Announcements that wait to be published; more are left to the counting.
const BACKLOG: usize = 4096;
/// Sessions in one message of an answer, at most.
const CHUNK: usize = 2000;
/// More than the bytes of one session there: names of 64 characters, the other fields of fixed length.
const SEAT: usize = 320;

/// One session, as it crosses the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// ULID of the session.
    pub session: String,
    /// Its dialect.
    pub dialect: String,
    /// Its space.
    pub space: String,
    /// The gateway it is connected to.
    pub gateway: String,
    /// When it opened, Unix milliseconds.
    pub opened: u64,
    /// Why it ended; only in `session.closed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Alive {
    gateway: String,
    sessions: usize,
}

/// A session as it is kept: small, because every idle connection has one in every gateway.
struct Place {
    dialect: &'static str,
    space: Space,
    opened: u64,
}

impl Place {
    /// `None` for a dialect or space this gateway does not know.
    fn of(seat: &Seat) -> Option<(Ulid, Self)> {
        let session = seat.session.parse().ok()?;
        let dialect = dialect::named(&seat.dialect)?.name();
        let space = Space::parse(&seat.space).ok()?;
        Some((
            session,
            Self {
                dialect,
                space,
                opened: seat.opened,
            },
        ))
    }

    fn seat(&self, session: Ulid, gateway: &str) -> Seat {
        Seat {
            session: session.to_string(),
            dialect: self.dialect.to_owned(),
            space: self.space.to_string(),
            gateway: gateway.to_owned(),
            opened: self.opened,
            reason: None,
        }
    }
}

#[derive(Default)]
struct House {
    seats: BTreeMap<Ulid, Place>,
    heard: Option<Instant>,
    /// Its own count, when last heard.
    claims: usize,
    doubted: bool,
}

/// Who is connected, over all gateways.
pub struct Presence {
    bus: Bus,
    own: String,
    houses: Mutex<BTreeMap<String, House>>,
    news: mpsc::Sender<(&'static str, Seat)>,
}

impl Presence {
    /// Starts to announce and to listen.
    #[must_use]
    pub fn start(bus: Bus) -> Arc<Self> {
        let (news, outgoing) = mpsc::channel(BACKLOG);
        let own = bus.gateway().to_owned();
        let presence = Arc::new(Self {
            bus,
            own,
            houses: Mutex::default(),
            news,
        });
        tokio::spawn(presence.clone().announce(outgoing));
        tokio::spawn(presence.clone().listen());
        tokio::spawn(presence.clone().beat());
        presence
    }

    /// A session opened here.
    pub fn opened(&self, session: &str, dialect: &'static str, space: &Space) {
        let Ok(session) = session.parse::<Ulid>() else {
            return;
        };
        let place = Place {
            dialect,
            space: space.clone(),
            opened: clock::unix() / 1_000_000,
        };
        let seat = place.seat(session, &self.own);
        self.houses
            .lock()
            .entry(self.own.clone())
            .or_default()
            .seats
            .insert(session, place);
        let _full = self.news.try_send(("session.opened", seat));
    }

    /// A session of ours ended.
    pub fn closed(&self, session: &str, reason: &str) {
        let Ok(session) = session.parse::<Ulid>() else {
            return;
        };
        let place = self
            .houses
            .lock()
            .get_mut(&self.own)
            .and_then(|house| house.seats.remove(&session));
        if let Some(place) = place {
            let seat = Seat {
                reason: Some(reason.to_owned()),
                ..place.seat(session, &self.own)
            };
            let _full = self.news.try_send(("session.closed", seat));
        }
    }

    /// Whether a session is connected, here or at another gateway.
    #[must_use]
    pub fn knows(&self, session: &str) -> bool {
        let houses = self.houses.lock();
        let Ok(session) = session.parse::<Ulid>() else {
            return false;
        };
        houses.values().any(|house| house.seats.contains_key(&session))
    }

    /// Sessions of a space, or of all, oldest first.
    #[must_use]
    pub fn list(&self, space: Option<&str>) -> Vec<Seat> {
        let houses = self.houses.lock();
        let mut list: Vec<Seat> = houses
            .iter()
            .flat_map(|(id, house)| {
                house
                    .seats
                    .iter()
                    .map(move |(session, place)| (id, session, place))
            })
            .filter(|(_, _, place)| space.is_none_or(|space| place.space.as_str() == space))
            .map(|(id, session, place)| place.seat(*session, id))
            .collect();
        list.sort_by(|a, b| a.session.cmp(&b.session));
        list
    }

    /// Gateways known, ours included.
    #[must_use]
    pub fn gateways(&self) -> usize {
        let mut houses = self.houses.lock();
        houses.entry(self.own.clone()).or_default();
        houses.len()
    }

    async fn announce(self: Arc<Self>, mut outgoing: mpsc::Receiver<(&'static str, Seat)>) {
        while let Some((path, seat)) = outgoing.recv().await {
            let body = serde_json::to_vec(&seat).unwrap_or_default();
            if let Err(fault) = self.bus.publish_sys(path, body.into()).await {
                debug!(%fault, "a session was not announced; the counting will tell");
            }
        }
    }

    async fn beat(self: Arc<Self>) {
        let mut tick = tokio::time::interval(BEAT);
        loop {
            tick.tick().await;
            let sessions = self
                .houses
                .lock()
                .entry(self.own.clone())
                .or_default()
                .seats
                .len();
            let alive = Alive {
                gateway: self.own.clone(),
                sessions,
            };
            let body = serde_json::to_vec(&alive).unwrap_or_default();
            if self.bus.publish_sys("gateway.alive", body.into()).await.is_ok() {
                self.bury_silent().await;
                self.ask_doubted().await;
            } else {
                // nobody can be heard while the bus is away: silence proves nothing
                let mut houses = self.houses.lock();
                houses
                    .values_mut()
                    .for_each(|house| house.heard = Some(clock::now()));
            }
        }
    }

    /// The smallest survivor speaks for a gateway that fell silent; all forget it.
    async fn bury_silent(&self) {
        let (lost, speaker) = {
            let mut houses = self.houses.lock();
            let silent: Vec<String> = houses
                .iter()
                .filter(|(id, house)| {
                    **id != self.own && house.heard.is_some_and(|at| at.elapsed() > SILENCE)
                })
                .map(|(id, _)| id.clone())
                .collect();
            let lost: Vec<(String, House)> = silent.iter().filter_map(|id| houses.remove_entry(id)).collect();
            let speaker = houses.keys().next().is_none_or(|smallest| *smallest >= self.own);
            (lost, speaker)
        };
        for (id, house) in lost {
            info!(gateway = %id, sessions = house.seats.len(), "a gateway is lost");
            if !speaker {
                continue;
            }
            for (session, place) in house.seats {
                let seat = Seat {
                    reason: Some("gateway_lost".to_owned()),
                    ..place.seat(session, &id)
                };
                let body = serde_json::to_vec(&seat).unwrap_or_default();
                let _away = self.bus.publish_sys("session.closed", body.into()).await;
            }
        }
    }

    /// Asks everybody for their sessions where the numbers do not agree.
    async fn ask_doubted(&self) {
        let doubted: Vec<String> = {
            let mut houses = self.houses.lock();
            let others = houses.iter_mut().filter(|(id, _)| **id != self.own);
            others
                .filter_map(|(id, house)| {
                    let differs = house.claims != house.seats.len();
                    // one beat of patience: an announcement may be on its way
                    let ask = differs && house.doubted;
                    house.doubted = differs;
                    ask.then(|| id.clone())
                })
                .collect()
        };
        for id in doubted {
            if let Err(fault) = self.ask(&id).await {
                debug!(%fault, gateway = %id, "its sessions are not known yet");
            }
        }
    }

    /// Asks one gateway (`*` for all) for its sessions and takes them over.
    async fn ask(&self, gateway: &str) -> Result<(), Fault> {
        let question = Bytes::from(gateway.to_owned());
        let answers = self
            .bus
            .gather_sys("sessions", question, Duration::from_secs(1), 1024)
            .await?;
        let mut fresh: BTreeMap<String, BTreeMap<Ulid, Place>> = BTreeMap::new();
        for answer in answers {
            let Ok(seats) = serde_json::from_slice::<Vec<Seat>>(&answer) else {
                continue;
            };
            if gateway != "*" {
                // it answers: what it does not name is gone
                fresh.entry(gateway.to_owned()).or_default();
            }
            for seat in seats.into_iter().filter(|seat| seat.gateway != self.own) {
                if let Some((session, place)) = Place::of(&seat) {
                    fresh.entry(seat.gateway).or_default().insert(session, place);
                }
            }
        }
        let mut houses = self.houses.lock();
        for (id, seats) in fresh {
            let house = houses.entry(id).or_default();
            house.heard = Some(clock::now());
            house.seats = seats;
        }
        Ok(())
    }

    async fn listen(self: Arc<Self>) {
        loop {
            match self.bus.subscribe_sys(">").await {
                Ok(mut sys) => {
                    if let Err(fault) = self.ask("*").await {
                        debug!(%fault, "the other gateways' sessions are not known yet");
                    }
                    self.follow(&mut sys).await;
                }
                Err(fault) => debug!(%fault, "cannot listen to the other gateways, trying again"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn follow(&self, sys: &mut Sys) {
        while let Some(message) = sys.next().await {
            match message.path.as_str() {
                "gateway.alive" => {
                    let Ok(alive) = serde_json::from_slice::<Alive>(&message.body) else {
                        continue;
                    };
                    let mut houses = self.houses.lock();
                    let house = houses.entry(alive.gateway).or_default();
                    house.heard = Some(clock::now());
                    house.claims = alive.sessions;
                }
                "session.opened" | "session.closed" => {
                    let Ok(seat) = serde_json::from_slice::<Seat>(&message.body) else {
                        continue;
                    };
                    if seat.gateway == self.own {
                        continue;
                    }
                    let mut houses = self.houses.lock();
                    if message.path == "session.closed" {
                        if let (Some(house), Ok(session)) =
                            (houses.get_mut(&seat.gateway), seat.session.parse())
                        {
                            house.seats.remove::<Ulid>(&session);
                        }
                    } else if let Some((session, place)) = Place::of(&seat) {
                        let house = houses.entry(seat.gateway).or_default();
                        house.heard = Some(clock::now());
                        house.seats.insert(session, place);
                    }
                }
                "sessions" => self.answer(&message).await,
                _ => {}
            }
        }
    }

    async fn answer(&self, question: &SysMessage) {
        let asked = std::str::from_utf8(&question.body).unwrap_or_default();
        if asked != "*" && asked != self.own {
            return;
        }
        let seats: Vec<Seat> = {
            let houses = self.houses.lock();
            let own = houses.get(&self.own).into_iter().flat_map(|house| &house.seats);
            own.map(|(session, place)| place.seat(*session, &self.own))
                .collect()
        };
        if seats.is_empty() && asked == self.own {
            let _away = self.bus.answer_sys(question, "[]".into()).await;
        }
        let fits = self.bus.ingress().max_payload() / SEAT;
        for chunk in seats.chunks(fits.clamp(1, CHUNK)) {
            let body = serde_json::to_vec(chunk).unwrap_or_default();
            if self.bus.answer_sys(question, body.into()).await.is_err() {
                return;
            }
        }
    }
}
