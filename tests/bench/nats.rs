//! The NATS protocol inside WebSocket frames: what a browser client of nats-server speaks.

use std::net::SocketAddr;

use crate::Outcome;
use crate::socket::{BINARY, PATIENCE, Socket, find};

/// A NATS client over nats-server's WebSocket.
pub(crate) struct NatsSocket {
    socket: Socket,
    /// Protocol bytes taken out of frames; those before `seen` are done with.
    inbox: Vec<u8>,
    seen: usize,
}

/// One line of the protocol.
enum Line {
    /// A message whose payload has this length and starts here.
    Message(usize, usize),
    Ping,
    Refused(String),
    Other,
}

impl NatsSocket {
    /// Connects and introduces itself the way the official clients do.
    pub(crate) async fn open(address: SocketAddr) -> Outcome<Self> {
        let socket = Socket::open(address, "/").await?;
        let mut client = Self {
            socket,
            inbox: Vec::new(),
            seen: 0,
        };
        client
            .say(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1}\r\n")
            .await?;
        Ok(client)
    }

    /// Sends protocol text in one frame.
    pub(crate) async fn say(&mut self, text: &[u8]) -> Outcome<()> {
        self.socket.send(BINARY, text).await
    }

    /// Subscribes and returns once the server has taken it.
    pub(crate) async fn subscribe(&mut self, subject: &str) -> Outcome<()> {
        self.say(format!("SUB {subject} 1\r\nPING\r\n").as_bytes())
            .await?;
        tokio::time::timeout(PATIENCE, async {
            loop {
                if find(&self.inbox, b"PONG\r\n").is_some() {
                    self.inbox.clear();
                    return Ok(());
                }
                self.fill().await?;
            }
        })
        .await?
    }

    async fn fill(&mut self) -> Outcome<()> {
        self.inbox.drain(..self.seen);
        self.seen = 0;
        let payload = self.socket.next().await?;
        self.inbox.extend_from_slice(payload);
        Ok(())
    }

    /// The payload of the next message. Waits as long as it takes.
    pub(crate) async fn next(&mut self) -> Outcome<&[u8]> {
        let (start, end) = loop {
            match self.line() {
                None => self.fill().await?,
                Some(Line::Message(start, len)) => {
                    let end = start + len;
                    // the payload and its line end must be here whole
                    while self.inbox.len() < end + 2 {
                        let payload = self.socket.next().await?;
                        self.inbox.extend_from_slice(payload);
                    }
                    self.seen = end + 2;
                    break (start, end);
                }
                Some(Line::Ping) => self.say(b"PONG\r\n").await?,
                Some(Line::Refused(why)) => return Err(why.into()),
                Some(Line::Other) => {}
            }
        };
        Ok(self.inbox.get(start..end).unwrap_or_default())
    }

    /// Reads one line and steps over it.
    fn line(&mut self) -> Option<Line> {
        let rest = self.inbox.get(self.seen..)?;
        let len = find(rest, b"\r\n")?;
        let line = rest.get(..len)?;
        let start = self.seen + len + 2;
        self.seen = start;
        if line.starts_with(b"MSG ") {
            let size = line.rsplit(|byte| *byte == b' ').next()?;
            let size = std::str::from_utf8(size).ok()?.parse().ok()?;
            return Some(Line::Message(start, size));
        }
        if line == b"PING" {
            return Some(Line::Ping);
        }
        if line.starts_with(b"-ERR") || line.starts_with(b"HMSG") {
            return Some(Line::Refused(String::from_utf8_lossy(line).into_owned()));
        }
        Some(Line::Other)
    }
}
