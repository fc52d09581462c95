//! A connection without a socket: its client fetches and posts over HTTP, and may bring a WebSocket later.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Connection, Ending};
use crate::gateway::intake::Item;
use crate::gateway::polls::{News, Poller};
use crate::message::Close;
use crate::telemetry::clock;
use crate::wire::engineio::polling::{Act, End};
use crate::wire::frame;

/// A session that was closed is fetched from within this, or not at all.
const FAREWELL: Duration = Duration::from_secs(6);

/// The next thing that happens to a session of long polling; never for others.
pub(super) async fn next(poller: &mut Option<Box<Poller>>) -> News {
    match poller {
        // boxed, so that only those who poll pay for it
        Some(poller) => Box::pin(poller.next()).await,
        None => std::future::pending().await,
    }
}

impl Connection {
    /// Something happened.
    pub(super) fn polled(&mut self, news: News) -> Option<Ending> {
        let Some(poller) = &mut self.poller else {
            return None;
        };
        let now = clock::read().mono;
        let mut acts = Vec::new();
        match news {
            News::Visit(visit) => {
                self.heard = clock::now();
                let busy = self.intake.has_more();
                poller.visit(&self.gateway, now, visit, busy, &mut acts);
            }
            News::Abandoned(ticket) => poller.polling.abandoned(ticket, &mut acts),
            News::Probe => {}
            News::Nobody => return Some(Ending::Lost),
        }
        self.act(acts);
        self.hear_probe()
    }

    /// Gives a waiting GET what there is, and a waiting POST its turn. `true` when something came of it.
    pub(super) fn serve_poll(&mut self) -> bool {
        let Some(poller) = &mut self.poller else {
            return false;
        };
        let mut acts = Vec::new();
        if poller.polling.is_polled() && self.outbox.queued() > 0 {
            let frames = self.outbox.fetch().into_iter();
            poller.polling.send_all(frames, &mut acts);
        }
        if poller.holds() && !self.intake.has_more() {
            poller.release(&mut acts);
        }
        let more = !acts.is_empty();
        self.act(acts);
        more
    }

    /// Time passed.
    pub(super) fn wake_poll(&mut self) {
        if let Some(poller) = &mut self.poller {
            let mut acts = Vec::new();
            poller.polling.wake(clock::read().mono, &mut acts);
            self.act(acts);
        }
    }

    fn act(&mut self, acts: Vec<Act>) {
        let Some(poller) = &mut self.poller else { return };
        for act in acts {
            match act {
                Act::Answer(ticket, response) => poller.answer(ticket, response),
                Act::Deliver(packet) => {
                    self.calls.metrics().received_bytes.inc_by(packet.len() as u64);
                    self.intake.hand_in(Item::Frame(packet));
                }
                Act::Write(ticket, packet) => {
                    let Some(probe) = poller.probe.as_ref().filter(|probe| probe.ticket == ticket) else {
                        continue;
                    };
                    // a few bytes into an empty send buffer: what does not fit means a client that never reads
                    let bytes = frame::text(packet.bytes());
                    if probe.stream.try_write(&bytes).ok() != Some(bytes.len()) {
                        poller.shut(ticket, &self.gateway);
                        poller.polling.socket_gone(ticket, &mut Vec::new());
                    }
                }
                Act::Shut(ticket) => poller.shut(ticket, &self.gateway),
                // after what was delivered before it
                Act::End(end) => self.intake.hand_in(match end {
                    End::Left | End::Closed => Item::Goodbye(None),
                    End::Broken => Item::Broken(Close::new(1002, "not Engine.IO")),
                    End::Gone | End::Slow => Item::Lost,
                }),
            }
        }
    }

    /// Reads the WebSocket that wants to take over; with its last word it is the session's own.
    fn hear_probe(&mut self) -> Option<Ending> {
        let limit = self.gateway.config.gateway.max_receiving;
        loop {
            let poller = self.poller.as_mut()?;
            let probe = poller.probe.as_mut()?;
            let ticket = probe.ticket;
            if !probe.intake.has_more() {
                probe.intake.read(&probe.stream, &self.gateway.receiving, limit);
            }
            let mut acts = Vec::new();
            match probe.intake.pop() {
                None => return None,
                Some(Item::Frame(frame)) => poller.polling.frame(ticket, frame, &mut acts),
                Some(Item::Ping(_) | Item::Pong) => {}
                Some(Item::Goodbye(_) | Item::Broken(_) | Item::End | Item::Lost) => {
                    poller.polling.socket_gone(ticket, &mut acts);
                    poller.shut(ticket, &self.gateway);
                }
            }
            self.act(acts);
            let poller = self.poller.as_ref()?;
            if poller.polling.carrier() == Some(ticket) {
                return self.take_over();
            }
        }
    }

    /// From here on the connection is like any other that began with a WebSocket.
    fn take_over(&mut self) -> Option<Ending> {
        let poller = *self.poller.take()?;
        poller.id.upgraded();
        let probe = poller.probe?;
        self.once = Some(poller.id);
        self.intake.follow(probe.intake);
        self.spoke = true;
        (!self.outbox.adopt(probe.stream)).then_some(Ending::Lost)
    }

    /// The last moments of a session that polls: what is queued, then the end, to the GET that waits or comes soon.
    pub(super) async fn end_polled(&mut self, mut poller: Box<Poller>, ending: &Ending) {
        let mut acts = Vec::new();
        let frames = self.outbox.fetch().into_iter();
        match ending {
            Ending::Closed(close) if close.code == 1002 => poller.polling.abort(&mut acts),
            Ending::Closed(_) | Ending::Drained => {
                poller.polling.send_all(frames, &mut acts);
                poller.polling.close(clock::read().mono, &mut acts);
            }
            Ending::Slow => poller.polling.close(clock::read().mono, &mut acts),
            _ => poller.polling.abort(&mut acts),
        }
        if let Some(ticket) = poller.probe.as_ref().map(|probe| probe.ticket) {
            poller.shut(ticket, &self.gateway);
        }
        let until = Instant::now() + FAREWELL;
        loop {
            for act in acts.drain(..) {
                if let Act::Answer(ticket, response) = act {
                    poller.answer(ticket, response);
                }
            }
            if poller.polling.is_over() {
                return;
            }
            let Ok(news) = timeout_at(until, poller.next()).await else {
                return;
            };
            if let News::Visit(visit) = news {
                poller.visit(&self.gateway, clock::read().mono, visit, false, &mut acts);
            }
        }
    }
}
