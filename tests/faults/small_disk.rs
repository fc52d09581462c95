//! A disk of a few megabytes: a file system in memory, in a mount namespace of its own that lives as long as its holder.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Scratch;
use crate::{Outcome, PATIENCE};

/// The holder of the namespace and where the disk is in it.
pub(crate) struct SmallDisk {
    holder: Child,
    place: Scratch,
}

impl SmallDisk {
    /// One of so many MiB; `None` where the system does not allow it.
    pub(crate) fn new(mib: u32) -> Outcome<Option<Self>> {
        let place = Scratch::new()?;
        let script = format!(
            "mount -t tmpfs -o size={mib}m tmpfs '{0}' && touch '{0}/ready' && exec sleep 1000",
            place.0.display()
        );
        let Ok(mut holder) = Command::new("unshare")
            .args(["-rm", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
        else {
            return Ok(None);
        };
        let begun = Instant::now();
        loop {
            let inside = seen(&holder, &place).join("ready");
            if inside.exists() {
                return Ok(Some(Self { holder, place }));
            }
            if holder.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                let _gone = holder.kill();
                let _gone = holder.wait();
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it is, for those within.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.place.0
    }

    /// The process whose disk it is.
    pub(crate) fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// Leaves a megabyte.
    pub(crate) fn fill(&self) -> Outcome<()> {
        let ballast = seen(&self.holder, &self.place).join("ballast");
        let mut size = 0_u64;
        let mut bytes = Vec::new();
        // as much as it takes, then a little back
        while std::fs::write(&ballast, &bytes).is_ok() && size < 1 << 30 {
            size += 1 << 20;
            bytes.resize(usize::try_from(size)?, 0);
        }
        bytes.truncate(usize::try_from(size.saturating_sub(3 << 20))?);
        Ok(std::fs::write(&ballast, &bytes)?)
    }

    /// Makes room again.
    pub(crate) fn free(&self) -> Outcome<()> {
        Ok(std::fs::remove_file(
            seen(&self.holder, &self.place).join("ballast"),
        )?)
    }
}

/// How to start a program that sees a holder's disk.
pub(crate) fn within(holder: u32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    let holder = holder.to_string();
    command.args(["--preserve-credentials", "-U", "-m", "-t", &holder, program]);
    command
}

/// The disk as it is seen from outside.
fn seen(holder: &Child, place: &Scratch) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
    root.join(place.0.strip_prefix("/").unwrap_or(&place.0))
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = self.holder.kill();
        let _gone = self.holder.wait();
    }
}
