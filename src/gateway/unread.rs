//! Whether a client on this machine has read what it was sent.
//!
//! No socket tells its own side that; an acknowledgement says only that the peer's kernel has the bytes. But where the
//! peer's socket lives under the same kernel, the kernel can be asked for that socket (`NETLINK_SOCK_DIAG`, by its two
//! addresses, as `ss` asks) and says how many bytes wait in it. About a microsecond, needs no rights, and tells nothing
//! about peers on other machines or in other network namespaces.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use tokio::net::TcpStream;

/// A request's bytes: `nlmsghdr` and `inet_diag_req_v2`.
const ASKED: usize = 72;
/// Where `idiag_rqueue` stands in the answer: behind `nlmsghdr`, four bytes, the addresses and `idiag_expires`.
const UNREAD: usize = 72;
/// `SOCK_DIAG_BY_FAMILY`, of the request and of its answer.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// The way to the kernel's table of sockets; shared by all connections, because an answer comes at once.
pub struct Unread(Option<Mutex<Line>>);

struct Line {
    socket: OwnedFd,
    number: u32,
}

impl Unread {
    /// Where the kernel has no such table, nobody is ever said to hold anything.
    #[must_use]
    pub fn open() -> Self {
        let kind = SocketType::RAW;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::SOCK_DIAG));
        Self(socket.ok().map(|socket| Mutex::new(Line { socket, number: 0 })))
    }

    /// Bytes that lie unread in the peer's socket; `None` where nobody here can know.
    #[must_use]
    pub fn by_peer(&self, stream: &TcpStream) -> Option<u32> {
        let line = self.0.as_ref()?;
        let (peer, own) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
        line.lock().ask(peer, own).ok().flatten()
    }
}

impl Line {
    /// Asks for the socket at `from` that is connected to `to`.
    fn ask(&mut self, from: SocketAddr, to: SocketAddr) -> io::Result<Option<u32>> {
        self.number = self.number.wrapping_add(1);
        let request = request(self.number, from, to);
        send(&self.socket, &request, SendFlags::empty())?;
        let mut answer = [0_u8; 512];
        loop {
            let (_, length) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
            let answer = &answer[..length.min(answer.len())];
            // one that was cut short earlier left its answer behind
            if word(answer, 8) == Some(self.number) {
                let found = answer.get(4..6) == Some(&BY_FAMILY.to_ne_bytes()[..]);
                return Ok(word(answer, UNREAD).filter(|_| found));
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(four))
}

fn request(number: u32, from: SocketAddr, to: SocketAddr) -> [u8; ASKED] {
    let (source, family) = octets(from.ip());
    let (destination, _) = octets(to.ip());
    let mut bytes = [0; ASKED];
    let mut at = 0;
    let mut put = |part: &[u8]| {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    };
    put(&(ASKED as u32).to_ne_bytes());
    put(&BY_FAMILY.to_ne_bytes());
    put(&REQUEST.to_ne_bytes());
    put(&number.to_ne_bytes());
    // the kernel's own address
    put(&[0; 4]);
    // no extensions; in whatever state
    put(&[family, TCP, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    put(&from.port().to_be_bytes());
    put(&to.port().to_be_bytes());
    put(&source);
    put(&destination);
    // any interface; not told apart from earlier sockets of the same addresses
    put(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    bytes
}

/// An address as the kernel's tables have it. One of version 4 that came to a socket of version 6 is its own again.
fn octets(address: IpAddr) -> ([u8; 16], u8) {
    match address.to_canonical() {
        IpAddr::V4(four) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&four.octets());
            (bytes, IPV4)
        }
        IpAddr::V6(six) => (six.octets(), IPV6),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::Unread;

    #[tokio::test]
    async fn what_the_peer_has_not_read_is_told_to_the_byte() {
        let table = Unread::open();
        // a sandbox may have no such table, and nothing to be right about
        if table.0.is_none() {
            return;
        }
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // a machine may have no IPv6
            let Ok(door) = std::net::TcpListener::bind(address) else {
                assert!(address.starts_with('['));
                continue;
            };
            let mut client = std::net::TcpStream::connect(door.local_addr().unwrap()).unwrap();
            let (mut ours, _) = door.accept().unwrap();
            ours.set_nonblocking(true).unwrap();
            let watched = tokio::net::TcpStream::from_std(ours.try_clone().unwrap()).unwrap();
            assert_eq!(table.by_peer(&watched), Some(0));
            assert_eq!(ours.write(b"document").unwrap(), 8);
            while table.by_peer(&watched) == Some(0) {}
            assert_eq!(table.by_peer(&watched), Some(8));
            client.read_exact(&mut [0; 5]).unwrap();
            assert_eq!(table.by_peer(&watched), Some(3));
            client.read_exact(&mut [0; 3]).unwrap();
            assert_eq!(table.by_peer(&watched), Some(0));
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_holds_nothing_for_long() {
        let table = Unread::open();
        let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(door.local_addr().unwrap()).unwrap();
        let (mut ours, _) = door.accept().unwrap();
        ours.write_all(b"document").unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = tokio::net::TcpStream::from_std(ours).unwrap();
        while table.by_peer(&ours) == Some(0) {}
        // with bytes unread its end is a reset
        drop(client);
        while table.by_peer(&ours).is_some_and(|unread| unread > 0) {}
    }
}
