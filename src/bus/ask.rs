//! A command of the gateway itself: sent once, and only its first answer matters.

use std::time::Duration;

use ulid::Ulid;

use super::Bus;
use super::calls::header_map;
use super::contract::{self, headers};
use super::inbox::Unanswered;
use crate::message::{Answer, Class, Code, Command, Fault, Nanos, Space};

impl Bus {
    /// Sends a command with this message id and returns the first thing its worker says, interim or final.
    ///
    /// # Errors
    /// `bus_down`, `invalid`, `too_large` when nothing was sent, `timeout` when nothing came back within `within`.
    pub async fn first_answer(
        &self,
        from: &str,
        space: &Space,
        id: Ulid,
        command: Command,
        now: Nanos,
        within: Duration,
    ) -> Result<Answer, Fault> {
        let core = &self.core;
        let subject = contract::command(space.as_str(), &command.service, &command.action)?;
        let (payload, reference) = core.outgoing(Class::Event, &command.body).await?;
        let head = headers::CommandHead {
            id: &id.to_string(),
            time: now,
            session: from,
            deadline_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            correlation: command.correlation.as_deref(),
            content_type: command.body.content_type.as_deref(),
            traceparent: command.traceparent.as_deref(),
        };
        let headers = header_map(head.list(), reference);
        match core.ingress.ask(subject, Some(headers), payload, within).await {
            Ok(message) => Ok(core.decode(&command.service, space, message)),
            Err(Unanswered::Nobody) => Ok(Answer::Failed(core.nobody(&command.service, space))),
            Err(Unanswered::Unsent(fault)) => Err(fault),
            Err(Unanswered::Silence) => Err(Fault::new(
                Code::Timeout,
                format!("`{}` did not answer in time", command.service),
            )),
        }
    }
}
