//! JSON in ASCII alone. Clients read 8 KiB at a time and decode each read by itself: a character cut in two
//! is fatal to them, so every character beyond ASCII leaves as `\uXXXX`.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::dialect::Frame;

/// One JSON object being written, member by member.
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self(String::from("{"))
    }

    /// An object that will hold about `len` bytes.
    pub(super) fn with_room(len: usize) -> Self {
        let mut text = String::with_capacity(len + 256);
        text.push('{');
        Self(text)
    }

    /// A member whose value is JSON already.
    pub(super) fn raw(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        push_json(&mut self.0, value);
        self
    }

    /// A member whose value is text.
    pub(super) fn text(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        push_text(&mut self.0, value);
        self
    }

    /// A member that may be absent.
    pub(super) fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.raw(name, value),
            None => self,
        }
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        push_text(&mut self.0, name);
        self.0.push(':');
    }

    /// The JSON.
    pub(super) fn json(mut self) -> String {
        self.0.push('}');
        self.0
    }

    /// The frame that goes to the client.
    pub(super) fn frame(self) -> Frame {
        Frame::Binary(Bytes::from(self.json()))
    }
}

/// Text as JSON.
pub(super) fn text(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    push_text(&mut out, value);
    out
}

/// JSON as ASCII: only inside its texts can there be anything else.
pub(super) fn json(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    push_json(&mut out, value);
    out
}

fn push_text(out: &mut String, value: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, c) in value.char_indices() {
        if c.is_ascii() && !matches!(c, '"' | '\\' | '\0'..='\x1f') {
            continue;
        }
        out.push_str(&value[plain..at]);
        plain = at + c.len_utf8();
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => push_escape(out, c),
        }
    }
    out.push_str(&value[plain..]);
    out.push('"');
}

fn push_json(out: &mut String, value: &str) {
    if value.is_ascii() {
        out.push_str(value);
        return;
    }
    let mut plain = 0;
    for (at, c) in value.char_indices() {
        if !c.is_ascii() {
            out.push_str(&value[plain..at]);
            plain = at + c.len_utf8();
            push_escape(out, c);
        }
    }
    out.push_str(&value[plain..]);
}

/// A character beyond the first 65,536 takes two escapes.
fn push_escape(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _infallible = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_and_is_ascii() {
        for value in [
            "",
            "plain",
            "\"\\\n\r\t\0\x1f\x7f",
            "é",
            "😀 and ü",
            "\u{ffff}\u{10000}\u{10ffff}",
        ] {
            let written = text(value);
            assert!(written.is_ascii());
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), value);
            let raw = serde_json::to_string(value).unwrap();
            assert_eq!(serde_json::from_str::<String>(&json(&raw)).unwrap(), value);
        }
    }
}
