//! Where a JSON document ends in a stream that has no other framing.
//!
//! The scanner knows the grammar (RFC 8259) token by token, so what can never become JSON is refused at
//! its first wrong byte and not when a buffer is full. It keeps a few words of state between two pieces
//! and looks at every byte once: a document costs one pass however finely it is cut. Bytes inside strings
//! stay bytes; UTF-8 is the business of whoever reads the whole document.
//!
//! A document is an object or an array. A bare scalar is refused: nothing marks where a number ends.

mod documents;
mod members;
mod text;

pub use documents::Documents;
pub use members::{Member, Members};

/// Deepest nesting of a document. Parsers behind us recurse; serde_json stops at the same depth.
pub const MAX_DEPTH: u8 = 127;

/// Why a stream cannot go on: the next document's start is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No continuation makes this JSON.
    NotJson,
    /// A number, text or literal where a document should begin.
    Bare,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// Longer than the limit.
    TooLarge,
}

/// What a piece of the stream held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where in the piece the document begins; 0 when it began in an earlier piece, the piece's length
    /// when there was only white space.
    pub start: usize,
    /// Just behind its last byte; `None` while it goes on.
    pub end: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between documents.
    Idle,
    /// After a colon, or a comma in an array.
    Value,
    /// After `[`.
    ValueOrEnd,
    /// After a comma in an object.
    Key,
    /// After `{`.
    KeyOrEnd,
    Colon,
    /// After a value inside an object or array.
    Next,
    Text,
    Escape,
    /// Hexadecimal digits still to come.
    Hex(u8),
    /// The rest of `true`, `false` or `null`.
    Literal(&'static [u8]),
    Number(Digits),
}

/// Where in a number we are, named by what was last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    Minus,
    /// A leading zero, which no digit may follow.
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

/// Finds the ends of documents in pieces of a stream.
#[derive(Clone, Debug)]
pub struct Scanner {
    max: usize,
    size: usize,
    /// One bit a level, the innermost lowest: 1 = object.
    objects: u128,
    depth: u8,
    state: State,
    /// Whether the text being read is a member's name.
    key: bool,
}

