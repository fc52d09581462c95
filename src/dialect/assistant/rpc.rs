//! What assistant clients say and hear, whatever carries it: `{method, params}` in, `{type, data}` out.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::dialect::{Fate, Frame, Notice, Offence, Routes, Welcome};
use crate::message::{Answer, Body, CallId, Close, Code, Command, Event, Fault, Offset};

/// `type` of the answer to `get_status`, of progress and of broadcast status.
pub(super) const STATUS: &str = "status_update";
/// `type` of the answer to any other method.
const RESPONSE: &str = "command_response";
/// `type` of what the gateway tells about the connection itself.
const CONNECTION: &str = "connection_status";
/// Longest method name; the subject has to hold it, escaped.
const MAX_METHOD: usize = 64;

/// A request understood.
pub(super) struct Request {
    pub(super) service: Arc<str>,
    pub(super) method: String,
    pub(super) params: Body,
}

impl Request {
    /// The command it asks for.
    pub(super) fn command(self, id: CallId, correlation: Option<String>) -> Command {
        Command {
            id,
            service: self.service,
            action: self.method,
            body: self.params,
            correlation,
            traceparent: None,
        }
    }
}

/// A request refused, and what counters call it.
pub(super) struct Refusal {
    pub(super) offence: &'static str,
    pub(super) fault: Fault,
}

impl Refusal {
    pub(super) fn new(offence: &'static str, code: Code, text: impl Into<String>) -> Self {
        Self {
            offence,
            fault: Fault::new(code, text),
        }
    }

    fn invalid(offence: &'static str, text: &str) -> Self {
        Self::new(offence, Code::Invalid, text)
    }

    pub(super) const fn offence(&self) -> Offence {
        Offence {
            code: self.offence,
            fate: Fate::Continue,
        }
    }
}

/// Reads `{"method": …, "params": …}`; `params` stays a slice of `text`.
pub(super) fn request(routes: &Routes, text: &Bytes) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Said<'a> {
        #[serde(borrow)]
        method: Option<&'a RawValue>,
        #[serde(borrow)]
        params: Option<&'a RawValue>,
    }

    // serde would read an array as the fields of the struct in their order
    if first(text) != Some(b'{') {
        return Err(match serde_json::from_slice::<IgnoredAny>(text) {
            Ok(_) => Refusal::invalid(
                "not_an_object",
                "a request is an object {\"method\":…,\"params\":…}",
            ),
            Err(_) => not_json(),
        });
    }
    let said: Said<'_> = serde_json::from_slice(text).map_err(|error| {
        if error.is_data() {
            Refusal::invalid("not_an_object", "method and params may stand once each")
        } else {
            not_json()
        }
    })?;
    let method = said.method.map(|raw| serde_json::from_str::<String>(raw.get()));
    let Some(Ok(method)) = method else {
        return Err(Refusal::invalid("no_method", "method is missing or no text"));
    };
    let service = routes.service(&method).filter(|_| method.len() <= MAX_METHOD);
    let Some(service) = service else {
        return Err(Refusal::new(
            "unknown_method",
            Code::UnknownAction,
            unknown(&method),
        ));
    };
    let params = match said.params {
        None => Bytes::from_static(b"{}"),
        Some(raw) if raw.get() == "null" => Bytes::from_static(b"{}"),
        Some(raw) => text.slice_ref(raw.get().as_bytes()),
    };
    Ok(Request {
        service,
        method,
        params: Body::json(params),
    })
}

fn not_json() -> Refusal {
    Refusal::invalid("bad_json", "not JSON; send one JSON object per text frame")
}

/// A binary frame where only text makes sense.
pub(super) fn binary() -> Refusal {
    Refusal::invalid(
        "binary_frame",
        "binary frames are not understood; send one JSON object per text frame",
    )
}

fn unknown(method: &str) -> String {
    let short: String = method.chars().take(MAX_METHOD).collect();
    format!("Unknown method: {short}")
}

