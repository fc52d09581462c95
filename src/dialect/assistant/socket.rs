//! A Socket.IO client: Engine.IO packets as frames, whatever transport carries them.
//!
//! The open packet is the first thing sent, at the first wake or the first frame. The gateway's goodbye is the end of
//! the transport, never packet `41`: after that one the client would not come back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::rpc::{self, Envelope};
use crate::dialect::{Encoding, Fate, Frame, Notice, Offence, Opening, Routes, Session, Step};
use crate::message::{Body, CallId, Close, Code, Now, Reply};
use crate::wire::engineio::heartbeat::{Beat, Heartbeat, Pulse};
use crate::wire::engineio::{self, Handshake, Packet, Refusal, Request, Transport};
use crate::wire::socketio::conversation::{self, CONNECT_TIMEOUT, Conversation, Event, Heard};
use crate::wire::socketio::{Breach, attachment};

/// The namespaces, in the order of their encodings.
pub(super) const NAMESPACES: &[&str] = &["/ws", "/"];
const ENCODINGS: [Encoding; 2] = [super::WS, super::ROOT];

/// The event that carries requests.
const RPC: &str = "rpc";

/// A command under way.
struct Asked {
    namespace: usize,
    ack: Option<u64>,
    method: String,
}

/// One Socket.IO client.
pub(super) struct Socket {
    session: Arc<str>,
    /// The engine's id: whoever knows it may poll.
    sid: Arc<str>,
    routes: Arc<Routes>,
    /// What carries the session; an address that is no handshake ends it at once.
    transport: Result<Transport, Refusal>,
    max_message: usize,
    /// `None` until the open packet is sent.
    heartbeat: Option<Heartbeat>,
    /// Last moment of the first join.
    join_by: Option<Duration>,
    conversation: Conversation,
    /// The namespace that hears events: the one joined first.
    feed: Option<usize>,
    asked: HashMap<CallId, Asked>,
    last: u64,
    over: bool,
}

impl Socket {
    pub(super) fn new(opening: &Opening, max_message: usize, sid: Arc<str>) -> Self {
        let request = Request::parse(&opening.target);
        // a `sid` belongs to a polling session, whose own edge would have taken the request
        let upgrade = request.transport == Some(Transport::WebSocket);
        let transport = request.admit(true, upgrade, false);
        Self {
            session: opening.session.clone(),
            sid,
            routes: opening.routes.clone(),
            transport,
            max_message,
            heartbeat: None,
            join_by: None,
            conversation: Conversation::new(NAMESPACES, max_message),
            feed: None,
            asked: HashMap::new(),
            last: 0,
            over: false,
        }
    }

    fn start(&mut self, now: Duration, out: &mut Vec<Step>) -> Result<&mut Heartbeat, Close> {
        let transport = self.transport.map_err(|refusal| {
            self.over = true;
            Close::new(1002, refusal.message())
        })?;
        let beat = Beat::default();
        Ok(self.heartbeat.get_or_insert_with(|| {
            let handshake = Handshake {
                sid: &self.sid,
                transport,
                beat,
                max_payload: self.max_message,
            };
            out.push(Step::Send(handshake.frame()));
            self.join_by = Some(now.saturating_add(CONNECT_TIMEOUT));
            Heartbeat::new(now, beat)
        }))
    }

    fn hear(&mut self, heard: Heard, out: &mut Vec<Step>) -> Result<(), Offence> {
        match heard {
            Heard::Nothing => {}
            Heard::Refused(answer) => out.push(Step::Send(Frame::Text(answer))),
            Heard::Joined { namespace, .. } => {
                self.join_by = None;
                self.feed.get_or_insert(namespace);
                // clients expect it to differ from the engine's
                let sid = format!("{}-{namespace}", self.session);
                let answer = conversation::joined(NAMESPACES[namespace], &sid);
                out.push(Step::Send(Frame::Text(answer)));
            }
            Heard::Left(namespace) => self.left(namespace, out),
            Heard::Event(event) => return self.event(event, out),
        }
        Ok(())
    }

    fn left(&mut self, namespace: usize, out: &mut Vec<Step>) {
        if self.feed == Some(namespace) {
            self.feed = (0..NAMESPACES.len()).find(|&other| self.conversation.is_in(other));
        }
        self.asked.retain(|&id, asked| {
            let stays = asked.namespace != namespace;
            if !stays {
                out.push(Step::Cancel(id));
            }
            stays
        });
    }

    fn event(&mut self, event: Event, out: &mut Vec<Step>) -> Result<(), Offence> {
        let (namespace, ack) = (event.namespace, event.id);
        let request = match self.request(event) {
            Ok(request) => request,
            Err(refusal) => {
                out.push(Step::Send(rpc::error(envelope(namespace, ack), &refusal.fault)));
                return Err(refusal.offence());
            }
        };
        self.last += 1;
        let id = CallId(self.last);
        self.asked.insert(
            id,
            Asked {
                namespace,
                ack,
                method: request.method.clone(),
            },
        );
        out.push(Step::Call(request.command(id, ack.map(|id| id.to_string()))));
        Ok(())
    }

