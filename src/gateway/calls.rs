//! The commands one client has under way, and the steps its session wants done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::bus::{Call, Fact};
use crate::dialect::{Append, Notice, Session, Step};
use crate::gateway::outbox::{Kind, Outbox, Taken};
use crate::gateway::ring::Carrier;
use crate::gateway::{Gateway, local};
use crate::message::{Answer, CallId, Close, Code, Command, Fault, Nanos, Reply, Space};
use crate::telemetry::clock;
use crate::telemetry::metrics::{DialectMetrics, Outcome};

struct Pending {
    call: Call,
    since: Instant,
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
}

impl Calls {
    /// Nothing under way yet.
    #[must_use]
    pub fn new(
        gateway: Arc<Gateway>,
        outbox: Arc<Outbox>,
        carrier: Carrier,
        dialect: &'static str,
        space: Space,
        session: &str,
    ) -> Self {
        let metrics = gateway.metrics.dialect(dialect);
        let from = format!("{dialect}/{session}").into();
        Self {
            gateway,
            metrics,
            outbox,
            carrier,
            dialect,
            space,
            from,
            pending: HashMap::new(),
        }
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
                        self.metrics.frame_out(packet.len());
                        if self.outbox.push(&packet, Kind::Own) == Taken::Overflow {
                            end = Some(Close::SLOW);
                        }
                    }
                    Step::Call(command) => {
                        let id = command.id;
                        if command.service.as_ref() == local::SERVICE {
                            let reply = self.local(&command);
                            session.reply(clock::read(), reply, steps);
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
                            self.metrics
                                .command_ended(pending.since, Outcome::Failed(Code::Cancelled));
                            self.gateway.bus.cancel(&pending.call).await;
                        }
                    }
                    Step::Append(append) => {
                        let topic = append.topic.clone();
                        if let Err(fault) = Box::pin(self.append(append)).await {
                            let notice = Notice::NotConfirmed(format!("{topic}: {}", fault.text));
                            session.notice(clock::read(), &notice, steps);
                        }
                    }
                    Step::Close(close) => end = end.or(Some(close)),
                }
            }
            std::mem::swap(&mut round, steps);
        }
        self.outbox.flush();
        end
    }

    /// What the gateway answers itself costs no round trip.
    fn local(&self, command: &Command) -> Reply {
        let since = clock::now();
        let answered = local::answer(&self.gateway, &self.space, &command.action);
        let answer = answered.map_or_else(Answer::Failed, Answer::Done);
        let outcome = match &answer {
            Answer::Failed(fault) => Outcome::Failed(fault.code),
            _ => Outcome::Local,
        };
        self.metrics.command_ended(since, outcome);
        Reply {
            id: command.id,
            answer,
        }
    }

    async fn call(&mut self, command: Command) -> Result<(), Fault> {
        let now = clock::unix();
        let since = clock::now();
        let id = command.id;
        let replies = self.outbox.clone();
        self.metrics.in_flight.inc();
        match self
            .gateway
            .bus
            .call(&self.from, &self.space, command, now, replies)
            .await
        {
            Ok(call) => {
                self.pending.insert(id, Pending { call, since });
                Ok(())
            }
            Err(fault) => {
                self.metrics.in_flight.dec();
                self.metrics.command_ended(since, Outcome::Failed(fault.code));
                Err(fault)
            }
        }
    }

    async fn append(&self, append: Append) -> Result<(), Fault> {
        let time: Nanos = clock::unix();
        let fact = Fact {
            class: append.class,
            space: self.space.clone(),
            dialect: self.dialect.into(),
            topic: append.topic,
            body: append.body,
            time,
            from: Some(self.from.to_string()),
            id: None,
            expected: None,
            traceparent: None,
        };
        self.gateway
            .bus
            .append_promptly(fact)
            .await
            .map(|_seq| ())
            .map_err(Into::into)
    }

    /// An answer from the bus. `false` when nobody waits for it any more.
    pub fn answered(&mut self, reply: &Reply) -> bool {
        if !reply.answer.is_final() {
            return self.pending.contains_key(&reply.id);
        }
        let Some(pending) = self.pending.remove(&reply.id) else {
            return false;
        };
        self.metrics.in_flight.dec();
        if let Some(outcome) = Outcome::of(&reply.answer) {
            self.metrics.command_ended(pending.since, outcome);
        }
        true
    }

    /// The client is gone: nobody waits for its commands.
    pub async fn abandon(&mut self) {
        for (_, pending) in self.pending.drain() {
            self.metrics.in_flight.dec();
            self.metrics
                .command_ended(pending.since, Outcome::Failed(Code::Cancelled));
            self.gateway.bus.cancel(&pending.call).await;
        }
        self.pending.shrink_to_fit();
    }
}
