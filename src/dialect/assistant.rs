//! Assistant clients: JSON-RPC over plain WebSocket and over Socket.IO, both at once on the same port.
//!
//! The path decides: `/socket.io/` is Engine.IO with the namespaces `/ws` and `/`, anything else is plain. A request
//! is `{"method","params"}`; it goes to the service its method is routed to, `params` whole.
//!
//! | the worker says | the sender hears |
//! |---|---|
//! | `done` to `get_status` | `status_update`, `data` = body |
//! | `done` to anything else | `command_response`, `data` = body, `null` when empty |
//! | `progress` with a body | `status_update`, `data` = body |
//! | `ack`, empty `progress` | nothing |
//! | an error | `error`, `data` = `{"message","code"}`, `details` where there are any |
//!
//! Everything a client hears is `{"type","data"}`: a text frame on plain WebSocket, the argument of an
//! `rpc_response` event on Socket.IO, or of the ack when the client asked for one. Plain clients can only match
//! answers by order, so they get final answers in the order they asked. A body that is not JSON reaches them as text:
//! itself when it is `text/*`, base64 otherwise. Attachments of Socket.IO clients reach workers as base64 text
//! in their places, the form in which plain clients write the same bytes.
//!
//! Events reach everyone: topic `status` as `status_update`, any other topic as a `type` of its own name, with the
//! `offset` after which a client may come back (`?since=`). What commands said to those who were there, `status` and
//! `command_response`, is not given to newcomers: they would take it for their own. Who comes back gets all it missed.
//! Only clients that say `since` are greeted; the others never were.

use std::sync::Arc;

use crate::dialect::{Dialect, Encoding, Frame, Opening, Session, Transport, Welcome};
use crate::message::{Class, Event, Nanos};

mod plain;
mod rpc;
mod socket;

use rpc::Envelope;

/// Events to plain clients.
const PLAIN: Encoding = Encoding(0);
/// Events to Socket.IO clients in namespace `/ws`.
const WS: Encoding = Encoding(1);
/// Events to Socket.IO clients in the root namespace.
const ROOT: Encoding = Encoding(2);
/// No events: a Socket.IO client before it joined a namespace.
const NONE: Encoding = Encoding(3);
/// Added to an encoding: what a newcomer gets of the past.
const PAST: u8 = 4;
/// What commands say to the space while they run, and what came of those sent by REST.
const PASSING: [&str; 2] = ["status", "command_response"];

/// Where Socket.IO clients knock.
const SOCKET_IO: &str = "/socket.io/";

/// The limit where the edge names none.
const MAX_MESSAGE: usize = 64 << 20;

/// The assistant dialect.
pub struct Assistant;

impl Dialect for Assistant {
    fn name(&self) -> &'static str {
        "assistant"
    }

    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/ws", SOCKET_IO]
    }

    fn open(&self, opening: Opening) -> Box<dyn Session> {
        self.open_within(opening, MAX_MESSAGE)
    }

    fn open_within(&self, opening: Opening, max_message: usize) -> Box<dyn Session> {
        if opening.target.starts_with(SOCKET_IO) {
            let sid = opening.session.clone();
            Box::new(socket::Socket::new(&opening, max_message, sid))
        } else {
            Box::new(plain::Plain::new(opening.routes, max_message))
        }
    }

    fn open_polled(&self, opening: Opening, max_message: usize, sid: &Arc<str>) -> Box<dyn Session> {
        Box::new(socket::Socket::new(&opening, max_message, sid.clone()))
    }

    fn encode(&self, encoding: Encoding, event: &Event) -> Option<Frame> {
        let past = encoding.0 & PAST != 0;
        let envelope = envelope(encoding)?;
        if past && event.class == Class::Event && PASSING.contains(&&*event.topic) {
            return None;
        }
        // a tombstone only tells that a state is no more; these clients have no word for it
        if event.class == Class::State && event.body.is_empty() {
            return None;
        }
        let kind = match &*event.topic {
            "status" => rpc::STATUS,
            topic => topic,
        };
        Some(rpc::event(envelope, kind, event))
    }

    fn newcomer(&self, encoding: Encoding) -> Encoding {
        Encoding(encoding.0 | PAST)
    }

    fn welcome(&self, _now: Nanos, encoding: Encoding, welcome: &Welcome) -> Option<Frame> {
        rpc::welcome(envelope(encoding)?, welcome)
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("execute_command", "command_processor"),
            ("get_status", "gateway"),
        ]
    }

    fn services(&self) -> &'static [&'static str] {
        &["vision", "language", "command_processor"]
    }
}

/// What is around a message to sessions of an encoding; `None` for those that hear nothing.
fn envelope(encoding: Encoding) -> Option<Envelope> {
    match Encoding(encoding.0 & !PAST) {
        PLAIN => Some(Envelope::Plain),
        WS => Some(Envelope::Event(socket::NAMESPACES[0])),
        ROOT => Some(Envelope::Event(socket::NAMESPACES[1])),
        _ => None,
    }
}
