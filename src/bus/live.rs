//! What happens now, in one space and dialect.

use super::{Bus, Stored};
use crate::message::{Code, Fault, Space};

/// A live subscription. Survives reconnects; what was missed meanwhile shows as a gap in the sequences.
#[derive(Debug)]
pub struct Live {}

impl Live {
    /// The next message; `None` when the bus is closed. Safe to drop half way.
    pub async fn next(&mut self) -> Option<Stored> {
        None
    }

    /// A message that is already here.
    pub fn try_next(&mut self) -> Option<Stored> {
        None
    }
}

impl Bus {
    /// Subscribes and returns when the broker is known to have taken note.
    ///
    /// # Errors
    /// `bus_down`, or `invalid` for names no subject can carry.
    pub async fn live(&self, _space: &Space, _dialect: &str) -> Result<Live, Fault> {
        Err(Fault::new(Code::BusDown, "not built yet"))
    }
}
