//! The receiving half of a WebSocket server (RFC 6455 without extensions): bytes in, messages out.
//!
//! The decoder does no I/O and, while nothing is partly received, owns no heap memory: the caller reads
//! into a scratch buffer shared by many connections, the payload is unmasked there and copied once.
//! It decides early: what the first bytes of a frame already make wrong is refused before the rest is
//! taken, and text is checked as it arrives.

use bytes::Bytes;

use crate::wire::frame::{MAX_CONTROL, Opcode, close_code_valid, mask};
use crate::wire::utf8::Utf8;

/// Frames one message may consist of. Empty fragments cost a sender little and never reach the size
/// limit, so their number needs one of its own; 64-byte fragments of an 8 MiB message still pass.
pub const MAX_FRAMES: u32 = 131_072;

/// What is set aside for a message when its head has come. More is added as bytes arrive, so that a
/// declared length alone never costs its memory.
const FIRST_RESERVE: usize = 256 * 1024;

/// What a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A whole text message, valid UTF-8.
    Text(Bytes),
    /// A whole binary message.
    Binary(Bytes),
    /// To be answered by a pong of the same payload.
    Ping(Bytes),
    /// An answer to a ping, or a one-way heartbeat.
    Pong(Bytes),
    /// The client ends; whatever follows is ignored.
    Close {
        /// `None` when the frame was empty.
        code: Option<u16>,
        /// May be empty.
        reason: String,
    },
}

/// Why a client's bytes are no WebSocket. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The close code to answer: 1002 protocol, 1007 not UTF-8, 1009 too large.
    pub code: u16,
    /// The reason to answer.
    pub reason: &'static str,
}

const fn protocol(reason: &'static str) -> Broken {
    Broken { code: 1002, reason }
}

const NOT_UTF8: Broken = Broken {
    code: 1007,
    reason: "text is not UTF-8",
};
const TOO_LARGE: Broken = Broken {
    code: 1009,
    reason: "message too large",
};

/// A control frame that came in pieces.
struct Control {
    bytes: [u8; MAX_CONTROL],
    len: u8,
}

/// A frame whose head has been read.
struct Head {
    opcode: Opcode,
    fin: bool,
    mask: [u8; 4],
    len: u64,
    size: usize,
}

/// One connection's receiving state.
pub struct Decoder {
    max: usize,
    /// Payload bytes of the current frame still to come.
    remaining: u64,
    /// The message so far.
    message: Vec<u8>,
    control: Option<Box<Control>>,
    /// Frames of the current message so far; 0 = no message is open.
    frames: u32,
    /// Rotated to the next byte of the current frame.
    mask: [u8; 4],
    utf8: Utf8,
    head: [u8; 14],
    head_len: u8,
    /// Of the current frame.
    opcode: Opcode,
    fin: bool,
    in_frame: bool,
    /// Whether the open message is text.
    text: bool,
    /// A close was received or the stream is broken: the rest is ignored.
    over: bool,
}

