//! A connection for what is large: a body of many megabytes does not stand before small messages.

use std::sync::Arc;

use tokio::sync::watch;

use super::connect::{State, options, servers};
use super::error::refused;
use super::{Bus, BusError};
use crate::config;

impl Bus {
    /// One more connection to the same servers. It comes back by itself, like the others.
    ///
    /// # Errors
    /// [`BusError`], as [`Bus::connect`].
    pub async fn freight(&self, nats: &config::Nats) -> Result<async_nats::Client, BusError> {
        let servers = servers(nats)?;
        let name = format!("{} bodies", self.gateway());
        // nobody listens: what uses it has deadlines of its own, and the link speaks of the other two
        let state = watch::Sender::new(State::default());
        let options = options(nats, &name, &state, &Arc::default()).await?;
        let connected = options.connect(servers.as_slice()).await;
        connected.map_err(|error| refused(&servers, &error))
    }
}
