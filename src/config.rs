//! The configuration as the program uses it: plain valid data, one part per subsystem.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

mod changes;
mod collector;
mod doc;
mod facts;
mod layers;
mod load;
mod nearest;
mod problem;
mod settings;
mod table;
mod value;

pub use changes::Written;
pub use doc::{default_toml, markdown};
pub use load::Sources;
pub use problem::{Problem, Problems};

/// Everything an operator can decide.
#[derive(Clone, Debug)]
pub struct Config {
    /// The gateway port and what holds for every client.
    pub gateway: Gateway,
    /// The operations port.
    pub ops: Ops,
    /// WebSocket clients.
    pub websocket: WebSocket,
    /// What a connection may queue and what happens beyond.
    pub slow: Slow,
    /// Replay, resume and the streams behind them.
    pub events: Events,
    /// Commands to workers.
    pub commands: Commands,
    /// Bodies above the broker's payload limit.
    pub bodies: Bodies,
    /// How to reach NATS; without a URL the gateway runs its own.
    pub nats: Nats,
    /// Logs.
    pub log: Log,
    /// Traces; the exporter itself is set by `OTEL_*`.
    pub trace: Trace,
    /// Pages beside the gateway.
    pub links: Links,
    /// What only CAD clients need.
    pub cad: Cad,
    /// Per dialect: legacy port, limits, routes. Keyed by dialect name; every dialect has an entry.
    pub dialects: BTreeMap<String, DialectSettings>,
}

/// The gateway port and what holds for every client.
#[derive(Clone, Debug, Default)]
pub struct Gateway {
    /// Addresses to bind, on every client port. Default both loopbacks.
    pub bind: Vec<IpAddr>,
    /// The gateway port. Default 8080. 0 = any free port (tests).
    pub port: u16,
    /// Allows `bind` beyond loopback, since there is no authentication yet.
    pub allow_exposed: bool,
    /// Origins accepted beside the same host and loopback: `https://app.example`, or `*`.
    pub origins: Vec<String>,
    /// Connections at once over all ports.
    pub max_connections: usize,
    /// Spaces with sessions at once.
    pub max_spaces: usize,
    /// A request head must be complete within this.
    pub header_timeout: Duration,
    /// A connection on the gateway port must say its first byte within this.
    pub first_byte_timeout: Duration,
    /// Bytes being received at once over all connections, beyond one small message each.
    pub max_receiving: u64,
    /// Messages a second of one connection, twice as many at once; 0 = no limit.
    pub message_rate: usize,
    /// Shutdown: closes are spread over this.
    pub drain_spread: Duration,
    /// Shutdown: everything ends within this.
    pub drain_grace: Duration,
    /// Serves `/echo` for conformance tests.
    pub test_echo: bool,
}

/// The operations port: metrics and probes.
#[derive(Clone, Debug, Default)]
pub struct Ops {
    /// Addresses to bind.
    pub bind: Vec<IpAddr>,
    /// Default 8081.
    pub port: u16,
    /// Whether messages are counted, for `/metrics`. Default yes.
    pub metrics: bool,
}

/// WebSocket clients.
#[derive(Clone, Debug, Default)]
pub struct WebSocket {
    /// How often a quiet client is pinged. Default 25 s.
    pub ping: Duration,
    /// How long it may take to answer. Default 8 s.
    pub pong: Duration,
    /// How long a message that has begun may stand still. Default 10 s.
    pub stall: Duration,
}

/// What happens to a client whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// Close with a code that says come back.
    #[default]
    Close,
    /// Drop the oldest events and tell the client how many.
    DropOldest,
}

/// What a connection may queue and what happens beyond.
#[derive(Clone, Debug, Default)]
pub struct Slow {
    /// Bytes queued for one client beyond one message. Default 1 MiB.
    pub queue_bytes: usize,
    /// For events; state is always conflated, replies always close. Default close.
    pub policy: SlowPolicy,
    /// A write that makes no progress for this long ends the connection. Default 10 s.
    pub write_timeout: Duration,
}

/// Replay, resume and the streams behind them.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Streams in use. Without, replay, resume and state are absent. Default true.
    pub history: bool,
    /// Events a newcomer is given. Default 100.
    pub replay: usize,
    /// Bytes of encoded history kept in memory for each space and dialect. Default 32 MiB.
    pub memory: usize,
    /// Age limit of `GW_EVENTS`. Default 24 h.
    pub max_age: Duration,
    /// Size limit of `GW_EVENTS`. Default 1 GiB.
    pub max_bytes: u64,
    /// Size limit of `GW_STATE`. Default 1 GiB.
    pub state_max_bytes: u64,
    /// Replicas of every stream. Default 1.
    pub replicas: usize,
    /// An unconfirmed event is retried for this long. Default 60 s.
    pub retry: Duration,
}

/// Commands to workers.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    /// To the first answer, restarted by `ack` and `progress`. Default 30 s.
    pub deadline: Duration,
    /// Hard limit where the service has none of its own. Default 300 s.
    pub limit: Duration,
    /// Hard limits by service. Default `blender = 1 h`.
    pub limits: BTreeMap<String, Duration>,
    /// Commands under way per connection; beyond, reading pauses. Default 256.
    pub per_connection: usize,
    /// Commands under way for one service of one space; beyond, `busy`. Default 4096.
    pub per_service: usize,
    /// What starts a service, by its name, for those who find nobody serving it.
    pub start: BTreeMap<String, String>,
}

/// Bodies above the broker's payload limit.
#[derive(Clone, Debug, Default)]
pub struct Bodies {
    /// Size limit of each bucket. Default 4 GiB.
    pub max_bytes: u64,
    /// Deadline of one put or get. Default 60 s.
    pub timeout: Duration,
}

