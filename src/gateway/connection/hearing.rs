//! What a connection makes of what came in: frames for the session, pings, goodbyes; and the rooms it enters.

use std::time::Duration;

use super::{Connection, Ending};
use crate::dialect::Step;
use crate::gateway::apart::apart;
use crate::gateway::bridge::Bridge;
use crate::gateway::intake::Item;
use crate::gateway::lobby::Key;
use crate::gateway::outbox::{Kind, Taken};
use crate::gateway::ring::{Carrier, Ear};
use crate::gateway::room::{Joining, Order};
use crate::message::Close;
use crate::telemetry::clock;
use crate::wire::frame::{self, Packet};

/// How long what a client says waits for the rooms it enters; a stream that cannot be read must not silence it.
const ENTRY: Duration = Duration::from_secs(5);

impl Connection {
    /// A client that performs a service joins when it is the one that does.
    pub(super) fn may_join(&mut self) -> bool {
        let Some(service) = self.session.performs() else {
            return true;
        };
        let bridge = self.bridge.get_or_insert_with(|| {
            let key = Key {
                space: self.space.clone(),
                dialect: self.dialect,
            };
            let outbox = self.outbox.clone();
            Box::new(Bridge::start(&self.gateway, key, service, &self.ulid, outbox))
        });
        bridge.is_ready()
    }

    /// Whether what the client says waits until it is in its rooms: what follows from it must not come to it as the
    /// past. While the bus is away nothing waits, so that it is told so at once.
    pub(super) fn waits(&mut self) -> bool {
        let Some(until) = self.entry else {
            return false;
        };
        let waits =
            self.outbox.is_entering() && clock::now() < until && self.gateway.bus.link().borrow().is_up();
        if !waits {
            self.entry = None;
        }
        waits
    }

    /// Enters the rooms, once the session wants events.
    pub(super) async fn join(&mut self) -> Option<Ending> {
        if self.dialect.looks() {
            // those who only come to say something are nobody's company
            let presence = &self.gateway.presence;
            presence.opened(&self.ulid, self.dialect.name(), &self.space);
        }
        let ear = Ear {
            dialect: self.dialect,
            encoding: self.session.encoding(),
            carrier: self.carrier,
        };
        if self.dialect.looks() && ear.encoding == crate::dialect::Encoding::default() {
            let screens = &self.gateway.lobby.screens;
            screens.came(&self.ulid, &self.space, &self.outbox);
        }
        let rooms = std::mem::take(&mut self.listens);
        self.outbox.entering(u8::try_from(rooms.len()).unwrap_or(u8::MAX));
        self.entry = Some(clock::now() + ENTRY);
        for room in rooms {
            let key = Key {
                space: self.space.clone(),
                dialect: room,
            };
            let orders = match self.gateway.lobby.enter(&key) {
                Ok(orders) => orders,
                Err(fault) => {
                    self.gateway.metrics.rejected.space.inc();
                    let close = Close {
                        code: Close::BUSY.code,
                        reason: fault.text.into(),
                    };
                    return Some(Ending::Closed(close));
                }
            };
            let joining = Joining {
                id: self.id,
                outbox: self.outbox.clone(),
                ear,
                since: self.since,
                session: self.ulid.clone(),
                greet: room.name() == self.dialect.name(),
            };
            self.keys.push(key);
            let _closed = orders.send(Order::Join(Box::new(joining))).await;
        }
        None
    }

    /// What one item brings about.
    pub(super) fn receive(&mut self, item: Item, steps: &mut Vec<Step>) -> Option<Ending> {
        let now = clock::read();
        match item {
            Item::Frame(frame) => {
                self.spoke = true;
                let metrics = self.calls.metrics();
                let started = clock::now();
                // a TCP stream comes in pieces that say nothing about its documents
                if self.carrier == Carrier::WebSocket
                    && !self.flow.take(started, self.gateway.config.gateway.message_rate)
                {
                    metrics.offence("flood");
                    return Some(Ending::Closed(Close::FLOOD));
                }
                let received = apart(frame.bytes().len(), || self.session.receive(now, frame, steps));
                metrics.frame_in(started);
                self.calls.received();
                if let Err(offence) = received {
                    metrics.offence(offence.code);
                    if let crate::dialect::Fate::Close(close) = offence.fate {
                        steps.push(Step::Close(close));
                    }
                }
                // over WebSocket the decoder's own count is taken as the bytes come
                if self.carrier == Carrier::Raw {
                    let limit = self.gateway.config.gateway.max_receiving;
                    let receiving = self.session.receiving();
                    if !self.intake.hold(receiving, &self.gateway.receiving, limit) {
                        return Some(Ending::Broken(Close::BUSY));
                    }
                }
                None
            }
            Item::Ping(payload) => {
                self.spoke = true;
                let pong = Packet::new(frame::pong(&payload));
                let taken = self.outbox.push(&pong, Kind::Control);
                self.outbox.flush();
                (taken == Taken::Overflow).then_some(Ending::Slow)
            }
            Item::Pong => {
                self.spoke = true;
                self.pinged = None;
                None
            }
            Item::Goodbye(code) => Some(Ending::Left(code)),
            Item::Broken(close) => {
                let rejected = &self.gateway.metrics.rejected;
                if close.code == 1009 {
                    rejected.too_large.inc()
                } else {
                    rejected.bad_frame.inc()
                }
                Some(Ending::Broken(close))
            }
            Item::End if self.carrier == Carrier::Raw => {
                self.finishing = true;
                self.probe.begin(clock::now());
                None
            }
            Item::End | Item::Lost => Some(Ending::Lost),
        }
    }
}
