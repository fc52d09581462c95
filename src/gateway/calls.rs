//! The commands one client has under way, and the steps its session wants done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::bus::{Call, Fact};
use crate::dialect::{Append, Notice, Session, Step};
use crate::gateway::lobby::Key;
use crate::gateway::outbox::{Kind, Outbox, Taken};
use crate::gateway::ring::Carrier;
use crate::gateway::turn::Turn;
use crate::gateway::{Gateway, local, viewer};
use crate::message::{Answer, CallId, Class, Close, Code, Command, Fault, Nanos, Reply, Space};
use crate::telemetry::clock;
use crate::telemetry::metrics::{DialectMetrics, Outcome};
use crate::telemetry::trace::{AppendSpan, CommandSpan};

mod here;
mod traced;

use traced::Ended;

struct Pending {
    /// `None` when it was never sent.
    call: Option<Call>,
    since: Instant,
    /// Only where the message is traced.
    span: Option<Box<CommandSpan>>,
}

impl Pending {
    /// Closes the books of a command, whatever became of it; its span ends when the client has heard.
    fn finish(self, metrics: &DialectMetrics, outcome: Outcome) -> Option<Ended> {
        metrics.in_flight.dec();
        metrics.command_ended(self.since, outcome);
        self.span.map(|span| Ended::new(span, outcome))
    }
}

/// Performs a session's steps and keeps its commands until they are answered.
pub struct Calls {
    gateway: Arc<Gateway>,
    metrics: Arc<DialectMetrics>,
    outbox: Arc<Outbox>,
    carrier: Carrier,
    dialect: &'static str,
    space: Space,
    /// `<dialect>/<session>`, as `Gw-Session` carries it.
    from: Arc<str>,
    pending: HashMap<CallId, Pending>,
    /// The trace of the handshake.
    traceparent: Option<Box<str>>,
    /// Answered, and the client is about to hear it.
    ended: Option<Ended>,
    /// When the last answer was rendered, until it is written.
    rendered: Option<Instant>,
    tally: Tally,
    /// Only for dialects whose sessions look at states and speak in turn with others of their peer.
    among: Option<Box<Among>>,
}

/// What a client said in its life.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Messages.
    pub received: u32,
    /// Of these, commands.
    pub commands: u32,
}

/// Where a session stands among others of its space and peer.
pub struct Among {
    /// Its room.
    pub key: Key,
    /// Its turn to speak.
    pub turn: Turn,
}

impl Calls {
    /// Nothing under way yet.
    #[must_use]
    pub fn new(
        gateway: Arc<Gateway>,
        outbox: Arc<Outbox>,
        carrier: Carrier,
        room: Key,
        session: &str,
        traceparent: Option<Box<str>>,
        among: Option<Box<Among>>,
    ) -> Self {
        let dialect = room.dialect.name();
        let metrics = gateway.metrics.dialect(dialect);
        let from = format!("{dialect}/{session}").into();
        Self {
            gateway,
            metrics,
            outbox,
            carrier,
            dialect,
            space: room.space,
            from,
            pending: HashMap::new(),
            traceparent,
            ended: None,
            rendered: None,
            tally: Tally::default(),
            among,
        }
    }

    /// Whether a message is partly received: what the same peer says later waits for it.
    pub fn speaking(&mut self, partly: bool) {
        if let Some(among) = &mut self.among {
            if partly {
                among.turn.begin();
            } else {
                among.turn.end();
            }
        }
    }

    /// Waits for what the same peer began to say before.
    async fn in_turn(&mut self) {
        if let Some(among) = &mut self.among {
            among.turn.begin();
            among.turn.wait().await;
        }
    }

    /// The client is gone: its session says what is still to be stated.
    pub async fn leave(&mut self, session: &mut dyn Session) {
        let Some(among) = &self.among else { return };
        let snapshot = self.gateway.look(&among.key).await;
        let mut steps = Vec::new();
        self.gateway.show(&among.key, &snapshot, |view| {
            session.left(clock::read(), view, &mut steps);
        });
        Box::pin(self.perform(session, &mut steps)).await;
    }

