//! A client's end of a WebSocket, written for the benchmark alone and as small as that allows.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Outcome;

/// No answer within this is a failure of the run, not a number in it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The key of RFC 6455 section 1.3 and the answer it must get.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Masks the client's frames; any constant will do against a trusted server.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// An open connection.
pub(crate) struct Socket {
    stream: TcpStream,
    /// Bytes read; those before `seen` are done with.
    inbox: Vec<u8>,
    seen: usize,
    /// Where the payload given last stands.
    last: std::ops::Range<usize>,
    outbox: Vec<u8>,
}

impl Socket {
    /// Connects and upgrades.
    pub(crate) async fn open(address: SocketAddr, path: &str) -> Outcome<Self> {
        timeout(PATIENCE, Self::upgrade(address, path)).await?
    }

    async fn upgrade(address: SocketAddr, path: &str) -> Outcome<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut inbox = Vec::with_capacity(2048);
        let head = loop {
            if let Some(at) = find(&inbox, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut inbox).await? == 0 {
                return Err("the server hung up during the handshake".into());
            }
        };
        let answer = String::from_utf8_lossy(inbox.get(..head).unwrap_or_default()).into_owned();
        if !answer.starts_with("HTTP/1.1 101") || !answer.contains(ACCEPT) {
            return Err(format!("no upgrade at {path}: {answer}").into());
        }
        Ok(Self {
            stream,
            inbox,
            seen: head,
            last: 0..0,
            outbox: Vec::new(),
        })
    }

    /// Sends one whole message.
    pub(crate) async fn send(&mut self, opcode: u8, payload: &[u8]) -> Outcome<()> {
        let mut outbox = std::mem::take(&mut self.outbox);
        outbox.clear();
        framed(&mut outbox, opcode, payload);
        let sent = self.write(&outbox).await;
        self.outbox = outbox;
        sent
    }

    /// Sends a message that was framed before: what a large one costs to mask is no part of a measurement.
    pub(crate) async fn write(&mut self, frame: &[u8]) -> Outcome<()> {
        timeout(PATIENCE, self.stream.write_all(frame)).await??;
        Ok(())
    }

    /// The payload of the next data frame; answers pings on the way. Waits as long as it takes.
    pub(crate) async fn next(&mut self) -> Outcome<&[u8]> {
        let (start, end) = loop {
            let Some((opcode, start, end)) = frame(&self.inbox, self.seen) else {
                self.inbox.drain(..self.seen);
                self.seen = 0;
                // a large message in few reads
                self.inbox
                    .reserve(if self.inbox.len() < 1 << 14 { 0 } else { 1 << 18 });
                if self.stream.read_buf(&mut self.inbox).await? == 0 {
                    return Err("the server hung up".into());
                }
                continue;
            };
            self.seen = end;
            match opcode {
                PING => {
                    let payload = self.inbox.get(start..end).unwrap_or_default().to_vec();
                    self.send(PONG, &payload).await?;
                }
                PONG => {}
                CLOSE => {
                    let body = self.inbox.get(start..end).unwrap_or_default();
                    return Err(format!("closed: {}", body.escape_ascii()).into());
                }
                _ => break (start, end),
            }
        };
        self.last = start..end;
        Ok(self.last())
    }

    /// The payload that [`Socket::next`] gave last.
    pub(crate) fn last(&self) -> &[u8] {
        self.inbox.get(self.last.clone()).unwrap_or_default()
    }
}

/// Appends a message as one masked frame.
pub(crate) fn framed(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
}

/// A whole unmasked frame at `at`: opcode, start and end of its payload.
fn frame(bytes: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let rest = bytes.get(at..)?;
    let (head, len) = match *rest.get(1)? {
        126 => (4, u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?) as usize),
        127 => (10, u64::from_be_bytes(rest.get(2..10)?.try_into().ok()?) as usize),
        len => (2, len as usize),
    };
    let end = head + len;
    (rest.len() >= end).then_some((rest.first()? & 0x0f, at + head, at + end))
}

/// Where `needle` begins in `hay`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// The number after `"tick":`, which every measured payload carries on either side.
pub(crate) fn tick(payload: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"tick\":";
    let digits = payload.get(find(payload, NAME)? + NAME.len()..)?;
    let mut number = None;
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        number = Some(number.unwrap_or(0) * 10 + u64::from(digit - b'0'));
    }
    number
}