fn first(text: &[u8]) -> Option<u8> {
    text.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// What is around a `{type, data}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// Nothing.
    Plain,
    /// The event `rpc_response` of a namespace.
    Event(&'static str),
    /// The ack with this id in a namespace.
    Ack(&'static str, u64),
}

impl Envelope {
    fn open(self, text: &mut Vec<u8>) {
        let (kind, namespace) = match self {
            Self::Plain => return,
            Self::Event(namespace) => (b"42", namespace),
            Self::Ack(namespace, _) => (b"43", namespace),
        };
        text.extend_from_slice(kind);
        if namespace != "/" {
            text.extend_from_slice(namespace.as_bytes());
            text.push(b',');
        }
        match self {
            Self::Ack(_, id) => text.extend_from_slice(format!("{id}[").as_bytes()),
            _ => text.extend_from_slice(b"[\"rpc_response\","),
        }
    }

    fn close(self, text: &mut Vec<u8>) {
        if self != Self::Plain {
            text.push(b']');
        }
    }
}

/// `{"type": kind, "data": body}`.
pub(super) fn say(envelope: Envelope, kind: &str, body: &Body) -> Frame {
    compose(envelope, kind, body, None)
}

fn compose(envelope: Envelope, kind: &str, body: &Body, offset: Option<&Offset>) -> Frame {
    let mut text = Vec::with_capacity(body.bytes.len() + kind.len() + 128);
    envelope.open(&mut text);
    text.extend_from_slice(b"{\"type\":");
    text.extend_from_slice(quoted(kind).as_bytes());
    text.extend_from_slice(b",\"data\":");
    if body.content_type.as_deref() == Some("gw/expired") {
        text.extend_from_slice(b"null,\"body\":\"expired\"");
    } else {
        data(body, &mut text);
    }
    if let Some(offset) = offset {
        text.extend_from_slice(format!(",\"offset\":\"{offset}\"").as_bytes());
    }
    text.push(b'}');
    envelope.close(&mut text);
    Frame::Text(text.into())
}

/// `{"type":"error","data":{"message","code"}}`.
pub(super) fn error(envelope: Envelope, fault: &Fault) -> Frame {
    let mut text = Vec::with_capacity(fault.text.len() + fault.details.bytes.len() + 96);
    envelope.open(&mut text);
    text.extend_from_slice(b"{\"type\":\"error\",\"data\":{\"message\":");
    text.extend_from_slice(quoted(&fault.text).as_bytes());
    text.extend_from_slice(b",\"code\":\"");
    text.extend_from_slice(fault.code.name().as_bytes());
    text.push(b'"');
    if !fault.details.is_empty() {
        text.extend_from_slice(b",\"details\":");
        data(&fault.details, &mut text);
    }
    text.extend_from_slice(b"}}");
    envelope.close(&mut text);
    Frame::Text(text.into())
}

/// What an answer to `method` sounds like; `None` when the client hears nothing.
pub(super) fn answer(envelope: Envelope, method: &str, answer: &Answer) -> Option<Frame> {
    match answer {
        Answer::Ack(_) => None,
        Answer::Progress(body) if body.is_empty() => None,
        Answer::Progress(body) => Some(say(envelope, STATUS, body)),
        Answer::Done(body) if method == "get_status" => Some(say(envelope, STATUS, body)),
        Answer::Done(body) => Some(say(envelope, RESPONSE, body)),
        Answer::Failed(fault) if fault.code == Code::UnknownAction => {
            let fault = Fault {
                text: unknown(method),
                ..fault.clone()
            };
            Some(error(envelope, &fault))
        }
        Answer::Failed(fault) => Some(error(envelope, fault)),
    }
}

/// News about the connection; clients that do not know the type ignore it.
pub(super) fn notice(envelope: Envelope, notice: &Notice) -> Frame {
    let (status, reason) = match notice {
        Notice::NotConfirmed(what) => return error(envelope, &Fault::new(Code::BusDown, what.as_str())),
        Notice::Refused(close) => return error(envelope, &Fault::new(Code::Invalid, close.reason.as_ref())),
        Notice::Services(status) => return say(envelope, STATUS, status),
        Notice::Gap(missed) => {
            let body = format!("{{\"status\":\"gap\",\"missed\":{missed}}}");
            return say(envelope, CONNECTION, &Body::json(body));
        }
        Notice::Degraded(reason) => ("degraded", reason),
        Notice::Restored(reason) => ("ok", reason),
    };
    let body = format!("{{\"status\":\"{status}\",\"reason\":{}}}", quoted(reason));
    say(envelope, CONNECTION, &Body::json(body))
}

/// What a client that is closed for saying too much is told first; an end of another kind needs no words.
pub(super) fn farewell(envelope: Envelope, why: &Close) -> Option<Frame> {
    (*why == Close::FLOOD).then(|| error(envelope, &Fault::new(Code::Busy, why.reason.as_ref())))
}

/// The greeting of a client that knows about offsets: others were never greeted, and would take it for an answer.
pub(super) fn welcome(envelope: Envelope, welcome: &Welcome) -> Option<Frame> {
    let recovered = welcome.recovered?;
    let offset = if welcome.history {
        quoted(&welcome.offset.to_string())
    } else {
        "null".to_owned()
    };
    let body = format!(
        "{{\"status\":\"connected\",\"session\":{},\"space\":{},\"offset\":{offset},\"recovered\":{recovered}}}",
        quoted(&welcome.session),
        quoted(welcome.space.as_str()),
    );
    Some(say(envelope, CONNECTION, &Body::json(body)))
}

/// An event: `offset` is where a client that comes back goes on after it, absent where nothing is stored.
pub(super) fn event(envelope: Envelope, kind: &str, event: &Event) -> Frame {
    let stored = event.seq > 0;
    compose(envelope, kind, &event.body, stored.then_some(&event.offset))
}

/// A body as JSON. One that claims to be JSON and is not must not break the frame around it.
fn data(body: &Body, text: &mut Vec<u8>) {
    let bytes = &body.bytes;
    match &body.content_type {
        None if bytes.is_empty() => text.extend_from_slice(b"null"),
        None if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() && std::str::from_utf8(bytes).is_ok() => {
            text.extend_from_slice(bytes);
        }
        kind => match std::str::from_utf8(bytes) {
            Ok(plain) if kind.as_deref().is_none_or(|kind| kind.starts_with("text/")) => {
                text.extend_from_slice(quoted(plain).as_bytes());
            }
            _ => {
                text.push(b'"');
                text.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                text.push(b'"');
            }
        },
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
