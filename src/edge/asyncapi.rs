//! The bus contract as an AsyncAPI 3 document, built from the same definitions the gateway works by.

use serde_json::{Map, Value, json};

use crate::bus::contract::headers;
use crate::dialect;
use crate::message::Code;

const CHANNELS: [(&str, &str, &[&str], &str); 5] = [
    (
        "command",
        "gw.v1.cmd.{space}.{service}.{action}",
        &["command"],
        "A client's or worker's request to a service.",
    ),
    (
        "cancel",
        "gw.v1.cmd.{space}.{service}.cancel",
        &["cancel"],
        "Nobody waits for a command any more; heard by every instance.",
    ),
    (
        "event",
        "gw.v1.evt.{space}.{dialect}.{topic}",
        &["fact"],
        "A fact for everybody in the space who speaks the dialect; stored in GW_EVENTS.",
    ),
    (
        "state",
        "gw.v1.state.{space}.{dialect}.{topic}",
        &["fact"],
        "The last value of a topic; stored in GW_STATE. An empty body takes it away.",
    ),
    (
        "live",
        "gw.v1.live.{space}.{dialect}.{topic}",
        &["live"],
        "What the streams stored, republished by the server alone.",
    ),
];

/// The document.
#[must_use]
pub fn document() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Causeway bus contract",
            "version": "1.0.0",
            "description": "What crosses NATS between gateways and workers. The words are in deploy/docs/contract.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {
                "host": "localhost:4222",
                "protocol": "nats",
                "description": "The gateway's own server, or the one it is configured to use.",
            },
        },
        "channels": channels(),
        "operations": operations(),
        "components": {"messages": messages(), "parameters": parameters()},
    })
}

fn reference(path: &str) -> Value {
    json!({"$ref": format!("#/{path}")})
}

fn channels() -> Value {
    let mut all = Map::new();
    for (name, address, messages, description) in CHANNELS {
        let mut parameters = Map::new();
        for part in address.split('.').filter_map(|part| part.strip_prefix('{')) {
            let part = part.trim_end_matches('}');
            parameters.insert(part.into(), reference(&format!("components/parameters/{part}")));
        }
        let messages: Map<String, Value> = messages
            .iter()
            .map(|message| {
                (
                    (*message).into(),
                    reference(&format!("components/messages/{message}")),
                )
            })
            .collect();
        all.insert(
            name.into(),
            json!({"address": address, "description": description, "messages": messages, "parameters": parameters}),
        );
    }
    all.insert(
        "reply".into(),
        json!({
            "address": null,
            "description": "The reply subject of a command: any number of interim replies, then one final reply.",
            "messages": {"reply": reference("components/messages/reply")},
        }),
    );
    Value::Object(all)
}

/// What a worker does; gateways do the opposite.
fn operations() -> Value {
    let channel = |name: &str| reference(&format!("channels/{name}"));
    let message = |of: &str, name: &str| json!([reference(&format!("channels/{of}/messages/{name}"))]);
    json!({
        "answerCommands": {
            "action": "receive", "channel": channel("command"), "messages": message("command", "command"),
            "summary": "A worker hears commands in the queue group of its service name and answers each.",
            "reply": {
                "address": {"location": "$message.header#/reply", "description": "The reply subject of the NATS message."},
                "channel": channel("reply"), "messages": message("reply", "reply"),
            },
        },
        "hearCancel": {
            "action": "receive", "channel": channel("cancel"), "messages": message("cancel", "cancel"),
            "summary": "A worker that can, stops the command of this id.",
        },
        "stateEvent": {
            "action": "send", "channel": channel("event"), "messages": message("event", "fact"),
            "summary": "Anybody states an event and waits for the stream's acknowledgement.",
        },
        "setState": {
            "action": "send", "channel": channel("state"), "messages": message("state", "fact"),
            "summary": "Anybody sets a state.",
        },
        "observe": {
            "action": "receive", "channel": channel("live"), "messages": message("live", "live"),
            "summary": "Anybody may listen to what was stored.",
        },
    })
}

