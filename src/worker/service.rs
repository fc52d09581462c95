//! A worker as a NATS micro service: endpoints, deadlines, signs of life, cancellation, the final answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::service::{Request, Service, ServiceExt};
use async_nats::{Client, HeaderMap, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::job::{Job, PUBLISH, Work, header, is_late};
use super::large;
use super::outlet::unix_now;
use super::trace;
use super::{Outlet, WorkerError};
use crate::bus::contract::headers;
use crate::message::{Body, Code, Fault};

/// How often a sender hears that its command is still under way.
const ALIVE: Duration = Duration::from_secs(5);
/// Commands under way at once in one process; beyond, the sender is told `busy`.
const AT_ONCE: usize = 256;

/// What a service does; the frame around it is the same for all.
pub trait Worker: Send + Sync + 'static {
    /// Service name, subject token and queue group.
    fn name(&self) -> &'static str;

    /// One sentence for `$SRV.INFO`.
    fn description(&self) -> &'static str;

    /// One endpoint each.
    fn actions(&self) -> &'static [&'static str];

    /// Does the work. The future is dropped when the command is cancelled: whatever it started must end with it.
    fn handle<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Body, Fault>>;

    /// The signal to stop came: ends work that outlives its command.
    fn finish(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Commands that can still be cancelled, by their id.
type Running = Arc<Mutex<HashMap<String, CancellationToken>>>;

/// A registered service.
pub(super) struct Serving {
    worker: Arc<dyn Worker>,
    service: Service,
    jobs: TaskTracker,
    abort: CancellationToken,
}

/// What every command task needs.
#[derive(Clone)]
struct Desk {
    worker: Arc<dyn Worker>,
    outlet: Outlet,
    running: Running,
    places: Arc<Semaphore>,
    jobs: TaskTracker,
    abort: CancellationToken,
}

/// Registers a worker and serves it until [`Serving::finish`].
pub(super) async fn start(
    worker: Arc<dyn Worker>,
    outlet: &Outlet,
    stop: &CancellationToken,
) -> Result<Serving, WorkerError> {
    let name = worker.name();
    let refused = |cause: String| WorkerError::Register { name, cause };
    let client = outlet.client();
    let service = client
        .service_builder()
        .description(worker.description())
        .queue_group(name)
        .start(name, env!("CARGO_PKG_VERSION"))
        .await
        .map_err(|error| refused(error.to_string()))?;
    let desk = Desk {
        worker: worker.clone(),
        outlet: outlet.clone(),
        running: Running::default(),
        places: Arc::new(Semaphore::new(AT_ONCE)),
        jobs: TaskTracker::new(),
        abort: CancellationToken::new(),
    };
    // Heard by every instance, hence no queue group.
    let cancels = client
        .subscribe(format!("gw.v1.cmd.*.{name}.cancel"))
        .await
        .map_err(|error| refused(error.to_string()))?;
    tokio::spawn(hear_cancels(cancels, desk.running.clone(), stop.clone()));
    for action in worker.actions() {
        let endpoint = service
            .endpoint_builder()
            .name(*action)
            .add(format!("gw.v1.cmd.*.{name}.{action}"))
            .await
            .map_err(|error| refused(error.to_string()))?;
        // Tracked like jobs: what was delivered before the end of the subscription is still served.
        desk.jobs.spawn(serve(endpoint, desk.clone()));
    }
    Ok(Serving {
        worker,
        service,
        jobs: desk.jobs,
        abort: desk.abort,
    })
}

impl Serving {
    /// Takes no new work, lets what is under way finish within `grace`, then ends it.
    pub(super) async fn finish(self, grace: Duration) {
        if let Err(error) = self.service.stop().await {
            tracing::debug!(%error, "the service was not stopped");
        }
        self.jobs.close();
        let ending = futures_util::future::join(self.jobs.wait(), self.worker.finish());
        if timeout(grace, ending).await.is_err() {
            tracing::warn!(left = self.jobs.len(), "work did not finish in time and is ended");
            self.abort.cancel();
            // Ended work still answers its sender.
            let _ = timeout(PUBLISH, self.jobs.wait()).await;
        }
    }
}

async fn hear_cancels(mut cancels: Subscriber, running: Running, stop: CancellationToken) {
    #[derive(serde::Deserialize)]
    struct Cancel {
        id: String,
    }
    while let Some(Some(message)) = stop.run_until_cancelled(cancels.next()).await {
        let Ok(cancel) = serde_json::from_slice::<Cancel>(&message.payload) else {
            continue;
        };
        if let Some(token) = running.lock().get(&cancel.id) {
            token.cancel();
        }
    }
}

async fn serve(mut endpoint: async_nats::service::endpoint::Endpoint, desk: Desk) {
    while let Some(Some(request)) = desk.abort.run_until_cancelled(endpoint.next()).await {
        if is_late(&request.message, unix_now()) {
            tracing::debug!(subject = %request.message.subject, "dropped: nobody waits any more");
            continue;
        }
        let Some(work) = Work::read(&request.message) else {
            let fault = Fault::new(Code::Invalid, "the subject is no command");
            answer(desk.outlet.client(), &request, Err(fault), None).await;
            continue;
        };
        match desk.places.clone().try_acquire_owned() {
            Ok(place) => {
                let task = desk.jobs.clone();
                let (name, command) = (desk.worker.name(), work.clone());
                let performed = perform(desk.clone(), request, work, place);
                task.spawn(trace::process(name, &command, performed));
            }
            Err(_) => {
                let text = "the worker has too much to do; try again later or start another instance";
                let fault = Fault::new(Code::Busy, text);
                answer(desk.outlet.client(), &request, Err(fault), None).await;
            }
        }
    }
}

async fn perform(desk: Desk, request: Request, mut work: Work, _place: OwnedSemaphorePermit) {
    let client = desk.outlet.client();
    if let Some(reference) = header(&request.message, headers::BODY) {
        match large::fetch(client, reference).await {
            Ok(body) => work.body = body,
            Err(fault) => return answer(client, &request, Err(fault), None).await,
        }
    }
    let id = work.id.clone();
    let job = Job {
        work,
        cancelled: desk.abort.child_token(),
        client: client.clone(),
        reply: request.message.reply.clone(),
    };
    if !id.is_empty() {
        desk.running.lock().insert(id.clone(), job.cancelled.clone());
    }
    let result = tokio::select! {
        result = desk.worker.handle(&job) => result,
        () = job.cancelled.cancelled() => Err(Fault::new(Code::Cancelled, "the command was cancelled")),
        () = alive(&job) => Err(Fault::new(Code::WorkerError, "the clock stopped")),
    };
    if !id.is_empty() {
        desk.running.lock().remove(&id);
    }
    let span = tracing::Span::current();
    if let Err(fault) = &result {
        trace::failed(&span, fault);
        tracing::debug!(code = fault.code.name(), %fault, "the command failed");
    }
    let traceparent = trace::traceparent(&span).or(job.work.traceparent);
    answer(client, &request, result, traceparent).await;
}

/// Never ends: an empty `progress` every five seconds.
async fn alive(job: &Job) {
    let mut ticks = interval(ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        job.progress(Bytes::new()).await;
    }
}

/// The final answer, through the services API so that `$SRV.STATS` counts it.
async fn answer(
    client: &Client,
    request: &Request,
    result: Result<Body, Fault>,
    traceparent: Option<String>,
) {
    if request.message.reply.is_none() {
        return;
    }
    let mut head = HeaderMap::new();
    head.insert(headers::TIME, unix_now().to_string());
    if let Some(traceparent) = traceparent {
        head.insert(headers::TRACEPARENT, traceparent);
    }
    let packed = match result {
        Ok(body) => match large::outgoing(client, body.bytes).await {
            Ok((bytes, reference)) => Ok((bytes, reference, body.content_type)),
            Err(fault) => Err(fault),
        },
        Err(fault) => Err(fault),
    };
    let response = match packed {
        Ok((bytes, reference, kind)) => {
            head.insert(headers::STATUS, "done");
            if let Some(kind) = &kind {
                head.insert(headers::CONTENT_TYPE, headers::value(kind).as_ref());
            }
            if let Some(reference) = reference {
                head.insert(headers::BODY, reference);
            }
            Ok(bytes)
        }
        Err(fault) => Err(async_nats::service::error::Error {
            status: headers::value(&fault.text).into_owned(),
            code: fault.code.number().into(),
        }),
    };
    let sent = request.respond_with_headers(response, head);
    if !matches!(timeout(PUBLISH, sent).await, Ok(Ok(()))) {
        tracing::warn!(subject = %request.message.subject, "the answer was not sent");
    }
}
