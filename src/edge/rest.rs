//! The assistant's REST routes: health, status, a command whose result is broadcast.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::bus::{Fact, Replies, Since};
use crate::edge::body::{self, Body};
use crate::edge::door::parameter;
use crate::edge::http::{json, not_allowed, refuse};
use crate::edge::ports::Purpose;
use crate::edge::{cors, upgrade};
use crate::gateway::{Gateway, local};
use crate::message::{self, Answer, CallId, Class, Code, Command, Fault, Reply, Space};
use crate::telemetry::clock;
use crate::telemetry::metrics::{DialectMetrics, Outcome};
use crate::telemetry::trace::{self, AppendSpan, CommandSpan};

/// The dialect these routes belong to.
const DIALECT: &str = "assistant";
/// A command is a sentence; nobody needs more.
const MAX_BODY: usize = 1 << 20;
/// Events looked at for the last status.
const RECENT: usize = 100;
/// Answers of one command that may wait to be broadcast.
const ANSWERS: usize = 64;
/// The broker is asked for the last status no longer than this.
const LOOK: Duration = Duration::from_secs(3);

/// Whether a path of a port is one of these routes.
#[must_use]
pub fn serves(purpose: Purpose, path: &str) -> bool {
    let here = match purpose {
        Purpose::Gateway => true,
        Purpose::Legacy(dialect) => dialect.name() == DIALECT,
        Purpose::Ops => false,
    };
    here && (path == "/health" || path.starts_with("/api/"))
}

/// Answers one of these routes.
pub async fn answer(gateway: &Arc<Gateway>, request: &upgrade::Request, body: Body) -> Response<Bytes> {
    if let Err(refusal) = cors::check(gateway, &request.headers) {
        return refusal;
    }
    if request.method == Method::OPTIONS {
        return cors::preflight(&request.headers);
    }
    let get = matches!(request.method, Method::GET | Method::HEAD);
    let answered = match (request.path.as_str(), get) {
        ("/health", true) => Ok(json(StatusCode::OK, &json!({"status": "healthy"}))),
        ("/api/status", true) => status(gateway, &request.query, &request.headers).await,
        ("/api/execute_command", false) if request.method == Method::POST => {
            execute(gateway, &request.query, &request.headers, body).await
        }
        ("/api/screenshot", true) => {
            let text = "the gateway sees no screen; a worker that does can serve a method of its own, routed in assistant.routes";
            let body = json!({"error": "not_implemented", "message": text});
            Ok(json(StatusCode::NOT_IMPLEMENTED, &body))
        }
        (path @ ("/health" | "/api/status" | "/api/execute_command" | "/api/screenshot"), _) => {
            let served = match path {
                "/api/execute_command" => "POST, OPTIONS",
                _ => "GET, HEAD, OPTIONS",
            };
            let text = format!("{} is not served at {path}", request.method);
            Ok(not_allowed(&Fault::new(Code::Invalid, text), served))
        }
        _ => {
            let body = json!({
                "error": "not_found",
                "message": format!("there is nothing at {}", request.path),
                "routes": ["GET /health", "GET /api/status", "POST /api/execute_command"],
            });
            Ok(json(StatusCode::NOT_FOUND, &body))
        }
    };
    let response = answered.unwrap_or_else(|fault| {
        let status = StatusCode::from_u16(fault.code.number()).unwrap_or(StatusCode::BAD_REQUEST);
        refuse(status, &fault)
    });
    cors::allow(&request.headers, response)
}

fn space(gateway: &Gateway, query: &str) -> Result<Space, Fault> {
    let settings = gateway.config.dialects.get(DIALECT);
    let default = settings.map_or(Space::MAIN, |own| own.space.as_str());
    Space::parse(parameter(query, "space").as_deref().unwrap_or(default))
}

/// A question that is answered here, counted and traced like those of other clients.
async fn status(gateway: &Gateway, query: &str, headers: &HeaderMap) -> Result<Response<Bytes>, Fault> {
    let since = clock::now();
    let asked = Command {
        id: CallId(0),
        service: local::SERVICE.into(),
        action: "status".to_owned(),
        body: message::Body::default(),
        correlation: None,
        traceparent: None,
    };
    let context = gateway.gate.sample(trace::of(headers).as_deref());
    let span = context.map(|context| CommandSpan::start(&context, DIALECT, &asked).here());
    let answered = last_status(gateway, query).await;
    let failed = answered.as_ref().err().map(|fault| fault.code);
    let outcome = failed.map_or(Outcome::Local, Outcome::Failed);
    gateway.metrics.dialect(DIALECT).command_ended(since, outcome);
    if let Some(span) = span {
        span.end(failed.map(|code| code.name()));
    }
    answered
}

/// What the space heard last about its commands.
async fn last_status(gateway: &Gateway, query: &str) -> Result<Response<Bytes>, Fault> {
    let space = space(gateway, query)?;
    let look = async {
        let last = gateway.bus.last_of(Class::Event, &space, DIALECT).await?;
        let since = Since::Last(RECENT);
        let bytes = gateway.config.events.memory;
        gateway
            .bus
            .read(Class::Event, &space, DIALECT, since, last, bytes)
            .await
    };
    let recent = timeout_at(Instant::now() + LOOK, look)
        .await
        .unwrap_or_else(|_| Err(Fault::new(Code::BusDown, "NATS does not answer; try again")))?;
    let heard = recent.iter().rev().filter(|event| &*event.topic == "status");
    let last = heard
        .filter_map(|event| serde_json::from_slice::<Map<String, Value>>(&event.body.bytes).ok())
        .find(|status| status.contains_key("operation"));
    let status = last.map_or_else(
        || json!({"operation": "", "status": "idle", "message": "", "progress": 0}),
        Value::Object,
    );
    Ok(json(StatusCode::OK, &status))
}

