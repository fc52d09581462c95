//! Commands to workers: sent once, answered exactly once, withdrawn explicitly.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use ulid::Ulid;

use super::connect::Core;
use super::contract::{self, headers};
use super::counters::Counters;
use super::inbox::{Token, down, too_large};
use super::{Bus, Replies};
use crate::message::{Answer, Body, Class, Code, Command, Fault, Nanos, Reply, Space};

/// By then the directory has seen who came back after an outage.
const SETTLED: Duration = Duration::from_secs(3);

mod table;

pub(super) use table::Calls;
use table::{Arrival, Job, Pending, Refused};

/// A command under way; needed to withdraw it.
#[derive(Clone, Debug)]
pub struct Call {
    token: u64,
    id: Ulid,
}

impl Call {
    /// The message id it went out with.
    #[must_use]
    pub fn id(&self) -> Ulid {
        self.id
    }
}

impl Bus {
    /// Sends a command. From then on `replies` gets interim answers and exactly one final one.
    /// `from` is `<dialect>/<session>`, `now` the time the command entered the system.
    ///
    /// # Errors
    /// When nothing was sent: `bus_down`, `invalid`, `too_large`, `unknown_action`. Then `replies` hears nothing.
    pub async fn call(
        &self,
        from: &str,
        space: &Space,
        command: Command,
        now: Nanos,
        replies: Arc<dyn Replies>,
    ) -> Result<Call, Fault> {
        let core = &self.core;
        if !core.is_up() {
            return Err(down());
        }
        if command.action == contract::CANCEL {
            // heard by all workers of the service, whosever command it names
            let text = "a client does not send `cancel`; the gateway does when nobody waits any more";
            return Err(Fault::new(Code::UnknownAction, text));
        }
        let subject = contract::command(space.as_str(), &command.service, &command.action)?;
        let (payload, reference) = core.outgoing(Class::Event, &command.body).await?;
        let number = Ulid::new();
        let id = number.to_string();
        let commands = &core.settings.commands;
        let head = headers::CommandHead {
            id: &id,
            time: now,
            session: from,
            deadline_ms: u64::try_from(commands.deadline.as_millis()).unwrap_or(u64::MAX),
            correlation: command.correlation.as_deref(),
            content_type: command.body.content_type.as_deref(),
            traceparent: command.traceparent.as_deref(),
        };
        let headers = header_map(head.list(), reference);
        let token = core.ingress.inbox.number();
        let limit = commands.limits.get(&*command.service);
        let start = Instant::now();
        let pending = Pending {
            call: command.id,
            replies,
            job: Job {
                id,
                space: space.clone(),
                service: command.service,
            },
            window: commands.deadline,
            end: start + *limit.unwrap_or(&commands.limit),
            due: start + commands.deadline,
            indexed: start,
            sent: now,
            start,
            lane: core
                .observer
                .get()
                .map(|observer| observer.lane(from.split_once('/').map_or(from, |(dialect, _)| dialect))),
            queue: None,
        };
        match core.calls.insert(token, pending, commands.per_service) {
            Ok(()) => {}
            Err(Refused::Down) => return Err(down()),
            Err(Refused::Crowded) => {
                let text = "the service has too much to do; try again in a moment";
                return Err(Fault::new(Code::Busy, text));
            }
        }
        let reply = core.ingress.inbox.subject(Token::Call(token));
        let sent = core
            .ingress
            .publish(subject, Some(reply), Some(headers), payload)
            .await;
        match sent {
            // answered meanwhile (the link went down): the answer stands, a second one must not follow
            Err(fault) if core.calls.remove(token).is_some() => Err(fault),
            Ok(()) | Err(_) => Ok(Call { token, id: number }),
        }
    }

    /// Withdraws a command: no answer follows, and the worker is told to stop. Nothing happens when it has ended.
    pub async fn cancel(&self, call: &Call) {
        if let Some(pending) = self.core.calls.remove(call.token) {
            self.core.publish_cancel(&pending.job).await;
        }
    }

    /// Commands under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.core.calls.len()
    }
}

impl Bus {
    /// An answer of our own as it crosses the bus: its payload, and the value of `Gw-Body` when it is too large to be
    /// one.
    ///
    /// # Errors
    /// `too_large` without an object store, `bus_down`.
    pub async fn enclosed(&self, body: &Body) -> Result<(Bytes, Option<String>), Fault> {
        self.core.outgoing(Class::Event, body).await
    }
}

