//! Changes of merged states: read, merge, store if nobody else was faster, and a storm becomes a few of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::debug;
use ulid::Ulid;

use crate::bus::{Fact, Since, Unstored};
use crate::dialect::view::{Merge, gathered, merged};
use crate::gateway::Gateway;
use crate::gateway::lobby::Key;
use crate::message::{Body, Class, Code, Fault};
use crate::telemetry::clock;

/// At most 30 updates a second of one topic.
const GAP: Duration = Duration::from_millis(34);
/// How often somebody else may be faster.
const TRIES: usize = 5;

/// Keys on their way, by space and topic. An entry without keys: its task still runs.
#[derive(Default)]
pub struct Merges {
    gathering: Mutex<HashMap<(Key, &'static str), Option<Gathered>>>,
}

/// Keys that wait, and the trace of the last message among them that has one.
struct Gathered {
    merge: Merge,
    trace: Option<Traced>,
}

/// What a merge's message carries where it is traced.
pub struct Traced {
    /// The span that said it.
    pub traceparent: String,
    /// The message's id; one is made where it is of many.
    pub id: Option<Ulid>,
}

impl Gateway {
    /// Stores a merge, or gathers it with others where it allows that.
    ///
    /// # Errors
    /// As an append; `busy` when others were faster each time. What is gathered is only logged.
    pub async fn merge(
        self: &Arc<Self>,
        key: &Key,
        merge: Merge,
        from: &str,
        trace: Option<Traced>,
    ) -> Result<(), Fault> {
        if !merge.gather {
            return self.store_merge(key, &merge, from, trace).await;
        }
        let slot = (key.clone(), merge.topic);
        {
            let mut gathering = self.merges.gathering.lock();
            if let Some(waiting) = gathering.get_mut(&slot) {
                *waiting = Some(match waiting.take() {
                    Some(earlier) => Gathered {
                        merge: Merge {
                            keys: gathered(&earlier.merge.keys, &merge.keys).unwrap_or(earlier.merge.keys),
                            ..merge
                        },
                        trace: trace.or(earlier.trace),
                    },
                    None => Gathered { merge, trace },
                });
                return Ok(());
            }
            gathering.insert(slot.clone(), Some(Gathered { merge, trace }));
        }
        let (gateway, from) = (self.clone(), from.to_owned());
        self.tasks.spawn(async move { gateway.gather(slot, &from).await });
        Ok(())
    }

    async fn gather(self: Arc<Self>, slot: (Key, &'static str), from: &str) {
        loop {
            let Gathered { merge, trace } = {
                let mut gathering = self.merges.gathering.lock();
                match gathering.get_mut(&slot).and_then(Option::take) {
                    Some(gathered) => gathered,
                    None => {
                        gathering.remove(&slot);
                        return;
                    }
                }
            };
            if let Err(fault) = self.store_merge(&slot.0, &merge, from, trace).await {
                debug!(room = %slot.0, topic = slot.1, %fault, "a report was not stored");
            }
            tokio::time::sleep(GAP).await;
        }
    }

    async fn store_merge(
        &self,
        key: &Key,
        merge: &Merge,
        from: &str,
        trace: Option<Traced>,
    ) -> Result<(), Fault> {
        let history = self.config.events.history;
        let snapshot = self.look(key).await;
        let value = |topic: &str| snapshot.states.get(topic);
        let mut seq = value(merge.topic).map_or(0, |event| event.seq);
        let mut before = value(merge.topic).map(|event| event.body.bytes.clone());
        let mut void = merge.voided_by.and_then(value).map_or(0, |event| event.seq);
        let mut seen = snapshot.head;
        // another try is another message
        let mut id = trace.as_ref().and_then(|trace| trace.id);
        for _ in 0..=TRIES {
            let held = before.as_deref().filter(|_| seq >= void);
            let Some(body) = merged(held, &merge.keys, &merge.said) else {
                return Err(Fault::new(
                    Code::Invalid,
                    "what is to be merged is no JSON object, or has too many names",
                ));
            };
            let fact = Fact {
                class: Class::State,
                space: key.space.clone(),
                dialect: key.dialect.name().into(),
                topic: merge.topic.to_owned(),
                body: Body::json(body),
                time: clock::unix(),
                from: Some(from.to_owned()),
                id: id.take(),
                expected: history.then_some(seq),
                traceparent: trace.as_ref().map(|trace| trace.traceparent.clone()),
            };
            match self.bus.append_promptly(fact).await {
                Ok(stored) => {
                    self.lobby.wrote(key, stored);
                    return Ok(());
                }
                Err(Unstored::Fault(fault)) => return Err(fault),
                Err(Unstored::Conflict) => {}
            }
            // somebody else wrote it: what happened since the last look
            let last = self.bus.tail(Class::State).await?.last_seq;
            let dialect = key.dialect.name();
            let newer = self
                .bus
                .read(
                    Class::State,
                    &key.space,
                    dialect,
                    Since::After(seen),
                    last,
                    usize::MAX,
                )
                .await?;
            for stored in newer {
                if *stored.topic == *merge.topic {
                    seq = stored.seq;
                    before = Some(stored.body.bytes);
                } else if merge.voided_by == Some(&*stored.topic) {
                    void = stored.seq;
                }
            }
            seen = last;
        }
        Err(Unstored::Conflict.into())
    }
}
