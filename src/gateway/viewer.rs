//! The service `viewer`: pages answer to anybody on the bus, on their behalf the gateway they are connected to.
//!
//! It is served for a space only while a page of it is here. Of several gateways any may hear a request; it goes to the
//! page that a user touched last, wherever that is, and to another one when that page is gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::service::{Request, Service, ServiceExt, endpoint::Endpoint, error::Error};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::bus::SysMessage;
use crate::bus::contract::{self, headers};
use crate::dialect::{self, Dialect};
use crate::gateway::lobby::Key;
use crate::gateway::screens::{PATIENCE, filename};
use crate::gateway::{Gateway, local};
use crate::message::{Code, Fault, Space};

/// The service that scripts ask.
pub const SERVICE: &str = "viewer";
/// What it does.
pub const SCREENSHOT: &str = "screenshot";
/// What another gateway may take to say that it has passed a request on.
const FORWARDED: Duration = Duration::from_millis(500);
/// How often it is looked whether the page that was asked is still there.
const STILL: Duration = Duration::from_millis(250);
/// For so long a space without a page is still answered for: a page that is loaded again comes back within it.
const LINGER: Duration = Duration::from_secs(1);
/// Between attempts to serve what could not be served.
const AGAIN: Duration = Duration::from_secs(1);
/// Requests of one space that wait for their picture at once.
const AT_ONCE: usize = 64;

impl Gateway {
    /// Serves the spaces that have a page here; runs until the gateway drains.
    pub async fn serve_viewers(self: Arc<Self>) {
        let mut serving: BTreeMap<Space, CancellationToken> = BTreeMap::new();
        loop {
            let open = self.lobby.screens.spaces();
            serving.retain(|space, stop| {
                let stays = open.contains(space);
                if !stays {
                    stop.cancel();
                }
                stays
            });
            for space in open {
                serving.entry(space.clone()).or_insert_with(|| {
                    let stop = self.drain.child_token();
                    tokio::spawn(self.clone().serve_viewer(space, stop.clone()));
                    stop
                });
            }
            tokio::select! {
                () = self.lobby.screens.changed.notified() => {}
                () = self.drain.cancelled() => return,
            }
        }
    }

    async fn serve_viewer(self: Arc<Self>, space: Space, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut end = Box::pin(ended(&stop));
        loop {
            let Some((service, mut requests)) = self.register(&space).await else {
                tokio::select! {
                    () = self.drain.cancelled() => return,
                    () = tokio::time::sleep(AGAIN) => continue,
                    () = &mut end => return,
                }
            };
            loop {
                let request = tokio::select! {
                    request = requests.next() => request,
                    () = &mut end => {
                        let _stopped = service.stop().await;
                        return;
                    }
                };
                let Some(request) = request else {
                    // the connection to the broker is closed for good
                    if self.drain.is_cancelled() {
                        return;
                    }
                    break;
                };
                let Ok(place) = room.clone().try_acquire_owned() else {
                    let text = "too many screenshots are waited for; try again later";
                    refuse(&request, Fault::new(Code::Busy, text)).await;
                    continue;
                };
                let (gateway, space) = (self.clone(), space.clone());
                tokio::spawn(async move {
                    gateway.pictured(&space, &request).await;
                    drop(place);
                });
            }
            let _stopped = service.stop().await;
        }
    }

    async fn register(&self, space: &Space) -> Option<(Service, Endpoint)> {
        let metadata = HashMap::from([
            ("space".to_owned(), space.to_string()),
            ("gateway".to_owned(), self.bus.gateway().to_owned()),
        ]);
        let registered = async {
            let subject = contract::command(space.as_str(), SERVICE, SCREENSHOT)
                .map_err(|fault| async_nats::Error::from(fault.text))?;
            let service = self
                .bus
                .ingress()
                .service_builder()
                .description("CAD pages, asked for pictures")
                .metadata(metadata)
                .queue_group(SERVICE)
                .start(SERVICE, env!("CARGO_PKG_VERSION"))
                .await?;
            let endpoint = service.endpoint_builder().name(SCREENSHOT).add(&subject).await?;
            Ok::<_, async_nats::Error>((service, endpoint))
        };
        match timeout(AGAIN, registered).await {
            Ok(Ok(registered)) => Some(registered),
            Ok(Err(error)) => {
                warn!(%error, %space, "pages of this gateway do not answer on NATS yet, trying again");
                None
            }
            Err(_) => None,
        }
    }

    /// Answers one request: acknowledged when a page was asked, done when its picture came.
    async fn pictured(&self, space: &Space, request: &Request) {
        let span = local::span(request, SERVICE, SCREENSHOT);
        let failed = self.picture(space, request).await.err();
        if let Some(fault) = &failed {
            refuse(request, fault.clone()).await;
        }
        if let Some(span) = span {
            span.end(failed.map(|fault| fault.code.name()));
        }
    }

