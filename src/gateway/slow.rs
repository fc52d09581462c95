//! Tells senders who want to know that a client is too slow: `gw.v1.sys.slow`, gathered for a second, limited in number.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use crate::bus::Bus;
use crate::gateway::lobby::Key;

/// News that wait for their second to end; more are not told.
const BACKLOG: usize = 256;
/// How often news go out: for each client at most once in this time.
const EVERY: Duration = Duration::from_secs(1);
/// Clients told about at once.
const AT_ONCE: usize = 64;

/// What was done about a slow client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Its connection is closed; it may come back and resume.
    Closed,
    /// So many events were dropped; it is told so by a gap notice.
    Dropped(u64),
}

/// One message of `gw.v1.sys.slow`.
#[derive(Serialize)]
struct News {
    gateway: String,
    session: String,
    dialect: &'static str,
    space: String,
    what: &'static str,
    missed: u64,
}

/// Takes the news of rooms and connections without making them wait.
pub struct SlowNews {
    gateway: String,
    news: mpsc::Sender<News>,
}

impl SlowNews {
    /// Starts to publish.
    #[must_use]
    pub fn start(bus: Bus) -> Self {
        let (news, inbox) = mpsc::channel(BACKLOG);
        let gateway = bus.gateway().to_owned();
        tokio::spawn(publish(bus, inbox));
        Self { gateway, news }
    }

    /// Something was done about a session in a room.
    pub fn tell(&self, session: &Arc<str>, room: &Key, what: What) {
        let (what, missed) = match what {
            What::Closed => ("closed", 0),
            What::Dropped(missed) => ("dropped", missed),
        };
        let news = News {
            gateway: self.gateway.clone(),
            session: session.to_string(),
            dialect: room.dialect.name(),
            space: room.space.to_string(),
            what,
            missed,
        };
        // with so many slow clients nobody misses one more line
        let _full = self.news.try_send(news);
    }
}

async fn publish(bus: Bus, mut inbox: mpsc::Receiver<News>) {
    let mut gathered: HashMap<String, News> = HashMap::new();
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            news = inbox.recv() => {
                let Some(news) = news else { return };
                if let Some(known) = gathered.get_mut(&news.session) {
                    known.missed += news.missed;
                    known.what = news.what;
                } else if gathered.len() < AT_ONCE {
                    gathered.insert(news.session.clone(), news);
                }
            }
            _ = tick.tick() => {
                for (_, news) in gathered.drain() {
                    let body = serde_json::to_vec(&news).unwrap_or_default();
                    if let Err(fault) = bus.publish_sys("slow", body.into()).await {
                        debug!(%fault, "nobody hears of a slow client");
                    }
                }
            }
        }
    }
}
