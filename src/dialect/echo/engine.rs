//! The servers which the Engine.IO and Socket.IO suites expect: one returns every message, the other has the
//! namespaces `/` and `/custom` and answers `message` and `message-with-ack`.

use std::sync::Arc;
use std::time::Duration;

use crate::dialect::{Fate, Frame, Offence, Opening, Session, Step};
use crate::message::{Close, Now, Reply};
use crate::wire::engineio::heartbeat::{Beat, Heartbeat, Pulse};
use crate::wire::engineio::{self, Handshake, Packet, Request, Transport};
use crate::wire::socketio::conversation::{CONNECT_TIMEOUT, Conversation, Event, Heard, joined};
use crate::wire::socketio::{self, Kind};

const NAMESPACES: &[&str] = &["/", "/custom"];
/// What the suites expect to be announced.
const MAX_PAYLOAD: usize = 1_000_000;
const BEAT: Beat = Beat {
    interval: Duration::from_millis(300),
    timeout: Duration::from_millis(200),
};

/// One client of a suite.
pub(super) struct Engine {
    sid: Arc<str>,
    transport: Transport,
    heartbeat: Option<Heartbeat>,
    /// Last moment of the first join, where there is something to join.
    join_by: Option<Duration>,
    /// `None`: every message goes back as it came.
    chat: Option<Conversation>,
    over: bool,
}

impl Engine {
    pub(super) fn new(opening: &Opening, sid: Arc<str>) -> Self {
        let chat = opening.target.contains("/socket.io/");
        Self {
            sid,
            transport: Request::parse(&opening.target)
                .transport
                .unwrap_or(Transport::WebSocket),
            heartbeat: None,
            join_by: None,
            chat: chat.then(|| Conversation::new(NAMESPACES, MAX_PAYLOAD)),
            over: false,
        }
    }

    fn start(&mut self, now: Duration, out: &mut Vec<Step>) -> &mut Heartbeat {
        self.heartbeat.get_or_insert_with(|| {
            let handshake = Handshake {
                sid: &self.sid,
                transport: self.transport,
                beat: BEAT,
                max_payload: MAX_PAYLOAD,
            };
            out.push(Step::Send(handshake.frame()));
            self.join_by = self.chat.is_some().then(|| now + CONNECT_TIMEOUT);
            Heartbeat::new(now, BEAT)
        })
    }

    fn broken(&mut self, code: &'static str) -> Offence {
        self.over = true;
        Offence {
            code,
            fate: Fate::Close(Close::new(1002, code)),
        }
    }

    fn echo(&mut self, packet: Packet, out: &mut Vec<Step>) -> Result<(), Offence> {
        let Some(chat) = &mut self.chat else {
            match packet {
                Packet::Message(text) => {
                    let whole = [b"4", &text[..]].concat();
                    out.push(Step::Send(Frame::Text(whole.into())));
                }
                Packet::Binary(bytes) => out.push(Step::Send(Frame::Binary(bytes))),
                _ => {}
            }
            return Ok(());
        };
        let heard = match packet {
            Packet::Message(text) => chat.text(text),
            Packet::Binary(bytes) => chat.binary(bytes),
            _ => return Ok(()),
        };
        match heard.map_err(|breach| self.broken(breach.name()))? {
            Heard::Nothing | Heard::Left(_) => {}
            Heard::Refused(answer) => out.push(Step::Send(Frame::Text(answer))),
            Heard::Joined { namespace, auth } => {
                self.join_by = None;
                let name = NAMESPACES[namespace];
                let auth = if auth.is_empty() { &b"{}"[..] } else { &auth[..] };
                let said = [b"[\"auth\",", auth, b"]"].concat();
                out.push(Step::Send(Frame::Text(joined(name, &format!("{}-", self.sid)))));
                let told = socketio::Packet::new(Kind::Event, name, said);
                out.push(Step::Send(Frame::Text(told.write())));
            }
            Heard::Event(event) => answer(event, out),
        }
        Ok(())
    }
}

fn answer(event: Event, out: &mut Vec<Step>) {
    let name = NAMESPACES[event.namespace];
    let rest = &event.arguments.rest[..];
    let mut first = match event.name.as_str() {
        "message" => {
            let said = [b"[\"message-back\",", rest, b"]"].concat();
            socketio::Packet::new(Kind::Event, name, said)
        }
        "message-with-ack" => socketio::Packet {
            id: event.id,
            ..socketio::Packet::new(Kind::Ack, name, [b"[", rest, b"]"].concat())
        },
        _ => return,
    };
    first.attachments = (!event.attachments.is_empty()).then_some(event.attachments.len());
    out.push(Step::Send(Frame::Text(first.write())));
    let attachments = event.attachments.into_iter();
    out.extend(attachments.map(|part| Step::Send(Frame::Binary(part))));
}

impl Session for Engine {
    fn joined(&self) -> bool {
        false
    }

    fn receive(&mut self, now: Now, frame: Frame, out: &mut Vec<Step>) -> Result<(), Offence> {
        if self.over {
            return Ok(());
        }
        self.start(now.mono, out).heard(now.mono);
        match Packet::read(frame) {
            Ok(Packet::Close) => {
                self.over = true;
                out.push(Step::Close(Close::NORMAL));
                Ok(())
            }
            Ok(Packet::Ping(_)) => Err(self.broken("client_ping")),
            Ok(packet) => self.echo(packet, out),
            Err(engineio::BadPacket) => Err(self.broken("bad_packet")),
        }
    }

    fn reply(&mut self, _now: Now, _reply: Reply, _out: &mut Vec<Step>) {}

    fn wake(&mut self, now: Now, out: &mut Vec<Step>) {
        if self.over {
            return;
        }
        let pulse = self.start(now.mono, out).pulse(now.mono);
        let late = self.join_by.is_some_and(|by| now.mono >= by);
        match pulse {
            Pulse::Dead => {}
            _ if late => {}
            Pulse::Ping => return out.push(Step::Send(engineio::PING)),
            Pulse::Quiet => return,
        }
        self.over = true;
        out.push(Step::Close(Close::new(1002, "no sign of life in time")));
    }

    fn deadline(&self) -> Option<Duration> {
        if self.over {
            return None;
        }
        let beat = self.heartbeat.map_or(Duration::ZERO, |beat| beat.deadline());
        Some(self.join_by.map_or(beat, |by| beat.min(by)))
    }
}
