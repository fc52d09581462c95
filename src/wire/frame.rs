//! The WebSocket frame (RFC 6455, section 5.2) as both directions need it: opcodes, masking, heads, and
//! the frames a server sends. A server never masks, so a frame is a head in front of shared bytes. And [`Frame`],
//! what is left of one when its framing is gone.

use bytes::{BufMut, Bytes, BytesMut};

/// One frame between client and session: a WebSocket message, or over TCP any cut of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text message; always valid UTF-8.
    Text(Bytes),
    /// A binary message, or bytes of a TCP stream.
    Binary(Bytes),
}

impl Frame {
    /// A text frame.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Bytes::from(text.into()))
    }

    /// The bytes, whatever the kind.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes,
        }
    }

    /// Bytes without framing.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of a fragmented message.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// The peer ends the connection.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    /// Reads the low four bits of a frame; `None` for the reserved ones.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Whether the frame speaks about the connection and is no part of a message.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// The longest payload of a control frame.
pub const MAX_CONTROL: usize = 125;

/// The longest reason of a close frame: what two bytes of code leave of a control frame.
pub const MAX_REASON: usize = MAX_CONTROL - 2;

/// From this payload size on, a frame goes out as two pieces instead of being copied together.
pub const SHARED: usize = 16 * 1024;

/// The head of an unmasked, unfragmented frame.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; 10],
    len: u8,
}

impl Head {
    /// The bytes that go in front of the payload: 2, 4 or 10.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The head for a payload of `len` bytes.
#[must_use]
pub fn head(opcode: Opcode, len: usize) -> Head {
    let mut bytes = [0; 10];
    bytes[0] = 0x80 | opcode as u8;
    let used = match len {
        0..126 => {
            bytes[1] = len as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    Head { bytes, len: used }
}

/// A frame in one contiguous piece.
#[must_use]
pub fn whole(opcode: Opcode, payload: &[u8]) -> Bytes {
    let head = head(opcode, payload.len());
    let mut frame = BytesMut::with_capacity(head.as_slice().len() + payload.len());
    frame.put_slice(head.as_slice());
    frame.put_slice(payload);
    frame.freeze()
}

/// A text frame in one piece. The caller vouches for the UTF-8.
#[must_use]
pub fn text(payload: &[u8]) -> Bytes {
    whole(Opcode::Text, payload)
}

/// A binary frame in one piece.
#[must_use]
pub fn binary(payload: &[u8]) -> Bytes {
    whole(Opcode::Binary, payload)
}

/// A ping; a payload over 125 bytes is cut, since no peer would accept it.
#[must_use]
pub fn ping(payload: &[u8]) -> Bytes {
    whole(Opcode::Ping, &payload[..payload.len().min(MAX_CONTROL)])
}

/// The pong that answers a ping of this payload.
#[must_use]
pub fn pong(payload: &[u8]) -> Bytes {
    whole(Opcode::Pong, &payload[..payload.len().min(MAX_CONTROL)])
}

/// A close frame. A reason over 123 bytes is cut between two characters.
#[must_use]
pub fn close(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
    let head = head(Opcode::Close, 2 + reason.len());
    let mut frame = BytesMut::with_capacity(4 + reason.len());
    frame.put_slice(head.as_slice());
    frame.put_u16(code);
    frame.put_slice(reason.as_bytes());
    frame.freeze()
}

/// The close frame without a code, the answer to one that had none.
#[must_use]
pub fn close_empty() -> Bytes {
    whole(Opcode::Close, &[])
}

/// A frame ready to be written, to any number of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The whole frame, or the head of a big one.
    pub head: Bytes,
    /// The payload of a big frame, shared with whoever else holds it; else empty.
    pub body: Bytes,
}

impl Packet {
    /// A packet of one chunk.
    #[must_use]
    pub const fn new(whole: Bytes) -> Self {
        Self {
            head: whole,
            body: Bytes::new(),
        }
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Encodes a data frame: below [`SHARED`] bytes one chunk, else a head and the payload uncopied.
#[must_use]
pub fn packet(frame: &Frame) -> Packet {
    let (opcode, payload) = match frame {
        Frame::Text(payload) => (Opcode::Text, payload),
        Frame::Binary(payload) => (Opcode::Binary, payload),
    };
    if payload.len() < SHARED {
        return Packet::new(whole(opcode, payload));
    }
    Packet {
        head: Bytes::copy_from_slice(head(opcode, payload.len()).as_slice()),
        body: payload.clone(),
    }
}

/// The frame a packet of [`packet`] was made of, uncopied; `None` for control frames.
#[must_use]
pub fn unpack(packet: &Packet) -> Option<Frame> {
    let head = &packet.head;
    let kind = Opcode::from_bits(head.first()? & 0x0f)?;
    let skip = match head.get(1)? & 0x7f {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    let payload = match packet.body.is_empty() {
        true if head.len() >= skip => head.slice(skip..),
        true => return None,
        false => packet.body.clone(),
    };
    match kind {
        Opcode::Text => Some(Frame::Text(payload)),
        Opcode::Binary => Some(Frame::Binary(payload)),
        _ => None,
    }
}

/// Masks or unmasks in place, eight bytes at a time.
pub fn mask(data: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = data.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(eight) = <[u8; 8]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ wide).to_ne_bytes());
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Whether a peer may send this close code: the registered ones that may travel, and the ranges for
/// libraries and applications.
#[must_use]
pub const fn close_code_valid(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked() {
        for len in [0, 1, 125, 126, SHARED - 1, SHARED, 70_000] {
            let frame = Frame::Binary(vec![7; len].into());
            assert_eq!(unpack(&packet(&frame)).as_ref(), Some(&frame), "{len}");
        }
        assert_eq!(unpack(&packet(&Frame::text("4x"))), Some(Frame::text("4x")));
        assert_eq!(unpack(&Packet::new(ping(b"x"))), None);
        assert_eq!(unpack(&Packet::new(close(1000, ""))), None);
    }
}
