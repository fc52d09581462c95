//! What a connection does when time has passed: pings, deadlines, paced writes, the spread of a drain.

use std::time::{Duration, Instant};

use super::{Connection, Ending};
use crate::dialect::Step;
use crate::gateway::Gateway;
use crate::gateway::outbox::Kind;
use crate::gateway::ring::Carrier;
use crate::telemetry::clock;
use crate::wire::frame::{self, Packet};

impl Connection {
    /// The next moment at which something must be looked at.
    pub(super) fn due(&self) -> Instant {
        let slow = &self.gateway.config.slow;
        let socket = &self.gateway.config.websocket;
        let mut due = match self.pinged {
            Some(at) => at + socket.pong,
            None => self.heard + socket.ping,
        };
        let mut sooner = |at: Option<Instant>| due = at.map_or(due, |at| due.min(at));
        sooner(self.outbox.blocked().map(|since| since + slow.write_timeout));
        sooner(self.session.deadline().map(clock::at));
        let polling = self.poller.as_ref().and_then(|poller| poller.polling.deadline());
        sooner(polling.map(clock::at));
        sooner(self.leave_at);
        sooner(self.probe.due());
        sooner(self.pace.due().filter(|_| self.outbox.queued() > 0));
        // a moment that has passed is looked at now and then set anew
        due.max(clock::now())
    }

    /// Time passed.
    pub(super) fn wake(&mut self, steps: &mut Vec<Step>) -> Option<Ending> {
        let now = clock::now();
        if let Some(blank) = self.probe.turn(now)
            && self.outbox.queued() == 0
        {
            self.outbox.push(&blank, Kind::Own);
        }
        let socket = &self.gateway.config.websocket;
        if self.leave_at.is_some_and(|at| at <= now) {
            return Some(Ending::Drained);
        }
        let write_timeout = self.gateway.config.slow.write_timeout;
        if self
            .outbox
            .blocked()
            .is_some_and(|since| now.duration_since(since) >= write_timeout)
        {
            return Some(Ending::Slow);
        }
        if self.session.deadline().is_some_and(|at| clock::at(at) <= now) {
            self.session.wake(clock::read(), steps);
        }
        if self.poller.is_some() {
            self.heard = now;
            self.wake_poll();
            return None;
        }
        if self.carrier == Carrier::WebSocket {
            match self.pinged {
                Some(at) if self.heard > at => self.pinged = None,
                Some(at) if now.duration_since(at) >= socket.pong => return Some(Ending::Silent),
                None if now.duration_since(self.heard) >= socket.ping => {
                    if self.spoke && !self.intake.partial() && self.session.may_ping() {
                        let ping = Packet::new(frame::ping(b""));
                        self.outbox.push(&ping, Kind::Own);
                        self.outbox.flush();
                        self.pinged = Some(now);
                    } else {
                        self.heard = now;
                    }
                }
                _ => {}
            }
        } else {
            self.heard = now;
        }
        None
    }
}

/// How long a drained connection stays, so that not all come back at once.
impl Gateway {
    pub(super) fn spread(&self) -> Duration {
        let window = self.config.gateway.drain_spread;
        let share = f64::from(u16::try_from(self.next_id() * 7919 % 1000).unwrap_or(0)) / 1000.0;
        window.mul_f64(share)
    }
}
