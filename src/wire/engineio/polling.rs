//! Long polling and its upgrade to WebSocket as a state machine: requests and frames in, acts out.
//!
//! The edge numbers every GET, POST and WebSocket of a session with a [`Ticket`] and performs the
//! [`Act`]s in order. POST bodies are handed in whole, one after the other.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::{CLOSE, Frame, NOOP, PROBED, Packet, Payload, Refusal, SEPARATOR, write_payload};

mod response;

pub use response::Response;

/// The edge's number for one request or WebSocket of the session.
pub type Ticket = u64;

/// A probing WebSocket must complete its upgrade within this.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// What was sent before a close waits this long for a GET to fetch it.
pub const LINGER: Duration = Duration::from_secs(5);

/// Packets one POST may carry: each costs memory beyond its bytes.
pub const MAX_PACKETS: usize = 65_536;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client said so.
    Left,
    /// The client's transport went away.
    Gone,
    /// The client broke the protocol.
    Broken,
    /// The gateway closed it.
    Closed,
    /// More waits for the client than may.
    Slow,
}

/// What the edge does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Answer a GET or POST.
    Answer(Ticket, Response),
    /// Hand a frame to the session.
    Deliver(Frame),
    /// Write a frame to a WebSocket.
    Write(Ticket, Frame),
    /// Close this WebSocket; the session is not concerned.
    Shut(Ticket),
    /// The session is over; forget its id. A WebSocket that carries it is closed. Always the last act.
    End(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Polling,
    /// A WebSocket was opened; the time is its last moment to complete.
    Probing {
        socket: Ticket,
        probed: bool,
        until: Duration,
    },
    Upgraded {
        socket: Ticket,
    },
    /// Closed by us; the rest waits for one more GET.
    Lingering {
        until: Duration,
    },
    Over,
}

/// One session that began with long polling.
#[derive(Debug)]
pub struct Polling {
    stage: Stage,
    poll: Option<Ticket>,
    queue: VecDeque<Frame>,
    queued: usize,
    max_queued: usize,
    max_payload: usize,
}

