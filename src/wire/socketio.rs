//! Socket.IO protocol 5: packets to text and back, without copying what is inside.
//!
//! Strict where the reference server is strict: what it closes the connection for is a [`Breach`] here.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub mod attachment;
pub mod conversation;

/// Attachments one packet may announce.
pub const MAX_ATTACHMENTS: usize = 64;
/// Bytes of a namespace a client may name.
pub const MAX_NAMESPACE: usize = 256;
/// Largest id a client counts to exactly: 2^53 - 1.
pub const MAX_ID: u64 = (1 << 53) - 1;
/// The namespace every server has.
pub const ROOT: &str = "/";

/// Names a client may not use for its events.
const RESERVED: [&str; 6] = [
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `0`: join a namespace.
    Connect,
    /// `1`: leave it.
    Disconnect,
    /// `2`, and `5` when attachments are announced.
    Event,
    /// `3`, and `6` when attachments are announced.
    Ack,
    /// `4`: the answer to a refused `0`.
    ConnectError,
}

/// Why the connection must end, each a short fixed name for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Breach {
    /// The first character is no packet type.
    UnknownPacket,
    /// The announced number of attachments is missing, no number, or above [`MAX_ATTACHMENTS`].
    Attachments,
    /// The namespace is longer than [`MAX_NAMESPACE`].
    Namespace,
    /// The id is no number up to [`MAX_ID`].
    Id,
    /// The payload is no JSON.
    Json,
    /// The payload is JSON of the wrong kind for its packet.
    Payload,
    /// The event name is no text, or a reserved one.
    EventName,
    /// Placeholders and attachments do not match one to one.
    Placeholder,
    /// Text where an attachment is due.
    TextForBinary,
    /// An attachment nobody announced.
    StrayBinary,
    /// A packet for a namespace the client has not joined.
    NotConnected,
    /// A second join.
    Twice,
    /// Too many joins of unknown namespaces.
    Flood,
    /// A packet and its attachments are above the message limit together.
    TooLarge,
    /// No namespace joined in time.
    NoConnect,
}

impl Breach {
    /// The name counters and logs use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownPacket => "unknown_packet",
            Self::Attachments => "bad_attachments",
            Self::Namespace => "bad_namespace",
            Self::Id => "bad_id",
            Self::Json => "bad_json",
            Self::Payload => "bad_payload",
            Self::EventName => "bad_event_name",
            Self::Placeholder => "bad_placeholder",
            Self::TextForBinary => "text_for_binary",
            Self::StrayBinary => "stray_binary",
            Self::NotConnected => "not_connected",
            Self::Twice => "connected_twice",
            Self::Flood => "namespace_flood",
            Self::TooLarge => "too_large",
            Self::NoConnect => "no_connect",
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Breach {}

/// A packet, its parts slices of what arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it is.
    pub kind: Kind,
    /// Attachments that follow as binary frames; `None` for packets of the text kinds.
    pub attachments: Option<usize>,
    /// Where it goes; [`ROOT`] when none is named. UTF-8.
    pub namespace: Bytes,
    /// Asks for an ack, or is one.
    pub id: Option<u64>,
    /// JSON text, not looked into yet; empty when there is none.
    pub data: Bytes,
}

impl Packet {
    /// A packet that carries `data`, with no attachments, and asks for no ack.
    #[must_use]
    pub fn new(kind: Kind, namespace: impl Into<Bytes>, data: impl Into<Bytes>) -> Self {
        Self {
            kind,
            attachments: None,
            namespace: namespace.into(),
            id: None,
            data: data.into(),
        }
    }

    /// Reads the text of an Engine.IO message.
    ///
    /// # Errors
    /// A [`Breach`] after which the connection must end.
    pub fn read(text: Bytes) -> Result<Self, Breach> {
        let (kind, binary) = match text.first() {
            Some(b'0') => (Kind::Connect, false),
            Some(b'1') => (Kind::Disconnect, false),
            Some(b'2') => (Kind::Event, false),
            Some(b'3') => (Kind::Ack, false),
            Some(b'4') => (Kind::ConnectError, false),
            Some(b'5') => (Kind::Event, true),
            Some(b'6') => (Kind::Ack, true),
            _ => return Err(Breach::UnknownPacket),
        };
        let mut at = 1;
        let attachments = if binary {
            let (count, end) = digits(&text, at).ok_or(Breach::Attachments)?;
            let count = count.map_or(Some(0), |count| usize::try_from(count).ok());
            at = end + 1;
            match (count, text.get(end)) {
                (Some(count), Some(b'-')) if count <= MAX_ATTACHMENTS => Some(count),
                _ => return Err(Breach::Attachments),
            }
        } else {
            None
        };
        let namespace = if text.get(at) == Some(&b'/') {
            let end = text[at..].iter().position(|&byte| byte == b',');
            let end = end.map_or(text.len(), |length| at + length);
            let name = text.slice(at..end);
            at = text.len().min(end + 1);
            if name.len() > MAX_NAMESPACE {
                return Err(Breach::Namespace);
            }
            name
        } else {
            Bytes::from_static(ROOT.as_bytes())
        };
        let (id, end) = digits(&text, at).ok_or(Breach::Id)?;
        if id.is_some_and(|id| id > MAX_ID) {
            return Err(Breach::Id);
        }
        Ok(Self {
            kind,
            attachments,
            namespace,
            id,
            data: text.slice(end..),
        })
    }

