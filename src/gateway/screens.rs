//! Screenshots: pages of this gateway, pictures that somebody waits for, and what becomes of them.
//!
//! A script's request goes to the service `viewer` ([`viewer`](super::viewer)), so it reaches a page of any gateway.
//! The picture comes around as an event: the gateway whose script asked writes the file, the one that was asked says
//! that it is done.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::{Notify, oneshot};
use tracing::{debug, info, warn};
use ulid::Ulid;

use crate::dialect::Frame;
use crate::gateway::Gateway;
use crate::gateway::lobby::Key;
use crate::gateway::outbox::{Kind, Outbox};
use crate::gateway::ring::Carrier;
use crate::message::{Answer, Body, Code, Command, Fault, Space};
use crate::picture::{Files, Picture};
use crate::telemetry::clock;
use crate::telemetry::metrics::Screenshots;

/// A picture that comes later than this was not asked for.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Pictures asked for and not yet come, over all spaces.
const ASKED: usize = 1024;
/// What the service may take to find a page.
const FOUND: Duration = Duration::from_secs(2);
/// A page that has just come is served a moment later: so often it is asked for, and so long apart.
const TRIES: usize = 3;
const APART: Duration = Duration::from_millis(150);

struct Asked {
    space: Space,
    name: String,
    at: Instant,
}

/// Somebody on the bus who waits for a picture that a page was asked for here.
struct Waiting {
    space: Space,
    name: String,
    taken: oneshot::Sender<usize>,
}

/// A page was asked for a picture of this name.
struct Pushed {
    session: Arc<str>,
    name: String,
    at: Instant,
}

struct Page {
    space: Space,
    outbox: Arc<Outbox>,
}

/// Pages of this gateway, and the pictures that are waited for.
pub struct Screens {
    files: Files,
    metrics: Screenshots,
    asked: Mutex<Vec<Asked>>,
    waiting: Mutex<Vec<Waiting>>,
    pushed: Mutex<Vec<Pushed>>,
    pages: Mutex<HashMap<Arc<str>, Page>>,
    /// Told when a page came or left.
    pub changed: Notify,
}

#[derive(Deserialize)]
struct Request {
    filename: String,
}

/// The file that a request for a picture names.
///
/// # Errors
/// `invalid` when it names none.
pub fn filename(body: &[u8]) -> Result<String, Fault> {
    serde_json::from_slice::<Request>(body)
        .map(|request| request.filename)
        .map_err(|_| Fault::new(Code::Invalid, "a screenshot names its file"))
}

