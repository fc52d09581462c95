//! The workers' connection: waits for a broker that is not there yet, reconnects for ever.

use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::WorkerError;
use crate::bus::login;
use crate::config::Nats;

/// One attempt; a paused server accepts and says nothing.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Between attempts at the start.
const PAUSE: Duration = Duration::from_millis(500);
/// Flushing and closing at the end.
const CLOSING: Duration = Duration::from_secs(5);

/// A connection and the knowledge that it has ended.
pub(super) struct Connected {
    pub(super) client: Client,
    closed: watch::Receiver<bool>,
}

/// Connects; `None` when told to stop before that.
pub(super) async fn open(
    nats: &Nats,
    name: &str,
    stop: &CancellationToken,
) -> Result<Option<Connected>, WorkerError> {
    let urls = match nats.url.as_slice() {
        [] => vec![format!("nats://127.0.0.1:{}", nats.port)],
        urls => urls.to_vec(),
    };
    let mut told = false;
    loop {
        let (sender, closed) = watch::channel(false);
        let attempt = options(nats, name, sender).await?.connect(urls.as_slice());
        let cause = match timeout(ATTEMPT, attempt).await {
            Ok(Ok(client)) => return Ok(Some(Connected { client, closed })),
            Ok(Err(error))
                if matches!(
                    error.kind(),
                    ConnectErrorKind::AuthorizationViolation
                        | ConnectErrorKind::Authentication
                        | ConnectErrorKind::ServerParse
                ) =>
            {
                return Err(WorkerError::Refused {
                    cause: error.to_string(),
                });
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                urls = %nats.shown(),
                %cause,
                "waiting for NATS: start the gateway, or say where NATS is with --nats-url (GW_NATS_URL)"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = sleep(PAUSE) => {}
        }
    }
}

async fn options(
    nats: &Nats,
    name: &str,
    closed: watch::Sender<bool>,
) -> Result<ConnectOptions, WorkerError> {
    let options = ConnectOptions::new()
        .name(format!("causeway worker {name}"))
        .ping_interval(Duration::from_secs(10))
        .max_reconnects(None)
        .event_callback(move |event| {
            match event {
                Event::Closed => drop(closed.send(true)),
                Event::Disconnected => tracing::warn!("NATS is away; reconnecting"),
                Event::Connected => tracing::info!("NATS is there"),
                _ => {}
            }
            std::future::ready(())
        });
    let options = login::with(options, nats).await;
    options.map_err(|login::Unusable { key, cause }| WorkerError::Setting { key, cause })
}

impl Connected {
    /// Sends what is queued and waits for the end, bounded.
    pub(super) async fn close(mut self) {
        let ending = async {
            // A flush before the drain: draining alone loses what is still queued.
            let _ = self.client.flush().await;
            let _ = self.client.drain().await;
            let _ = self.closed.wait_for(|closed| *closed).await;
        };
        if timeout(CLOSING, ending).await.is_err() {
            tracing::warn!("NATS did not confirm the end of the connection");
        }
    }
}
