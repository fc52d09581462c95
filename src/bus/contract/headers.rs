//! Header names, their values, and what a reply's headers mean.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;

use crate::message::{Answer, Body, Code, Fault, Nanos};

/// ULID of a command, event or state; makes a retry be stored once.
pub const MSG_ID: &str = "Nats-Msg-Id";
/// Unix time in nanoseconds.
pub const TIME: &str = "Gw-Time";
/// `<dialect>/<session id>` of the client.
pub const SESSION: &str = "Gw-Session";
/// MIME type; absent = JSON.
pub const CONTENT_TYPE: &str = "Content-Type";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// Milliseconds the sender of a command still waits.
pub const DEADLINE: &str = "Gw-Deadline";
/// The client's own id of a command.
pub const CORRELATION: &str = "Gw-Correlation";
/// `ack`, `progress` or `done` of a reply.
pub const STATUS: &str = "Gw-Status";
/// Text of an error reply.
pub const ERROR: &str = "Nats-Service-Error";
/// Number of an error reply.
pub const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// Reference to a large body.
pub const BODY: &str = "Gw-Body";
/// Compare and set.
pub const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// On live messages: which stream.
pub const STREAM: &str = "Nats-Stream";
/// On live messages: the subject it was stored under.
pub const SUBJECT: &str = "Nats-Subject";
/// On live messages: its sequence.
pub const SEQUENCE: &str = "Nats-Sequence";
/// On live messages: the sequence before it on the same subject.
pub const LAST_SEQUENCE: &str = "Nats-Last-Sequence";

/// Content type of a large body that is no longer there.
pub const EXPIRED: &str = "gw/expired";

const LONGEST: usize = 512;

/// A value no header parser can stumble over: printable ASCII as it is, every other byte as `%XX`, at most 512 bytes.
#[must_use]
pub fn value(text: &str) -> Cow<'_, str> {
    let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if text.len() <= LONGEST && text.bytes().all(printable) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(LONGEST) + 8);
    for byte in text.bytes() {
        if out.len() + 3 > LONGEST {
            break;
        }
        if printable(byte) {
            out.push(char::from(byte));
        } else {
            // writing to a String cannot fail
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Cow::Owned(out)
}

/// What a command carries beside its body.
#[derive(Clone, Copy, Debug)]
pub struct CommandHead<'a> {
    /// ULID.
    pub id: &'a str,
    /// When it entered the system.
    pub time: Nanos,
    /// `<dialect>/<session>`.
    pub session: &'a str,
    /// Milliseconds to the first answer.
    pub deadline_ms: u64,
    /// The client's own id.
    pub correlation: Option<&'a str>,
    /// Of the body.
    pub content_type: Option<&'a str>,
    /// Only when given.
    pub traceparent: Option<&'a str>,
}

impl<'a> CommandHead<'a> {
    /// The headers, each once.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, Cow<'a, str>)> {
        let mut list = Vec::with_capacity(7);
        list.push((MSG_ID, value(self.id)));
        list.push((TIME, Cow::Owned(self.time.to_string())));
        list.push((SESSION, value(self.session)));
        list.push((DEADLINE, Cow::Owned(self.deadline_ms.to_string())));
        optional(&mut list, CORRELATION, self.correlation);
        optional(&mut list, CONTENT_TYPE, self.content_type);
        optional(&mut list, TRACEPARENT, self.traceparent);
        list
    }
}

/// What an event or state carries beside its body.
#[derive(Clone, Copy, Debug)]
pub struct FactHead<'a> {
    /// ULID.
    pub id: &'a str,
    /// When it entered the system.
    pub time: Nanos,
    /// `<dialect>/<session>`, from clients.
    pub session: Option<&'a str>,
    /// Of the body.
    pub content_type: Option<&'a str>,
    /// Only when sampled.
    pub traceparent: Option<&'a str>,
    /// Compare and set.
    pub expected: Option<u64>,
}

impl<'a> FactHead<'a> {
    /// The headers, each once.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, Cow<'a, str>)> {
        let mut list = Vec::with_capacity(6);
        list.push((MSG_ID, value(self.id)));
        list.push((TIME, Cow::Owned(self.time.to_string())));
        optional(&mut list, SESSION, self.session);
        optional(&mut list, CONTENT_TYPE, self.content_type);
        optional(&mut list, TRACEPARENT, self.traceparent);
        if let Some(expected) = self.expected {
            list.push((EXPECTED, Cow::Owned(expected.to_string())));
        }
        list
    }
}

fn optional<'a>(list: &mut Vec<(&'static str, Cow<'a, str>)>, name: &'static str, text: Option<&'a str>) {
    if let Some(text) = text {
        list.push((name, value(text)));
    }
}

/// What a reply says. `header` looks a header up by name. An error wins over `Gw-Status`; no header at all is `done`.
#[must_use]
pub fn answer<'a>(header: impl Fn(&'static str) -> Option<&'a str>, payload: Bytes) -> Answer {
    let body = Body {
        bytes: payload,
        content_type: header(CONTENT_TYPE).and_then(content_type),
    };
    let (error, number) = (header(ERROR), header(ERROR_CODE));
    if error.is_some() || number.is_some() {
        let code = number.and_then(|text| text.trim().parse().ok());
        let text = error.filter(|text| !text.is_empty());
        return Answer::Failed(Fault {
            code: code.map_or(Code::WorkerError, Code::from_number),
            text: text.map_or_else(
                || "the worker failed and did not say why; look at its log".to_owned(),
                str::to_owned,
            ),
            details: body,
        });
    }
    match header(STATUS) {
        None | Some("done" | "") => Answer::Done(body),
        Some("ack") => Answer::Ack(body),
        Some("progress") => Answer::Progress(body),
        Some(other) => Answer::Failed(Fault {
            code: Code::WorkerError,
            text: format!(
                "the worker answered with Gw-Status `{}`, which the contract does not know; it knows ack, progress, done",
                value(other)
            ),
            details: body,
        }),
    }
}

/// The `Content-Type` as [`Body`] keeps it: JSON is `None`.
#[must_use]
pub fn content_type(text: &str) -> Option<std::sync::Arc<str>> {
    let json = text.is_empty() || text.eq_ignore_ascii_case("application/json");
    (!json).then(|| text.into())
}

/// Whether a `traceparent` says that the trace is recorded.
#[must_use]
pub fn sampled(traceparent: &str) -> bool {
    let flags = traceparent.as_bytes().get(54);
    traceparent.len() >= 55
        && flags
            .and_then(|&digit| char::from(digit).to_digit(16))
            .is_some_and(|digit| digit & 1 == 1)
}