/// Where NATS listens unless told otherwise.
const NATS_PORT: u16 = 4222;

/// How to reach NATS.
#[derive(Clone, Default)]
pub struct Nats {
    /// Server URLs; empty = the gateway supervises its own server.
    pub url: Vec<String>,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Token.
    pub token: Option<String>,
    /// Credentials file (`.creds`).
    pub credentials: Option<PathBuf>,
    /// Seed of an nkey.
    pub nkey: Option<String>,
    /// Require TLS even for `nats://` URLs.
    pub tls: bool,
    /// Certificate authority file.
    pub tls_ca: Option<PathBuf>,
    /// Client certificate file.
    pub tls_cert: Option<PathBuf>,
    /// Client key file.
    pub tls_key: Option<PathBuf>,
    /// Port of the supervised server. Default 4222.
    pub port: u16,
    /// Store of the supervised server. Default `$XDG_DATA_HOME/causeway/nats`.
    pub store: PathBuf,
    /// The server binary. Default `nats-server`, looked up in `PATH`.
    pub server: PathBuf,
}

impl Nats {
    /// The servers as anybody may read them, without the logins that a URL can hold; the own one where none is named.
    #[must_use]
    pub fn shown(&self) -> String {
        let urls: Vec<String> = self.url.iter().map(|url| value::without_login(url)).collect();
        match urls.as_slice() {
            [] => format!("nats://127.0.0.1:{}", self.port),
            urls => urls.join(", "),
        }
    }

    /// Host and port of the first server, as traces name it.
    #[must_use]
    pub fn server(&self) -> (String, u16) {
        let Some(url) = self.url.first() else {
            return ("127.0.0.1".to_owned(), self.port);
        };
        let place = url.split_once("://").map_or(url.as_str(), |(_, place)| place);
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        let place = place.split('/').next().unwrap_or_default();
        let whole = (place, NATS_PORT);
        let (host, port) = match place.rsplit_once(':') {
            // an address of IPv6 has colons of its own
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(NATS_PORT)),
            _ => whole,
        };
        (host.trim_matches(['[', ']']).to_owned(), port)
    }
}

impl fmt::Debug for Nats {
    /// Secrets are shown as set or not set, and user names and passwords inside URLs not at all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "…");
        f.debug_struct("Nats")
            .field("url", &self.shown())
            .field("user", &self.user)
            .field("password", &hidden(&self.password))
            .field("token", &hidden(&self.token))
            .field("credentials", &self.credentials)
            .field("nkey", &hidden(&self.nkey))
            .field("tls", &self.tls)
            .field("tls_ca", &self.tls_ca)
            .field("tls_cert", &self.tls_cert)
            .field("tls_key", &self.tls_key)
            .field("port", &self.port)
            .field("store", &self.store)
            .field("server", &self.server)
            .finish()
    }
}

/// Log output.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Filter such as `info` or `causeway=debug,info`.
    pub level: String,
    /// `Auto`: text on a terminal, JSON otherwise.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Traces.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Share of messages that start a trace, 0 to 1; a sampled `traceparent` always continues. Default 0.01.
    pub ratio: f64,
    /// Whether `OTEL_*` names a collector; without one no span is recorded.
    pub export: bool,
}

/// Pages beside the gateway, as people's browsers reach them.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// Grafana.
    pub grafana: Option<String>,
    /// Prometheus.
    pub prometheus: Option<String>,
    /// The trace store; one trace is at `/trace/<id>`, or where `{id}` stands.
    pub traces: Option<String>,
    /// Ports as others reach them, by what they are for, where that is not the bound one.
    pub ports: BTreeMap<String, u16>,
}

/// What only CAD clients need.
#[derive(Clone, Debug, Default)]
pub struct Cad {
    /// Settings of the viewer, over its defaults and the user's own file.
    pub viewer: BTreeMap<String, serde_json::Value>,
    /// The user's own file of such settings (YAML). Default `~/.ocpvscode_standalone`.
    pub settings_file: PathBuf,
    /// Where the viewer's pages are. Default `$XDG_CACHE_HOME/causeway/viewer`.
    pub assets: PathBuf,
    /// Below these directories screenshots may be written. Default home, working and temporary directory.
    pub screenshots: Vec<PathBuf>,
    /// Tells scripts on this machine where the viewer is, in `~/.ocpvscode`. Default false.
    pub register: bool,
    /// The file they look into. Default `~/.ocpvscode`.
    pub registry: PathBuf,
}

/// Settings each dialect has.
#[derive(Clone, Debug, Default)]
pub struct DialectSettings {
    /// Legacy port; `None` = off. 0 = any free port (tests).
    pub port: Option<u16>,
    /// Space of clients on the legacy port that name none. Default `main`.
    pub space: String,
    /// Largest message a client may send. Default 1 MiB for voice, 64 MiB for the others.
    pub max_message: usize,
    /// Routing of actions to services, over the dialect's own defaults.
    pub routes: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::Nats;

    #[test]
    fn the_server_is_named_without_who_logs_in() {
        for (url, host, port) in [
            ("nats://10.0.0.5:4223", "10.0.0.5", 4223),
            ("nats", "nats", 4222),
            ("tls://me:p@ss@bus.example/", "bus.example", 4222),
            ("nats://[::1]:4333", "::1", 4333),
            ("[::1]", "::1", 4222),
        ] {
            let nats = Nats {
                url: vec![url.to_owned(), "nats://another".to_owned()],
                ..Nats::default()
            };
            assert_eq!(nats.server(), (host.to_owned(), port), "{url}");
        }
        let own = Nats {
            port: 4999,
            ..Nats::default()
        };
        assert_eq!(own.server(), ("127.0.0.1".to_owned(), 4999));
    }
}