impl Polling {
    /// `max_payload` bounds a POST body, `max_queued` what waits for a GET, in bytes.
    #[must_use]
    pub const fn new(max_payload: usize, max_queued: usize) -> Self {
        Self {
            stage: Stage::Polling,
            poll: None,
            queue: VecDeque::new(),
            queued: 0,
            max_queued,
            max_payload,
        }
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether a GET waits for something to fetch.
    #[must_use]
    pub const fn is_polled(&self) -> bool {
        self.poll.is_some()
    }

    /// The WebSocket that took over, once one did.
    #[must_use]
    pub const fn carrier(&self) -> Option<Ticket> {
        match self.stage {
            Stage::Upgraded { socket } => Some(socket),
            _ => None,
        }
    }

    /// A GET arrived; the handshake's own GET too.
    pub fn get(&mut self, ticket: Ticket, out: &mut Vec<Act>) {
        match self.stage {
            Stage::Over => return refuse(ticket, Refusal::SessionUnknown, out),
            Stage::Upgraded { .. } => return refuse(ticket, Refusal::BadRequest, out),
            Stage::Lingering { .. } => {
                self.poll = Some(ticket);
                self.flush(Some(CLOSE), out);
                return self.end(End::Closed, out);
            }
            Stage::Polling | Stage::Probing { .. } => {}
        }
        if let Some(first) = self.poll.take() {
            out.push(Act::Answer(first, Response::Payload(write_payload([&CLOSE]))));
            out.push(Act::Answer(ticket, Response::Overlap));
            return self.end(End::Broken, out);
        }
        self.poll = Some(ticket);
        let probed = matches!(self.stage, Stage::Probing { probed: true, .. });
        // during an upgrade no GET may stay: the client waits for its end before it says `5`
        if probed && self.queue.is_empty() {
            self.flush(Some(NOOP), out);
        } else {
            self.flush(None, out);
        }
    }

    /// The client abandoned a GET that was pending: what was written to it would be lost unseen.
    pub fn abandoned(&mut self, ticket: Ticket, out: &mut Vec<Act>) {
        if self.poll == Some(ticket) {
            self.poll = None;
            self.end(End::Gone, out);
        }
    }

    /// A POST arrived, its body whole.
    pub fn post(&mut self, ticket: Ticket, body: Bytes, out: &mut Vec<Act>) {
        match self.stage {
            Stage::Over | Stage::Lingering { .. } => {
                return refuse(ticket, Refusal::SessionUnknown, out);
            }
            Stage::Upgraded { .. } => return refuse(ticket, Refusal::BadRequest, out),
            Stage::Polling | Stage::Probing { .. } => {}
        }
        let packets = || body.iter().filter(|&&byte| byte == SEPARATOR).count() + 1;
        if body.len() > self.max_payload || packets() > MAX_PACKETS {
            return out.push(Act::Answer(ticket, Response::TooLarge));
        }
        out.push(Act::Answer(ticket, Response::Accepted));
        let Ok(frames) = Payload::read(body) else {
            return self.broken(out);
        };
        for frame in frames {
            match frame.and_then(|frame| Ok((Packet::read(frame.clone())?, frame))) {
                Ok((Packet::Close, _)) => {
                    // the pending GET must not look like an answer to anything
                    self.flush_only(NOOP, out);
                    return self.end(End::Left, out);
                }
                Ok((_, frame)) => out.push(Act::Deliver(frame)),
                Err(_) => return self.broken(out),
            }
        }
    }

    /// The session sends frames that go out together: with the pending GET if there is one.
    pub fn send_all(&mut self, frames: impl IntoIterator<Item = Frame>, out: &mut Vec<Act>) {
        let Some(poll) = self.poll.take() else {
            return frames.into_iter().for_each(|frame| self.send(frame, out));
        };
        for frame in frames {
            self.queued += frame.len() + 1;
            self.queue.push_back(frame);
        }
        self.poll = Some(poll);
        self.flush(None, out);
    }

    /// The session sends a frame.
    pub fn send(&mut self, frame: Frame, out: &mut Vec<Act>) {
        match self.stage {
            Stage::Over | Stage::Lingering { .. } => {}
            Stage::Upgraded { socket } => out.push(Act::Write(socket, frame)),
            Stage::Polling | Stage::Probing { .. } => {
                self.queued += frame.len() + 1;
                self.queue.push_back(frame);
                if self.poll.is_some() {
                    self.flush(None, out);
                } else if self.queued > self.max_queued && self.queue.len() > 1 {
                    self.end(End::Slow, out);
                }
            }
        }
    }

    /// A WebSocket was opened with this session's id.
    pub fn socket(&mut self, now: Duration, ticket: Ticket, out: &mut Vec<Act>) {
        if self.stage == Stage::Polling {
            self.stage = Stage::Probing {
                socket: ticket,
                probed: false,
                until: now.saturating_add(UPGRADE_TIMEOUT),
            };
        } else {
            out.push(Act::Shut(ticket));
        }
    }

    /// A frame arrived on a WebSocket of this session.
    pub fn frame(&mut self, ticket: Ticket, frame: Frame, out: &mut Vec<Act>) {
        match self.stage {
            Stage::Upgraded { socket } if socket == ticket => out.push(Act::Deliver(frame)),
            Stage::Probing {
                socket,
                probed,
                until,
            } if socket == ticket => match (Packet::read(frame), probed) {
                (Ok(Packet::Ping(word)), false) if word == "probe" => {
                    self.stage = Stage::Probing {
                        socket,
                        probed: true,
                        until,
                    };
                    out.push(Act::Write(socket, PROBED));
                    if self.poll.is_some() {
                        self.flush(Some(NOOP), out);
                    }
                }
                (Ok(Packet::Upgrade), true) => self.upgraded(socket, out),
                _ => {
                    self.stage = Stage::Polling;
                    out.push(Act::Shut(socket));
                }
            },
            _ => {}
        }
    }

    /// A WebSocket of this session is gone.
    pub fn socket_gone(&mut self, ticket: Ticket, out: &mut Vec<Act>) {
        match self.stage {
            Stage::Upgraded { socket } if socket == ticket => self.end(End::Gone, out),
            Stage::Probing { socket, .. } if socket == ticket => self.stage = Stage::Polling,
            _ => {}
        }
    }

    /// The session or the gateway closes. What was sent before still reaches a GET that is pending or comes soon.
    pub fn close(&mut self, now: Duration, out: &mut Vec<Act>) {
        match self.stage {
            Stage::Over | Stage::Lingering { .. } => {}
            Stage::Upgraded { .. } => self.end(End::Closed, out),
            Stage::Polling | Stage::Probing { .. } => {
                if let Stage::Probing { socket, .. } = self.stage {
                    out.push(Act::Shut(socket));
                }
                if self.poll.is_some() || self.queue.is_empty() {
                    self.flush(Some(CLOSE), out);
                    self.end(End::Closed, out);
                } else {
                    self.stage = Stage::Lingering {
                        until: now.saturating_add(LINGER),
                    };
                }
            }
        }
    }

    /// The session found its client silent or hostile (it closed with 1002): nothing lingers.
    pub fn abort(&mut self, out: &mut Vec<Act>) {
        if self.stage != Stage::Over {
            self.end(End::Broken, out);
        }
    }

    /// When to call [`Polling::wake`].
    #[must_use]
    pub const fn deadline(&self) -> Option<Duration> {
        match self.stage {
            Stage::Probing { until, .. } | Stage::Lingering { until } => Some(until),
            _ => None,
        }
    }

    /// Time passed.
    pub fn wake(&mut self, now: Duration, out: &mut Vec<Act>) {
        match self.stage {
            Stage::Probing { socket, until, .. } if now >= until => {
                self.stage = Stage::Polling;
                out.push(Act::Shut(socket));
            }
            Stage::Lingering { until } if now >= until => self.end(End::Closed, out),
            _ => {}
        }
    }

    fn upgraded(&mut self, socket: Ticket, out: &mut Vec<Act>) {
        if self.poll.is_some() {
            self.flush_only(NOOP, out);
        }
        self.stage = Stage::Upgraded { socket };
        self.queued = 0;
        out.extend(self.queue.drain(..).map(|frame| Act::Write(socket, frame)));
    }

    /// Answers the pending GET with everything that waits, and `last` after it; without either it stays pending.
    fn flush(&mut self, last: Option<Frame>, out: &mut Vec<Act>) {
        if self.queue.is_empty() && last.is_none() {
            return;
        }
        if let Some(ticket) = self.poll.take() {
            let body = write_payload(self.queue.iter().chain(last.as_ref()));
            self.queue.clear();
            self.queued = 0;
            out.push(Act::Answer(ticket, Response::Payload(body)));
        }
    }

    /// Answers the pending GET with one frame and leaves what waits.
    fn flush_only(&mut self, frame: Frame, out: &mut Vec<Act>) {
        if let Some(ticket) = self.poll.take() {
            out.push(Act::Answer(ticket, Response::Payload(write_payload([&frame]))));
        }
    }

    fn broken(&mut self, out: &mut Vec<Act>) {
        self.flush_only(CLOSE, out);
        self.end(End::Broken, out);
    }

    fn end(&mut self, why: End, out: &mut Vec<Act>) {
        self.flush_only(CLOSE, out);
        if let Stage::Probing { socket, .. } = self.stage {
            out.push(Act::Shut(socket));
        }
        self.stage = Stage::Over;
        self.queue = VecDeque::new();
        self.queued = 0;
        out.push(Act::End(why));
    }
}

fn refuse(ticket: Ticket, refusal: Refusal, out: &mut Vec<Act>) {
    out.push(Act::Answer(ticket, Response::Refused(refusal)));
}
