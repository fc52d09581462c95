//! Commands to workers: sent once, answered exactly once, withdrawn explicitly.

use std::sync::Arc;

use super::{Bus, Replies};
use crate::message::{Code, Command, Fault, Nanos, Space};

/// A command under way; needed to withdraw it.
#[derive(Clone, Debug)]
pub struct Call {
    pub(super) token: u64,
}

impl Bus {
    /// Sends a command. From then on `replies` gets interim answers and exactly one final one.
    /// `from` is `<dialect>/<session>`, `now` the time the command entered the system.
    ///
    /// # Errors
    /// When nothing was sent: `bus_down`, `invalid`, `too_large`. Then `replies` hears nothing.
    pub async fn call(
        &self,
        _from: &str,
        _space: &Space,
        _command: Command,
        _now: Nanos,
        _replies: Arc<dyn Replies>,
    ) -> Result<Call, Fault> {
        Err(Fault::new(Code::BusDown, "not built yet"))
    }

    /// Withdraws a command: no answer follows, and the worker is told to stop.
    pub async fn cancel(&self, _call: &Call) {}
}
