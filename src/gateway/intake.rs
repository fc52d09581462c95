//! Bytes from one client: read into a buffer the thread shares, cut into frames, counted against the budget.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::dialect::Frame;
use crate::gateway::ring::Carrier;
use crate::message::Close;
use crate::wire::websocket::{Decoder, Incoming};

/// What one read takes at most.
const READ: usize = 64 * 1024;
/// Messages up to this size are not counted against the budget of large ones.
const SMALL: u64 = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// What came in.
#[derive(Debug)]
pub enum Item {
    /// A message, or bytes of a TCP stream.
    Frame(Frame),
    /// To be answered by a pong.
    Ping(Bytes),
    /// Answers ours.
    Pong,
    /// The client says goodbye.
    Goodbye(Option<u16>),
    /// The client broke the protocol, or a limit.
    Broken(Close),
    /// The client will send no more.
    End,
    /// The socket failed.
    Lost,
}

/// The inbound side of one connection.
pub struct Intake {
    decoder: Option<Decoder>,
    ready: VecDeque<Item>,
    /// What this connection holds of the budget.
    held: u64,
    over: bool,
}

impl Intake {
    /// Reads frames of at most `max_message` bytes; over TCP the session itself finds their ends.
    #[must_use]
    pub fn new(carrier: Carrier, max_message: usize) -> Self {
        let decoder = (carrier == Carrier::WebSocket).then(|| Decoder::new(max_message));
        Self {
            decoder,
            ready: VecDeque::new(),
            held: 0,
            over: false,
        }
    }

    /// Whether a message is partly received.
    #[must_use]
    pub fn partial(&self) -> bool {
        self.decoder.as_ref().is_some_and(Decoder::partial)
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The next item.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.ready.pop_front();
        if self.ready.is_empty() && self.ready.capacity() > 0 {
            self.ready = VecDeque::new();
        }
        item
    }

    /// Whether items wait.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What came another way than through the socket.
    pub fn hand_in(&mut self, item: Item) {
        self.ready.push_back(item);
    }

    /// Goes on with another socket's intake, after what is here.
    pub fn follow(&mut self, mut next: Self) {
        self.ready.append(&mut next.ready);
        next.ready = std::mem::take(&mut self.ready);
        *self = next;
    }

    /// Bytes that came together with the handshake.
    pub fn feed(&mut self, bytes: &[u8], budget: &AtomicU64, limit: u64) {
        let mut copy = bytes.to_vec();
        self.take(&mut copy, budget, limit);
    }

    /// Reads what is there. Safe to call whenever the socket was said to be readable; returns the bytes read.
    pub fn read(&mut self, stream: &TcpStream, budget: &AtomicU64, limit: u64) -> usize {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut total = 0;
            // a few rounds, so that a fast sender neither costs a wake-up each nor keeps the thread
            for _ in 0..4 {
                match read_once(stream, scratch) {
                    Ok(0) => {
                        self.end(Item::End, budget);
                        break;
                    }
                    Ok(n) => {
                        total += n;
                        self.take(&mut scratch[..n], budget, limit);
                        if n < READ || self.over {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => {
                        self.end(Item::Lost, budget);
                        break;
                    }
                }
            }
            total
        })
    }

    fn end(&mut self, item: Item, budget: &AtomicU64) {
        self.ready.push_back(item);
        self.over = true;
        self.release(budget);
    }

    fn take(&mut self, bytes: &mut [u8], budget: &AtomicU64, limit: u64) {
        let Some(decoder) = &mut self.decoder else {
            self.ready
                .push_back(Item::Frame(Frame::Binary(Bytes::copy_from_slice(bytes))));
            return;
        };
        let mut incoming = Vec::new();
        let fed = decoder.feed(bytes, &mut incoming);
        let receiving = decoder.receiving();
        for item in incoming {
            self.ready.push_back(match item {
                Incoming::Text(text) => Item::Frame(Frame::Text(text)),
                Incoming::Binary(bytes) => Item::Frame(Frame::Binary(bytes)),
                Incoming::Ping(payload) => Item::Ping(payload),
                Incoming::Pong(_) => Item::Pong,
                Incoming::Close { code, .. } => {
                    self.over = true;
                    Item::Goodbye(code)
                }
            });
        }
        if let Err(broken) = fed {
            let close = match self.decoder.as_ref().map(Decoder::max) {
                // whoever reads it in a console learns what to do about it
                Some(max) if broken.code == 1009 => Close {
                    code: broken.code,
                    reason: format!("{}: at most {max} bytes, see max_message", broken.reason).into(),
                },
                _ => Close::new(broken.code, broken.reason),
            };
            self.end(Item::Broken(close), budget);
            return;
        }
        if !self.hold(receiving, budget, limit) {
            self.end(Item::Broken(Close::BUSY), budget);
        }
    }

    /// Counts an unfinished message of so many bytes against the budget; `false` when there is no room for it.
    pub fn hold(&mut self, receiving: u64, budget: &AtomicU64, limit: u64) -> bool {
        let want = if receiving > SMALL { receiving } else { 0 };
        if want > self.held {
            let more = want - self.held;
            if budget.fetch_add(more, Ordering::Relaxed) + more > limit {
                budget.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else {
            budget.fetch_sub(self.held - want, Ordering::Relaxed);
        }
        self.held = want;
        true
    }

    /// Gives back what this connection holds of the budget.
    pub fn release(&mut self, budget: &AtomicU64) {
        budget.fetch_sub(self.held, Ordering::Relaxed);
        self.held = 0;
    }
}

/// One read. A short one says that nothing more is there now, which saves asking the kernel again.
fn read_once(stream: &TcpStream, scratch: &mut [u8]) -> io::Result<usize> {
    let mut read = None;
    let outcome = stream.try_io(Interest::READABLE, || {
        let n = (&*SockRef::from(stream)).read(scratch)?;
        read = Some(n);
        if n > 0 && n < scratch.len() {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(n)
        }
    });
    match read {
        Some(n) => Ok(n),
        None => outcome,
    }
}
