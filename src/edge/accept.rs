//! The accept loop: a place for each connection, one look at its first byte, then HTTP or raw JSON.
//!
//! A drain closes the ports at once, but not before the eyes of those who poll: each of their requests may be a
//! connection of its own, so their ports stay until the last of them has left. Nobody new comes in meanwhile.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::{debug, warn};
use warp::filters::BoxedFilter;

use crate::edge::ports::{Port, Purpose};
use crate::edge::{http, raw};
use crate::gateway::Gateway;
use crate::gateway::apart::Spell;

/// First byte of a TLS handshake, which has its place here but is not served yet.
const TLS: u8 = 0x16;
/// What hyper may buffer of one connection.
const HEAD: usize = 16 * 1024;

/// What the client ports answer over HTTP.
type Routes = BoxedFilter<(::http::Response<Bytes>,)>;

/// Who is at the other end of a request, as handlers see it.
#[derive(Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Which port it came to.
    pub purpose: Purpose,
    /// Its place, taken along by an upgrade.
    pub place: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

/// Accepts on every listener of a port until the gateway has drained.
pub fn open(gateway: &Arc<Gateway>, port: Port) {
    for listener in port.listeners {
        let accepts = accept(gateway.clone(), listener, port.purpose);
        gateway.tasks.spawn_on(accepts, gateway.threshold.outside());
    }
}

async fn accept(gateway: Arc<Gateway>, listener: TcpListener, purpose: Purpose) {
    let routes = http::routes(gateway.clone());
    let mut spell = Spell::begin();
    let mut told = false;
    loop {
        spell.go_on().await;
        let accepted = tokio::select! {
            accepted = next(&gateway, &listener) => accepted,
            () = closes(&gateway, purpose) => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // out of descriptors: those who wait are served when others leave
                gateway.metrics.accept_errors.inc();
                if !std::mem::replace(&mut told, true) {
                    warn!(%error, port = purpose.name(), "cannot accept");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        told = false;
        let Ok(place) = gateway.places.clone().try_acquire_owned() else {
            gateway.metrics.rejected.limit.inc();
            gateway.tasks.spawn(refuse(stream));
            continue;
        };
        let (own, routes) = (gateway.clone(), routes.clone());
        gateway
            .tasks
            .spawn(serve(own, routes, stream, address, purpose, place));
    }
}

/// The next connection. Its socket is looked after inside, where it will be for most of its life.
async fn next(gateway: &Gateway, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        let _inside = gateway.threshold.inside().enter();
        listener.poll_accept(context)
    })
    .await
}

/// When a port closes.
async fn closes(gateway: &Gateway, purpose: Purpose) {
    gateway.drain.cancelled().await;
    let polled = match purpose {
        Purpose::Gateway => true,
        Purpose::Legacy(dialect) => dialect.paths().iter().any(|path| path.ends_with(".io/")),
        Purpose::Ops => false,
    };
    if polled {
        gateway.polls.none_left().await;
    }
}

/// Beyond the connection limit: a status for those who speak HTTP, an end for all.
async fn refuse(mut stream: TcpStream) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n\
        content-type: text/plain\r\ncontent-length: 51\r\n\r\nToo many connections; try again in a few seconds.\r\n";
    let _gone = timeout(Duration::from_secs(1), async {
        stream.write_all(FULL).await?;
        stream.shutdown().await
    })
    .await;
}

/// Looks at what comes. Whoever stays gets a task of its own, so that this one's memory is not kept for its life.
async fn serve(
    gateway: Arc<Gateway>,
    routes: Routes,
    stream: TcpStream,
    address: SocketAddr,
    purpose: Purpose,
    place: OwnedSemaphorePermit,
) {
    let dialect = match purpose {
        Purpose::Legacy(dialect) if raw::is_raw(dialect) => Some(dialect),
        Purpose::Gateway => {
            let mut first = [0];
            let patience = gateway.config.gateway.first_byte_timeout;
            match timeout(patience, stream.peek(&mut first)).await {
                Ok(Ok(1)) => {}
                Ok(_) => return,
                Err(_) => return gateway.metrics.rejected.first_byte.inc(),
            }
            match first[0] {
                b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n' => raw::dialect(),
                TLS => {
                    debug!(%address, "TLS is not served yet");
                    return gateway.metrics.rejected.handshake.inc();
                }
                _ => None,
            }
        }
        _ => None,
    };
    match dialect {
        Some(_) if gateway.drain.is_cancelled() => gateway.metrics.rejected.draining.inc(),
        Some(dialect) => {
            let session = raw::serve(gateway.clone(), stream, address, dialect, place);
            gateway.tasks.spawn_on(session, gateway.threshold.inside());
        }
        None => serve_http(gateway, routes, stream, address, purpose, place).await,
    }
}

async fn serve_http(
    gateway: Arc<Gateway>,
    routes: Routes,
    stream: TcpStream,
    address: SocketAddr,
    purpose: Purpose,
    place: OwnedSemaphorePermit,
) {
    let peer = Peer {
        address,
        purpose,
        place: Arc::new(Mutex::new(Some(place))),
    };
    let routes = TowerToHyperService::new(warp::service(routes));
    // a client from its first request on
    let asked = Arc::new(AtomicBool::new(false));
    let asks = asked.clone();
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        asks.store(true, Ordering::Relaxed);
        routes.call(request)
    });
    let draining = gateway.drain.is_cancelled();
    // boxed: whatever passes it on would hold a copy's room of its own, and thousands may wait here at once
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(!draining)
        .header_read_timeout(gateway.config.gateway.header_timeout)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = Box::pin(connection);
    let own = gateway.clone();
    let served = async move {
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = own.drain.cancelled(), if !draining => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            let rejected = &own.metrics.rejected;
            if error.is_timeout() {
                rejected.header_timeout.inc()
            } else {
                rejected.handshake.inc()
            }
            debug!(%address, %error, "no request came of it");
        }
    };
    let here = || asked.load(Ordering::Relaxed);
    gateway.threshold.pass(&gateway.tasks, served, here).await;
}
