//! Engine.IO protocol 4: packets, long-polling payloads, the handshake and its refusals. No I/O, no clock.
//!
//! A connection is a stream of frames, text or binary, each one packet. Over WebSocket a frame is a
//! WebSocket message. Over long polling the same frames travel inside HTTP bodies, joined by `0x1E`,
//! binary ones as `b` + base64. What speaks *through* the packets (heartbeat, Socket.IO) therefore
//! never learns which transport carries it:
//!
//! ```text
//! WebSocket edge  -- frames ------------------------------>  session (heartbeat, Socket.IO)
//! polling edge    -- GET, POST, probe -->  Polling -- frames -->  the same session
//! ```
//!
//! A polling edge is driven like this. For each request it calls [`Request::parse`] and
//! [`Request::admit`]; a request without `sid` opens a session (the same one a WebSocket would get,
//! which sends its own open packet as its first frame) and a [`polling::Polling`] beside it. From then
//! on every GET, POST and WebSocket with that `sid` goes into the `Polling` under a ticket the edge
//! chooses; the frames the session sends go into [`polling::Polling::send`]; the edge performs the
//! [`polling::Act`]s that come back and sleeps until [`polling::Polling::deadline`]. The session's own
//! deadline (pings, missing pongs) is slept on as for any other connection.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

pub use super::frame::Frame;

pub mod heartbeat;
pub mod polling;

/// Joins packets in a long-polling body.
pub const SEPARATOR: u8 = 0x1e;

/// A packet understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `0`: the handshake, server to client only.
    Open(Bytes),
    /// `1`: the session is over.
    Close,
    /// `2`: are you there; with `probe` during an upgrade.
    Ping(Bytes),
    /// `3`: I am.
    Pong(Bytes),
    /// `4`: a text message.
    Message(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// `5`: the upgrade is complete.
    Upgrade,
    /// `6`: nothing; ends a pending poll.
    Noop,
}

/// A frame that is no packet. The session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPacket;

impl Packet {
    /// Reads a frame without copying its body; only binary written as text, which clients do that were told
    /// `forceBase64`, is copied.
    ///
    /// # Errors
    /// [`BadPacket`] when the first character is no packet type.
    pub fn read(frame: Frame) -> Result<Self, BadPacket> {
        let text = match frame {
            Frame::Binary(bytes) => return Ok(Self::Binary(bytes)),
            Frame::Text(text) => text,
        };
        let Some(kind) = text.first() else {
            return Err(BadPacket);
        };
        Ok(match kind {
            b'0' => Self::Open(text.slice(1..)),
            b'1' => Self::Close,
            b'2' => Self::Ping(text.slice(1..)),
            b'3' => Self::Pong(text.slice(1..)),
            b'4' => Self::Message(text.slice(1..)),
            b'5' => Self::Upgrade,
            b'6' => Self::Noop,
            b'b' => match STANDARD.decode(&text[1..]) {
                Ok(bytes) => Self::Binary(bytes.into()),
                Err(_) => return Err(BadPacket),
            },
            _ => return Err(BadPacket),
        })
    }
}

/// The frame that closes a session.
pub const CLOSE: Frame = Frame::Text(Bytes::from_static(b"1"));
/// The frame that asks for a sign of life.
pub const PING: Frame = Frame::Text(Bytes::from_static(b"2"));
/// The frame that answers an upgrade probe.
pub const PROBED: Frame = Frame::Text(Bytes::from_static(b"3probe"));
/// The frame that says nothing.
pub const NOOP: Frame = Frame::Text(Bytes::from_static(b"6"));

/// What the server announces when a session opens.
#[derive(Clone, Debug)]
pub struct Handshake<'a> {
    /// The session's id; whoever knows it may poll.
    pub sid: &'a str,
    /// What carries the session now.
    pub transport: Transport,
    /// Intervals of the heartbeat.
    pub beat: heartbeat::Beat,
    /// Largest body and message the server takes, in bytes.
    pub max_payload: usize,
}

impl Handshake<'_> {
    /// The open packet, keys in the order the reference server writes them.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let upgrades = match self.transport {
            Transport::Polling => "[\"websocket\"]",
            Transport::WebSocket => "[]",
        };
        let sid = serde_json::Value::from(self.sid);
        Frame::Text(Bytes::from(format!(
            "0{{\"sid\":{sid},\"upgrades\":{upgrades},\"pingInterval\":{},\"pingTimeout\":{},\"maxPayload\":{}}}",
            self.beat.interval.as_millis(),
            self.beat.timeout.as_millis(),
            self.max_payload,
        )))
    }
}

