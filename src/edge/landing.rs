//! The landing page: what is running, where each client connects, and a demo to press.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::dialect;
use crate::gateway::Gateway;

/// The page itself; everything it shows comes from `/status.json` and a WebSocket.
pub const PAGE: &str = include_str!("landing.html");

/// What the page shows.
#[must_use]
pub fn status(gateway: &Arc<Gateway>) -> Value {
    let doors: Vec<Value> = dialect::ALL
        .iter()
        .filter(|dialect| dialect.name() != "echo")
        .map(|dialect| {
            json!({
                "dialect": dialect.name(),
                "paths": dialect.paths(),
                "port": gateway.published(dialect.name()),
                "space": gateway.config.dialects.get(dialect.name()).map(|own| own.space.clone()),
            })
        })
        .collect();
    let services: Vec<Value> = gateway
        .directory
        .snapshot()
        .iter()
        .map(|instance| {
            json!({
                "name": instance.name,
                "id": instance.id,
                "version": instance.version,
                "description": instance.description,
            })
        })
        .collect();
    // what the gateway calls NATS may be a name that only its own network knows
    let nats_url = match gateway.config.links.ports.get("nats") {
        Some(port) => format!("nats://localhost:{port}"),
        None => gateway.nats_url.clone(),
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "gateway": gateway.bus.gateway(),
        "nats": gateway.bus.link().borrow().is_up(),
        "nats_url": nats_url,
        "history": gateway.config.events.history,
        "draining": gateway.drain.is_cancelled(),
        "ops_port": gateway.published("ops"),
        // what starts the worker of the demo
        "voice": gateway.config.commands.start.get("voice"),
        "links": {
            "grafana": gateway.config.links.grafana,
            "prometheus": gateway.config.links.prometheus,
            "traces": gateway.config.links.traces,
        },
        "traced": gateway.config.trace.export,
        "doors": doors,
        "services": services,
        "rooms": gateway.lobby.seen(),
        "gateways": gateway.presence.gateways(),
    })
}
