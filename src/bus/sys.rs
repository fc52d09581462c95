//! Gateways among themselves: `gw.v1.sys.…`.

use std::time::Duration;

use bytes::Bytes;

use super::Bus;
use crate::message::{Code, Fault};

/// A message of another gateway (or our own).
#[derive(Clone, Debug)]
pub struct SysMessage {
    /// What follows `gw.v1.sys.`.
    pub path: String,
    /// The payload.
    pub body: Bytes,
    /// Where an answer is expected, if one is.
    pub reply: Option<String>,
}

/// A subscription to `gw.v1.sys.…`.
#[derive(Debug)]
pub struct Sys {}

impl Sys {
    /// The next message; `None` when the bus is closed.
    pub async fn next(&mut self) -> Option<SysMessage> {
        None
    }
}

impl Bus {
    /// Publishes to `gw.v1.sys.<path>`; `path` is our own words, tokens joined by dots.
    ///
    /// # Errors
    /// `bus_down`, or `invalid`.
    pub async fn publish_sys(&self, _path: &str, _body: Bytes) -> Result<(), Fault> {
        Err(Fault::new(Code::BusDown, "not built yet"))
    }

    /// Subscribes to `gw.v1.sys.<pattern>`, wildcards allowed; returns when the broker has taken note.
    ///
    /// # Errors
    /// `bus_down`.
    pub async fn subscribe_sys(&self, _pattern: &str) -> Result<Sys, Fault> {
        Err(Fault::new(Code::BusDown, "not built yet"))
    }

    /// Answers a message that expects it.
    ///
    /// # Errors
    /// `bus_down`.
    pub async fn answer_sys(&self, _to: &SysMessage, _body: Bytes) -> Result<(), Fault> {
        Err(Fault::new(Code::BusDown, "not built yet"))
    }

    /// Asks all gateways and gathers what they answer within `window`, at most `limit` answers.
    ///
    /// # Errors
    /// `bus_down`.
    pub async fn gather_sys(
        &self,
        _path: &str,
        _body: Bytes,
        _window: Duration,
        _limit: usize,
    ) -> Result<Vec<Bytes>, Fault> {
        Err(Fault::new(Code::BusDown, "not built yet"))
    }
}
