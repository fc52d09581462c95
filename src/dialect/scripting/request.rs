//! Reads one document of a scripting client. Each document says by itself whose shape it has.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::ascii;

/// A longer name cannot be a subject token and is not worth echoing.
const LONGEST_NAME: usize = 128;

/// A longer id is refused: it is kept and sent back with every answer.
const LONGEST_ID: usize = 1024;

/// Whose shape a request has, which is the shape of its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `{"action","params","id"}`: answers carry the id and may come in any order.
    Action {
        /// The client's id as ASCII JSON, whatever its type.
        id: Option<Box<str>>,
    },
    /// `{"type","params"}`: one answer for each, in order, without an id.
    Type,
}

/// A request as understood.
pub(super) struct Request {
    pub(super) shape: Shape,
    /// What is asked.
    pub(super) name: String,
    /// The client's bytes, shared with its document; `{}` when it sent none.
    pub(super) params: Bytes,
    /// Whether the client wants to hear progress.
    pub(super) progress: bool,
    /// The id where a header can carry it.
    pub(super) correlation: Option<String>,
    pub(super) traceparent: Option<String>,
}

/// A document that is no request, and what was understood of it all the same.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The name it is counted under.
    pub(super) offence: &'static str,
    pub(super) text: String,
    pub(super) shape: Shape,
}

/// Members as they stand in the document; where one is repeated the last one counts, as in Python.
#[derive(Default)]
struct Members<'a> {
    action: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    progress: Option<&'a RawValue>,
    traceparent: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Name {
    Action,
    Type,
    Id,
    Params,
    Progress,
    Traceparent,
    #[serde(other)]
    Other,
}

/// Fills the members and keeps those found before an error, so that the head of a cut document can be read.
struct Filling<'m, 'a>(&'m mut Members<'a>);

impl<'a> DeserializeSeed<'a> for Filling<'_, 'a> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Filling<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key()? {
            let place = match name {
                Name::Action => &mut self.0.action,
                Name::Type => &mut self.0.kind,
                Name::Id => &mut self.0.id,
                Name::Params => &mut self.0.params,
                Name::Progress => &mut self.0.progress,
                Name::Traceparent => &mut self.0.traceparent,
                Name::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *place = Some(map.next_value()?);
        }
        Ok(())
    }
}

impl<'a> Members<'a> {
    fn read(&mut self, text: &'a str) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_str(text);
        (&mut json).deserialize_map(Filling(self))
    }

    /// Without a name the document may still carry an id to answer to, and only one shape has ids.
    fn shape(&self) -> Shape {
        if self.action.is_none() && self.kind.is_some() {
            return Shape::Type;
        }
        let id = self
            .id
            .filter(|id| id.get() != "null" && id.get().len() <= LONGEST_ID);
        Shape::Action {
            id: id.map(|id| match serde_json::from_str::<String>(id.get()) {
                // However the client escapes its id, equal ids become equal bytes.
                Ok(text) => ascii::text(&text).into(),
                Err(_) => ascii::json(id.get()).into(),
            }),
        }
    }
}

/// The shape of a document of which only the head is there.
pub(super) fn shape_of_head(head: &[u8]) -> Shape {
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    let mut members = Members::default();
    let _it_is_cut = members.read(valid);
    members.shape()
}

/// Reads one whole document.
pub(super) fn read(document: &Bytes) -> Result<Request, Refusal> {
    let nameless = |offence, text: &str| Refusal {
        offence,
        text: text.to_owned(),
        shape: Shape::Action { id: None },
    };
    let Ok(text) = std::str::from_utf8(document) else {
        return Err(nameless("not_utf8", "a document is JSON in UTF-8"));
    };
    if text.starts_with('[') {
        return Err(nameless("not_object", "a request is an object, not an array"));
    }
    let mut members = Members::default();
    if let Err(error) = members.read(text) {
        return Err(nameless("bad_json", &format!("not JSON: {error}")));
    }
    let shape = members.shape();
    let refuse = |offence, text: String| {
        Err(Refusal {
            offence,
            text,
            shape: shape.clone(),
        })
    };
    if members.id.is_some_and(|id| id.get().len() > LONGEST_ID) {
        return refuse("long_id", format!("\"id\" is longer than {LONGEST_ID} bytes"));
    }
    let (member, name) = match (members.action, members.kind) {
        (Some(action), _) => ("action", action),
        (None, Some(kind)) => ("type", kind),
        (None, None) => {
            return refuse(
                "no_action",
                "a request names its \"action\", or its \"type\"".to_owned(),
            );
        }
    };
    let Ok(name) = serde_json::from_str::<String>(name.get()) else {
        return refuse("action_not_text", format!("\"{member}\" must be text"));
    };
    if name.is_empty() || name.len() > LONGEST_NAME {
        return refuse(
            "bad_action",
            format!("\"{member}\" has 1 to {LONGEST_NAME} bytes"),
        );
    }
    let given = members.params.filter(|params| params.get() != "null");
    Ok(Request {
        name,
        params: given.map_or(Bytes::from_static(b"{}"), |params| {
            document.slice_ref(params.get().as_bytes())
        }),
        progress: members.progress.is_some_and(|wanted| wanted.get() == "true"),
        correlation: members.id.filter(|_| shape != Shape::Type).and_then(correlation),
        traceparent: members
            .traceparent
            .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
            .filter(|value| is_traceparent(value)),
        shape,
    })
}

/// Reads the id in the parameters of `cancel`: ASCII JSON, as ids are kept.
pub(super) fn id_in(params: &[u8]) -> Option<Box<str>> {
    let mut members = Members::default();
    members.read(std::str::from_utf8(params).ok()?).ok()?;
    members.action = Some(RawValue::NULL);
    match members.shape() {
        Shape::Action { id } => id,
        Shape::Type => None,
    }
}

/// A header is ASCII; an id that does not fit there is still echoed to the client.
fn correlation(id: &RawValue) -> Option<String> {
    let text = match serde_json::from_str::<String>(id.get()) {
        Ok(text) => text,
        Err(_) if id.get().starts_with(['{', '[', 'n', '"']) => return None,
        Err(_) => id.get().to_owned(),
    };
    let fits = (1..=256).contains(&text.len()) && text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    fits.then_some(text)
}

/// W3C form, version 00: `00-<32 hex>-<16 hex>-<2 hex>`, lower-case, ids not all zero.
fn is_traceparent(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let [version, trace, span, flags] = parts[..] else {
        return false;
    };
    let hex = |part: &str, len| {
        part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |part: &str| part.bytes().any(|byte| byte != b'0');
    version == "00" && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && some(trace) && some(span)
}