impl Decoder {
    /// The largest message it takes, in bytes.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.max
    }

    /// A decoder that refuses messages of more than `max_message` bytes.
    #[must_use]
    pub const fn new(max_message: usize) -> Self {
        Self {
            max: max_message,
            remaining: 0,
            message: Vec::new(),
            control: None,
            frames: 0,
            mask: [0; 4],
            utf8: Utf8::new(),
            head: [0; 14],
            head_len: 0,
            opcode: Opcode::Continuation,
            fin: false,
            in_frame: false,
            text: false,
            over: false,
        }
    }

    /// Takes the next bytes, any cut of the stream; unmasks them in place and appends what is whole.
    ///
    /// # Errors
    /// [`Broken`]; what was whole before it is in `out`. Later bytes are ignored.
    pub fn feed(&mut self, mut input: &mut [u8], out: &mut Vec<Incoming>) -> Result<(), Broken> {
        while !self.over && !input.is_empty() {
            let fed = if self.in_frame {
                self.payload(input, out)
            } else {
                self.begin(input, out)
            };
            match fed {
                Ok(used) => input = &mut input[used..],
                Err(broken) => {
                    self.end();
                    return Err(broken);
                }
            }
        }
        Ok(())
    }

    /// Whether a frame or a message is partly received. No ping is due then: the client is speaking.
    #[must_use]
    pub const fn partial(&self) -> bool {
        self.head_len > 0 || self.in_frame || self.frames > 0
    }

    /// Bytes the current message has collected plus those its current frame has declared.
    #[must_use]
    pub fn receiving(&self) -> u64 {
        let declared = if self.in_frame && !self.opcode.is_control() {
            self.remaining
        } else {
            0
        };
        self.message.len() as u64 + declared
    }

    fn end(&mut self) {
        self.over = true;
        self.in_frame = false;
        self.head_len = 0;
        self.frames = 0;
        self.message = Vec::new();
        self.control = None;
    }

    /// At a frame's start: reads its head, and an empty payload with it. Returns the bytes used.
    fn begin(&mut self, input: &mut [u8], out: &mut Vec<Incoming>) -> Result<usize, Broken> {
        let (head, used) = if self.head_len == 0 {
            let Some(head) = self.head(input)? else {
                self.head[..input.len()].copy_from_slice(input);
                self.head_len = input.len() as u8;
                return Ok(input.len());
            };
            let used = head.size;
            (head, used)
        } else {
            let at = usize::from(self.head_len);
            self.head[at] = input[0];
            self.head_len += 1;
            let Some(head) = self.head(&self.head[..=at])? else {
                return Ok(1);
            };
            (head, 1)
        };
        self.head_len = 0;
        self.opcode = head.opcode;
        self.fin = head.fin;
        self.mask = head.mask;
        self.remaining = head.len;
        self.in_frame = true;
        if !head.opcode.is_control() {
            self.frames += 1;
            if self.frames > MAX_FRAMES {
                return Err(protocol("too many fragments"));
            }
            if head.opcode != Opcode::Continuation {
                self.text = head.opcode == Opcode::Text;
                self.utf8 = Utf8::new();
            }
        }
        // The payload may already be here, or be none at all.
        Ok(used + self.payload(&mut input[used..], out)?)
    }

    /// Reads a head; `None` while it is incomplete. Each byte is judged as soon as it is there.
    fn head(&self, bytes: &[u8]) -> Result<Option<Head>, Broken> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(protocol("reserved bit set"));
        }
        let Some(opcode) = Opcode::from_bits(first & 0x0f) else {
            return Err(protocol("reserved opcode"));
        };
        let fin = first & 0x80 != 0;
        match opcode {
            _ if opcode.is_control() && !fin => {
                return Err(protocol("fragmented control frame"));
            }
            Opcode::Continuation if self.frames == 0 => {
                return Err(protocol("continuation without a message"));
            }
            Opcode::Text | Opcode::Binary if self.frames > 0 => {
                return Err(protocol("new message inside a fragmented one"));
            }
            _ => {}
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        if second & 0x80 == 0 {
            return Err(protocol("frame is not masked"));
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL {
            return Err(protocol("control frame too long"));
        }
        let (len, at) = match short {
            126 => match bytes.get(2..4).and_then(|len| <[u8; 2]>::try_from(len).ok()) {
                Some(len) => (u64::from(u16::from_be_bytes(len)), 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|len| <[u8; 8]>::try_from(len).ok()) {
                Some(len) => (u64::from_be_bytes(len), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        if len > i64::MAX as u64 {
            return Err(protocol("length with its top bit set"));
        }
        // `message` never exceeds `max`, and the sum is done in 64 bits without a carry.
        if !opcode.is_control() && self.message.len() as u64 + len > self.max as u64 {
            return Err(TOO_LARGE);
        }
        let Some(mask) = bytes
            .get(at..at + 4)
            .and_then(|mask| <[u8; 4]>::try_from(mask).ok())
        else {
            return Ok(None);
        };
        let size = at + 4;
        Ok(Some(Head {
            opcode,
            fin,
            mask,
            len,
            size,
        }))
    }

    /// Inside a frame: takes what is here of its payload. Returns the bytes used.
    fn payload(&mut self, input: &mut [u8], out: &mut Vec<Incoming>) -> Result<usize, Broken> {
        let used = usize::try_from(self.remaining).map_or(input.len(), |left| left.min(input.len()));
        let piece = &mut input[..used];
        mask(piece, self.mask);
        self.mask.rotate_left(used % 4);
        self.remaining -= used as u64;
        let complete = self.remaining == 0;
        self.in_frame = !complete;
        if self.opcode.is_control() {
            self.control(piece, complete, out)?;
            return Ok(used);
        }
        if self.text && self.utf8.push(piece).is_err() {
            return Err(NOT_UTF8);
        }
        let last = complete && self.fin;
        if last && self.text && !self.utf8.whole() {
            return Err(NOT_UTF8);
        }
        let payload = if last && self.message.is_empty() {
            Bytes::copy_from_slice(piece)
        } else {
            self.keep(used);
            self.message.extend_from_slice(piece);
            if !last {
                return Ok(used);
            }
            Bytes::from(std::mem::take(&mut self.message))
        };
        self.frames = 0;
        out.push(if self.text {
            Incoming::Text(payload)
        } else {
            Incoming::Binary(payload)
        });
        Ok(used)
    }

    /// Makes room for `used` bytes and some of what the frame has declared beyond them.
    fn keep(&mut self, used: usize) {
        if self.message.capacity() - self.message.len() >= used {
            return;
        }
        let declared = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let ahead = declared.min(FIRST_RESERVE.max(self.message.len()));
        let wanted = used.saturating_add(ahead);
        if self.fin {
            // The last frame tells the message's size: no spare room is left behind.
            self.message.reserve_exact(wanted);
        } else {
            self.message.reserve(wanted);
        }
    }

    /// Takes a piece of a control frame and tells of it when it is complete.
    fn control(&mut self, piece: &[u8], complete: bool, out: &mut Vec<Incoming>) -> Result<(), Broken> {
        let begun = self.control.take();
        if begun.is_none() && complete {
            return self.controlled(piece, out);
        }
        let mut control = begun.unwrap_or_else(|| {
            Box::new(Control {
                bytes: [0; MAX_CONTROL],
                len: 0,
            })
        });
        let at = usize::from(control.len);
        control.bytes[at..at + piece.len()].copy_from_slice(piece);
        control.len += piece.len() as u8;
        if complete {
            return self.controlled(&control.bytes[..usize::from(control.len)], out);
        }
        self.control = Some(control);
        Ok(())
    }

    fn controlled(&mut self, payload: &[u8], out: &mut Vec<Incoming>) -> Result<(), Broken> {
        out.push(match self.opcode {
            Opcode::Ping => Incoming::Ping(Bytes::copy_from_slice(payload)),
            Opcode::Close => {
                let close = closing(payload)?;
                self.end();
                close
            }
            _ => Incoming::Pong(Bytes::copy_from_slice(payload)),
        });
        Ok(())
    }
}

/// Reads the payload of a close frame.
fn closing(payload: &[u8]) -> Result<Incoming, Broken> {
    let Some((&code, reason)) = payload.split_first_chunk::<2>() else {
        if payload.is_empty() {
            return Ok(Incoming::Close {
                code: None,
                reason: String::new(),
            });
        }
        return Err(protocol("close frame of one byte"));
    };
    let code = u16::from_be_bytes(code);
    if !close_code_valid(code) {
        return Err(protocol("close code not allowed"));
    }
    let Ok(reason) = std::str::from_utf8(reason) else {
        return Err(NOT_UTF8);
    };
    Ok(Incoming::Close {
        code: Some(code),
        reason: reason.to_owned(),
    })
}