    async fn picture(&self, space: &Space, request: &Request) -> Result<(), Fault> {
        let name = filename(&request.message.payload)?;
        let body = as_said(&request.message.payload, &name);
        let mut taken = self.lobby.screens.expect(space, &name);
        let Some(mut page) = self.ask_page(space, &body, None).await else {
            return Err(Fault::new(Code::NoWorker, "no page is open in this space"));
        };
        self.acknowledge(request).await;
        let there = |page: &str| self.lobby.screens.has(page) || self.presence.knows(page);
        // presence may not know yet of a page of another gateway: gone is only what was there
        let mut was_there = there(&page);
        let mut tick = interval(STILL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let picture = async {
            loop {
                tokio::select! {
                    size = &mut taken => return size.ok(),
                    _ = tick.tick() => {
                        let is_there = there(&page);
                        if was_there && !is_there {
                            page = self.ask_page(space, &body, Some(&page)).await?;
                        }
                        was_there = is_there;
                    }
                }
            }
        };
        match timeout(PATIENCE, picture).await {
            Ok(Some(size)) => {
                let done = json!({"filename": name, "size": size}).to_string();
                local::hand_over(SCREENSHOT, request.respond(Ok(done.into()))).await;
                Ok(())
            }
            Ok(None) => Err(Fault::new(Code::NoWorker, "the page left before it answered")),
            Err(_) => Err(Fault::new(
                Code::Timeout,
                "the page did not answer with a picture",
            )),
        }
    }

    /// Asks exactly one page: the one touched last, wherever it is; else one of this gateway.
    async fn ask_page(&self, space: &Space, body: &Bytes, but: Option<&str>) -> Option<Arc<str>> {
        let screens = &self.lobby.screens;
        let touched = match cad() {
            Some(dialect) => {
                let space = space.clone();
                let known = self.look(&Key { space, dialect }).await;
                dialect
                    .foremost(&|topic| known.states.get(topic))
                    .map(Arc::<str>::from)
            }
            None => None,
        };
        if let Some(page) = touched.filter(|page| Some(&**page) != but) {
            if screens.push(&page, body) {
                return Some(page);
            }
            // whoever has it says so; presence may not know yet of a page that just came
            let path = format!("session.{page}");
            let forwarded = self.bus.gather_sys(&path, body.clone(), FORWARDED, 1).await;
            if forwarded.is_ok_and(|answers| !answers.is_empty()) {
                return Some(page);
            }
        }
        let page = screens.any(space, but)?;
        screens.push(&page, body).then_some(page)
    }

    async fn acknowledge(&self, request: &Request) {
        let Some(reply) = request.message.reply.clone() else {
            return;
        };
        let mut head = HeaderMap::new();
        head.insert(headers::STATUS, "ack");
        let client = self.bus.ingress();
        // a plain publish: only the final answer counts as one in the service's statistics
        let taken = client.publish_with_headers(reply, head, Bytes::new());
        local::hand_over(SCREENSHOT, taken).await;
    }

    /// Takes requests that other gateways have for pages here; runs as long as the process.
    pub async fn serve_pages(self: Arc<Self>) {
        loop {
            if let Ok(mut messages) = self.bus.subscribe_sys("session.*").await {
                while let Some(message) = messages.next().await {
                    self.forwarded(&message).await;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = self.drain.cancelled() => return,
            }
        }
    }

    /// `session.opened` and `session.closed` are no sessions of ours.
    async fn forwarded(&self, message: &SysMessage) {
        if let Some(session) = message.path.strip_prefix("session.")
            && self.lobby.screens.push(session, &message.body)
            && let Err(fault) = self.bus.answer_sys(message, Bytes::from_static(b"{}")).await
        {
            debug!(%fault, "another gateway is not told that its request was passed on");
        }
    }
}

/// The last page left, or the gateway drains, and what was asked meanwhile is answered.
async fn ended(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LINGER).await;
}

/// The dialect whose clients are pages.
fn cad() -> Option<&'static dyn Dialect> {
    dialect::ALL
        .iter()
        .copied()
        .find(|dialect| dialect.routes().iter().any(|(_, service)| *service == SERVICE))
}

/// A request as pages take it: as it was said where it says what it is.
fn as_said(body: &Bytes, name: &str) -> Bytes {
    let said = serde_json::from_slice::<Value>(body).unwrap_or_default();
    if said["type"] == SCREENSHOT {
        return body.clone();
    }
    json!({"type": SCREENSHOT, "filename": name}).to_string().into()
}

async fn refuse(request: &Request, fault: Fault) {
    let error = Error {
        status: fault.text,
        code: usize::from(fault.code.number()),
    };
    local::hand_over(SCREENSHOT, request.respond(Err(error))).await;
}
