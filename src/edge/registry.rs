//! Where scripts on this machine look for a viewer: the file `~/.ocpvscode`, shared with every other viewer by the rules
//! of the original, a lock directory beside it.
//!
//! What others wrote there stays. A second live viewer is warned about: a script without a terminal would end there,
//! because its client asks which of the two is meant.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// A lock older than this was left behind.
const STALE: Duration = Duration::from_secs(5);
/// Between attempts to take the lock.
const AGAIN: Duration = Duration::from_millis(100);
/// Locks that are always fresh are somebody else's trouble: given up after so many attempts.
const ATTEMPTS: u32 = 150;
/// How often it is looked whether the entry is still there, and alone.
const EVERY: Duration = Duration::from_secs(30);
/// What the original gives a viewer to take its connection.
const PROBE: Duration = Duration::from_secs(1);

/// An entry of this gateway; [`Entry::remove`] takes it out again.
#[derive(Clone, Debug)]
pub struct Entry {
    file: PathBuf,
    port: u16,
}

/// The lock, held as long as the value lives.
struct Lock(PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.0);
    }
}

impl Entry {
    /// An entry of the viewer on `port` in `file`, not written yet.
    #[must_use]
    pub fn new(file: PathBuf, port: u16) -> Self {
        Self { file, port }
    }

    /// Keeps the entry until `stop`, then removes it.
    pub async fn keep(self, stop: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut others = Vec::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => break,
            }
            let entry = self.clone();
            let known = others.clone();
            let looked = tokio::task::spawn_blocking(move || entry.renew(&known)).await;
            match looked {
                Ok(Ok(now)) => others = now,
                Ok(Err(error)) => {
                    warn!(file = %self.file.display(), %error, "scripts on this machine do not find the viewer by themselves");
                }
                Err(error) => debug!(%error, "the registry of viewers was not looked at"),
            }
        }
        match tokio::task::spawn_blocking(move || self.remove()).await {
            Ok(Err(error)) => warn!(%error, "the viewer's entry stays behind"),
            Err(error) => debug!(%error, "the viewer's entry stays behind"),
            Ok(Ok(())) => {}
        }
    }

    /// Writes the entry where it is missing, and warns of live ones that are not `known` yet; returns all live ones.
    fn renew(&self, known: &[String]) -> io::Result<Vec<String>> {
        let own = self.port.to_string();
        let services = {
            let _lock = lock(&self.file)?;
            let mut held = Held::read(&self.file);
            let names: Vec<String> = held
                .services
                .keys()
                .filter(|name| **name != own)
                .cloned()
                .collect();
            if !held.services.contains_key(&own) {
                held.services.insert(own, Value::from(""));
                held.write(&self.file)?;
                info!(file = %self.file.display(), port = self.port, "scripts on this machine find the viewer");
            }
            names
        };
        let live: Vec<String> = services.into_iter().filter(|name| answers(name)).collect();
        for other in live.iter().filter(|other| !known.contains(other)) {
            warn!(
                file = %self.file.display(),
                port = self.port,
                other,
                "another viewer is registered and alive: scripts that are told no port ask which one, and end where they cannot ask; stop one of the two, or set OCP_PORT"
            );
        }
        Ok(live)
    }

    /// Takes the entry out; what others wrote stays.
    ///
    /// # Errors
    /// When the lock or the file cannot be had.
    pub fn remove(&self) -> io::Result<()> {
        let _lock = lock(&self.file)?;
        let mut held = Held::read(&self.file);
        match held.services.remove(&self.port.to_string()) {
            Some(_) => held.write(&self.file),
            None => Ok(()),
        }
    }
}

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Makes the lock directory, or waits until whoever made it has removed it or left it behind.
fn lock(file: &Path) -> io::Result<Lock> {
    let place = beside(file, ".lock");
    for _ in 0..ATTEMPTS {
        match fs::create_dir(&place) {
            Ok(()) => return Ok(Lock(place)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        // gone between the two looks: the next attempt takes it
        let made = fs::metadata(&place).and_then(|data| data.modified());
        let age = made.map(|made| SystemTime::now().duration_since(made).unwrap_or_default());
        match age {
            Ok(age) if age > STALE => {
                info!(lock = %place.display(), "a stale lock is removed");
                let _taken = fs::remove_dir(&place);
            }
            _ => thread::sleep(AGAIN),
        }
    }
    Err(io::Error::new(
        ErrorKind::WouldBlock,
        format!("{} is always taken; remove it", place.display()),
    ))
}

/// What stands in the file.
struct Held {
    all: Map<String, Value>,
    services: Map<String, Value>,
}

impl Held {
    /// A file that cannot be read counts as one that is not there, as in the original.
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut all = match serde_json::from_str(&text) {
            Ok(Value::Object(all)) => all,
            _ => Map::from_iter([("version".to_owned(), Value::from(2))]),
        };
        let services = match all.remove("services") {
            Some(Value::Object(services)) => services,
            _ => Map::new(),
        };
        Self { all, services }
    }

    /// Beside its place first, then renamed: who reads without the lock sees a whole file. A link stays one.
    fn write(mut self, file: &Path) -> io::Result<()> {
        self.all
            .insert("services".to_owned(), Value::Object(self.services));
        let place = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let temporary = beside(&place, &format!(".{}", std::process::id()));
        let text = serde_json::to_string_pretty(&self.all)?;
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &place))
            .inspect_err(|_| {
                let _gone = fs::remove_file(&temporary);
            })
    }
}

/// Whether a viewer takes connections there; nothing is said to it.
fn answers(port: &str) -> bool {
    let Ok(port) = port.parse::<u16>() else {
        return false;
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, PROBE).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::Entry;

    /// A file in a folder of its own, which goes with the value.
    struct Place(PathBuf);

    impl Drop for Place {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(self.0.parent().unwrap());
        }
    }

    fn place() -> Place {
        let folder = std::env::temp_dir().join(format!("causeway-registry-{}", ulid::Ulid::new()));
        fs::create_dir_all(&folder).unwrap();
        Place(folder.join(".ocpvscode"))
    }

    fn read(file: &PathBuf) -> Value {
        serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
    }

    #[test]
    fn foreign_entries_stay() {
        let place = place();
        let file = &place.0;
        let kernel = json!({"version": 2, "services": {"1": "/tmp/kernel.json"}, "more": [1]});
        fs::write(file, kernel.to_string()).unwrap();
        let entry = Entry::new(file.clone(), 3939);
        entry.renew(&[]).unwrap();
        assert_eq!(
            read(file)["services"],
            json!({"1": "/tmp/kernel.json", "3939": ""})
        );
        entry.remove().unwrap();
        assert_eq!(read(file), kernel);
        let lock = super::beside(file, ".lock");
        assert!(!lock.exists());
    }

    #[test]
    fn a_file_that_is_none_is_made_anew() {
        for text in [
            "",
            "{",
            "[]",
            "{\"services\":null}",
            "{\"version\":2,\"services\":[1]}",
        ] {
            let place = place();
            let file = &place.0;
            fs::write(file, text).unwrap();
            Entry::new(file.clone(), 3939).renew(&[]).unwrap();
            assert_eq!(read(file)["services"], json!({"3939": ""}), "{text}");
        }
        let place = place();
        let missing = &place.0;
        Entry::new(missing.clone(), 3939).renew(&[]).unwrap();
        assert_eq!(read(missing), json!({"version": 2, "services": {"3939": ""}}));
    }
}
