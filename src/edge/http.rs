//! The warp routes of the client ports: upgrades, the landing page, what it reads, and a 404 that helps.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;

use crate::edge::accept::Peer;
use crate::edge::door::{self, Wish};
use crate::edge::ports::Purpose;
use crate::edge::{cors, landing, polling, rest, upgrade, viewer};
use crate::gateway::Gateway;
use crate::message::Fault;
use crate::wire::handshake;

/// Everything the client ports answer over HTTP.
#[must_use]
pub fn routes(gateway: Arc<Gateway>) -> BoxedFilter<(Response<Bytes>,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Peer>())
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::body::stream())
        .and_then(
            move |method: Method,
                  path: FullPath,
                  query: String,
                  headers: HeaderMap,
                  peer: Peer,
                  on_upgrade: Option<OnUpgrade>,
                  body| {
                let request = upgrade::Request {
                    method,
                    path: path.as_str().to_owned(),
                    query,
                    headers,
                    peer,
                    upgrade: on_upgrade,
                };
                let gateway = gateway.clone();
                let announced = announces(&request.headers);
                async move {
                    let mut response = answer(&gateway, request, whole(body)).await;
                    if announced && response.status().as_u16() >= 400 {
                        // Its body may be unread, and then the connection ends. A client that is not told would
                        // send its next request into that end.
                        let close = HeaderValue::from_static("close");
                        response.headers_mut().insert(CONNECTION, close);
                    }
                    Ok::<_, Infallible>(response)
                }
            },
        )
        .boxed()
}

/// Whether a body follows.
fn announces(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

fn whole(
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send + Sync + 'static,
) -> impl Stream<Item = Result<Bytes, warp::Error>> + Send + Sync {
    body.map(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining())))
}

async fn answer(
    gateway: &Arc<Gateway>,
    request: upgrade::Request,
    body: impl Stream<Item = Result<Bytes, warp::Error>> + Send + Sync + 'static,
) -> Response<Bytes> {
    if handshake::wanted(&request.headers) {
        return upgrade::answer(gateway, request);
    }
    let upgrade::Request {
        method,
        path,
        query,
        headers,
        peer,
        ..
    } = &request;
    if path.ends_with(".io/")
        && let Ok(wish) = Wish::read(gateway, peer, path, query, headers)
        && wish.is_engine()
    {
        if let Err(refusal) = cors::check(gateway, headers) {
            return refusal;
        }
        let asked = (method, query.as_str(), headers);
        return Box::pin(polling::answer(gateway, peer, wish, asked, Box::pin(body))).await;
    }
    if rest::serves(peer.purpose, path) {
        return Box::pin(rest::answer(gateway, &request, Box::pin(body))).await;
    }
    if request.method != Method::GET && request.method != Method::HEAD {
        let fault = Fault::new(crate::message::Code::Invalid, "only GET is served here");
        return not_allowed(&fault, "GET, HEAD");
    }
    if let Some(response) = viewer::answer(gateway, &request).await {
        return response;
    }
    match (request.peer.purpose, request.path.as_str()) {
        (Purpose::Gateway, "/") => page(landing::PAGE, "text/html; charset=utf-8"),
        (Purpose::Gateway, "/status.json") => json(StatusCode::OK, &landing::status(gateway)),
        (Purpose::Gateway, path) => missing(gateway, path),
        (Purpose::Legacy(dialect), _) => {
            let port = gateway.published("gateway").unwrap_or_default();
            let text = format!(
                "This is Causeway's port for {} clients; they speak WebSocket here.\n\
                 The gateway's page is on port {port}.\n",
                dialect.name()
            );
            plain(StatusCode::UPGRADE_REQUIRED, &text)
        }
        (Purpose::Ops, _) => plain(StatusCode::NOT_FOUND, ""),
    }
}

fn missing(gateway: &Gateway, path: &str) -> Response<Bytes> {
    let body = serde_json::json!({
        "error": "not_found",
        "message": format!("there is nothing at {path}"),
        "pages": ["/", "/viewer", "/status.json"],
        "websockets": door::paths(gateway),
    });
    json(StatusCode::NOT_FOUND, &body)
}

fn page(text: &'static str, content_type: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    fields.insert("x-frame-options", HeaderValue::from_static("DENY"));
    response
}

/// A text answer.
#[must_use]
pub fn plain(status: StatusCode, text: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::copy_from_slice(text.as_bytes()));
    *response.status_mut() = status;
    let value = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}

/// A JSON answer.
#[must_use]
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(value.to_string()));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The refusal of a method, with those that are served.
#[must_use]
pub fn not_allowed(fault: &Fault, served: &'static str) -> Response<Bytes> {
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, fault);
    let fields = response.headers_mut();
    fields.insert(ALLOW, HeaderValue::from_static(served));
    response
}

/// A fault as JSON.
#[must_use]
pub fn refuse(status: StatusCode, fault: &Fault) -> Response<Bytes> {
    let body = serde_json::json!({"error": fault.code.name(), "message": fault.text});
    json(status, &body)
}
