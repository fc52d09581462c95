//! What the assistant remembers of a space, kept in the bus so that every instance and every restart knows it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::message::{Code, Fault};
use crate::worker::Outlet;
use crate::worker::outlet::Refused;

/// The state topic lies under a dialect no client speaks, so that no client is sent it.
const DIALECT: &str = "worker";
const TOPIC: &str = "voice-memory";
/// Oldest out first.
const MOST: usize = 50;
/// Writers that meet try again.
const TRIES: usize = 5;
/// Bytes kept of one memory.
const LONGEST: usize = 500;

/// One memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Memory {
    pub(super) id: String,
    pub(super) text: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) importance: f64,
}

/// What has something to do with `query`, the most important and newest first.
pub(super) async fn recall(outlet: &Outlet, space: &str, query: &str) -> Result<Vec<Memory>, Fault> {
    let (_, body) = outlet.get(space, DIALECT, TOPIC).await?;
    Ok(related(read(&body)?, query))
}

/// Keeps a text; what was kept.
pub(super) async fn store(
    outlet: &Outlet,
    space: &str,
    text: &str,
    kind: &str,
    importance: f64,
) -> Result<Memory, Fault> {
    let end = text.floor_char_boundary(LONGEST);
    let memory = Memory {
        id: Ulid::new().to_string(),
        text: text[..end].to_owned(),
        kind: kind.to_owned(),
        importance,
    };
    for _ in 0..TRIES {
        let (seq, body) = outlet.get(space, DIALECT, TOPIC).await?;
        let mut all = read(&body)?;
        // Saying the same thing again makes it newer, not twice as true.
        all.retain(|known| known.text != memory.text);
        all.push(memory.clone());
        let surplus = all.len().saturating_sub(MOST);
        all.drain(..surplus);
        let body = serde_json::to_vec(&all).map_err(|error| broken(&error.to_string()))?;
        match outlet.set(space, DIALECT, TOPIC, Bytes::from(body), seq).await {
            Ok(()) => return Ok(memory),
            Err(Refused::Conflict) => {}
            Err(Refused::Fault(fault)) => return Err(fault),
        }
    }
    Err(broken("others keep writing it"))
}

fn broken(cause: &str) -> Fault {
    Fault::new(Code::WorkerError, format!("the memory cannot be used: {cause}"))
}

fn read(body: &[u8]) -> Result<Vec<Memory>, Fault> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(body).map_err(|error| broken(&error.to_string()))
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    const COMMON: &[&str] = &[
        "what", "that", "the", "is", "it", "do", "you", "did", "about", "this", "me", "my",
    ];
    text.split(|c: char| !c.is_alphanumeric())
        .map(str::to_lowercase)
        .filter(|word| word.len() > 1 && !COMMON.contains(&word.as_str()))
}

fn related(all: Vec<Memory>, query: &str) -> Vec<Memory> {
    let asked: Vec<_> = words(query).collect();
    let mut found: Vec<_> = all
        .into_iter()
        .rev()
        .filter(|memory| words(&memory.text).any(|word| asked.contains(&word)))
        .collect();
    found.sort_by(|a, b| b.importance.total_cmp(&a.importance));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_before_talk_and_the_new_before_the_old() {
        let memory = |id: &str, text: &str, importance| Memory {
            id: id.to_owned(),
            text: text.to_owned(),
            kind: String::new(),
            importance,
        };
        let all = vec![
            memory("1", "i like tea", 0.9),
            memory("2", "user: what do i like", 0.3),
            memory("3", "i like coffee", 0.9),
            memory("4", "the door is open", 0.9),
        ];
        let ids: Vec<_> = related(all, "What do I like?")
            .into_iter()
            .map(|m| m.id)
            .collect();
        assert_eq!(ids, ["3", "1", "2"]);
    }
}
