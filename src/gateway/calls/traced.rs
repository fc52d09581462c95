//! The traces of what one client says: which messages have one, and when their spans begin and end.

use std::time::Instant;

use crate::dialect::Step;
use crate::dialect::view::Merge;
use crate::gateway::calls::{Calls, Tally};
use crate::gateway::merges::Traced;
use crate::message::{CallId, Class, Command, Fault};
use crate::telemetry::metrics::Outcome;
use crate::telemetry::trace::{AppendSpan, CommandSpan};

/// A command that is over, but for its client hearing so.
pub(super) struct Ended {
    span: Box<CommandSpan>,
    outcome: Outcome,
}

impl Ended {
    pub(super) fn new(span: Box<CommandSpan>, outcome: Outcome) -> Self {
        Self { span, outcome }
    }

    /// The client `session` has heard.
    pub(super) fn heard(self, session: &str) {
        tracing::debug!(
            trace_id = self.span.trace_id(),
            session,
            outcome = self.outcome.name(),
            "command"
        );
        self.span
            .end(matches!(self.outcome, Outcome::Failed(_)).then(|| self.outcome.name()));
    }
}

impl Calls {
    /// A message came.
    pub fn received(&mut self) {
        self.tally.received = self.tally.received.saturating_add(1);
    }

    /// What the client said so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The id of the trace that the whole connection belongs to.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        Some(self.traceparent.as_ref()?.get(3..35)?.to_owned())
    }

    /// The span of a command, where it is traced: as the message says, else as the handshake said, else by chance.
    pub(super) fn span(&self, command: &Command) -> Option<CommandSpan> {
        let said = command.traceparent.as_deref().or(self.traceparent.as_deref());
        let context = self.gateway.gate.sample(said)?;
        Some(CommandSpan::start(&context, self.dialect, command))
    }

    /// The span of an event or a state, where it is traced.
    pub(super) fn statement(&self, class: Class, topic: &str, size: usize) -> Option<AppendSpan> {
        let context = self.gateway.gate.sample(self.traceparent.as_deref())?;
        Some(AppendSpan::start(&context, self.dialect, class, topic, size))
    }

    /// Merges keys into a state.
    pub(super) async fn merge(&self, merge: Merge) -> Result<(), Fault> {
        let Some(among) = &self.among else { return Ok(()) };
        // what is gathered goes with what others said, in the last one's trace
        let size = merge.said.len().max(merge.keys.len());
        let mut span = self.statement(Class::State, merge.topic, size);
        if merge.gather {
            span = span.map(AppendSpan::gathered);
        }
        let trace = span.as_ref().map(|span| Traced {
            traceparent: span.traceparent(),
            id: span.id(),
        });
        let stored = self.gateway.merge(&among.key, merge, &self.from, trace).await;
        if let Some(span) = span {
            span.end(stored.as_ref().err().map(|fault| fault.code.name()));
        }
        stored
    }

    /// The final answer that follows came with this `traceparent`.
    pub fn traced(&mut self, id: CallId, traceparent: &str) {
        if let Some(span) = self
            .pending
            .get_mut(&id)
            .and_then(|pending| pending.span.as_mut())
        {
            span.replied(traceparent);
        }
    }

    /// An answer was rendered into `steps`, which began at `since`; one that says nothing is heard at once.
    pub fn rendered(&mut self, since: Instant, steps: &[Step]) {
        let now = self.metrics.now();
        self.metrics.encoded(now - since);
        if steps.is_empty() {
            self.heard();
        } else {
            self.rendered = Some(now);
        }
    }

    /// A command is over; its client hears of it after the one before.
    pub(super) fn over(&mut self, ended: Option<Ended>) {
        self.heard();
        self.ended = ended;
    }

    /// What was answered has been written, or waits in the client's queue.
    pub(super) fn heard(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended.heard(&self.from);
        }
    }
}