/// Writes frames into one long-polling body.
#[must_use]
pub fn write_payload<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Bytes {
    let mut body = Vec::new();
    for (at, frame) in frames.into_iter().enumerate() {
        if at > 0 {
            body.push(SEPARATOR);
        }
        match frame {
            Frame::Text(text) => body.extend_from_slice(text),
            Frame::Binary(bytes) => {
                body.push(b'b');
                body.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            }
        }
    }
    body.into()
}

/// Reads the frames of a long-polling body one at a time, so that a body of a million separators costs nothing.
#[derive(Clone, Debug)]
pub struct Payload {
    rest: Option<Bytes>,
}

impl Payload {
    /// The frames of a POST body.
    ///
    /// # Errors
    /// [`BadPacket`] when the body is not UTF-8.
    pub fn read(body: Bytes) -> Result<Self, BadPacket> {
        match std::str::from_utf8(&body) {
            Ok(_) => Ok(Self { rest: Some(body) }),
            Err(_) => Err(BadPacket),
        }
    }
}

impl Iterator for Payload {
    type Item = Result<Frame, BadPacket>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut part = self.rest.take()?;
        if let Some(end) = part.iter().position(|&byte| byte == SEPARATOR) {
            self.rest = Some(part.slice(end + 1..));
            part.truncate(end);
        }
        Some(match part.first() {
            None => Err(BadPacket),
            Some(b'b') => match STANDARD.decode(&part[1..]) {
                Ok(bytes) => Ok(Frame::Binary(bytes.into())),
                Err(_) => Err(BadPacket),
            },
            Some(_) => Ok(Frame::Text(part)),
        })
    }
}

/// What carries an Engine.IO session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP long polling.
    Polling,
    /// WebSocket.
    WebSocket,
}

/// What the address of an Engine.IO request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// `EIO=4`.
    pub version: bool,
    /// `transport=`; `None` when missing or unknown.
    pub transport: Option<Transport>,
    /// `sid=`: a session that exists already.
    pub sid: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Reads a request target or its query alone. The first of several equal keys counts.
    #[must_use]
    pub fn parse(target: &'a str) -> Self {
        let query = target.split_once('?').map_or(target, |(_, query)| query);
        let value = |key: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find_map(|(name, value)| (name == key).then_some(value))
        };
        Self {
            version: value("EIO") == Some("4"),
            transport: match value("transport") {
                Some("polling") => Some(Transport::Polling),
                Some("websocket") => Some(Transport::WebSocket),
                _ => None,
            },
            sid: value("sid").filter(|sid| !sid.is_empty()),
        }
    }

    /// Checks a request in the reference server's order. `get`: its method is GET; `upgrade`: it asks to become a
    /// WebSocket; `known`: whether the session it names lives.
    ///
    /// # Errors
    /// A [`Refusal`] to answer with.
    pub fn admit(&self, get: bool, upgrade: bool, known: bool) -> Result<Transport, Refusal> {
        let Some(transport) = self.transport else {
            return Err(Refusal::TransportUnknown);
        };
        let fits = upgrade == (transport == Transport::WebSocket);
        if self.sid.is_some() {
            return match (known, fits) {
                (false, _) => Err(Refusal::SessionUnknown),
                (true, false) => Err(Refusal::BadRequest),
                (true, true) => Ok(transport),
            };
        }
        if !get {
            return Err(Refusal::BadMethod);
        }
        if !fits {
            return Err(Refusal::BadRequest);
        }
        if !self.version {
            return Err(Refusal::Version);
        }
        Ok(transport)
    }
}

/// Why a request is answered with 400, in the reference server's numbers and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Code 0.
    TransportUnknown,
    /// Code 1.
    SessionUnknown,
    /// Code 2.
    BadMethod,
    /// Code 3.
    BadRequest,
    /// Code 5.
    Version,
}

impl Refusal {
    /// What is wrong, in words.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::TransportUnknown => "Transport unknown",
            Self::SessionUnknown => "Session ID unknown",
            Self::BadMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::Version => "Unsupported protocol version",
        }
    }

    /// The JSON body of the 400.
    #[must_use]
    pub const fn body(self) -> &'static str {
        match self {
            Self::TransportUnknown => r#"{"code":0,"message":"Transport unknown"}"#,
            Self::SessionUnknown => r#"{"code":1,"message":"Session ID unknown"}"#,
            Self::BadMethod => r#"{"code":2,"message":"Bad handshake method"}"#,
            Self::BadRequest => r#"{"code":3,"message":"Bad request"}"#,
            Self::Version => r#"{"code":5,"message":"Unsupported protocol version"}"#,
        }
    }
}
