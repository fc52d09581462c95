//! A server on invented time: one session behind long polling or WebSocket, driven request by request.

use std::collections::BTreeMap;
use std::time::Duration;

use causeway::wire::engineio::heartbeat::{Beat, Heartbeat, Pulse};
use causeway::wire::engineio::polling::{Act, End, Polling, Response, Ticket};
use causeway::wire::engineio::{BadPacket, Frame, Handshake, PING, Packet, Refusal, Request, Transport};

/// The intervals the official suites ask for.
pub(crate) const BEAT: Beat = Beat {
    interval: Duration::from_millis(300),
    timeout: Duration::from_millis(200),
};
pub(crate) const SID: &str = "lv_VI97HAXpY6yYWAAAB";

/// What speaks through the packets. `Err` ends the session.
pub(crate) trait App {
    fn hear(&mut self, packet: Packet) -> Result<Vec<Frame>, ()>;
}

/// Returns every message.
struct Echo;

impl App for Echo {
    fn hear(&mut self, packet: Packet) -> Result<Vec<Frame>, ()> {
        Ok(match packet {
            Packet::Message(text) => vec![Frame::Text([b"4", &text[..]].concat().into())],
            Packet::Binary(bytes) => vec![Frame::Binary(bytes)],
            _ => Vec::new(),
        })
    }
}

pub(crate) fn echo() -> Box<dyn App> {
    Box::new(Echo)
}

pub(crate) fn text(text: &str) -> Frame {
    Frame::Text(text.to_owned().into())
}

/// A session and its transport.
pub(crate) struct Server {
    now: Duration,
    app: Box<dyn App>,
    heart: Heartbeat,
    /// `None`: WebSocket from the start.
    polling: Option<Polling>,
    tickets: Ticket,
    answers: BTreeMap<Ticket, Response>,
    /// What each WebSocket heard.
    pub(crate) sockets: BTreeMap<Ticket, Vec<Frame>>,
    /// WebSockets the server closed.
    pub(crate) shut: Vec<Ticket>,
    pub(crate) over: Option<End>,
}

impl Server {
    /// Checks a handshake as an edge would and answers it.
    pub(crate) fn handshake(app: Box<dyn App>, method: &str, query: &str) -> Result<(Self, String), Refusal> {
        let upgrade = query.contains("websocket") || method == "WS";
        let get = matches!(method, "GET" | "WS");
        let transport = Request::parse(query).admit(get, upgrade, false)?;
        let polling = (transport == Transport::Polling).then(|| Polling::new(1_000_000, 1 << 20));
        let mut server = Self {
            now: Duration::from_secs(7),
            app,
            heart: Heartbeat::new(Duration::from_secs(7), BEAT),
            polling,
            tickets: 0,
            answers: BTreeMap::new(),
            sockets: BTreeMap::from([(0, Vec::new())]),
            shut: Vec::new(),
            over: None,
        };
        let open = Handshake {
            sid: SID,
            transport,
            beat: BEAT,
            max_payload: 1_000_000,
        };
        server.send(open.frame());
        let first = match transport {
            Transport::Polling => body(&server.get().1.expect("the handshake is answered at once")),
            Transport::WebSocket => shown(&server.sockets[&0][0]),
        };
        Ok((server, first))
    }

    pub(crate) fn poll(app: Box<dyn App>) -> Self {
        Self::handshake(app, "GET", "/engine.io/?EIO=4&transport=polling")
            .unwrap()
            .0
    }

    pub(crate) fn websocket(app: Box<dyn App>) -> Self {
        let mut server = Self::handshake(app, "WS", "/engine.io/?EIO=4&transport=websocket")
            .unwrap()
            .0;
        server.sockets.entry(0).or_default().clear();
        server
    }

    /// A GET: its ticket and, unless it stays pending, its answer.
    pub(crate) fn get(&mut self) -> (Ticket, Option<Response>) {
        self.request(|polling, ticket, acts| polling.get(ticket, acts))
    }

    pub(crate) fn post(&mut self, body: impl AsRef<[u8]>) -> Response {
        let body = body.as_ref().to_vec();
        let (_, answer) = self.request(|polling, ticket, acts| polling.post(ticket, body.into(), acts));
        answer.expect("a POST is answered at once")
    }

