//! Reads what a voice client says, without copying its data.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::dialect::Frame;
use crate::message::Code;

/// A type longer than this cannot be a subject token and is not worth echoing.
const LONGEST_TYPE: usize = 128;

/// A client's own id longer than this is refused: it is kept and sent back with every answer.
const LONGEST_ID: usize = 256;

/// What the client did wrong, in its words and in ours.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The code the client is told.
    pub(super) code: Code,
    /// The name it is counted under.
    pub(super) offence: &'static str,
    /// One sentence.
    pub(super) text: String,
}

impl Refusal {
    fn new(offence: &'static str, text: impl Into<String>) -> Self {
        Self {
            code: Code::Invalid,
            offence,
            text: text.into(),
        }
    }
}

/// A message that is an object. The parts may still be refused one by one, so that an error can carry the id.
pub(super) struct Said {
    pub(super) action: Result<String, Refusal>,
    pub(super) id: Result<Option<String>, Refusal>,
    /// The client's bytes, shared with its frame; `{}` when it sent none.
    pub(super) data: Bytes,
    pub(super) traceparent: Option<String>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    traceparent: Option<&'a RawValue>,
}

/// Reads one frame. Binary frames that hold UTF-8 JSON count as text, as they always did upstream.
pub(super) fn command(frame: &Frame) -> Result<Said, Refusal> {
    let bytes = frame.bytes();
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Refusal::new("binary", "a message is JSON text in UTF-8"));
    };
    let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    // Arrays would pass as field lists, so the shape is looked at first.
    if !text.trim_start_matches(space).starts_with('{') {
        return Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Refusal::new("not_object", "a message is a JSON object with a \"type\""),
            Err(error) => Refusal::new("bad_json", format!("not JSON: {error}")),
        });
    }
    let fields: Fields<'_> =
        serde_json::from_str(text).map_err(|error| Refusal::new("bad_json", format!("not JSON: {error}")))?;
    Ok(Said {
        action: action(fields.kind),
        id: id(fields.id),
        data: fields.data.map_or(Bytes::from_static(b"{}"), |data| {
            bytes.slice_ref(data.get().as_bytes())
        }),
        traceparent: fields
            .traceparent
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .filter(|value: &String| is_traceparent(value)),
    })
}

fn action(raw: Option<&RawValue>) -> Result<String, Refusal> {
    let Some(raw) = raw else {
        return Err(Refusal::new("no_type", "the message has no \"type\""));
    };
    let Ok(action) = serde_json::from_str::<String>(raw.get()) else {
        return Err(Refusal::new("type_not_text", "\"type\" must be text"));
    };
    if action.is_empty() {
        return Err(Refusal::new("empty_type", "\"type\" is empty"));
    }
    if action.len() > LONGEST_TYPE {
        return Err(Refusal::new(
            "long_type",
            format!("\"type\" is longer than {LONGEST_TYPE} bytes"),
        ));
    }
    Ok(action)
}

/// Only text is carried: whatever else stands there was never meant for us.
fn id(raw: Option<&RawValue>) -> Result<Option<String>, Refusal> {
    let id: Option<String> = raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
    match id {
        Some(id) if id.len() > LONGEST_ID => Err(Refusal::new(
            "long_id",
            format!("\"id\" is longer than {LONGEST_ID} bytes"),
        )),
        id => Ok(id),
    }
}

/// W3C form, version 00: `00-<32 hex>-<16 hex>-<2 hex>`, lower-case, ids not all zero.
fn is_traceparent(value: &str) -> bool {
    let hex = |part: &str, len| {
        part.len() == len
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    let mut parts = value.split('-');
    let (Some("00"), Some(trace), Some(span), Some(flags), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return false;
    };
    hex(trace, 32) && hex(span, 16) && hex(flags, 2) && !zero(trace) && !zero(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_the_clients_own_bytes() {
        let frame = Frame::text(r#" {"type":"a","data" : {"x": [1, 2]} ,"timestamp":"t"}"#);
        let said = command(&frame).unwrap();
        assert_eq!(&said.data[..], br#"{"x": [1, 2]}"#);
        assert!(frame.bytes().as_ptr_range().contains(&said.data.as_ptr()));
    }

    #[test]
    fn only_well_formed_traceparents_pass() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(good));
        for bad in [
            "",
            "00",
            &good.to_uppercase(),
            &good[..54],
            &format!("{good}-x"),
            &good.replace("00-0", "01-0"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319\r-b7ad6b7169203331-01",
        ] {
            assert!(!is_traceparent(bad), "{bad:?}");
        }
    }
}
