//! What happened before: exact reads from the streams, bounded in time and bytes.

use super::{Bus, Stored};
use crate::message::{Class, Code, Fault, Space};

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Everything with a higher sequence.
    After(u64),
    /// The last so many.
    Last(usize),
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// When the stream was created, in Unix nanoseconds.
    pub epoch: u64,
    /// The oldest sequence still there (last + 1 when empty).
    pub first_seq: u64,
    /// The newest sequence ever given.
    pub last_seq: u64,
}

impl Bus {
    /// Where a whole stream stands.
    ///
    /// # Errors
    /// `bus_down`.
    pub async fn tail(&self, _class: Class) -> Result<Tail, Fault> {
        Err(Fault::new(Code::BusDown, "not built yet"))
    }

    /// The last sequence in one space and dialect; 0 if there is none.
    ///
    /// # Errors
    /// `bus_down`, or `invalid` for names no subject can carry.
    pub async fn last_of(&self, _class: Class, _space: &Space, _dialect: &str) -> Result<u64, Fault> {
        Err(Fault::new(Code::BusDown, "not built yet"))
    }

    /// Reads one space and dialect, oldest first, up to and including the sequence `up_to`.
    /// State: the last value of each topic, tombstones included.
    ///
    /// # Errors
    /// `bus_down`, `invalid`, or `too_large` beyond `max_bytes`.
    pub async fn read(
        &self,
        _class: Class,
        _space: &Space,
        _dialect: &str,
        _since: Since,
        _up_to: u64,
        _max_bytes: usize,
    ) -> Result<Vec<Stored>, Fault> {
        Err(Fault::new(Code::BusDown, "not built yet"))
    }
}
