//! The vocabulary of the core: Command, Reply, Event, and what they are made of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

mod fault;

pub use fault::{Code, Fault};

/// Unix time in nanoseconds, as the `Gw-Time` header carries it.
pub type Nanos = u64;

/// A reading of both clocks, taken once by the connection loop and handed to pure code.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Wall clock, for timestamps.
    pub unix: Nanos,
    /// Monotonic time since the process started, for deadlines.
    pub mono: Duration,
}

/// An isolated conversation: its clients see each other's events and nobody else's.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Space(Arc<str>);

impl Space {
    /// The space of clients that name none.
    pub const MAIN: &'static str = "main";

    /// Accepts 1 to 64 characters of `A-Za-z0-9_-`.
    ///
    /// # Errors
    /// [`Code::Invalid`] with a text that names the rule.
    pub fn parse(name: &str) -> Result<Self, Fault> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
            Ok(Self(name.into()))
        } else {
            Err(Fault::new(
                Code::Invalid,
                "a space is named by 1 to 64 of the characters A-Z a-z 0-9 _ -",
            ))
        }
    }

    /// The name, which is also its subject token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Space {
    fn default() -> Self {
        Self(Self::MAIN.into())
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Numbers a command within its connection; replies carry it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Bytes and what they are. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// The payload as it crosses the bus. Empty where nothing was said.
    pub bytes: Bytes,
    /// MIME type; `None` means JSON, which needs no header.
    pub content_type: Option<Arc<str>>,
}

impl Body {
    /// A JSON body.
    #[must_use]
    pub fn json(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            content_type: None,
        }
    }

    /// A body of another type.
    #[must_use]
    pub fn typed(bytes: impl Into<Bytes>, content_type: &str) -> Self {
        Self {
            bytes: bytes.into(),
            content_type: Some(content_type.into()),
        }
    }

    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// One request of a client, or of the gateway for it.
#[derive(Clone, Debug)]
pub struct Command {
    /// Numbered by the session that sends it.
    pub id: CallId,
    /// The service asked, as routing decided.
    pub service: Arc<str>,
    /// What is asked; any text, escaped in the subject.
    pub action: String,
    /// The parameters, whole.
    pub body: Body,
    /// The client's own id, opaque.
    pub correlation: Option<String>,
    /// W3C `traceparent` the client sent, already checked for form.
    pub traceparent: Option<String>,
}

/// One answer to a command: any number of interim ones, then exactly one final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Interim: the worker took the command.
    Ack(Body),
    /// Interim: the worker is at it. An empty body only keeps the deadline away.
    Progress(Body),
    /// Final: the result.
    Done(Body),
    /// Final: it failed.
    Failed(Fault),
}

impl Answer {
    /// Whether no further answer follows.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Failed(_))
    }
}

/// An answer on its way to the session that asked.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The command it answers.
    pub id: CallId,
    /// What is answered.
    pub answer: Answer,
}

/// Which of the two streams a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A fact, kept for replay in order.
    Event,
    /// The last value of a topic.
    State,
}

/// A fact for everybody in the space who speaks its dialect, or the last value of a state topic.
#[derive(Clone, Debug)]
pub struct Event {
    /// Event or state.
    pub class: Class,
    /// What kind of fact; the subject's last tokens, unescaped.
    pub topic: Arc<str>,
    /// When it entered the system.
    pub time: Nanos,
    /// Sequence in its stream; grows, not dense. 0 without history.
    pub seq: u64,
    /// Where a client that has seen this event resumes.
    pub offset: Offset,
    /// The payload. An empty state is a tombstone.
    pub body: Body,
    /// `Gw-Session` of the sender where a client sent it.
    pub from: Option<Arc<str>>,
}

/// A position in both streams: opaque text to clients, `<evEpoch>.<evSeq>.<stEpoch>.<stSeq>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset {
    /// When the event stream was created, in Unix nanoseconds.
    pub event_epoch: u64,
    /// Last event sequence seen.
    pub event_seq: u64,
    /// When the state stream was created, in Unix nanoseconds.
    pub state_epoch: u64,
    /// Last state sequence seen.
    pub state_seq: u64,
}

impl Offset {
    /// Reads what a client brought back; `None` when it is no offset of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut next = |radix| u64::from_str_radix(parts.next()?, radix).ok();
        let offset = Self {
            event_epoch: next(16)?,
            event_seq: next(10)?,
            state_epoch: next(16)?,
            state_seq: next(10)?,
        };
        parts.next().is_none().then_some(offset)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:x}.{}.{:x}.{}",
            self.event_epoch, self.event_seq, self.state_epoch, self.state_seq
        )
    }
}

/// Where a message comes from in a trace that is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The span that published it, as W3C says it.
    pub traceparent: Arc<str>,
    /// The message's id.
    pub id: Arc<str>,
}

/// Why a connection ends, as the client is told: code and a reason of at most 123 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// WebSocket close code; TCP clients only see the end.
    pub code: u16,
    /// Short text.
    pub reason: std::borrow::Cow<'static, str>,
}

impl Close {
    /// A close with a fixed reason.
    #[must_use]
    pub const fn new(code: u16, reason: &'static str) -> Self {
        Self {
            code,
            reason: std::borrow::Cow::Borrowed(reason),
        }
    }

    /// The client left.
    pub const NORMAL: Self = Self::new(1000, "");
    /// The gateway drains; come back.
    pub const DRAIN: Self = Self::new(1001, "gateway restarts, come back");
    /// The client read too slowly; come back and resume.
    pub const SLOW: Self = Self::new(1013, "too slow, come back and resume");
    /// A limit of the gateway is reached; come back later.
    pub const BUSY: Self = Self::new(1013, "busy, come back later");
    /// The client says more than a connection may; come back and say less.
    pub const FLOOD: Self = Self::new(1008, "too many messages a second, come back and send fewer");
    /// Our fault.
    pub const INTERNAL: Self = Self::new(1011, "internal error");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_survives_text() {
        let offset = Offset {
            event_epoch: 0x1234_5678_9abc_def0,
            event_seq: 42,
            state_epoch: 7,
            state_seq: u64::MAX,
        };
        assert_eq!(Offset::parse(&offset.to_string()), Some(offset));
    }

    #[test]
    fn foreign_offsets_are_none() {
        for text in ["", "1", "1.2.3", "1.2.3.4.5", "x.1.1.1", "1.-1.1.1", "1..1.1"] {
            assert_eq!(Offset::parse(text), None, "{text}");
        }
    }

    #[test]
    fn spaces_refuse_what_could_reach_another_subject() {
        for name in [
            "",
            ".",
            "a.b",
            "*",
            ">",
            "a b",
            "a\r\n",
            "$SYS",
            "é",
            &"x".repeat(65),
        ] {
            assert!(Space::parse(name).is_err(), "{name:?}");
        }
        assert!(Space::parse("Team_1-blue").is_ok());
    }
}
