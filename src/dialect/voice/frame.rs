//! Writes the JSON frames voice clients read. Payload bytes are copied once, straight into the frame.

use std::io::Write;
use std::time::{Duration, SystemTime};

use base64::Engine;
use serde::de::IgnoredAny;

use crate::dialect::{Frame, Welcome};
use crate::message::{Body, Class, Event, Fault, Nanos};

/// Content type of a large body that is gone from the store.
const EXPIRED: &str = "gw/expired";

/// Room for everything in a frame but its topic and payload.
const AROUND: usize = 192;

/// A frame being written.
pub(super) struct Pen(Vec<u8>);

impl Pen {
    /// A pen with room for `payload` bytes of payload and names.
    pub(super) fn new(payload: usize) -> Self {
        Self(Vec::with_capacity(AROUND + payload))
    }

    /// Writes `text` as it stands.
    pub(super) fn raw(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Writes bytes that are known to be JSON.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Writes a JSON string.
    fn text(&mut self, text: &str) -> &mut Self {
        // Writing a str into memory cannot fail.
        let _ = serde_json::to_writer(&mut self.0, text);
        self
    }

    /// Writes what formats itself and needs no escaping.
    pub(super) fn plain(&mut self, value: impl std::fmt::Display) -> &mut Self {
        let _ = write!(self.0, "{value}");
        self
    }

    /// Writes `,"timestamp":"<ISO 8601, UTC, milliseconds>"`.
    pub(super) fn timestamp(&mut self, time: Nanos) -> &mut Self {
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(time);
        self.raw(",\"timestamp\":\"")
            .plain(humantime::format_rfc3339_millis(at))
            .raw("\"")
    }

    fn id(&mut self, id: Option<&str>) -> &mut Self {
        if let Some(id) = id {
            self.raw(",\"id\":").text(id);
        }
        self
    }

    /// Writes a payload as a JSON value, whatever it is.
    fn body(&mut self, body: &Body) -> &mut Self {
        match body.content_type.as_deref() {
            Some(EXPIRED) => return self.raw("null"),
            Some(kind) if !is_json(kind) => return self.base64(kind, &body.bytes),
            _ => {}
        }
        if body.is_empty() {
            return self.raw("{}");
        }
        // A careless worker must not be able to break the frame of every client.
        match std::str::from_utf8(&body.bytes) {
            Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => self.raw(text.trim_ascii()),
            Ok(text) => self.text(text),
            Err(_) => self.base64("application/octet-stream", &body.bytes),
        }
    }

    fn base64(&mut self, kind: &str, bytes: &[u8]) -> &mut Self {
        self.raw("{\"content_type\":").text(kind).raw(",\"base64\":\"");
        let from = self.0.len();
        // Four characters for three bytes, at most one group begun.
        self.0.resize(from + bytes.len().div_ceil(3) * 4, b'=');
        let written = base64::engine::general_purpose::STANDARD.encode_slice(bytes, &mut self.0[from..]);
        self.0.truncate(from + written.unwrap_or(0));
        self.raw("\"}")
    }

    /// The finished frame.
    pub(super) fn frame(&mut self) -> Frame {
        Frame::Text(std::mem::take(&mut self.0).into())
    }
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json")
}

/// How long a body becomes in a frame, near enough to allocate once.
fn room(body: &Body) -> usize {
    match body.content_type.as_deref() {
        Some(kind) if !is_json(kind) => body.bytes.len().div_ceil(3) * 4 + kind.len(),
        _ => body.bytes.len(),
    }
}

/// An event or a state, as everybody in the space sees it. Without history there is no `seq` and no `offset`.
pub(super) fn event(event: &Event) -> Frame {
    let mut pen = Pen::new(event.topic.len() + room(&event.body));
    pen.raw("{\"type\":").text(&event.topic).raw(",\"data\":");
    let gone = event.class == Class::State && event.body.is_empty() && event.body.content_type.is_none();
    if gone {
        pen.raw("null,\"deleted\":true");
    } else {
        pen.body(&event.body);
    }
    if event.body.content_type.as_deref() == Some(EXPIRED) {
        pen.raw(",\"body\":\"expired\"");
    }
    if event.class == Class::State {
        pen.raw(",\"state\":true");
    }
    pen.timestamp(event.time);
    if event.seq != 0 {
        pen.raw(",\"seq\":").plain(event.seq);
        pen.raw(",\"offset\":\"").plain(event.offset).raw("\"");
    }
    pen.raw("}").frame()
}

/// The typed answer to a command.
pub(super) fn done(now: Nanos, action: &str, body: &Body, id: Option<&str>) -> Frame {
    let mut pen = Pen::new(action.len() + room(body) + id.map_or(0, str::len));
    match action {
        "get_system_info" => pen.raw("{\"type\":\"system_info\",\"data\":").body(body),
        "get_performance_metrics" => pen.raw("{\"type\":\"latency_trace\",\"data\":").body(body),
        _ => pen
            .raw("{\"type\":\"command_result\",\"data\":{\"command\":")
            .text(action)
            .raw(",\"result\":")
            .body(body)
            .raw("}"),
    };
    pen.id(id).timestamp(now).raw("}").frame()
}

/// A sign of life with content, for the sender only.
pub(super) fn progress(now: Nanos, action: &str, body: &Body, id: Option<&str>) -> Frame {
    Pen::new(action.len() + room(body) + id.map_or(0, str::len))
        .raw("{\"type\":\"command_progress\",\"data\":{\"command\":")
        .text(action)
        .raw(",\"progress\":")
        .body(body)
        .raw("}")
        .id(id)
        .timestamp(now)
        .raw("}")
        .frame()
}

/// A failure, for the sender only.
pub(super) fn error(now: Nanos, fault: &Fault, command: Option<&str>, id: Option<&str>) -> Frame {
    let mut pen = Pen::new(fault.text.len() + room(&fault.details) + id.map_or(0, str::len));
    pen.raw("{\"type\":\"error\",\"data\":{\"message\":")
        .text(&fault.text)
        .raw(",\"code\":\"")
        .raw(fault.code.name())
        .raw("\"");
    if let Some(command) = command {
        pen.raw(",\"command\":").text(command);
    }
    if !fault.details.is_empty() {
        pen.raw(",\"details\":").body(&fault.details);
    }
    pen.raw("}").id(id).timestamp(now).raw("}").frame()
}

/// The greeting of a newcomer.
pub(super) fn welcome(now: Nanos, welcome: &Welcome) -> Frame {
    let mut pen = Pen::new(64);
    pen.raw("{\"type\":\"connection_status\",\"data\":{\"status\":\"connected\",\"session\":")
        .text(&welcome.session)
        .raw(",\"space\":")
        .text(welcome.space.as_str());
    if welcome.history {
        pen.raw(",\"offset\":\"").plain(welcome.offset).raw("\"");
    } else {
        pen.raw(",\"offset\":null");
    }
    pen.raw(",\"recovered\":")
        .raw(match welcome.recovered {
            Some(true) => "true",
            Some(false) => "false",
            None => "null",
        })
        .raw(",\"history\":")
        .plain(welcome.history)
        .raw("}")
        .timestamp(now)
        .raw("}")
        .frame()
}

/// Good or bad news about the platform.
pub(super) fn status(now: Nanos, status: &'static str, reason: &str) -> Frame {
    Pen::new(reason.len())
        .raw("{\"type\":\"connection_status\",\"data\":{\"status\":\"")
        .raw(status)
        .raw("\",\"reason\":")
        .text(reason)
        .raw("}")
        .timestamp(now)
        .raw("}")
        .frame()
}

/// How many messages a slow client missed.
pub(super) fn gap(now: Nanos, missed: u64) -> Frame {
    Pen::new(0)
        .raw("{\"type\":\"connection_status\",\"data\":{\"status\":\"gap\",\"missed\":")
        .plain(missed)
        .raw("}")
        .timestamp(now)
        .raw("}")
        .frame()
}
