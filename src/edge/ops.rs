//! The operations port: metrics, probes and the bus contract, apart from clients and up until the process ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;

use crate::edge::asyncapi;
use crate::edge::ports::Port;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::ready::Readiness;

/// Scrapers and probes are few; a flood of them must not take the clients' descriptors.
const CONNECTIONS: usize = 64;
/// A probe's connection may stay this long.
const LIFETIME: Duration = Duration::from_secs(300);
const HEAD: Duration = Duration::from_secs(10);
const PATHS: [&str; 4] = ["/metrics", "/livez", "/readyz", "/asyncapi.json"];

/// What brings gauges up to date before each scrape.
pub type Scrape = Arc<dyn Fn() + Send + Sync>;

/// Everything the operations port answers.
#[must_use]
pub fn routes(
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    scrape: Scrape,
) -> BoxedFilter<(Response<Bytes>,)> {
    warp::method()
        .and(warp::path::full())
        .and_then(move |method: Method, path: FullPath| {
            let answer = answer(&method, path.as_str(), &metrics, &readiness, &scrape);
            async move { Ok::<_, Infallible>(answer) }
        })
        .boxed()
}

fn answer(
    method: &Method,
    path: &str,
    metrics: &Metrics,
    readiness: &Readiness,
    scrape: &Scrape,
) -> Response<Bytes> {
    if method != Method::GET && method != Method::HEAD {
        let body = json!({"error": "invalid", "message": "only GET is served here"});
        let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &body);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" if !metrics.counts() => json(
            StatusCode::NOT_FOUND,
            &json!({"error": "not_found", "message": "nothing is counted: ops.metrics is off"}),
        ),
        "/metrics" => {
            scrape();
            typed(
                StatusCode::OK,
                metrics.text().into(),
                "text/plain; version=0.0.4; charset=utf-8",
            )
        }
        // whoever restarts the process on this must not do so because NATS is away
        "/livez" => json(StatusCode::OK, &json!({"live": true})),
        "/readyz" => {
            let reasons: Vec<Value> = readiness.reasons().iter().map(|reason| reason.json()).collect();
            let ready = reasons.is_empty();
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            json(status, &json!({"ready": ready, "reasons": reasons}))
        }
        "/asyncapi.json" => json(StatusCode::OK, &asyncapi::document()),
        _ => json(
            StatusCode::NOT_FOUND,
            &json!({"error": "not_found", "paths": PATHS}),
        ),
    }
}

fn json(status: StatusCode, body: &Value) -> Response<Bytes> {
    typed(status, format!("{body}\n").into(), "application/json")
}

fn typed(status: StatusCode, body: Bytes, content_type: &'static str) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Serves a bound port until the process ends: probes must see a gateway drain.
pub fn open(port: Port, routes: &BoxedFilter<(Response<Bytes>,)>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    for listener in port.listeners {
        tokio::spawn(accept(listener, routes.clone(), places.clone()));
    }
}

async fn accept(listener: TcpListener, routes: BoxedFilter<(Response<Bytes>,)>, places: Arc<Semaphore>) {
    let mut told = false;
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(%error, port = "ops", "cannot accept");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        told = false;
        let service = TowerToHyperService::new(warp::service(routes.clone()));
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(LIFETIME, connection).await {
                debug!(%error, "operations request");
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Ops {
        metrics: Arc<Metrics>,
        readiness: Readiness,
        scrapes: Arc<AtomicUsize>,
    }

    impl Ops {
        fn new() -> Self {
            Self {
                metrics: Metrics::new(&["voice"]),
                readiness: Readiness::default(),
                scrapes: Arc::default(),
            }
        }

        fn get(&self, path: &str) -> (u16, String) {
            let scrapes = self.scrapes.clone();
            let scrape: Scrape = Arc::new(move || {
                scrapes.fetch_add(1, Ordering::Relaxed);
            });
            let response = answer(&Method::GET, path, &self.metrics, &self.readiness, &scrape);
            (
                response.status().as_u16(),
                String::from_utf8(response.body().to_vec()).unwrap(),
            )
        }
    }

    #[test]
    fn ready_only_while_started_connected_and_not_draining() {
        let ops = Ops::new();
        assert_eq!(
            ops.get("/readyz"),
            (503, "{\"ready\":false,\"reasons\":[{\"part\":\"starting\",\"reason\":\"not every port is open yet\"},{\"part\":\"nats\",\"reason\":\"not connected yet\"}]}\n".to_owned())
        );
        ops.readiness.started();
        ops.readiness.bus_up();
        assert_eq!(
            ops.get("/readyz"),
            (200, "{\"ready\":true,\"reasons\":[]}\n".to_owned())
        );
        assert!(ops.readiness.is_ready());
        ops.readiness.bus_down("no answer for 2 s");
        let (status, body) = ops.get("/readyz");
        assert_eq!(status, 503);
        assert!(body.contains("no answer for 2 s"), "{body}");
        assert_eq!(ops.get("/livez").0, 200);
        ops.readiness.bus_up();
        ops.readiness.drain();
        let (status, body) = ops.get("/readyz");
        assert_eq!(status, 503);
        assert!(
            body.contains("\"draining\"") && !body.contains("\"nats\""),
            "{body}"
        );
        assert_eq!(ops.get("/livez").0, 200);
    }

    #[test]
    fn a_scrape_brings_gauges_up_to_date_first() {
        let ops = Ops::new();
        let (status, text) = ops.get("/metrics");
        assert_eq!((status, ops.scrapes.load(Ordering::Relaxed)), (200, 1));
        assert!(text.contains("gw_connections{dialect=\"voice\"} 0"));
        assert_eq!(ops.get("/").0, 404);
        assert!(ops.get("/metric").1.contains("\"/metrics\""));
        assert_eq!(ops.scrapes.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn where_nothing_is_counted_there_is_nothing_to_scrape() {
        let mut ops = Ops::new();
        ops.metrics = Metrics::counting(&["voice"], false);
        let (status, text) = ops.get("/metrics");
        assert_eq!((status, ops.scrapes.load(Ordering::Relaxed)), (404, 0));
        assert!(text.contains("ops.metrics"), "{text}");
    }
}
