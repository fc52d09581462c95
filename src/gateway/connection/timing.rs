//! What a connection does when time has passed: pings, deadlines, paced writes, the spread of a drain.

use std::time::{Duration, Instant};

use super::{Connection, Ending};
use crate::dialect::Step;
use crate::gateway::Gateway;
use crate::gateway::outbox::Kind;
use crate::gateway::ring::Carrier;
use crate::message::Close;
use crate::telemetry::clock;
use crate::wire::frame::{self, Packet};

impl Connection {
    /// The next moment at which something must be looked at.
    pub(super) fn due(&self) -> Instant {
        let slow = &self.gateway.config.slow;
        let socket = &self.gateway.config.websocket;
        let mut due = match self.pinged {
            Some(at) => at + socket.pong,
            None if self.stands() => self.heard + socket.stall,
            None => self.heard + socket.ping,
        };
        let mut sooner = |at: Option<Instant>| due = at.map_or(due, |at| due.min(at));
        sooner(self.outbox.blocked().map(|since| since + slow.write_timeout));
        sooner(self.session.deadline().map(clock::at));
        let polling = self.poller.as_ref().and_then(|poller| poller.polling.deadline());
        sooner(polling.map(clock::at));
        sooner(self.leave_at);
        sooner(self.entry);
        sooner(self.probe.due());
        sooner(self.pace.due().filter(|_| self.outbox.queued() > 0));
        // a moment that has passed is looked at now and then set anew
        due.max(clock::now())
    }

    /// Whether the client owes the rest of a message. While it has as much under way as it may nothing is read, and
    /// its silence says nothing.
    fn stands(&self) -> bool {
        let may_speak = self.calls.len() < self.gateway.config.commands.per_connection;
        may_speak && self.carrier == Carrier::WebSocket && self.intake.partial()
    }

    /// Time passed.
    pub(super) fn wake(&mut self, steps: &mut Vec<Step>) -> Option<Ending> {
        let now = clock::now();
        if let Some(blank) = self.probe.turn(now)
            && self.outbox.queued() == 0
        {
            self.outbox.push(&blank, Kind::Control);
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
                None if self.stands() && now.duration_since(self.heard) >= socket.stall => {
                    self.gateway.metrics.rejected.stalled.inc();
                    return Some(Ending::Broken(Close::new(1008, "message stopped half-way")));
                }
                None if now.duration_since(self.heard) >= socket.ping => {
                    if self.spoke && !self.intake.partial() && self.session.may_ping() {
                        let ping = Packet::new(frame::ping(b""));
                        self.outbox.push(&ping, Kind::Control);
                        self.outbox.flush();
                        self.pinged = Some(now);
                    } else if !self.stands() {
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
        self.config.gateway.drain_spread.mul_f64(share(self.next_id()))
    }
}

/// The part of the window after which the n-th to ask leaves: neighbours far apart, every part as often as any other.
fn share(n: u64) -> f64 {
    f64::from(u16::try_from(n % 1000 * 7919 % 1000).unwrap_or(0)) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_drain_is_spread_evenly_whoever_asks_first() {
        for first in [0, 1, 977, u64::MAX - 4000] {
            let mut tenths = [0_u32; 10];
            for n in first..first + 4000 {
                tenths[(share(n) * 10.0) as usize] += 1;
            }
            // the most crowded part of the window has less than twice the mean
            assert!(
                tenths.iter().all(|count| (200..800).contains(count)),
                "{tenths:?}"
            );
        }
        let few = (0..10).map(share).fold(0.0, f64::max);
        assert!(few > 0.5, "ten clients do not all leave at once");
    }
}