/// Starts a command; what comes of it is broadcast.
async fn execute(
    gateway: &Arc<Gateway>,
    query: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response<Bytes>, Fault> {
    let space = space(gateway, query)?;
    if gateway.drain.is_cancelled() {
        return Err(Fault::new(
            Code::Busy,
            "the gateway restarts; try again in a few seconds",
        ));
    }
    let body = body::read(gateway, headers, body, MAX_BODY)
        .await
        .map_err(|none| none.fault(MAX_BODY))?;
    let params: Map<String, Value> = serde_json::from_slice(&body)
        .map_err(|error| Fault::new(Code::Invalid, format!("the body is no JSON object: {error}")))?;
    let Some(text) = params.get("text").and_then(Value::as_str) else {
        return Err(Fault::new(Code::Invalid, "'text' is missing or no text"));
    };
    let routes = gateway.routes(DIALECT);
    let Some(service) = routes.service("execute_command") else {
        return Err(Fault::new(Code::NoWorker, "execute_command is not routed"));
    };
    let mut command = Command {
        id: CallId(1),
        service,
        action: "execute_command".to_owned(),
        body: message::Body::json(json!({"command": text}).to_string()),
        correlation: None,
        traceparent: None,
    };
    let from = format!("{DIALECT}/{}", ulid::Ulid::new());
    let context = gateway.gate.sample(trace::of(headers).as_deref());
    let span = context.map(|context| CommandSpan::start(&context, DIALECT, &command));
    command.traceparent = span.as_ref().map(CommandSpan::traceparent);
    let metrics = gateway.metrics.dialect(DIALECT);
    metrics.in_flight.inc();
    let mut asked = Asked {
        space,
        from,
        since: clock::now(),
        span,
        metrics,
    };
    let (sender, answers) = mpsc::channel(ANSWERS);
    let replies = Arc::new(Answers(sender));
    let called = gateway
        .bus
        .call(&asked.from, &asked.space, command, clock::unix(), replies)
        .await;
    match called {
        Ok(call) => {
            if let Some(span) = &mut asked.span {
                span.sent(call.id());
            }
        }
        Err(fault) => {
            asked.over(Outcome::Failed(fault.code));
            return Err(fault);
        }
    }
    gateway.tasks.spawn(broadcast(gateway.clone(), asked, answers));
    Ok(json(
        StatusCode::OK,
        &json!({"message": "Command execution started"}),
    ))
}

/// A command under way for a client that does not wait.
struct Asked {
    space: Space,
    from: String,
    since: std::time::Instant,
    span: Option<CommandSpan>,
    metrics: Arc<DialectMetrics>,
}

impl Asked {
    /// Closes its books.
    fn over(self, outcome: Outcome) {
        self.metrics.in_flight.dec();
        self.metrics.command_ended(self.since, outcome);
        if let Some(span) = self.span {
            span.end(matches!(outcome, Outcome::Failed(_)).then(|| outcome.name()));
        }
    }
}

enum News {
    /// The trace of the final answer that follows.
    Traced(String),
    Answer(Answer),
}

struct Answers(mpsc::Sender<News>);

impl Replies for Answers {
    fn reply(&self, reply: Reply) {
        // interim answers may be too many; the final one always has a place
        if !reply.answer.is_final() && self.0.capacity() <= 1 {
            return;
        }
        if let Err(error) = self.0.try_send(News::Answer(reply.answer)) {
            debug!(%error, "an answer was not broadcast");
        }
    }

    fn traced(&self, _id: CallId, traceparent: &str) {
        if self.0.capacity() > 1 {
            let _ = self.0.try_send(News::Traced(traceparent.to_owned()));
        }
    }
}

/// Tells the space how a command went and what came of it.
async fn broadcast(gateway: Arc<Gateway>, mut asked: Asked, mut answers: mpsc::Receiver<News>) {
    while let Some(news) = answers.recv().await {
        let answer = match news {
            News::Traced(traceparent) => {
                if let Some(span) = &mut asked.span {
                    span.replied(&traceparent);
                }
                continue;
            }
            News::Answer(answer) => answer,
        };
        let ended = Outcome::of(&answer);
        let (topic, body) = match answer {
            Answer::Ack(_) => continue,
            Answer::Progress(body) if body.is_empty() => continue,
            Answer::Progress(body) => ("status", body),
            Answer::Done(body) => ("command_response", body),
            Answer::Failed(fault) => {
                let status = json!({
                    "operation": "command_execution", "status": "error", "message": fault.text,
                    "progress": 100, "code": fault.code.name(),
                });
                ("status", message::Body::json(status.to_string()))
            }
        };
        let span = asked.span.as_ref().map(|command| {
            let place = command.outcome();
            AppendSpan::start(&place, DIALECT, Class::Event, topic, body.bytes.len())
        });
        let fact = Fact {
            class: Class::Event,
            space: asked.space.clone(),
            dialect: DIALECT.into(),
            topic: topic.to_owned(),
            body,
            time: clock::unix(),
            from: Some(asked.from.clone()),
            id: span.as_ref().and_then(AppendSpan::id),
            expected: None,
            traceparent: span.as_ref().map(AppendSpan::traceparent),
        };
        let stored: Result<u64, Fault> = gateway.bus.append(fact).await.map_err(Into::into);
        let failed = stored.err().map(|fault| {
            debug!(%fault, topic, "a result was not broadcast");
            fault.code.name()
        });
        if let Some(span) = span {
            span.end(failed);
        }
        if let Some(outcome) = ended {
            return asked.over(outcome);
        }
    }
}
