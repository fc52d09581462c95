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
//! Events reach everyone: topic `status` as `status_update`, any other topic as a `type` of its own name.

use std::sync::Arc;

use crate::dialect::{Dialect, Encoding, Frame, Opening, Session, Transport};
use crate::message::{Class, Event};

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
        let envelope = match encoding {
            PLAIN => Envelope::Plain,
            WS => Envelope::Event(socket::NAMESPACES[0]),
            ROOT => Envelope::Event(socket::NAMESPACES[1]),
            _ => return None,
        };
        // a tombstone only tells that a state is no more; these clients have no word for it
        if event.class == Class::State && event.body.is_empty() {
            return None;
        }
        let kind = match &*event.topic {
            "status" => rpc::STATUS,
            topic => topic,
        };
        Some(rpc::say(envelope, kind, &event.body))
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
