//! One worker asks another: the same command a gateway would send, in the same trace.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt;
use tokio::time::timeout;
use tracing::Instrument;
use ulid::Ulid;

use super::job::{Work, header};
use super::large;
use super::outlet::unix_now;
use super::trace;
use crate::bus::contract::{self, headers};
use crate::message::{Body, Code, Fault};

/// To the first answer, and between answers: workers at work say so every five seconds.
const QUIET: Duration = Duration::from_secs(15);

/// Asks `service` to do `action` for the one who sent `work`, and waits for the final answer.
pub(super) async fn ask(
    client: &Client,
    work: &Work,
    service: &str,
    action: &str,
    body: Body,
) -> Result<Body, Fault> {
    let id = Ulid::new().to_string();
    let span = trace::request(service, action, &id);
    let result = exchange(client, work, (service, action, &id), body)
        .instrument(span.clone())
        .await;
    if let Err(fault) = &result {
        trace::failed(&span, fault);
    }
    result
}

async fn exchange(
    client: &Client,
    work: &Work,
    (service, action, id): (&str, &str, &str),
    body: Body,
) -> Result<Body, Fault> {
    let gone = |cause: String| Fault::new(Code::BusDown, format!("{service} cannot be asked: {cause}"));
    let subject = contract::command(&work.space, service, action)?;
    let inbox = client.new_inbox();
    let mut answers = client
        .subscribe(inbox.clone())
        .await
        .map_err(|error| gone(error.to_string()))?;
    let mut head = HeaderMap::new();
    head.insert(headers::MSG_ID, id);
    head.insert(headers::TIME, unix_now().to_string());
    head.insert(headers::DEADLINE, QUIET.as_millis().to_string());
    // without a collector of our own the trace passes through
    if let Some(header) = trace::traceparent(&tracing::Span::current()).or_else(|| work.traceparent.clone()) {
        head.insert(headers::TRACEPARENT, header);
    }
    let (body, reference) = large::outgoing(client, body.bytes).await?;
    if let Some(reference) = reference {
        head.insert(headers::BODY, reference);
    }
    let sent = client.publish_with_reply_and_headers(subject, inbox, head, body);
    timeout(QUIET, sent)
        .await
        .map_err(|_| gone("NATS takes nothing".to_owned()))?
        .map_err(|error| gone(error.to_string()))?;
    loop {
        let late = || Fault::new(Code::Timeout, format!("{service} did not answer in time"));
        let next = timeout(QUIET, answers.next()).await.map_err(|_| late())?;
        let answer = next.ok_or_else(|| gone("the connection ended".to_owned()))?;
        let reference = header(&answer, headers::BODY).map(str::to_owned);
        match (read(service, answer), reference) {
            (None, _) => {}
            (Some(Ok(_)), Some(reference)) => {
                return large::fetch(client, &reference).await.map(Body::json);
            }
            (Some(result), _) => return result,
        }
    }
}

/// What an answer says; `None` while more follows.
fn read(service: &str, answer: Message) -> Option<Result<Body, Fault>> {
    if answer.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
        let text = format!("no worker serves {service}; start one: causeway worker {service}");
        return Some(Err(Fault::new(Code::NoWorker, text)));
    }
    let field = |name| header(&answer, name);
    if let Some(text) = field(headers::ERROR) {
        let number = field(headers::ERROR_CODE).and_then(|code| code.parse().ok());
        let code = number.map_or(Code::WorkerError, Code::from_number);
        return Some(Err(Fault::new(code, text)));
    }
    match field(headers::STATUS) {
        Some("ack" | "progress") => None,
        _ => Some(Ok(Body::json(answer.payload))),
    }
}