impl Screens {
    /// Files may be written as `files` allow.
    #[must_use]
    pub fn new(files: Files, metrics: Screenshots) -> Self {
        Self {
            files,
            metrics,
            asked: Mutex::default(),
            waiting: Mutex::default(),
            pushed: Mutex::default(),
            pages: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// A page came.
    pub fn came(&self, session: &Arc<str>, space: &Space, outbox: &Arc<Outbox>) {
        let (space, outbox) = (space.clone(), outbox.clone());
        self.pages.lock().insert(session.clone(), Page { space, outbox });
        self.changed.notify_one();
    }

    /// A session left; nothing happens when it was no page.
    pub fn left(&self, session: &str) {
        if self.pages.lock().remove(session).is_some() {
            self.changed.notify_one();
        }
    }

    /// The spaces that have a page here.
    #[must_use]
    pub fn spaces(&self) -> BTreeSet<Space> {
        let pages = self.pages.lock();
        pages.values().map(|page| page.space.clone()).collect()
    }

    /// Pages of a space that are here.
    #[must_use]
    pub fn count(&self, space: &Space) -> usize {
        let pages = self.pages.lock();
        pages.values().filter(|page| page.space == *space).count()
    }

    /// Whether a session is a page of this gateway.
    #[must_use]
    pub fn has(&self, session: &str) -> bool {
        self.pages.lock().contains_key(session)
    }

    /// A page of a space that is not `but`: the one that came last.
    #[must_use]
    pub fn any(&self, space: &Space, but: Option<&str>) -> Option<Arc<str>> {
        let pages = self.pages.lock();
        let own = pages
            .iter()
            .filter(|(session, page)| page.space == *space && Some(&***session) != but);
        own.map(|(session, _)| session.clone()).max()
    }

    /// Gives a request to a page of this gateway.
    pub fn push(&self, session: &str, body: &Bytes) -> bool {
        let pages = self.pages.lock();
        let Some(page) = pages.get(session) else {
            return false;
        };
        if let Ok(name) = filename(body) {
            let mut pushed = self.pushed.lock();
            pushed.retain(|pushed| pushed.at.elapsed() < PATIENCE);
            if pushed.len() < ASKED {
                let (session, at) = (session.into(), Instant::now());
                pushed.push(Pushed { session, name, at });
            }
        }
        page.outbox
            .push(&Carrier::WebSocket.pack(&Frame::Text(body.clone())), Kind::Own);
        page.outbox.flush();
        true
    }

    /// Whether a page was asked for this picture; it may give it once. What nobody asked for is no event: whoever hears
    /// of it may write a file.
    pub fn answers(&self, session: &str, body: &Body) -> bool {
        let Ok(name) = filename(&body.bytes) else {
            return false;
        };
        let mut pushed = self.pushed.lock();
        let at = pushed
            .iter()
            .position(|pushed| *pushed.session == *session && pushed.name == name);
        at.map(|at| pushed.swap_remove(at)).is_some()
    }

    fn asks(&self, space: &Space, name: String) {
        let mut asked = self.asked.lock();
        asked.retain(|asked| asked.at.elapsed() < PATIENCE);
        if asked.len() < ASKED {
            let (space, at) = (space.clone(), Instant::now());
            asked.push(Asked { space, name, at });
        }
    }

    /// Tells when a page answered with a picture of that name; what it tells is the size of the picture as sent.
    pub fn expect(&self, space: &Space, name: &str) -> oneshot::Receiver<usize> {
        let (taken, told) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.retain(|waiting| !waiting.taken.is_closed());
        let (space, name) = (space.clone(), name.to_owned());
        waiting.push(Waiting { space, name, taken });
        told
    }

    /// A picture came around: written when a script of this gateway waits for that very name.
    pub fn offer(&self, space: &Space, body: &Body) {
        let Some(picture) = Picture::read(&body.bytes) else {
            return;
        };
        let wanted = {
            let mut asked = self.asked.lock();
            asked.retain(|asked| asked.at.elapsed() < PATIENCE);
            let at = asked
                .iter()
                .position(|asked| asked.space == *space && asked.name == picture.filename);
            at.map(|at| asked.swap_remove(at))
        };
        let told = {
            let mut waiting = self.waiting.lock();
            let at = waiting
                .iter()
                .position(|waiting| waiting.space == *space && waiting.name == picture.filename);
            at.map(|at| waiting.swap_remove(at))
        };
        if let Some(waiting) = told {
            let _gone = waiting.taken.send(picture.data.len());
        }
        if wanted.is_none() {
            return debug!(%space, "a picture that no script of this gateway asked for");
        }
        let (files, metrics) = (self.files.clone(), self.metrics.clone());
        tokio::task::spawn_blocking(move || match files.write(&picture) {
            Ok(_) => {
                metrics.written.inc();
                info!(file = picture.filename, "screenshot");
            }
            Err(error) => {
                metrics.refused.inc();
                warn!(file = picture.filename, error, "the screenshot is not written");
            }
        });
    }
}

impl Gateway {
    /// Asks for a picture of what a space shows, for a script of this gateway. Returns when a page has been asked.
    ///
    /// # Errors
    /// `no_worker` when no page is open, `invalid` when no file is named, `bus_down`.
    pub async fn screenshot(&self, key: &Key, from: &str, id: Ulid, command: Command) -> Result<(), Fault> {
        let metrics = &self.metrics.screenshots;
        metrics.asked.inc();
        let name = filename(&command.body.bytes)?;
        // pages of this gateway have got what was said before; and the picture comes around through this room
        let _known = self.look(key).await;
        self.lobby.screens.asks(&key.space, name);
        for attempt in 1..=TRIES {
            let asked = self
                .bus
                .first_answer(from, &key.space, id, command.clone(), clock::unix(), FOUND);
            match asked.await? {
                Answer::Failed(fault) if !matches!(fault.code, Code::NoWorker | Code::UnknownAction) => {
                    return Err(fault);
                }
                Answer::Failed(_) if attempt < TRIES => tokio::time::sleep(APART).await,
                Answer::Failed(_) => {}
                _ => return Ok(()),
            }
        }
        metrics.no_page.inc();
        let own = self.published(key.dialect.name());
        let port = own.or_else(|| self.published("gateway"));
        let page = match key.space.as_str() {
            Space::MAIN => String::new(),
            other => format!("?space={other}"),
        };
        let page = format!("http://localhost:{}/viewer{page}", port.unwrap_or_default());
        warn!(space = %key.space, "a screenshot is asked for and no page is open: {page}");
        Err(Fault::new(
            Code::NoWorker,
            format!("no page is open in this space: open {page}"),
        ))
    }
}
