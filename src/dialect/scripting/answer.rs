//! What scripting clients hear, in each shape's words.
//!
//! A worker answers neutrally, `{"output": text, "result": any}`, either member optional; any other body is
//! a result as it stands. An error's body may hold `error_type`, `traceback` and `output`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::ascii::{self, Object};
use super::request::Shape;
use crate::dialect::Frame;
use crate::message::{Body, Code, Fault};

/// The action whose start is acknowledged and whose result has a shape of its own.
pub(super) const EXECUTE: &str = "execute_code";

type Members<'a> = BTreeMap<String, &'a RawValue>;

/// The members of a body that is a JSON object.
fn members(body: &Body) -> Option<Members<'_>> {
    if body.content_type.is_some() {
        return None;
    }
    serde_json::from_slice(&body.bytes).ok()
}

/// What a worker said: output and result, each as JSON.
struct Said {
    output: Option<String>,
    result: Option<String>,
}

impl Said {
    fn new(body: &Body) -> Self {
        if body.is_empty() {
            return Self {
                output: None,
                result: None,
            };
        }
        if let Some(members) = members(body)
            && (members.contains_key("output") || members.contains_key("result"))
        {
            let take = |name| {
                let value = members.get(name).map(|value| value.get());
                value.filter(|value| *value != "null").map(ascii::json)
            };
            return Self {
                output: take("output"),
                result: take("result"),
            };
        }
        Self {
            output: None,
            result: Some(value(body)),
        }
    }
}

/// Any body as one JSON value.
fn value(body: &Body) -> String {
    if let Some(kind) = &body.content_type {
        let bytes = STANDARD.encode(&body.bytes);
        return Object::with_room(bytes.len())
            .text("content_type", kind)
            .text("base64", &bytes)
            .json();
    }
    match serde_json::from_slice::<&RawValue>(&body.bytes) {
        Ok(raw) => ascii::json(raw.get()),
        Err(_) => ascii::text(&String::from_utf8_lossy(&body.bytes)),
    }
}

/// The code runs; without an id, since a client that finds its id here takes this for the result.
pub(super) fn processing() -> Frame {
    let ack = Object::new().text("status", "processing");
    ack.text("message", "Code execution started").frame()
}

/// Something to show before the result; `None` when only a sign of life.
pub(super) fn progress(id: Option<&str>, body: &Body) -> Option<Frame> {
    if body.is_empty() {
        return None;
    }
    let mut said = Said::new(body);
    // A worker may send the new output as it is.
    if said.output.is_none() && said.result.as_ref().is_some_and(|result| result.starts_with('"')) {
        said.output = said.result.take();
    }
    let object = Object::new().maybe("id", id).text("type", "progress");
    Some(
        object
            .maybe("output", said.output.as_deref())
            .maybe("result", said.result.as_deref())
            .frame(),
    )
}

/// The result of a request.
pub(super) fn done(shape: &Shape, name: &str, body: &Body) -> Frame {
    let said = Said::new(body);
    let room = body.bytes.len();
    let result = said.result.as_deref();
    let Shape::Action { id } = shape else {
        let object = Object::with_room(room).text("status", "success");
        return match said.output {
            Some(output) if name == EXECUTE => {
                let executed = Object::with_room(room)
                    .raw("executed", "true")
                    .raw("result", &output);
                object.raw("result", &executed.json()).frame()
            }
            output => object
                .raw("result", result.or(output.as_deref()).unwrap_or("{}"))
                .frame(),
        };
    };
    let object = |kind: &str| {
        let object = Object::with_room(room)
            .maybe("id", id.as_deref())
            .text("type", kind);
        object.text("status", "success").raw("success", "true")
    };
    match name {
        EXECUTE => {
            let object = object("code_executed").raw("output", said.output.as_deref().unwrap_or("\"\""));
            object.maybe("result", result).frame()
        }
        "create_object" => {
            let object = object("object_created");
            let result = result.unwrap_or("{}");
            // This shape has the object's properties at its top, beside the envelope's members.
            match serde_json::from_str::<Members<'_>>(result) {
                Ok(members) => members
                    .iter()
                    .filter(|(name, _)| !["id", "type", "status", "success"].contains(&name.as_str()))
                    .fold(object, |object, (name, value)| object.raw(name, value.get()))
                    .maybe("output", said.output.as_deref())
                    .frame(),
                Err(_) => object
                    .raw("result", result)
                    .maybe("output", said.output.as_deref())
                    .frame(),
            }
        }
        "get_state" => object("blender_state")
            .raw("state", result.unwrap_or("null"))
            .maybe("output", said.output.as_deref())
            .frame(),
        _ => object(&format!("{name}_result"))
            .raw("result", result.unwrap_or("null"))
            .maybe("output", said.output.as_deref())
            .frame(),
    }
}

/// How to get a worker, for who asks the one that ships with the gateway.
const NO_BLENDER: &str = "`make run` starts it where Blender is installed (apt-get install \
    --no-install-recommends blender); under compose: docker compose --profile blender up";

/// What the client reads. A header is ASCII; a worker whose text is not gives it whole as the body's `message`.
fn told(fault: &Fault, members: &Members<'_>) -> String {
    if fault.code == Code::NoWorker && fault.text.contains("`blender`") {
        return format!("{}. {NO_BLENDER}", fault.text);
    }
    let whole = members.get("message");
    whole
        .and_then(|text| serde_json::from_str(text.get()).ok())
        .unwrap_or_else(|| fault.text.clone())
}

/// The error a request ends with; `name` where one was understood.
pub(super) fn failed(shape: &Shape, name: Option<&str>, fault: &Fault) -> Frame {
    let members = members(&fault.details).unwrap_or_default();
    let unknown = fault.code == Code::UnknownAction;
    let ran = name == Some(EXECUTE) && matches!(fault.code, Code::WorkerError | Code::Cancelled);
    let name = name.unwrap_or("None");
    let Shape::Action { id } = shape else {
        let text = match fault.code {
            _ if unknown => format!("Unknown command type: {name}"),
            Code::WorkerError if ran => format!("Code execution error: {}", told(fault, &members)),
            _ => told(fault, &members),
        };
        return details(
            Object::new().text("status", "error").text("message", &text),
            fault,
            &members,
        );
    };
    let text = if unknown {
        format!("Unknown command: {name}")
    } else {
        told(fault, &members)
    };
    let object = Object::new().maybe("id", id.as_deref());
    let object = object.maybe("type", ran.then_some("\"code_executed\""));
    let object = object.text("status", "error").raw("success", "false");
    details(
        object.text("message", &text).text("error", &text),
        fault,
        &members,
    )
}

/// The code, and what else the worker told.
fn details(object: Object, fault: &Fault, members: &Members<'_>) -> Frame {
    let object = object.text("code", fault.code.name());
    let known = ["error_type", "traceback", "output"];
    known
        .into_iter()
        .fold(object, |object, member| {
            object.maybe(member, members.get(member).map(|value| value.get()))
        })
        .frame()
}

/// The answer to `cancel` that names a running command.
pub(super) fn cancelled(shape: &Shape) -> Frame {
    done(
        shape,
        "cancel",
        &Body::json(&br#"{"result":{"cancelled":true}}"#[..]),
    )
}
