//! The application the official Socket.IO suite expects: namespaces `/` and `/custom`, `auth`, `message`, `message-with-ack`.

use bytes::Bytes;
use causeway::wire::engineio::{Frame, Packet};
use causeway::wire::socketio::conversation::{Conversation, Event, Heard, joined};
use causeway::wire::socketio::{self, Kind};

use crate::rig::App;

const NAMESPACES: &[&str] = &["/", "/custom"];

struct Chat(Conversation);

pub(crate) fn app() -> Box<dyn App> {
    Box::new(Chat(Conversation::new(NAMESPACES, 1_000_000)))
}

impl App for Chat {
    fn hear(&mut self, packet: Packet) -> Result<Vec<Frame>, ()> {
        let heard = match packet {
            Packet::Message(text) => self.0.text(text),
            Packet::Binary(bytes) => self.0.binary(bytes),
            _ => return Ok(Vec::new()),
        };
        Ok(match heard.map_err(|_| ())? {
            Heard::Nothing | Heard::Left(_) => Vec::new(),
            Heard::Refused(answer) => vec![Frame::Text(answer)],
            Heard::Joined { namespace, auth } => {
                let name = NAMESPACES[namespace];
                let auth = if auth.is_empty() { Bytes::from("{}") } else { auth };
                let said = [b"[\"auth\",", &auth[..], b"]"].concat();
                vec![
                    Frame::Text(joined(name, "another id")),
                    Frame::Text(socketio::Packet::new(Kind::Event, name, said).write()),
                ]
            }
            Heard::Event(event) => answer(event),
        })
    }
}

fn answer(event: Event) -> Vec<Frame> {
    let name = NAMESPACES[event.namespace];
    let rest = &event.arguments.rest[..];
    let (kind, id, said) = match event.name.as_str() {
        "message" => (Kind::Event, None, [b"[\"message-back\",", rest, b"]"].concat()),
        "message-with-ack" => (Kind::Ack, event.id, [b"[", rest, b"]"].concat()),
        _ => return Vec::new(),
    };
    let packet = socketio::Packet {
        id,
        attachments: (!event.attachments.is_empty()).then_some(event.attachments.len()),
        ..socketio::Packet::new(kind, name, said)
    };
    let first = Frame::Text(packet.write());
    let attachments = event.attachments.into_iter().map(Frame::Binary);
    std::iter::once(first).chain(attachments).collect()
}
