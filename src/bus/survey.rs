//! What the broker says about the streams and about itself: for operators, never for the traffic.

use super::{Bus, contract};
use crate::message::Fault;

/// One stream as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Its name.
    pub name: &'static str,
    /// Messages kept.
    pub messages: u64,
    /// Bytes kept.
    pub bytes: u64,
    /// Bytes after which old ones go, or new ones are refused; `None` without a limit.
    pub limit: Option<u64>,
    /// Sequence of the last message ever stored.
    pub last: u64,
    /// Subjects with a message.
    pub subjects: u64,
}

/// JetStream of our account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JetStreamState {
    /// Bytes on disk.
    pub storage: u64,
    /// Bytes in memory.
    pub memory: u64,
    /// Requests to the API since the server started.
    pub requests: u64,
    /// Of these, refused.
    pub errors: u64,
}

impl Bus {
    /// The state of every stream of the contract; none without history.
    ///
    /// # Errors
    /// `bus_down`.
    pub async fn stream_states(&self) -> Result<Vec<StreamState>, Fault> {
        let mut states = Vec::new();
        if !self.history() {
            return Ok(states);
        }
        for name in contract::streams::NAMES {
            let info = self.core.stream_info(name).await?;
            let number = |field: &str| info["state"][field].as_u64().unwrap_or_default();
            states.push(StreamState {
                name,
                messages: number("messages"),
                bytes: number("bytes"),
                // -1 is the server's word for none
                limit: info["config"]["max_bytes"].as_u64(),
                last: number("last_seq"),
                subjects: number("num_subjects"),
            });
        }
        Ok(states)
    }

    /// What our account uses of JetStream.
    ///
    /// # Errors
    /// `bus_down`.
    pub async fn jetstream_state(&self) -> Result<JetStreamState, Fault> {
        let info = self.core.jetstream("INFO", &serde_json::Value::Null).await?;
        let number = |of: &serde_json::Value| of.as_u64().unwrap_or_default();
        Ok(JetStreamState {
            storage: number(&info["storage"]),
            memory: number(&info["memory"]),
            requests: number(&info["api"]["total"]),
            errors: number(&info["api"]["errors"]),
        })
    }
}
