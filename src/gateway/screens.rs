//! Screenshots: one page is asked, and its picture becomes the file that a script of this gateway waits for.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use tracing::{debug, info, warn};

use crate::bus::SysMessage;
use crate::dialect::Frame;
use crate::gateway::Gateway;
use crate::gateway::lobby::Key;
use crate::gateway::outbox::{Kind, Outbox};
use crate::gateway::ring::Carrier;
use crate::message::{Body, Code, Fault, Space};

/// A picture that comes later than this was not asked for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pictures asked for and not yet come, over all spaces.
const ASKED: usize = 1024;
/// What every PNG begins with.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The service that scripts ask.
pub const SERVICE: &str = "viewer";

struct Asked {
    space: Space,
    name: String,
    at: Instant,
}

struct Page {
    space: Space,
    outbox: Arc<Outbox>,
}

/// Pages of this gateway, and the files its scripts wait for.
pub struct Screens {
    folders: Vec<PathBuf>,
    asked: Mutex<Vec<Asked>>,
    pages: Mutex<HashMap<Arc<str>, Page>>,
}

#[derive(Deserialize)]
struct Request {
    filename: String,
}

#[derive(Deserialize)]
struct Picture {
    filename: String,
    data: String,
}

impl Screens {
    /// Files may be written below `folders`.
    #[must_use]
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self {
            folders,
            asked: Mutex::default(),
            pages: Mutex::default(),
        }
    }

    /// A page came.
    pub fn came(&self, session: &Arc<str>, space: &Space, outbox: &Arc<Outbox>) {
        let (space, outbox) = (space.clone(), outbox.clone());
        self.pages.lock().insert(session.clone(), Page { space, outbox });
    }

    /// A session left; nothing happens when it was no page.
    pub fn left(&self, session: &str) {
        self.pages.lock().remove(session);
    }

    fn asks(&self, space: &Space, name: String) {
        let mut asked = self.asked.lock();
        asked.retain(|asked| asked.at.elapsed() < PATIENCE);
        if asked.len() < ASKED {
            let (space, at) = (space.clone(), Instant::now());
            asked.push(Asked { space, name, at });
        }
    }

    /// A picture came around: written when a script of this gateway waits for that very name.
    pub fn offer(self: &Arc<Self>, space: &Space, body: &Body) {
        let Ok(picture) = serde_json::from_slice::<Picture>(&body.bytes) else {
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
        if wanted.is_none() {
            return debug!(%space, "a picture that no script of this gateway asked for");
        }
        let screens = self.clone();
        tokio::task::spawn_blocking(move || match screens.write(&picture) {
            Ok(()) => info!(file = picture.filename, "screenshot"),
            Err(error) => warn!(file = picture.filename, error, "the screenshot is not written"),
        });
    }

    /// Beside its place first, then renamed: who polls for the name never sees half a file.
    fn write(&self, picture: &Picture) -> Result<(), String> {
        let place = self.place(&picture.filename)?;
        let (_, encoded) = picture.data.split_once(";base64,").ok_or("it is no data URL")?;
        let bytes = BASE64_STANDARD
            .decode(encoded)
            .map_err(|error| error.to_string())?;
        if !bytes.starts_with(PNG) {
            return Err("it is no PNG".to_owned());
        }
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!("-temp{}", ulid::Ulid::new()));
        let beside = place.with_file_name(name);
        let written = fs::File::create_new(&beside)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&beside, &place));
        written.map_err(|error| {
            let _gone = fs::remove_file(&beside);
            error.to_string()
        })
    }

    /// Where the file goes: its directory exists and lies, links resolved, below one that is allowed.
    fn place(&self, name: &str) -> Result<PathBuf, String> {
        let path = Path::new(name);
        let (Some(folder), Some(file)) = (path.parent(), path.file_name()) else {
            return Err("it has no directory and name".to_owned());
        };
        let straight = path
            .components()
            .all(|part| !matches!(part, Component::ParentDir));
        if !path.is_absolute() || !straight || name.contains('\0') {
            return Err("it is no absolute path".to_owned());
        }
        let folder = folder.canonicalize().map_err(|error| error.to_string())?;
        let allowed = |root: &PathBuf| root.canonicalize().is_ok_and(|root| folder.starts_with(root));
        if !self.folders.iter().any(allowed) {
            return Err("it lies outside cad.screenshots".to_owned());
        }
        let place = folder.join(file);
        if place.is_dir() {
            return Err("there is a directory of that name".to_owned());
        }
        Ok(place)
    }

    /// Gives a request to a page of this gateway.
    fn push(&self, session: &str, body: &Bytes) -> bool {
        let pages = self.pages.lock();
        let Some(page) = pages.get(session) else {
            return false;
        };
        page.outbox
            .push(&Carrier::WebSocket.pack(&Frame::Text(body.clone())), Kind::Own);
        page.outbox.flush();
        true
    }

    fn any(&self, space: &Space) -> Option<Arc<str>> {
        let pages = self.pages.lock();
        let mut own = pages.iter().filter(|(_, page)| page.space == *space);
        own.next().map(|(session, _)| session.clone())
    }
}

