//! States that somebody removed from the stream behind our back: those who were shown them are told.
//!
//! A purge, or a stream made anew, leaves no message that would take a value back. So the first gateway that misses a
//! value writes its tombstone, where nobody has written anything since: from there on it is a fact like any other, and
//! reaches who is here, who is at another gateway, and who comes back later, in the order of the stream.

use std::sync::Arc;

use tracing::info;

use super::Room;
use crate::bus::{Fact, Unstored};
use crate::message::{Body, Class, Fault};
use crate::telemetry::clock;

impl Room {
    /// Topics that have a value as far as this room knows.
    pub(super) fn alive(&self) -> Vec<Arc<str>> {
        let alive = self
            .states
            .iter()
            .filter(|(_, entry)| !entry.event.body.is_empty());
        alive.map(|(topic, _)| topic.clone()).collect()
    }

    /// Compares the states with the stream.
    pub(super) async fn bury_vanished(&mut self) -> Result<(), Fault> {
        if self.states.is_empty() {
            return Ok(());
        }
        let dialect = self.key.dialect.name();
        let held = self.bus.topics(Class::State, &self.key.space, dialect).await?;
        // a tombstone that was removed has done its work
        self.states
            .retain(|topic, entry| !entry.event.body.is_empty() || held.contains(topic));
        let mut vanished = self.alive();
        vanished.retain(|topic| !held.contains(topic));
        self.bury(vanished).await
    }

    /// Stores tombstones; they come back live, as to everybody.
    pub(super) async fn bury(&self, vanished: Vec<Arc<str>>) -> Result<(), Fault> {
        for topic in vanished {
            info!(room = %self.key, %topic, "a state was removed from its stream: it is taken back");
            let fact = Fact {
                class: Class::State,
                space: self.key.space.clone(),
                dialect: self.key.dialect.name().into(),
                topic: topic.to_string(),
                body: Body::default(),
                time: clock::unix(),
                from: None,
                id: None,
                // only where nothing was stated meanwhile, and only by one gateway
                expected: Some(0),
                traceparent: None,
            };
            match self.bus.append_promptly(fact).await {
                Ok(_) | Err(Unstored::Conflict) => {}
                Err(Unstored::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }
}
