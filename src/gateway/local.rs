//! What the gateway answers itself: as service `gateway` on NATS, and to its own clients without a round trip.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::service::{Request, ServiceExt};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::bus::contract::{self, headers};
use crate::dialect;
use crate::gateway::Gateway;
use crate::gateway::lobby::Key;
use crate::message::{Body, Code, Fault, Space};
use crate::telemetry::clock;
use crate::telemetry::trace::WorkSpan;

/// The service's name.
pub const SERVICE: &str = "gateway";
/// What it answers whatever its dialects.
const ACTIONS: [&str; 3] = ["get_status", "services", "sessions"];

/// Answers being made for others at once; beyond, they are told `busy`.
const AT_ONCE: usize = 16;
/// Handing one answer to the connection.
const ANSWER: Duration = Duration::from_secs(2);

/// Answers an action asked in a space.
///
/// # Errors
/// [`Code::UnknownAction`], naming the actions there are.
pub async fn answer(gateway: &Gateway, space: &Space, action: &str) -> Result<Body, Fault> {
    let value = match action {
        "get_status" => status(gateway),
        "services" => services(gateway),
        "sessions" => {
            json!({"space": space.as_str(), "sessions": gateway.presence.list(Some(space.as_str()))})
        }
        _ => {
            return question(gateway, space, action).await.ok_or_else(|| {
                let known: Vec<String> = actions().collect();
                let text = format!("the gateway itself answers {}, not {action}", known.join(", "));
                Fault::new(Code::UnknownAction, text)
            });
        }
    };
    Ok(Body::json(value.to_string()))
}

/// Everything it answers: its own, and what dialects answer from the state of a space.
fn actions() -> impl Iterator<Item = String> {
    let asked = dialect::ALL.iter().flat_map(|dialect| {
        let questions = dialect.questions().iter();
        questions.map(|question| format!("{}_{question}", dialect.name()))
    });
    ACTIONS.iter().map(|action| (*action).to_owned()).chain(asked)
}

/// A question that clients of a dialect ask, answered as for them.
async fn question(gateway: &Gateway, space: &Space, action: &str) -> Option<Body> {
    let (dialect, question) = dialect::ALL.iter().find_map(|dialect| {
        let asked = action.strip_prefix(dialect.name())?.strip_prefix('_')?;
        dialect.questions().contains(&asked).then_some((*dialect, asked))
    })?;
    let key = Key {
        space: space.clone(),
        dialect,
    };
    let known = gateway.look(&key).await;
    gateway.show(&key, &known, |view| dialect.answer(question, view))
}

/// Whether the assistant's three parts run, by the names its clients know.
fn status(gateway: &Gateway) -> Value {
    let state = |service: &str| {
        if gateway.directory.running(service) {
            "running"
        } else {
            "stopped"
        }
    };
    json!({
        "vision": state("vision"),
        "language": state("language"),
        "command": state("command_processor"),
    })
}

fn services(gateway: &Gateway) -> Value {
    let instances = gateway.directory.snapshot();
    let list = instances.iter().map(|instance| {
        json!({
            "name": instance.name,
            "id": instance.id,
            "version": instance.version,
            "description": instance.description,
            "metadata": instance.metadata,
        })
    });
    Value::Array(list.collect())
}

/// Serves the same on NATS; runs until the gateway drains.
pub async fn serve(gateway: Arc<Gateway>) {
    let exposed = gateway
        .config
        .gateway
        .bind
        .iter()
        .any(|address| !address.is_loopback());
    let metadata = HashMap::from([
        ("exposed".to_owned(), exposed.to_string()),
        ("gateway".to_owned(), gateway.bus.gateway().to_owned()),
    ]);
    let service = gateway
        .bus
        .ingress()
        .service_builder()
        .description("Causeway: what a gateway answers itself")
        .metadata(metadata)
        .queue_group(SERVICE)
        .start(SERVICE, env!("CARGO_PKG_VERSION"))
        .await;
    let service = match service {
        Ok(service) => service,
        Err(error) => return warn!(%error, "the gateway is not a service on NATS"),
    };
    let mut requests = Vec::new();
    for action in actions() {
        let subject = format!("gw.v1.cmd.*.{SERVICE}.{action}");
        let action: Arc<str> = action.into();
        match service.endpoint_builder().name(&*action).add(&subject).await {
            Ok(endpoint) => requests.push(endpoint.map(move |request| (action.clone(), request)).boxed()),
            Err(error) => warn!(%error, %action, "the gateway does not answer this on NATS"),
        }
    }
    let mut requests = futures_util::stream::select_all(requests);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let (action, request) = tokio::select! {
            request = requests.next() => match request {
                Some(request) => request,
                None => return,
            },
            () = gateway.drain.cancelled() => break,
        };
        let parts = contract::command_parts(&request.message.subject);
        let space = parts
            .and_then(|(space, ..)| Space::parse(&space).ok())
            .unwrap_or_default();
        let span = span(&request, SERVICE, &action);
        let Ok(place) = places.clone().try_acquire_owned() else {
            let text = "the gateway is asked too much at once; try again in a moment";
            respond(&request, &action, Err(Fault::new(Code::Busy, text)), span).await;
            continue;
        };
        let gateway = gateway.clone();
        // a large answer is put away first, which no other waits for
        gateway.tasks.clone().spawn(async move {
            let body = match answer(&gateway, &space, &action).await {
                Ok(body) => gateway.bus.enclosed(&body).await,
                Err(fault) => Err(fault),
            };
            respond(&request, &action, body, span).await;
            drop(place);
        });
    }
    if let Err(error) = service.stop().await {
        info!(%error, "the service did not stop cleanly");
    }
}

/// The span of a request that this gateway performs, where it came sampled.
pub(super) fn span(request: &Request, service: &'static str, action: &str) -> Option<WorkSpan> {
    let head = |name: &'static str| {
        let value = request.message.headers.as_ref()?.get(name)?;
        Some(value.as_str())
    };
    let (traceparent, id) = (head(headers::TRACEPARENT), head(headers::MSG_ID));
    WorkSpan::start(traceparent, id, service, action, request.message.payload.len())
}

/// Answers a request: with a payload, or with the reference of a body that is too large to be one.
async fn respond(
    request: &Request,
    action: &str,
    body: Result<(Bytes, Option<String>), Fault>,
    span: Option<WorkSpan>,
) {
    let mut head = HeaderMap::new();
    head.insert(headers::TIME, clock::unix().to_string());
    if let Some(span) = &span {
        head.insert(headers::TRACEPARENT, span.traceparent());
    }
    let failed = body.as_ref().err().map(|fault| fault.code.name());
    let response = match body {
        Ok((payload, reference)) => {
            if let Some(reference) = reference {
                head.insert(headers::BODY, reference);
            }
            Ok(payload)
        }
        Err(fault) => Err(async_nats::service::error::Error {
            status: headers::value(&fault.text).into_owned(),
            code: usize::from(fault.code.number()),
        }),
    };
    hand_over(action, request.respond_with_headers(response, head)).await;
    if let Some(span) = span {
        span.end(failed);
    }
}

/// Hands an answer to the connection, which may take nothing for long while the broker is away.
pub(super) async fn hand_over<E: Display>(action: &str, answer: impl Future<Output = Result<(), E>>) {
    match timeout(ANSWER, answer).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => info!(%error, action, "an answer did not go out"),
        Err(_) => info!(action, "an answer did not go out in time"),
    }
}