    pub(crate) fn abandon(&mut self, ticket: Ticket) {
        self.request(|polling, _, acts| polling.abandoned(ticket, acts));
    }

    pub(crate) fn answer(&mut self, ticket: Ticket) -> Option<Response> {
        self.answers.remove(&ticket)
    }

    /// A WebSocket with the session's id.
    pub(crate) fn probe(&mut self) -> Ticket {
        let now = self.now;
        let (ticket, _) = self.request(|polling, ticket, acts| polling.socket(now, ticket, acts));
        self.sockets.entry(ticket).or_default();
        ticket
    }

    /// The client writes to a WebSocket; 0 is the one the session began with.
    pub(crate) fn write(&mut self, socket: Ticket, frame: Frame) {
        if self.polling.is_some() {
            self.request(|polling, _, acts| polling.frame(socket, frame, acts));
        } else {
            self.deliver(frame);
        }
    }

    pub(crate) fn drop_socket(&mut self, socket: Ticket) {
        self.request(|polling, _, acts| polling.socket_gone(socket, acts));
    }

    pub(crate) fn close(&mut self) {
        let now = self.now;
        self.request(|polling, _, acts| polling.close(now, acts));
    }

    /// Time passes, in the steps the deadlines ask for.
    pub(crate) fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.over.is_none() {
            let late = self.polling.as_ref().and_then(Polling::deadline);
            let due = late.map_or(self.heart.deadline(), |late| late.min(self.heart.deadline()));
            if due > end {
                break;
            }
            self.now = due;
            match self.heart.pulse(due) {
                Pulse::Quiet => {}
                Pulse::Ping => self.send(PING),
                Pulse::Dead => self.abort(End::Broken),
            }
            self.request(|polling, _, acts| polling.wake(due, acts));
        }
        self.now = end;
    }

    /// What a WebSocket heard since the last call.
    pub(crate) fn heard(&mut self, socket: Ticket) -> Vec<Frame> {
        self.sockets
            .get_mut(&socket)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    pub(crate) fn send(&mut self, frame: Frame) {
        if self.polling.is_some() {
            self.request(|polling, _, acts| polling.send(frame, acts));
        } else {
            self.sockets.entry(0).or_default().push(frame);
        }
    }

    fn request(
        &mut self,
        what: impl FnOnce(&mut Polling, Ticket, &mut Vec<Act>),
    ) -> (Ticket, Option<Response>) {
        self.tickets += 1;
        let ticket = self.tickets;
        let mut acts = Vec::new();
        if let Some(polling) = &mut self.polling {
            what(polling, ticket, &mut acts);
        }
        for act in acts {
            assert!(
                self.over.is_none() || matches!(act, Act::Answer(..)),
                "after the end: {act:?}"
            );
            match act {
                Act::Answer(ticket, response) => {
                    assert!(self.answers.insert(ticket, response).is_none(), "answered twice");
                }
                Act::Deliver(frame) => self.deliver(frame),
                Act::Write(socket, frame) => self.sockets.entry(socket).or_default().push(frame),
                Act::Shut(socket) => self.shut.push(socket),
                Act::End(end) => self.over = Some(end),
            }
        }
        let answer = self.answers.remove(&ticket);
        (ticket, answer)
    }

    fn deliver(&mut self, frame: Frame) {
        self.heart.heard(self.now);
        match Packet::read(frame) {
            Ok(Packet::Close) => self.abort(End::Left),
            Ok(Packet::Ping(_)) | Err(BadPacket) => self.abort(End::Broken),
            Ok(packet) => match self.app.hear(packet) {
                Ok(frames) => frames.into_iter().for_each(|frame| self.send(frame)),
                Err(()) => self.abort(End::Broken),
            },
        }
    }

    fn abort(&mut self, end: End) {
        self.request(|polling, _, acts| polling.abort(acts));
        self.over.get_or_insert(end);
    }
}

pub(crate) fn body(response: &Response) -> String {
    String::from_utf8(response.body().to_vec()).unwrap()
}

pub(crate) fn shown(frame: &Frame) -> String {
    match frame {
        Frame::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
        Frame::Binary(bytes) => format!("{bytes:?}"),
    }
}
