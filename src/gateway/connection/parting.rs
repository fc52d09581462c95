//! The end of a connection: last answers, the farewell, the close.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tracing::{debug, warn};

use super::{Connection, Ending};
use crate::dialect::Step;
use crate::gateway::calls::Tally;
use crate::gateway::closing;
use crate::gateway::outbox::{Kind, Letter};
use crate::message::{Close, Space};
use crate::telemetry::clock;

/// The log's line about a client that said one thing: of no interest unless it was refused, which it may not notice.
pub(super) fn visited(ending: &Ending, dialect: &str, session: &str, space: &Space, peer: &impl Display) {
    if let Ending::Broken(close) | Ending::Closed(close) = ending {
        let (code, reason) = (close.code, &*close.reason);
        warn!(dialect, session, %space, %peer, code, reason, "session ended: {ending}");
    } else {
        debug!(dialect, session, %space, %peer, "session ended: {ending}");
    }
}

impl Connection {
    /// Lives to the end. A bug ends this connection alone: it is counted, and the client is told to come back.
    pub(super) async fn guarded(&mut self) -> Ending {
        let living = AssertUnwindSafe(self.live()).catch_unwind().await;
        living.unwrap_or_else(|_| {
            self.gateway.metrics.panics.inc();
            Ending::Panicked
        })
    }

    /// What its session states at the end; nobody knows what one that panicked would.
    pub(super) async fn leave(&mut self, ending: &Ending) {
        if *ending != Ending::Panicked {
            Box::pin(self.calls.leave(self.session.as_mut())).await;
        }
    }

    /// What the last log line says of it: what came, what was queued, and its trace.
    pub(super) fn told(&self) -> (Tally, u64, Option<String>) {
        (self.calls.tally(), self.outbox.packets(), self.calls.trace_id())
    }

    /// Ends the connection.
    pub(super) async fn end(mut self, ending: &Ending) {
        self.intake.release(&self.gateway.receiving);
        let close = match ending {
            Ending::Left(_) | Ending::Lost | Ending::Silent => None,
            Ending::Broken(close) | Ending::Closed(close) => Some(close.clone()),
            Ending::Slow => Some(Close::SLOW),
            Ending::Drained => Some(Close::DRAIN),
            Ending::Panicked => Some(Close::INTERNAL),
        };
        if *ending == Ending::Drained {
            self.last_replies().await;
        }
        let silent = |close: &&Close| matches!(ending, Ending::Panicked) || close.code == Close::SLOW.code;
        if let Some(close) = close.as_ref().filter(|close| !silent(close)) {
            let mut steps = Vec::new();
            self.session.farewell(clock::read(), close, &mut steps);
            for step in steps {
                if let Step::Send(frame) = step {
                    self.outbox
                        .push_last(&self.carrier.pack(&frame), Kind::Own, false);
                }
            }
        }
        self.calls.abandon().await;
        if let Some(poller) = self.poller.take() {
            Box::pin(self.end_polled(poller, ending)).await;
            return self.outbox.bury();
        }
        let rhythm = (self.pace, &self.gateway.unread);
        match ending {
            Ending::Lost | Ending::Silent => self.outbox.bury(),
            Ending::Left(code) => {
                closing::close(&self.outbox, self.carrier, None, Some(*code), rhythm).await;
            }
            _ => closing::close(&self.outbox, self.carrier, close.as_ref(), None, rhythm).await,
        }
    }

    /// Commands under way at a drain still get their answers, within half of the grace.
    pub(super) async fn last_replies(&mut self) {
        let deadline = tokio::time::Instant::now() + self.gateway.config.gateway.drain_grace / 2;
        let mut steps = Vec::new();
        while !self.calls.is_empty() {
            let outbox = self.outbox.clone();
            if tokio::time::timeout_at(deadline, outbox.kicked()).await.is_err() {
                return;
            }
            while let Some(letter) = self.outbox.letter() {
                match letter {
                    Letter::Reply(reply) if self.calls.answered(&reply) => {
                        self.session.reply(clock::read(), reply, &mut steps);
                    }
                    Letter::Traced(id, traceparent) => self.calls.traced(id, &traceparent),
                    Letter::Reply(_) | Letter::Notice(_) => {}
                }
            }
            let _end = Box::pin(self.calls.perform(self.session.as_mut(), &mut steps)).await;
        }
    }
}
