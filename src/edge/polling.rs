//! Engine.IO over HTTP: the handshake, polls and posts of long polling, and the WebSocket that takes over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::edge::accept::Peer;
use crate::edge::body::{self, Body};
use crate::edge::door::Wish;
use crate::edge::http::refuse;
use crate::edge::{cors, upgrade};
use crate::gateway::Gateway;
use crate::gateway::connection::{self, Line};
use crate::gateway::polls::{Found, Visit};
use crate::message::{Code, Fault};
use crate::wire::engineio::{Refusal, Request, polling};

/// A visit is taken in within this: the session is busy with earlier ones.
const ENTRY: Duration = Duration::from_secs(30);
/// A GET waits for the next ping at most; beyond that its session is stuck.
const POLL: Duration = Duration::from_secs(120);

/// Checks an upgrade at an Engine.IO path. `Ok(Some(_))`: it wants to take over this session.
///
/// # Errors
/// The reference server's 400.
#[expect(clippy::result_large_err, reason = "an answer that is sent at once")]
pub fn upgrading(
    gateway: &Gateway,
    headers: &HeaderMap,
    method: &Method,
    query: &str,
) -> Result<Option<mpsc::Sender<Visit>>, Response<Bytes>> {
    let request = Request::parse(query);
    let found = request.sid.and_then(|sid| gateway.polls.find(sid));
    if let Err(refusal) = request.admit(*method == Method::GET, true, found.is_some()) {
        gateway.metrics.rejected.handshake.inc();
        return Err(cors::allow(headers, refused(refusal)));
    }
    match found {
        Some(Found::Polls(visits)) => Ok(Some(visits)),
        Some(Found::Upgraded) => Err(cors::allow(headers, refused(Refusal::BadRequest))),
        None => Ok(None),
    }
}

/// Hands a WebSocket to the session it wants to take over.
pub async fn take_over(upgrade: OnUpgrade, visits: mpsc::Sender<Visit>) {
    if let Some((stream, early)) = upgrade::released(upgrade).await {
        // a session that ended meanwhile drops the socket
        let _late = timeout(ENTRY, visits.send(Visit::Socket(stream, early))).await;
    }
}

/// Answers a request of long polling.
pub async fn answer(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    wish: Wish,
    (method, query, headers): (&Method, &str, &HeaderMap),
    body: Body,
) -> Response<Bytes> {
    if *method == Method::OPTIONS {
        return cors::preflight(headers);
    }
    let request = Request::parse(query);
    let found = request.sid.and_then(|sid| gateway.polls.find(sid));
    let response = match request.admit(*method == Method::GET, false, found.is_some()) {
        Err(refusal) => {
            gateway.metrics.rejected.handshake.inc();
            refused(refusal)
        }
        Ok(_) => match found {
            None => open(gateway, peer, wish).await,
            Some(Found::Upgraded) => refused(Refusal::BadRequest),
            Some(Found::Polls(visits)) if *method == Method::GET => poll(&visits).await,
            Some(Found::Polls(visits)) if *method == Method::POST => {
                let limit = wish.max_message(gateway);
                match body::read(gateway, headers, body, limit).await {
                    Ok(body) => visit(&visits, |answer| Visit::Post(body, answer)).await,
                    Err(body::NoBody::TooLarge) => sent(&polling::Response::TooLarge),
                    Err(none) => refuse(none.status(), &none.fault(limit)),
                }
            }
            Some(Found::Polls(_)) => refused(Refusal::BadMethod),
        },
    };
    cors::allow(headers, response)
}

/// A new session; its first poll is answered by its handshake.
async fn open(gateway: &Arc<Gateway>, peer: &Peer, wish: Wish) -> Response<Bytes> {
    if gateway.drain.is_cancelled() {
        gateway.metrics.rejected.draining.inc();
        let fault = Fault::new(Code::Busy, "the gateway restarts; connect again in a few seconds");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &fault);
    }
    // requests come and go with places of their own; the session needs one that stays
    let Ok(place) = gateway.places.clone().try_acquire_owned() else {
        gateway.metrics.rejected.limit.inc();
        let fault = Fault::new(Code::Busy, "too many connections; try again in a few seconds");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &fault);
    };
    let Some(poller) = gateway.polls.open(wish.max_message(gateway)) else {
        let fault = Fault::new(Code::Busy, "the system has no randomness to give; try again");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &fault);
    };
    let found = gateway.polls.find(poller.sid());
    let guest = wish.guest(gateway, peer, place);
    let session = connection::run(gateway.clone(), Line::Polls(poller), guest);
    gateway.tasks.spawn(session);
    match found {
        Some(Found::Polls(visits)) => poll(&visits).await,
        _ => refused(Refusal::SessionUnknown),
    }
}

async fn poll(visits: &mpsc::Sender<Visit>) -> Response<Bytes> {
    visit(visits, Visit::Get).await
}

async fn visit(
    visits: &mpsc::Sender<Visit>,
    make: impl FnOnce(oneshot::Sender<polling::Response>) -> Visit,
) -> Response<Bytes> {
    let (answer, answered) = oneshot::channel();
    if !matches!(timeout(ENTRY, visits.send(make(answer))).await, Ok(Ok(()))) {
        return refused(Refusal::SessionUnknown);
    }
    match timeout(POLL, answered).await {
        Ok(Ok(response)) => sent(&response),
        _ => refused(Refusal::SessionUnknown),
    }
}

fn refused(refusal: Refusal) -> Response<Bytes> {
    sent(&polling::Response::Refused(refusal))
}

fn sent(answer: &polling::Response) -> Response<Bytes> {
    let mut response = Response::new(answer.body());
    *response.status_mut() = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let fields = response.headers_mut();
    if let Some(kind) = answer.content_type() {
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
