//! What a client asks and this gateway answers without a worker: counted and traced like any command, outcome `local`.

use ulid::Ulid;

use crate::dialect::view::View;
use crate::dialect::{Notice, Session, Step};
use crate::gateway::calls::traced::Ended;
use crate::gateway::calls::{Calls, local, viewer};
use crate::message::{Answer, Body, CallId, Close, Command, Reply};
use crate::telemetry::clock;
use crate::telemetry::metrics::Outcome;
use crate::telemetry::trace::CommandSpan;

impl Calls {
    /// What the gateway answers itself costs no round trip.
    pub(super) async fn local(&mut self, command: &Command) -> Reply {
        let since = self.metrics.now();
        let span = self.span(command).map(CommandSpan::here);
        let answered = local::answer(&self.gateway, &self.space, &command.action).await;
        let answer = answered.map_or_else(Answer::Failed, Answer::Done);
        let outcome = match &answer {
            Answer::Failed(fault) => Outcome::Failed(fault.code),
            _ => Outcome::Local,
        };
        self.metrics.command_ended(since, outcome);
        self.over(span.map(|span| Ended::new(Box::new(span), outcome)));
        Reply {
            id: command.id,
            answer,
        }
    }

    /// Lets the session see the state of its space; with a name it answers that question of its client.
    pub(super) async fn look(
        &mut self,
        asked: Option<&'static str>,
        session: &mut dyn Session,
        steps: &mut Vec<Step>,
    ) {
        let Some(among) = &self.among else { return };
        let since = self.metrics.now();
        let span = asked.and_then(|question| self.question(question));
        let snapshot = self.gateway.look(&among.key).await;
        let now = clock::read();
        if let Some(close) = among.turn.refused() {
            session.notice(now, &Notice::Refused(close), steps);
        }
        let show = |view: &View| session.seen(now, view, steps);
        self.gateway.show(&among.key, &snapshot, show);
        if asked.is_some() {
            self.tally.commands = self.tally.commands.saturating_add(1);
            self.metrics.command_ended(since, Outcome::Local);
            self.over(span.map(|span| Ended::new(Box::new(span), Outcome::Local)));
        }
    }

    /// What a client said that comes for one message is refused, though it may be right; its next connection may tell it.
    pub fn refused(&self, close: &Close) {
        if let Some(among) = self.among.as_ref().filter(|_| matches!(close.code, 1009 | 1013)) {
            among.turn.refuse(close);
        }
    }

    /// What such a client said is stored.
    pub(super) fn taken(&self, session: &dyn Session) {
        if let Some(among) = self.among.as_ref().filter(|_| !session.joined()) {
            among.turn.take();
        }
    }

    /// The span of a question, where it is traced: as the handshake said, else by chance.
    fn question(&self, question: &str) -> Option<CommandSpan> {
        let context = self.gateway.gate.sample(self.traceparent.as_deref())?;
        let command = Command {
            id: CallId(0),
            service: local::SERVICE.into(),
            action: format!("{}_{question}", self.dialect),
            body: Body::default(),
            correlation: None,
            traceparent: None,
        };
        Some(CommandSpan::start(&context, self.dialect, &command).here())
    }

    /// Whether a command asks pages of the client's space for a picture.
    pub(super) fn is_picture(&self, command: &Command) -> bool {
        self.among.is_some() && &*command.service == viewer::SERVICE && command.action == viewer::SCREENSHOT
    }

    /// A picture of what was shown before: asked for in turn, awaited until a page was asked, not until it answers,
    /// because the one who asks is gone by then.
    pub(super) async fn picture(&mut self, mut command: Command) -> Answer {
        self.in_turn().await;
        let since = self.metrics.now();
        let id = Ulid::new();
        let mut span = self.span(&command);
        if let Some(span) = &mut span {
            span.sent(id);
        }
        command.traceparent = span.as_ref().map(CommandSpan::traceparent);
        let answer = match &self.among {
            Some(among) => {
                let asked = self.gateway.screenshot(&among.key, &self.from, id, command).await;
                asked.map_or_else(Answer::Failed, |()| Answer::Done(Body::default()))
            }
            None => Answer::Done(Body::default()),
        };
        let outcome = Outcome::of(&answer).unwrap_or(Outcome::Local);
        self.metrics.command_ended(since, outcome);
        self.over(span.map(|span| Ended::new(Box::new(span), outcome)));
        answer
    }
}