impl Gateway {
    /// Asks one page of the space for a picture: the one touched last, else one of this gateway, else any.
    ///
    /// # Errors
    /// `no_worker` when no page is open, `invalid` when no file is named.
    pub async fn screenshot(&self, key: &Key, body: &Bytes) -> Result<(), Fault> {
        let request = serde_json::from_slice::<Request>(body);
        let Ok(Request { filename }) = request else {
            return Err(Fault::new(Code::Invalid, "a screenshot names its file"));
        };
        // the room that is looked into is the one by which the picture comes around
        let snapshot = self.look(key).await;
        let current = self.show(&snapshot, crate::dialect::cad::current);
        let seats = || {
            let seats = self.presence.list(Some(key.space.as_str()));
            let pages = seats
                .into_iter()
                .filter(|seat| seat.dialect == key.dialect.name());
            pages.map(|seat| Arc::from(seat.session)).next_back()
        };
        let chosen = current
            .map(Arc::from)
            .or_else(|| self.lobby.screens.any(&key.space));
        let Some(page) = chosen.or_else(seats) else {
            let port = self.port(key.dialect.name()).or_else(|| self.port("gateway"));
            let port = port.unwrap_or_default();
            warn!(space = %key.space, "a screenshot is asked for and no page is open: http://localhost:{port}/viewer");
            return Err(Fault::new(Code::NoWorker, "no page is open"));
        };
        self.lobby.screens.asks(&key.space, filename);
        if self.lobby.screens.push(&page, body) {
            return Ok(());
        }
        self.bus
            .publish_sys(&format!("session.{page}"), body.clone())
            .await
    }

    /// Takes requests that other gateways have for pages here; runs as long as the process.
    pub async fn serve_pages(self: Arc<Self>) {
        loop {
            if let Ok(mut messages) = self.bus.subscribe_sys("session.*").await {
                while let Some(SysMessage { path, body, .. }) = messages.next().await {
                    // `session.opened` and `session.closed` are no sessions of ours
                    if let Some(session) = path.strip_prefix("session.") {
                        self.lobby.screens.push(session, &body);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = self.drain.cancelled() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Screens;

    #[test]
    fn files_stay_in_their_directories() {
        let root = std::env::temp_dir().join(format!("screens-{}", ulid::Ulid::new()));
        let (inside, outside) = (root.join("inside"), root.join("outside"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let screens = Screens::new(vec![inside.clone()]);
        let place = |path: std::path::PathBuf| screens.place(path.to_str().unwrap());
        assert!(place(inside.join("a.png")).is_ok());
        for bad in [
            outside.join("a.png"),
            inside.join("../outside/a.png"),
            inside.join("link/a.png"),
            inside.join("missing/a.png"),
            inside.join("link"),
            "a.png".into(),
            "/".into(),
        ] {
            assert!(place(bad.clone()).is_err(), "{}", bad.display());
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
