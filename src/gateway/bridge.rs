//! Clients that are workers: one that performs a service over its own connection is an instance of it on the bus.
//!
//! Such services are stateful, so it holds the lease of its space, as a worker on NATS would: of several instances, of
//! either kind, one works and the others stand by.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::service::{Service, ServiceExt, endpoint::Endpoint};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::bus::contract;
use crate::bus::lease::{Lease, Leases};
use crate::gateway::lobby::Key;
use crate::gateway::outbox::Outbox;
use crate::gateway::{Gateway, local};

/// What such an instance answers on the bus: that it is there. What it performs it performs on what it hears.
const PING: &str = "ping";
/// Between attempts to reach the broker.
const AGAIN: Duration = Duration::from_secs(1);
/// What the broker may take to note a service.
const NOTED: Duration = Duration::from_secs(2);

/// A client's standing as an instance of a service; ends with the value.
pub struct Bridge {
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Bridge {
    /// Starts to stand by; `outbox` wakes the connection when it is the one that works.
    #[must_use]
    pub fn start(
        gateway: &Arc<Gateway>,
        key: Key,
        service: &'static str,
        session: &Arc<str>,
        outbox: Arc<Outbox>,
    ) -> Self {
        let (ready, stop) = (Arc::new(AtomicBool::new(false)), gateway.drain.child_token());
        let post = Post {
            gateway: gateway.clone(),
            key,
            service,
            session: session.clone(),
        };
        gateway
            .tasks
            .spawn(post.keep(ready.clone(), outbox, stop.clone()));
        Self { ready, stop }
    }

    /// Whether it is, or was, the one that works. It goes on to hear what happens while a lease that was lost with the
    /// broker is taken again.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// What a client stands for, and where.
struct Post {
    gateway: Arc<Gateway>,
    key: Key,
    service: &'static str,
    session: Arc<str>,
}

impl Post {
    async fn keep(self, ready: Arc<AtomicBool>, outbox: Arc<Outbox>, stop: CancellationToken) {
        let standing = async {
            loop {
                let Some(lease) = self.stand_by().await else {
                    sleep(AGAIN).await;
                    continue;
                };
                let Some((service, mut requests)) = self.register().await else {
                    if let Some(lease) = lease {
                        lease.release().await;
                    }
                    sleep(AGAIN).await;
                    continue;
                };
                if !ready.swap(true, Ordering::AcqRel) {
                    info!(service = self.service, session = %self.session, space = %self.key.space, "a client works");
                }
                outbox.kick();
                let ended = tokio::select! {
                    () = lost(lease.as_ref()) => true,
                    () = self.answer(&mut requests) => true,
                    () = stop.cancelled() => false,
                };
                let _stopped = service.stop().await;
                if let Some(lease) = lease {
                    lease.release().await;
                }
                if !ended {
                    return;
                }
            }
        };
        let mut standing = Box::pin(standing);
        tokio::select! {
            () = &mut standing => {}
            // one that works ends by itself and gives its lease back
            () = stop.cancelled() => {
                if ready.load(Ordering::Acquire) {
                    let _late = timeout(NOTED, standing).await;
                }
            }
        }
    }

    /// Without streams there are no leases, and whoever comes works.
    async fn stand_by(&self) -> Option<Option<Lease>> {
        if !self.gateway.bus.history() {
            return Some(None);
        }
        let leases = Leases::open(self.gateway.bus.ingress().clone()).await;
        let holder = format!("{}/{}", self.key.dialect.name(), self.session);
        let taken = match leases {
            Ok(leases) => leases.stand_by(&self.key.space, self.service, &holder).await,
            Err(fault) => Err(fault),
        };
        taken
            .inspect_err(|fault| debug!(%fault, service = self.service, "a client does not work yet"))
            .ok()
            .map(Some)
    }

    async fn register(&self) -> Option<(Service, Endpoint)> {
        let metadata = HashMap::from([
            ("space".to_owned(), self.key.space.to_string()),
            ("gateway".to_owned(), self.gateway.bus.gateway().to_owned()),
            ("session".to_owned(), self.session.to_string()),
        ]);
        let registered = async {
            let subject = contract::command(self.key.space.as_str(), self.service, PING)
                .map_err(|fault| async_nats::Error::from(fault.text))?;
            let client = self.gateway.bus.ingress();
            let service = client
                .service_builder()
                .description("A client that works over its own connection")
                .metadata(metadata)
                .queue_group(self.service)
                .start(self.service, env!("CARGO_PKG_VERSION"))
                .await?;
            let endpoint = service.endpoint_builder().name(PING).add(&subject).await?;
            Ok::<_, async_nats::Error>((service, endpoint))
        };
        match timeout(NOTED, registered).await {
            Ok(Ok(registered)) => Some(registered),
            Ok(Err(error)) => {
                warn!(%error, service = self.service, "a client that works is not known on NATS yet");
                None
            }
            Err(_) => None,
        }
    }

    async fn answer(&self, requests: &mut Endpoint) {
        while let Some(request) = requests.next().await {
            let body = json!({"session": &*self.session, "space": self.key.space.as_str()}).to_string();
            local::hand_over(PING, request.respond(Ok(body.into()))).await;
        }
    }
}

async fn lost(lease: Option<&Lease>) {
    match lease {
        Some(lease) => lease.lost().await,
        None => std::future::pending().await,
    }
}