    /// Writes the packet as a whole Engine.IO text frame (`4` first).
    #[must_use]
    pub fn write(&self) -> Bytes {
        let digit = match (self.kind, self.attachments) {
            (Kind::Connect, _) => b'0',
            (Kind::Disconnect, _) => b'1',
            (Kind::Event, None) => b'2',
            (Kind::Ack, None) => b'3',
            (Kind::ConnectError, _) => b'4',
            (Kind::Event, Some(_)) => b'5',
            (Kind::Ack, Some(_)) => b'6',
        };
        let mut text = Vec::with_capacity(self.namespace.len() + self.data.len() + 32);
        text.extend_from_slice(&[b'4', digit]);
        if let Some(count) = self.attachments {
            text.extend_from_slice(count.to_string().as_bytes());
            text.push(b'-');
        }
        if self.namespace != ROOT {
            text.extend_from_slice(&self.namespace);
            text.push(b',');
        }
        if let Some(id) = self.id {
            text.extend_from_slice(id.to_string().as_bytes());
        }
        text.extend_from_slice(&self.data);
        text.into()
    }
}

/// Reads digits from `at`: the number if there are any, and where they end. `None` when it does not fit.
fn digits(text: &[u8], at: usize) -> Option<(Option<u64>, usize)> {
    let mut number = None;
    let mut end = at;
    while let Some(digit) = text.get(end).filter(|byte| byte.is_ascii_digit()) {
        let value = number.unwrap_or(0_u64);
        number = Some(value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?);
        end += 1;
    }
    Some((number, end))
}

/// The array of an event or ack: JSON that is known to be good, elements as they arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// How many elements follow the name (events) or are there (acks).
    pub count: usize,
    /// The first of them.
    pub first: Option<Bytes>,
    /// All of them, the array's text without name and brackets.
    pub rest: Bytes,
}

/// Reads `["name", …]`.
///
/// # Errors
/// A [`Breach`] when it is anything else.
pub fn event(data: &Bytes) -> Result<(String, Arguments), Breach> {
    let (head, second, count) = array(data)?;
    let Some(head) = head else {
        return Err(Breach::Payload);
    };
    let name: Cow<'_, str> = match serde_json::from_str(head.get()) {
        Ok(name) => name,
        Err(_) => return Err(Breach::EventName),
    };
    if RESERVED.contains(&name.as_ref()) {
        return Err(Breach::EventName);
    }
    let first = second.map(|raw| data.slice_ref(raw.get().as_bytes()));
    let rest = match &first {
        None => Bytes::new(),
        Some(first) => tail(data, first),
    };
    let arguments = Arguments {
        count: count - 1,
        first,
        rest,
    };
    Ok((name.into_owned(), arguments))
}

/// Reads the array of an ack.
///
/// # Errors
/// A [`Breach`] when it is no array.
pub fn ack(data: &Bytes) -> Result<Arguments, Breach> {
    let (head, _, count) = array(data)?;
    let first = head.map(|raw| data.slice_ref(raw.get().as_bytes()));
    let rest = first.as_ref().map_or_else(Bytes::new, |first| tail(data, first));
    Ok(Arguments { count, first, rest })
}

/// From an element to the closing bracket of the array.
fn tail(data: &Bytes, element: &Bytes) -> Bytes {
    let start = element.as_ptr() as usize - data.as_ptr() as usize;
    let end = data.iter().rposition(|&byte| byte == b']');
    data.slice(start..end.unwrap_or(data.len()))
}

type Elements<'a> = (Option<&'a RawValue>, Option<&'a RawValue>, usize);

/// First and second element and how many there are. Nothing is allocated, whatever a hostile array holds.
fn array(data: &[u8]) -> Result<Elements<'_>, Breach> {
    struct Ends;

    impl<'de> Visitor<'de> for Ends {
        type Value = Elements<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let Some(first) = seq.next_element()? else {
                return Ok((None, None, 0));
            };
            let Some(second) = seq.next_element()? else {
                return Ok((Some(first), None, 1));
            };
            let mut count = 2;
            while seq.next_element::<IgnoredAny>()?.is_some() {
                count += 1;
            }
            Ok((Some(first), Some(second), count))
        }
    }

    let mut reader = serde_json::Deserializer::from_slice(data);
    let read = reader
        .deserialize_seq(Ends)
        .and_then(|elements| reader.end().map(|()| elements));
    read.map_err(|error| {
        if error.is_data() {
            Breach::Payload
        } else {
            Breach::Json
        }
    })
}