fn messages() -> Value {
    json!({
        "command": {
            "summary": "One request.",
            "headers": fields(&[
                (headers::MSG_ID, "Id of the command; `cancel` names it."),
                (headers::TIME, "Unix time in nanoseconds."),
                (headers::SESSION, "`<dialect>/<session id>` of the client."),
                (headers::DEADLINE, "Milliseconds the sender waits, from Gw-Time."),
                (headers::CORRELATION, "The client's own id."),
                (headers::CONTENT_TYPE, "What the body is when it is not JSON."),
                (headers::TRACEPARENT, "W3C trace context."),
                (headers::BODY, "Where a large body lies."),
            ]),
            "payload": {"description": "The parameters, whole."},
        },
        "cancel": {
            "summary": "A command is withdrawn.",
            "payload": {
                "type": "object", "required": ["id"],
                "properties": {"id": {"type": "string", "description": "Nats-Msg-Id of the command."}},
            },
        },
        "reply": {
            "summary": "An answer; without any header it is a final `done`.",
            "headers": reply_headers(),
            "payload": {"description": "The result, the progress, or the details of a failure."},
        },
        "fact": {
            "summary": "An event or a state.",
            "headers": fields(&[
                (headers::MSG_ID, "A fact said twice with the same id is stored once."),
                (headers::TIME, "Unix time in nanoseconds."),
                (headers::SESSION, "`<dialect>/<session id>` where a client says it."),
                (headers::CONTENT_TYPE, "What the body is when it is not JSON."),
                (headers::TRACEPARENT, "W3C trace context."),
                (headers::EXPECTED, "Store only if the last sequence on the subject is this one."),
                (headers::BODY, "Where a large body lies."),
            ]),
            "payload": {"description": "What happened, or the value."},
        },
        "live": {
            "summary": "A stored event or state with its place in the stream.",
            "headers": fields(&[
                (headers::STREAM, "Which stream."),
                (headers::SUBJECT, "The subject it was stored under."),
                (headers::SEQUENCE, "Its sequence."),
                (headers::LAST_SEQUENCE, "The sequence before it on the same subject."),
            ]),
            "payload": {"description": "As stored."},
        },
    })
}

fn fields(list: &[(&str, &str)]) -> Value {
    let properties: Map<String, Value> = list
        .iter()
        .map(|(name, text)| ((*name).into(), json!({"type": "string", "description": text})))
        .collect();
    json!({"type": "object", "properties": properties})
}

fn reply_headers() -> Value {
    let codes: Vec<String> = Code::ALL
        .iter()
        .map(|code| format!("{} {}", code.number(), code.name()))
        .collect();
    let mut all = fields(&[
        (headers::ERROR, "Text of a failure; wins over Gw-Status."),
        (headers::ERROR_CODE, &codes.join(", ")),
        (headers::TIME, "When the reply was sent."),
        (headers::CONTENT_TYPE, "What the body is when it is not JSON."),
        (headers::BODY, "Where a large body lies."),
    ]);
    all["properties"][headers::STATUS] =
        json!({"type": "string", "enum": ["ack", "progress", "done"], "default": "done"});
    all
}

fn parameters() -> Value {
    let real = || dialect::ALL.iter().filter(|dialect| dialect.name() != "echo");
    let names: Vec<&str> = real().map(|dialect| dialect.name()).collect();
    let mut services: Vec<&str> = real()
        .flat_map(|dialect| dialect.routes().iter().map(|(_, service)| *service))
        .collect();
    services.sort_unstable();
    services.dedup();
    json!({
        "space": {"description": "An isolated conversation.", "default": "main"},
        "service": {"description": "Who answers.", "examples": services},
        "action": {"description": "What is asked; any text, escaped as one token.", "examples": actions()},
        "dialect": {"description": "The client protocol.", "enum": names},
        "topic": {"description": "What kind of fact; any text, escaped as one token."},
    })
}

fn actions() -> Vec<&'static str> {
    let rows = dialect::ALL.iter().flat_map(|dialect| dialect.routes());
    rows.map(|(action, _)| *action)
        .filter(|action| !action.contains('*'))
        .collect()
}