impl Scanner {
    /// A scanner that refuses documents of more than `max` bytes.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self {
            max,
            size: 0,
            objects: 0,
            depth: 0,
            state: State::Idle,
            key: false,
        }
    }

    /// Whether a document has begun and not ended.
    #[must_use]
    pub const fn partial(&self) -> bool {
        self.depth > 0
    }

    /// Bytes of the current document seen so far.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Looks at the next piece up to the end of the document in it. The caller passes what lies behind
    /// that end as the next piece.
    ///
    /// # Errors
    /// [`Refused`]; the stream is of no use after it.
    pub fn advance(&mut self, piece: &[u8]) -> Result<Found, Refused> {
        let start = if self.partial() {
            0
        } else {
            let Some(start) = piece.iter().position(|byte| !is_space(*byte)) else {
                return Ok(Found {
                    start: piece.len(),
                    end: None,
                });
            };
            self.size = 0;
            start
        };
        // One byte more than allowed is looked at, so that a document of exactly `max` bytes passes.
        let room = self.max.saturating_sub(self.size).saturating_add(1);
        let seen = &piece[start..piece.len().min(start.saturating_add(room))];
        let mut at = 0;
        while let Some(&byte) = seen.get(at) {
            if self.state == State::Text {
                at += text::plain(&seen[at..]);
                let Some(&special) = seen.get(at) else {
                    break;
                };
                self.text(special)?;
                at += 1;
                continue;
            }
            self.step(byte)?;
            at += 1;
            if self.depth == 0 {
                self.size += at;
                if self.size > self.max {
                    return Err(Refused::TooLarge);
                }
                return Ok(Found {
                    start,
                    end: Some(start + at),
                });
            }
        }
        self.size += seen.len();
        if self.size > self.max {
            return Err(Refused::TooLarge);
        }
        Ok(Found { start, end: None })
    }

    /// Inside a text, at a byte that is not plain.
    fn text(&mut self, byte: u8) -> Result<(), Refused> {
        self.state = match byte {
            b'"' if self.key => State::Colon,
            b'"' => State::Next,
            b'\\' => State::Escape,
            _ => return Err(Refused::NotJson),
        };
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<(), Refused> {
        match self.state {
            State::Idle => match byte {
                b'{' | b'[' => return self.value(byte),
                b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => return Err(Refused::Bare),
                _ => return Err(Refused::NotJson),
            },
            State::Text => return self.text(byte),
            State::Escape => {
                self.state = match byte {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text,
                    b'u' => State::Hex(4),
                    _ => return Err(Refused::NotJson),
                }
            }
            State::Hex(left) => {
                if !byte.is_ascii_hexdigit() {
                    return Err(Refused::NotJson);
                }
                self.state = if left == 1 {
                    State::Text
                } else {
                    State::Hex(left - 1)
                };
            }
            State::Literal(rest) => match rest {
                [next] if *next == byte => self.state = State::Next,
                [next, rest @ ..] if *next == byte => self.state = State::Literal(rest),
                _ => return Err(Refused::NotJson),
            },
            State::Number(digits) => return self.number(digits, byte),
            _ if is_space(byte) => {}
            State::Value => return self.value(byte),
            State::ValueOrEnd if byte == b']' => self.leave(),
            State::ValueOrEnd => return self.value(byte),
            State::Key | State::KeyOrEnd if byte == b'"' => {
                self.key = true;
                self.state = State::Text;
            }
            State::KeyOrEnd if byte == b'}' => self.leave(),
            State::Colon if byte == b':' => self.state = State::Value,
            State::Next => return self.next(byte),
            State::Key | State::KeyOrEnd | State::Colon => return Err(Refused::NotJson),
        }
        Ok(())
    }

    /// The first byte of a value.
    fn value(&mut self, byte: u8) -> Result<(), Refused> {
        self.state = match byte {
            b'{' => return self.enter(true),
            b'[' => return self.enter(false),
            b'"' => {
                self.key = false;
                State::Text
            }
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
            b'-' => State::Number(Digits::Minus),
            b'0' => State::Number(Digits::Zero),
            b'1'..=b'9' => State::Number(Digits::Whole),
            _ => return Err(Refused::NotJson),
        };
        Ok(())
    }

    /// The byte behind a value.
    fn next(&mut self, byte: u8) -> Result<(), Refused> {
        let object = self.objects & 1 == 1;
        match byte {
            b',' => self.state = if object { State::Key } else { State::Value },
            b'}' if object => self.leave(),
            b']' if !object => self.leave(),
            _ => return Err(Refused::NotJson),
        }
        Ok(())
    }

    /// The next byte of a number, or the first behind it.
    fn number(&mut self, digits: Digits, byte: u8) -> Result<(), Refused> {
        use Digits::{Exponent, Fraction, Minus, Point, Power, Sign, Whole, Zero};
        let next = match (digits, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Whole, b'0'..=b'9') => Whole,
            (Zero | Whole, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Whole | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => Sign,
            (Exponent | Sign | Power, b'0'..=b'9') => Power,
            (Zero | Whole | Fraction | Power, _) => {
                self.state = State::Next;
                return if is_space(byte) { Ok(()) } else { self.next(byte) };
            }
            _ => return Err(Refused::NotJson),
        };
        self.state = State::Number(next);
        Ok(())
    }

    fn enter(&mut self, object: bool) -> Result<(), Refused> {
        if self.depth == MAX_DEPTH {
            return Err(Refused::TooDeep);
        }
        self.depth += 1;
        self.objects = (self.objects << 1) | u128::from(object);
        self.state = if object {
            State::KeyOrEnd
        } else {
            State::ValueOrEnd
        };
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
        self.state = if self.depth == 0 { State::Idle } else { State::Next };
    }
}

/// JSON's own white space, which is less than Unicode's.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