    /// The session's dialect.
    #[must_use]
    pub fn dialect(&self) -> &'static str {
        self.dialect
    }

    /// The dialect's counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<DialectMetrics> {
        self.metrics.clone()
    }

    /// Commands under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Performs `steps` in order; what they bring about is performed too. `Some` when the connection must end.
    pub async fn perform(&mut self, session: &mut dyn Session, steps: &mut Vec<Step>) -> Option<Close> {
        let mut end = None;
        let mut round = std::mem::take(steps);
        while !round.is_empty() {
            for step in round.drain(..) {
                match step {
                    Step::Send(frame) => {
                        let packet = self.carrier.pack(&frame);
                        if self.outbox.push(&packet, Kind::Own) == Taken::Overflow {
                            end = Some(Close::SLOW);
                        }
                    }
                    Step::Call(command) => {
                        let id = command.id;
                        self.tally.commands = self.tally.commands.saturating_add(1);
                        if command.service.as_ref() == local::SERVICE {
                            let reply = Box::pin(self.local(&command)).await;
                            session.reply(clock::read(), reply, steps);
                        } else if self.is_picture(&command) {
                            let answer = Box::pin(self.picture(command)).await;
                            session.reply(clock::read(), Reply { id, answer }, steps);
                        } else if let Err(fault) = Box::pin(self.call(command)).await {
                            let reply = Reply {
                                id,
                                answer: Answer::Failed(fault),
                            };
                            session.reply(clock::read(), reply, steps);
                        }
                    }
                    Step::Cancel(id) => {
                        if let Some(pending) = self.pending.remove(&id) {
                            self.withdraw(pending).await;
                        }
                    }
                    Step::Look(asked) => Box::pin(self.look(asked, session, steps)).await,
                    Step::Merge(merge) => {
                        if !merge.gather {
                            self.in_turn().await;
                        }
                        let topic = merge.topic;
                        if let Err(fault) = Box::pin(self.merge(merge)).await {
                            let notice = Notice::NotConfirmed(format!("{topic}: {}", fault.text));
                            session.notice(clock::read(), &notice, steps);
                        }
                    }
                    Step::Append(append) => {
                        // what was answered before does not wait for the bus
                        self.outbox.flush();
                        if append.class == Class::State {
                            self.in_turn().await;
                        }
                        if self.is_unasked(&append) {
                            continue;
                        }
                        let topic = append.topic.clone();
                        match Box::pin(self.append(append)).await {
                            Ok(()) => self.taken(session),
                            Err(fault) => {
                                let notice = Notice::NotConfirmed(format!("{topic}: {}", fault.text));
                                session.notice(clock::read(), &notice, steps);
                            }
                        }
                    }
                    Step::Close(close) => end = end.or(Some(close)),
                }
            }
            std::mem::swap(&mut round, steps);
        }
        self.outbox.flush();
        if let Some(at) = self.rendered.take() {
            self.metrics.stage.write.since(at);
        }
        self.heard();
        end
    }

    /// A picture that this page was not asked for.
    fn is_unasked(&self, append: &Append) -> bool {
        let picture =
            self.among.is_some() && append.class == Class::Event && append.topic == viewer::SCREENSHOT;
        let session = self.from.rsplit('/').next().unwrap_or_default();
        picture && !self.gateway.lobby.screens.answers(session, &append.body)
    }

    async fn call(&mut self, mut command: Command) -> Result<(), Fault> {
        let now = clock::unix();
        let since = self.metrics.now();
        let id = command.id;
        let mut span = self.span(&command);
        command.traceparent = span.as_ref().map(CommandSpan::traceparent);
        let pending = |call: Option<Call>| {
            if let (Some(span), Some(call)) = (&mut span, &call) {
                span.sent(call.id());
            }
            let span = span.map(Box::new);
            Pending { call, since, span }
        };
        let replies = self.outbox.clone();
        self.metrics.in_flight.inc();
        match self
            .gateway
            .bus
            .call(&self.from, &self.space, command, now, replies)
            .await
        {
            Ok(call) => {
                self.pending.insert(id, pending(Some(call)));
                Ok(())
            }
            Err(fault) => {
                let ended = pending(None).finish(&self.metrics, Outcome::Failed(fault.code));
                self.over(ended);
                Err(fault)
            }
        }
    }

    async fn append(&self, append: Append) -> Result<(), Fault> {
        let time: Nanos = clock::unix();
        let size = append.body.bytes.len();
        let class = append.class;
        let span = self.statement(append.class, &append.topic, size);
        let fact = Fact {
            class: append.class,
            space: self.space.clone(),
            dialect: self.dialect.into(),
            topic: append.topic,
            body: append.body,
            time,
            from: Some(self.from.to_string()),
            id: span.as_ref().and_then(AppendSpan::id),
            expected: None,
            traceparent: span.as_ref().map(AppendSpan::traceparent),
        };
        let stored: Result<(), Fault> = self
            .gateway
            .bus
            .append_promptly(fact)
            .await
            .map(|seq| {
                if let (Some(among), Class::State) = (&self.among, class) {
                    self.gateway.lobby.wrote(&among.key, seq);
                }
            })
            .map_err(Into::into);
        if let Some(span) = span {
            span.end(stored.as_ref().err().map(|fault| fault.code.name()));
        }
        stored
    }

    /// An answer from the bus. `false` when nobody waits for it any more.
    pub fn answered(&mut self, reply: &Reply) -> bool {
        if !reply.answer.is_final() {
            return self.pending.contains_key(&reply.id);
        }
        let Some(pending) = self.pending.remove(&reply.id) else {
            return false;
        };
        if let Some(outcome) = Outcome::of(&reply.answer) {
            let ended = pending.finish(&self.metrics, outcome);
            self.over(ended);
        }
        true
    }

    /// The client is gone: nobody waits for its commands.
    pub async fn abandon(&mut self) {
        self.heard();
        for (_, pending) in std::mem::take(&mut self.pending) {
            self.withdraw(pending).await;
        }
    }

    /// Nobody waits for the answer any more, and the worker is told so.
    async fn withdraw(&self, mut pending: Pending) {
        let call = pending.call.take();
        if let Some(ended) = pending.finish(&self.metrics, Outcome::Failed(Code::Cancelled)) {
            ended.heard(&self.from);
        }
        if let Some(call) = call {
            self.gateway.bus.cancel(&call).await;
        }
    }
}
