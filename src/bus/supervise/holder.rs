//! Who listens on a TCP port, as far as /proc tells.

use std::fmt;
use std::fs;

/// A process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its program name.
    pub program: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.program, self.pid)
    }
}

/// State of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

impl Holder {
    /// The process that listens on `port`; `None` where the system does not say, as for other users' processes.
    #[must_use]
    pub fn of(port: u16) -> Option<Self> {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let inodes: Vec<String> = tables
            .iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|table| listeners(&table, port))
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        if inodes.is_empty() {
            return None;
        }
        for process in fs::read_dir("/proc").ok()?.flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
                continue;
            };
            let holds = descriptors
                .flatten()
                .filter_map(|fd| fs::read_link(fd.path()).ok())
                .any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()));
            if holds {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(Self {
                    pid,
                    program: name.trim().to_owned(),
                });
            }
        }
        None
    }
}

/// Inodes of the sockets that listen on `port` in a table of `/proc/net/tcp`.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let row = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let local = columns.nth(1)?;
        let state = columns.nth(1)?;
        let inode = columns.nth(5)?;
        (local.ends_with(&suffix) && state == LISTEN).then(|| inode.to_owned())
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::{Holder, listeners};

    #[test]
    fn listening_rows_of_the_port_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:107E 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 70001 1 0\n\
             1: 0100007F:107E 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 70002 1 0\n\
             2: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 70003 1 0\n";
        assert_eq!(listeners(table, 4222), ["70001"]);
        assert_eq!(listeners(table, 1), Vec::<String>::new());
    }

    #[test]
    fn our_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let holder = Holder::of(port).expect("holder");
        assert_eq!(holder.pid, std::process::id());
        drop(listener);
        assert_eq!(Holder::of(port), None);
    }
}