    fn request(&self, event: Event) -> Result<rpc::Request, rpc::Refusal> {
        if event.name != RPC {
            let short: String = event.name.chars().take(64).collect();
            let text = format!("Unknown event: {short}");
            return Err(rpc::Refusal::new("unknown_event", Code::UnknownAction, text));
        }
        let Some(said) = event.arguments.first else {
            return Err(rpc::Refusal::new(
                "no_method",
                Code::Invalid,
                "rpc takes an object {\"method\":…,\"params\":…}",
            ));
        };
        // placeholders stand in `params` or nowhere, so the text around them can be read before they are replaced
        let mut request = rpc::request(&self.routes, &said)?;
        match attachment::inline(&request.params.bytes, &event.attachments) {
            Ok(params) => request.params = Body::json(params),
            Err(_) => {
                return Err(rpc::Refusal::new(
                    "stray_attachment",
                    Code::Invalid,
                    "attachments belong into params",
                ));
            }
        }
        Ok(request)
    }

    fn breach(&mut self, breach: Breach) -> Offence {
        let code = match breach {
            Breach::TooLarge => 1009,
            Breach::Flood => 1008,
            _ => 1002,
        };
        self.offence(breach.name(), code)
    }

    fn offence(&mut self, code: &'static str, close: u16) -> Offence {
        self.over = true;
        Offence {
            code,
            fate: Fate::Close(Close::new(close, code)),
        }
    }
}

impl Session for Socket {
    fn encoding(&self) -> Encoding {
        self.feed.map_or(super::NONE, |namespace| ENCODINGS[namespace])
    }

    fn joined(&self) -> bool {
        self.feed.is_some()
    }

    fn receive(&mut self, now: Now, frame: Frame, out: &mut Vec<Step>) -> Result<(), Offence> {
        if self.over {
            return Ok(());
        }
        match self.start(now.mono, out) {
            Ok(heartbeat) => heartbeat.heard(now.mono),
            Err(close) => {
                return Err(Offence {
                    code: "bad_handshake",
                    fate: Fate::Close(close),
                });
            }
        }
        let heard = match Packet::read(frame) {
            Ok(Packet::Message(text)) => self.conversation.text(text),
            Ok(Packet::Binary(bytes)) => self.conversation.binary(bytes),
            Ok(Packet::Pong(_) | Packet::Upgrade | Packet::Noop | Packet::Open(_)) => return Ok(()),
            Ok(Packet::Close) => {
                self.over = true;
                out.push(Step::Close(Close::NORMAL));
                return Ok(());
            }
            Ok(Packet::Ping(_)) => return Err(self.offence("client_ping", 1002)),
            Err(engineio::BadPacket) => return Err(self.offence("bad_packet", 1002)),
        };
        match heard {
            Ok(heard) => self.hear(heard, out),
            Err(breach) => Err(self.breach(breach)),
        }
    }

    fn reply(&mut self, _now: Now, reply: Reply, out: &mut Vec<Step>) {
        let Some(asked) = self.asked.get(&reply.id) else {
            return;
        };
        let last = reply.answer.is_final();
        // an ack is given once, so only the final answer may be one
        let around = envelope(asked.namespace, asked.ack.filter(|_| last));
        out.extend(rpc::answer(around, &asked.method, &reply.answer).map(Step::Send));
        if last {
            self.asked.remove(&reply.id);
        }
    }

    fn notice(&mut self, _now: Now, notice: &Notice, out: &mut Vec<Step>) {
        if let Some(namespace) = self.feed {
            out.push(Step::Send(rpc::notice(envelope(namespace, None), notice)));
        }
    }

    fn farewell(&mut self, _now: Now, why: &Close, out: &mut Vec<Step>) {
        if let Some(namespace) = self.feed {
            out.extend(rpc::farewell(envelope(namespace, None), why).map(Step::Send));
        }
    }

    fn finished(&mut self) -> bool {
        self.asked.is_empty()
    }

    fn wake(&mut self, now: Now, out: &mut Vec<Step>) {
        if self.over {
            return;
        }
        let pulse = match self.start(now.mono, out) {
            Ok(heartbeat) => heartbeat.pulse(now.mono),
            Err(close) => return out.push(Step::Close(close)),
        };
        let late = self.join_by.is_some_and(|by| now.mono >= by);
        let why = match (pulse, late) {
            (Pulse::Dead, _) => "no pong in time",
            (_, true) => "no namespace joined in time",
            (Pulse::Ping, false) => return out.push(Step::Send(engineio::PING)),
            (Pulse::Quiet, false) => return,
        };
        self.over = true;
        out.push(Step::Close(Close::new(1002, why)));
    }

    fn deadline(&self) -> Option<Duration> {
        if self.over {
            return None;
        }
        let beat = self.heartbeat.map_or(Duration::ZERO, |beat| beat.deadline());
        Some(self.join_by.map_or(beat, |by| beat.min(by)))
    }
}

fn envelope(namespace: usize, ack: Option<u64>) -> Envelope {
    match ack {
        Some(id) => Envelope::Ack(NAMESPACES[namespace], id),
        None => Envelope::Event(NAMESPACES[namespace]),
    }
}
