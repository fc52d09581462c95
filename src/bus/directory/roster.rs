//! Who has answered and who has not: the directory's memory, apart from any connection. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use super::answers::Answer;
use super::{Change, Instance};

/// More instances than this are not followed.
const MOST: usize = 4096;
/// Unanswered pings after which an instance counts as gone.
const MISSES: u8 = 2;
/// `INFO` is read twice: a service may be found before it has added all its endpoints.
const INFOS: u8 = 2;

/// A service and one of its instances.
pub(super) type Key = (String, String);

#[derive(Debug)]
struct Entry {
    instance: Instance,
    infos: u8,
    answered: bool,
    missed: u8,
}

/// All instances that are thought to run.
#[derive(Debug, Default)]
pub(super) struct Roster {
    entries: BTreeMap<Key, Entry>,
}

impl Roster {
    /// An answer came in. `Some` when the service was not there before.
    pub(super) fn heard(&mut self, answer: Answer, now: Instant) -> Option<Change> {
        let informed = answer.is_info();
        let key = (answer.name.clone(), answer.id.clone());
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.answered = true;
            entry.missed = 0;
            entry.instance.last_seen = now;
            if informed {
                entry.infos = entry.infos.saturating_add(1);
                entry.instance = instance(answer, now);
            }
            return None;
        }
        if self.entries.len() >= MOST {
            return None;
        }
        let first = !self.running(&key.0);
        let service = key.0.clone();
        let entry = Entry {
            instance: instance(answer, now),
            infos: u8::from(informed),
            answered: true,
            missed: 0,
        };
        self.entries.insert(key, entry);
        first.then_some(Change {
            service,
            running: true,
        })
    }

    /// Counts a miss for everyone who was asked and has not answered; two make an instance go.
    pub(super) fn judge(&mut self) -> Vec<Change> {
        for entry in self.entries.values_mut().filter(|e| !e.answered) {
            entry.missed += 1;
        }
        let gone: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.missed >= MISSES)
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().filter_map(|key| self.gone(key)).collect()
    }

    /// Nobody listens there any more. `Some` when it was the last of its service.
    pub(super) fn gone(&mut self, key: &Key) -> Option<Change> {
        self.entries.remove(key)?;
        (!self.running(&key.0)).then(|| Change {
            service: key.0.clone(),
            running: false,
        })
    }

    /// Forgives what was missed: it was not theirs.
    pub(super) fn forgive(&mut self) {
        for entry in self.entries.values_mut() {
            entry.missed = 0;
        }
    }

    /// Everyone is asked again.
    pub(super) fn ask_all(&mut self) {
        for entry in self.entries.values_mut() {
            entry.answered = false;
        }
    }

    /// Those who were asked and have not answered.
    pub(super) fn silent(&self) -> Vec<Key> {
        self.select(|entry| !entry.answered)
    }

    /// Those whose endpoints are not known for certain yet.
    pub(super) fn uninformed(&self) -> Vec<Key> {
        self.select(|entry| entry.infos < INFOS)
    }

    pub(super) fn instances(&self) -> Vec<Instance> {
        self.entries
            .values()
            .map(|entry| entry.instance.clone())
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn running(&self, service: &str) -> bool {
        self.entries.keys().any(|(name, _)| name == service)
    }

    fn select(&self, of: impl Fn(&Entry) -> bool) -> Vec<Key> {
        self.entries
            .iter()
            .filter(|(_, entry)| of(entry))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// What an answer says, as it is kept.
pub(super) fn instance(answer: Answer, now: Instant) -> Instance {
    Instance {
        name: answer.name,
        id: answer.id,
        version: answer.version,
        description: answer.description,
        endpoints: answer.endpoints,
        metadata: answer.metadata,
        last_seen: now,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Change;
    use super::super::answers::Answer;
    use super::Roster;
    use std::time::Instant;

    fn ping(name: &str, id: &str) -> Answer {
        let text = format!(r#"{{"type":"ping_response","name":"{name}","id":"{id}"}}"#);
        Answer::parse(text.as_bytes()).expect("answer")
    }

    fn change(service: &str, running: bool) -> Change {
        Change {
            service: service.into(),
            running,
        }
    }

    #[test]
    fn two_misses_in_a_row_end_an_instance_and_the_last_one_its_service() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        assert_eq!(roster.heard(ping("voice", "a"), now), Some(change("voice", true)));
        assert_eq!(roster.heard(ping("voice", "b"), now), None);
        assert!(roster.judge().is_empty(), "all have answered");
        roster.ask_all();
        roster.heard(ping("voice", "a"), now);
        assert!(roster.judge().is_empty(), "one miss is none");
        assert!(roster.judge().is_empty(), "b goes, a serves on");
        assert_eq!(roster.instances().len(), 1);
        roster.ask_all();
        assert!(roster.judge().is_empty());
        roster.heard(ping("voice", "a"), now);
        roster.ask_all();
        assert!(roster.judge().is_empty(), "an answer forgives");
        roster.forgive();
        assert!(roster.judge().is_empty(), "and so do we");
        assert_eq!(roster.judge(), [change("voice", false)]);
        assert_eq!(roster.heard(ping("voice", "a"), now), Some(change("voice", true)));
    }
}
