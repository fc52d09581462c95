//! One client's Socket.IO state: the namespaces it joined and the packet whose attachments are still due.

use std::time::Duration;

use bytes::Bytes;

use super::{Arguments, Breach, Kind, MAX_ATTACHMENTS, Packet, attachment};

/// A client that has joined no namespace by then is closed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);
/// Joins of unknown namespaces that are answered; the next one ends the connection.
pub const MAX_REFUSED: u8 = 16;

/// What a packet means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing to do: an ack nobody waits for, or attachments still to come.
    Nothing,
    /// The client joined; answer with [`joined`].
    Joined {
        /// Index of the namespace.
        namespace: usize,
        /// What it sent along, a JSON object or empty.
        auth: Bytes,
    },
    /// The client asked for a namespace that does not exist; send this frame.
    Refused(Bytes),
    /// The client left this namespace.
    Left(usize),
    /// An event, its attachments complete.
    Event(Event),
}

/// An event of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Index of the namespace.
    pub namespace: usize,
    /// Present when the client waits for an ack.
    pub id: Option<u64>,
    /// Its name.
    pub name: String,
    /// What follows the name.
    pub arguments: Arguments,
    /// Binary parts, which placeholders in the arguments name one to one.
    pub attachments: Vec<Bytes>,
}

struct Partial {
    event: Option<Event>,
    parts: Vec<Bytes>,
    due: usize,
    size: usize,
}

/// One client's state.
pub struct Conversation {
    names: &'static [&'static str],
    joined: u8,
    refused: u8,
    limit: usize,
    partial: Option<Box<Partial>>,
}

impl Conversation {
    /// `names` are the namespaces a client may join, at most 8; `limit` bounds a packet with its attachments, in bytes.
    #[must_use]
    pub const fn new(names: &'static [&'static str], limit: usize) -> Self {
        Self {
            names,
            joined: 0,
            refused: 0,
            limit,
            partial: None,
        }
    }

    /// Whether the client is in a namespace.
    #[must_use]
    pub const fn is_in(&self, namespace: usize) -> bool {
        namespace < 8 && self.joined & (1 << namespace) != 0
    }

    /// The text of an Engine.IO message.
    ///
    /// # Errors
    /// A [`Breach`] after which the connection must end.
    pub fn text(&mut self, text: Bytes) -> Result<Heard, Breach> {
        if self.partial.is_some() {
            return Err(Breach::TextForBinary);
        }
        let size = text.len();
        if size > self.limit {
            return Err(Breach::TooLarge);
        }
        let packet = Packet::read(text)?;
        let namespace = self.names.iter().position(|name| packet.namespace == *name);
        match packet.kind {
            Kind::Connect => self.connect(&packet, namespace),
            _ => match namespace.filter(|&namespace| self.is_in(namespace)) {
                Some(namespace) => self.inside(&packet, namespace, size),
                None => Err(Breach::NotConnected),
            },
        }
    }

    /// A binary Engine.IO message.
    ///
    /// # Errors
    /// A [`Breach`] after which the connection must end.
    pub fn binary(&mut self, bytes: Bytes) -> Result<Heard, Breach> {
        let Some(partial) = &mut self.partial else {
            return Err(Breach::StrayBinary);
        };
        partial.size = partial.size.saturating_add(bytes.len());
        if partial.size > self.limit {
            return Err(Breach::TooLarge);
        }
        partial.parts.push(bytes);
        if partial.parts.len() < partial.due {
            return Ok(Heard::Nothing);
        }
        let whole = self.partial.take().and_then(|partial| {
            let parts = partial.parts;
            partial.event.map(|event| Event {
                attachments: parts,
                ..event
            })
        });
        Ok(whole.map_or(Heard::Nothing, Heard::Event))
    }

    fn connect(&mut self, packet: &Packet, namespace: Option<usize>) -> Result<Heard, Breach> {
        if !packet.data.is_empty() {
            object(&packet.data)?;
        }
        let Some(namespace) = namespace else {
            self.refused += 1;
            if self.refused > MAX_REFUSED {
                return Err(Breach::Flood);
            }
            return Ok(Heard::Refused(refused(packet.namespace.clone())));
        };
        if self.is_in(namespace) {
            return Err(Breach::Twice);
        }
        self.joined |= 1 << namespace;
        Ok(Heard::Joined {
            namespace,
            auth: packet.data.clone(),
        })
    }

    fn inside(&mut self, packet: &Packet, namespace: usize, size: usize) -> Result<Heard, Breach> {
        let event = match packet.kind {
            Kind::Disconnect if packet.data.is_empty() => {
                self.joined &= !(1 << namespace);
                return Ok(Heard::Left(namespace));
            }
            Kind::Disconnect => return Err(Breach::Payload),
            Kind::Connect | Kind::ConnectError => return Ok(Heard::Nothing),
            Kind::Event => {
                let (name, arguments) = super::event(&packet.data)?;
                Some(Event {
                    namespace,
                    id: packet.id,
                    name,
                    arguments,
                    attachments: Vec::new(),
                })
            }
            // the gateway asks no client for an ack: the form is checked, the content is nobody's
            Kind::Ack => {
                super::ack(&packet.data)?;
                None
            }
        };
        match packet.attachments {
            None | Some(0) => Ok(event.map_or(Heard::Nothing, Heard::Event)),
            Some(due) => {
                // a forged placeholder is refused before its attachments cost anything
                attachment::spots(&packet.data, due)?;
                self.partial = Some(Box::new(Partial {
                    event,
                    parts: Vec::with_capacity(due.min(MAX_ATTACHMENTS)),
                    due,
                    size,
                }));
                Ok(Heard::Nothing)
            }
        }
    }
}

/// The frame that welcomes a client to a namespace.
#[must_use]
pub fn joined(namespace: &'static str, sid: &str) -> Bytes {
    let data = format!("{{\"sid\":{}}}", serde_json::Value::from(sid));
    Packet::new(Kind::Connect, namespace, data).write()
}

fn refused(namespace: Bytes) -> Bytes {
    Packet::new(
        Kind::ConnectError,
        namespace,
        "{\"message\":\"Invalid namespace\"}",
    )
    .write()
}

fn object(data: &[u8]) -> Result<(), Breach> {
    let known = serde_json::from_slice::<serde::de::IgnoredAny>(data);
    match (known, data.iter().find(|byte| !byte.is_ascii_whitespace())) {
        (Ok(_), Some(b'{')) => Ok(()),
        (Ok(_), _) => Err(Breach::Payload),
        (Err(_), _) => Err(Breach::Json),
    }
}