impl Core {
    /// Tells workers to stop what nobody waits for any more, since the link went down under it.
    pub(super) async fn cancel_orphans(&self) {
        for orphan in self.calls.orphans() {
            self.publish_cancel(&orphan).await;
        }
    }

    async fn publish_cancel(&self, job: &Job) {
        if !self.is_up() {
            return;
        }
        let Ok(subject) = contract::cancel(job.space.as_str(), &job.service) else {
            return;
        };
        let body = format!("{{\"id\":\"{}\"}}", job.id);
        if let Err(fault) = self.ingress.publish(subject, None, None, body.into()).await {
            tracing::debug!(%fault, "cancel not sent");
        }
    }

    /// The payload to send, and the reference that stands for it when it is too large for a message.
    pub(super) async fn outgoing(&self, class: Class, body: &Body) -> Result<(Bytes, Option<String>), Fault> {
        let limit = self.ingress.client.max_payload();
        if body.bytes.len() <= limit.saturating_sub(contract::HEADER_ROOM) {
            return Ok((body.bytes.clone(), None));
        }
        let store = self.bodies.read().as_ref().map(|(_, store)| Arc::clone(store));
        match store {
            Some(store) => {
                let reference = store.put(class, body).await?;
                if let Some(observer) = self.observer.get() {
                    observer.large(true, body.bytes.len());
                }
                Ok((Bytes::new(), Some(reference)))
            }
            None => Err(too_large(limit)),
        }
    }

    /// The body a reference stands for.
    pub(super) async fn incoming(&self, reference: &str, body: Body) -> Result<Body, Fault> {
        let fetch = self.bodies.read().as_ref().map(|(fetch, _)| Arc::clone(fetch));
        let Some(fetch) = fetch else {
            return Err(Fault::new(
                Code::TooLarge,
                "a large body cannot be fetched because the object store is not in use",
            ));
        };
        let fetched = fetch.fetch(reference).await?;
        if let Some(observer) = self.observer.get() {
            observer.large(false, fetched.bytes.len());
        }
        Ok(Body {
            content_type: fetched.content_type.or(body.content_type),
            bytes: fetched.bytes,
        })
    }
}

/// Builds the header map, with the reference of a large body.
pub(super) fn header_map(
    list: Vec<(&'static str, std::borrow::Cow<'_, str>)>,
    reference: Option<String>,
) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in list {
        map.insert(name, &*value);
    }
    if let Some(reference) = reference {
        map.insert(headers::BODY, &*headers::value(&reference));
    }
    map
}

/// Looks a header up as text.
pub(super) fn header<'a>(map: Option<&'a HeaderMap>, name: &'static str) -> Option<&'a str> {
    map?.get(name).map(async_nats::HeaderValue::as_str)
}

/// One message to a call's reply subject. Called in order by the inbox task.
pub(super) fn answered(core: &Arc<Core>, token: u64, message: Message) {
    let large = header(message.headers.as_ref(), headers::BODY).is_some();
    match core.calls.arrive(token, message, large) {
        Arrival::Now(service, space, message) => {
            let said = Said::read(&message);
            let answer = core.decode(&service, &space, message);
            if answer.is_final() {
                if let Some(pending) = core.calls.remove(token) {
                    core.measure(&pending, said);
                    pending.finish(answer);
                }
            } else {
                core.calls.interim(token, answer);
            }
        }
        Arrival::Fetch => {
            let core_of_task = Arc::clone(core);
            core.tasks
                .spawn(async move { fetch_in_order(core_of_task, token).await });
        }
        Arrival::Queued => {}
        Arrival::Crowded => Counters::add(&core.counters.crowded),
        Arrival::Late => Counters::add(&core.counters.late),
    }
}

/// Answers of one call from its first large body on: fetched one after the other, so that they keep their order.
async fn fetch_in_order(core: Arc<Core>, token: u64) {
    while let Some((service, space, message)) = core.calls.queued(token) {
        let reference = header(message.headers.as_ref(), headers::BODY).map(str::to_owned);
        let said = Said::read(&message);
        let mut answer = core.decode(&service, &space, message);
        if let Some(reference) = reference {
            answer = core.resolve(answer, &reference).await;
        }
        if answer.is_final() {
            if let Some(pending) = core.calls.remove(token) {
                core.measure(&pending, said);
                pending.finish(answer);
            }
            return;
        }
        core.calls.interim(token, answer);
    }
}

/// What a reply says about itself.
struct Said {
    /// When the worker sent it.
    at: Option<Nanos>,
    traceparent: Option<String>,
}

impl Said {
    fn read(message: &Message) -> Self {
        let field = |name| header(message.headers.as_ref(), name);
        Self {
            at: field(headers::TIME).and_then(|time| time.parse().ok()),
            traceparent: field(headers::TRACEPARENT).map(str::to_owned),
        }
    }
}

impl Core {
    fn measure(&self, pending: &Pending, said: Said) {
        if let Some(traceparent) = said.traceparent {
            pending.replies.traced(pending.call, &traceparent);
        }
        if let (Some(observer), Some(lane)) = (self.observer.get(), pending.lane) {
            // clocks of two machines: a reply from before its command took no time
            let worker = said
                .at
                .map(|at| Duration::from_nanos(at.saturating_sub(pending.sent)));
            observer.answered(lane, pending.start.elapsed(), worker);
        }
    }

    pub(super) fn decode(&self, service: &str, space: &Space, message: Message) -> Answer {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Answer::Failed(self.nobody(service, space));
        }
        let map = message.headers.as_ref();
        headers::answer(|name| header(map, name), message.payload.clone())
    }

    pub(super) fn nobody(&self, service: &str, space: &Space) -> Fault {
        let running = self.running.read().as_ref().map(Arc::clone);
        // what was seen before the link was away says nothing: workers come back a moment after us
        let settled = self.back.read().is_none_or(|at| at.elapsed() > SETTLED);
        if settled && running.is_some_and(|running| running(service, space)) {
            return Fault::new(
                Code::UnknownAction,
                format!("`{service}` runs but does not know this action; check its name"),
            );
        }
        let start = match self.settings.commands.start.get(service) {
            Some(start) => format!("start one (`{start}`)"),
            None => "start one".to_owned(),
        };
        Fault::new(
            Code::NoWorker,
            format!("no worker serves `{service}` right now; {start} and send the command again"),
        )
    }

    async fn resolve(&self, answer: Answer, reference: &str) -> Answer {
        let (wrap, body): (fn(Body) -> Answer, Body) = match answer {
            Answer::Ack(body) => (Answer::Ack, body),
            Answer::Progress(body) => (Answer::Progress, body),
            Answer::Done(body) => (Answer::Done, body),
            Answer::Failed(mut fault) => {
                // details are a courtesy: the failure itself is known
                let details = std::mem::take(&mut fault.details);
                fault.details = self.incoming(reference, details).await.unwrap_or_default();
                return Answer::Failed(fault);
            }
        };
        match self.incoming(reference, body).await {
            Ok(body) if body.content_type.as_deref() == Some(headers::EXPIRED) => Answer::Failed(Fault::new(
                Code::WorkerError,
                "the worker's answer expired before it could be fetched; send the command again",
            )),
            Ok(body) => wrap(body),
            // nothing is wrong with what the client asked
            Err(fault) if fault.code == Code::Invalid => {
                Answer::Failed(Fault::new(Code::WorkerError, fault.text))
            }
            Err(fault) => Answer::Failed(fault),
        }
    }
}

/// Ends calls whose time is up. One task for all.
pub(super) async fn sweep(core: Arc<Core>) {
    loop {
        let next = core.calls.next_due();
        let wake = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            () = core.stop.cancelled() => {
                core.calls.close();
                return;
            }
            () = core.calls.earlier() => continue,
            () = sleep_until(wake) => {}
        }
        for pending in core.calls.expired(Instant::now()) {
            core.publish_cancel(&pending.job).await;
            let waited = if Instant::now() >= pending.end {
                "did not finish within its time limit and was told to stop"
            } else {
                "did not answer in time and was told to stop"
            };
            let text = format!(
                "`{}` {waited}; send the command again if it is safe to",
                pending.job.service
            );
            pending.finish(Answer::Failed(Fault::new(Code::Timeout, text)));
        }
    }
}

impl Pending {
    fn tell(&self, answer: Answer) {
        let id = self.call;
        self.replies.reply(Reply { id, answer });
    }

    /// Consumes the call, so that nothing can follow.
    fn finish(self, answer: Answer) -> Job {
        self.tell(answer);
        self.job
    }
}
