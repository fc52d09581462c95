//! The one table of settings. Loading, documentation and names of variables all follow from it.

use crate::config::facts;
use crate::config::settings::{Setting, row, secret};
use crate::config::value as kind;
use crate::dialect;

mod dialects;
mod outside;

/// Every setting, in the order of the documentation.
pub(super) fn all() -> Vec<Setting> {
    let mut rows = gateway();
    rows.extend(clients());
    rows.extend(bus());
    rows.extend(outside::all());
    for dialect in dialect::ALL.iter().filter(|dialect| !facts::test_only(**dialect)) {
        rows.extend(dialects::common(*dialect));
        if dialect.name() == "cad" {
            rows.extend(dialects::cad());
        }
    }
    rows
}

/// How the workers that come with the gateway are started beside it.
const START: &str = r#"{ voice = "causeway worker voice", command_processor = "causeway worker command_processor", language = "causeway worker language", vision = "causeway worker vision", blender = "deploy/workers/blender/run", cad = "deploy/workers/cad/run" }"#;

fn gateway() -> Vec<Setting> {
    vec![
        row(
            "gateway.bind",
            kind::ADDRESSES,
            r#"["127.0.0.1", "::1"]"#,
            "Addresses of every client port.",
            |c| &mut c.gateway.bind,
        ),
        row(
            "gateway.port",
            kind::PORT,
            "8080",
            "The gateway port; 0 takes any free one.",
            |c| &mut c.gateway.port,
        ),
        row(
            "gateway.allow_exposed",
            kind::FLAG,
            "false",
            "Allows addresses beyond loopback. There is no authentication: whoever reaches a port can use it.",
            |c| &mut c.gateway.allow_exposed,
        ),
        row(
            "gateway.origins",
            kind::ORIGINS,
            "[]",
            "Origins of web pages accepted beside the same host and loopback; `*` for all.",
            |c| &mut c.gateway.origins,
        ),
        row(
            "gateway.max_connections",
            kind::COUNT,
            "15000",
            "Connections at once over all ports.",
            |c| &mut c.gateway.max_connections,
        ),
        row(
            "gateway.max_spaces",
            kind::COUNT,
            "1000",
            "Spaces with sessions at once.",
            |c| &mut c.gateway.max_spaces,
        ),
        row(
            "gateway.header_timeout",
            kind::DURATION,
            r#""10s""#,
            "A request head must be complete within this.",
            |c| &mut c.gateway.header_timeout,
        ),
        row(
            "gateway.first_byte_timeout",
            kind::DURATION,
            r#""10s""#,
            "A connection on the gateway port must say its first byte within this.",
            |c| &mut c.gateway.first_byte_timeout,
        ),
        row(
            "gateway.max_receiving",
            kind::SIZE,
            r#""512MiB""#,
            "Bytes being received at once over all connections; beyond, clients are told busy.",
            |c| &mut c.gateway.max_receiving,
        ),
        row(
            "gateway.message_rate",
            kind::COUNT_OR_NONE,
            "10000",
            "Messages a second of one WebSocket or Socket.IO client, twice as many at once; beyond, an error and close 1008. 0 = no limit.",
            |c| &mut c.gateway.message_rate,
        ),
        row(
            "gateway.drain_spread",
            kind::DURATION,
            r#""5s""#,
            "Shutdown: closes are spread over this.",
            |c| &mut c.gateway.drain_spread,
        ),
        row(
            "gateway.drain_grace",
            kind::DURATION,
            r#""15s""#,
            "Shutdown: everything ends within this.",
            |c| &mut c.gateway.drain_grace,
        ),
        row(
            "gateway.test_echo",
            kind::FLAG,
            "false",
            "Serves `/echo` for conformance tests.",
            |c| &mut c.gateway.test_echo,
        ),
        row(
            "ops.bind",
            kind::ADDRESSES,
            r#"["127.0.0.1", "::1"]"#,
            "Addresses of the operations port.",
            |c| &mut c.ops.bind,
        ),
        row(
            "ops.port",
            kind::PORT,
            "8081",
            "The operations port: metrics and probes.",
            |c| &mut c.ops.port,
        ),
        row(
            "ops.metrics",
            kind::FLAG,
            "true",
            "Counts messages and serves `/metrics`. Off saves one or two hundredths of the processor time of a command, and shows nothing.",
            |c| &mut c.ops.metrics,
        ),
    ]
}

fn clients() -> Vec<Setting> {
    vec![
        row(
            "websocket.ping",
            kind::DURATION,
            r#""25s""#,
            "How often a quiet client is pinged.",
            |c| &mut c.websocket.ping,
        ),
        row(
            "websocket.pong",
            kind::DURATION,
            r#""8s""#,
            "How long a client may take to answer.",
            |c| &mut c.websocket.pong,
        ),
        row(
            "websocket.stall",
            kind::DURATION,
            r#""10s""#,
            "A message that has begun and stands still for this long ends the connection.",
            |c| &mut c.websocket.stall,
        ),
        row(
            "slow.queue_bytes",
            kind::MEMORY,
            r#""1MiB""#,
            "Bytes queued for one client beyond one message.",
            |c| &mut c.slow.queue_bytes,
        ),
        row(
            "slow.policy",
            kind::POLICY,
            r#""close""#,
            "What a full queue means for events: close with a code that says come back, or drop the oldest.",
            |c| &mut c.slow.policy,
        ),
        row(
            "slow.write_timeout",
            kind::DURATION,
            r#""10s""#,
            "A write without progress for this long ends the connection.",
            |c| &mut c.slow.write_timeout,
        ),
        row(
            "events.history",
            kind::FLAG,
            "true",
            "Streams in use. Without, replay, resume and state are absent.",
            |c| &mut c.events.history,
        ),
        row(
            "events.replay",
            kind::COUNT_OR_NONE,
            "100",
            "Events a newcomer is given.",
            |c| &mut c.events.replay,
        ),
        row(
            "events.memory",
            kind::MEMORY,
            r#""32MiB""#,
            "Encoded history kept in memory for each space and dialect; newcomers get as many of the last events as fit.",
            |c| &mut c.events.memory,
        ),
        row(
            "events.max_age",
            kind::DURATION,
            r#""24h""#,
            "Age limit of stream GW_EVENTS.",
            |c| &mut c.events.max_age,
        ),
        row(
            "events.max_bytes",
            kind::SIZE,
            r#""1GiB""#,
            "Size limit of stream GW_EVENTS; old events go first.",
            |c| &mut c.events.max_bytes,
        ),
        row(
            "events.state_max_bytes",
            kind::SIZE,
            r#""1GiB""#,
            "Size limit of stream GW_STATE; beyond, new state is refused.",
            |c| &mut c.events.state_max_bytes,
        ),
        row(
            "events.replicas",
            kind::REPLICAS,
            "1",
            "Replicas of every stream.",
            |c| &mut c.events.replicas,
        ),
        row(
            "events.retry",
            kind::DURATION,
            r#""60s""#,
            "An unconfirmed event is retried for this long.",
            |c| &mut c.events.retry,
        ),
        row(
            "commands.deadline",
            kind::DURATION,
            r#""30s""#,
            "Time to the first answer, restarted by every interim one.",
            |c| &mut c.commands.deadline,
        ),
        row(
            "commands.limit",
            kind::DURATION,
            r#""300s""#,
            "Hard limit of a command, where its service has none of its own.",
            |c| &mut c.commands.limit,
        ),
        row(
            "commands.limits",
            kind::DURATIONS,
            r#"{ blender = "1h" }"#,
            "Hard limits by service.",
            |c| &mut c.commands.limits,
        ),
        row(
            "commands.per_connection",
            kind::COUNT,
            "256",
            "Commands under way for one connection; beyond, reading pauses.",
            |c| &mut c.commands.per_connection,
        ),
        row(
            "commands.per_service",
            kind::COUNT,
            "4096",
            "Commands under way for one service of one space; beyond, clients are told `busy`.",
            |c| &mut c.commands.per_service,
        ),
        row(
            "commands.start",
            kind::WORDS,
            START,
            "What to type to start a service, told to clients while nobody serves it (`no_worker`).",
            |c| &mut c.commands.start,
        ),
        row(
            "bodies.max_bytes",
            kind::SIZE,
            r#""4GiB""#,
            "Size limit of each bucket of large bodies.",
            |c| &mut c.bodies.max_bytes,
        ),
        row(
            "bodies.timeout",
            kind::DURATION,
            r#""60s""#,
            "Deadline of storing or fetching one large body.",
            |c| &mut c.bodies.timeout,
        ),
    ]
}

fn bus() -> Vec<Setting> {
    let mut rows = vec![
        row(
            "nats.url",
            kind::URLS,
            "[]",
            "Servers to connect to, also with a login inside (`nats://user:password@host`); none = the gateway runs its own.",
            |c| &mut c.nats.url,
        ),
        row("nats.user", kind::SOME_TEXT, "", "User name.", |c| {
            &mut c.nats.user
        }),
    ];
    rows.extend(secret("nats.password", "Password of the user.", |c| {
        &mut c.nats.password
    }));
    rows.extend(secret("nats.token", "Token.", |c| &mut c.nats.token));
    rows.extend(secret("nats.nkey", "Seed of an nkey.", |c| &mut c.nats.nkey));
    rows.extend([
        row(
            "nats.credentials",
            kind::FILE,
            "",
            "Credentials file (`.creds`).",
            |c| &mut c.nats.credentials,
        ),
        row(
            "nats.tls",
            kind::FLAG,
            "false",
            "Requires TLS even for `nats://` URLs.",
            |c| &mut c.nats.tls,
        ),
        row(
            "nats.tls_ca",
            kind::FILE,
            "",
            "Certificate authority file.",
            |c| &mut c.nats.tls_ca,
        ),
        row("nats.tls_cert", kind::FILE, "", "Client certificate file.", |c| {
            &mut c.nats.tls_cert
        }),
        row("nats.tls_key", kind::FILE, "", "Client key file.", |c| {
            &mut c.nats.tls_key
        }),
        row(
            "nats.port",
            kind::PORT,
            "4222",
            "Port of the gateway's own server.",
            |c| &mut c.nats.port,
        ),
        row(
            "nats.store",
            kind::PATH,
            "",
            "Store of the gateway's own server. Default: `causeway/nats` under the user's data directory.",
            |c| &mut c.nats.store,
        ),
        row(
            "nats.server",
            kind::PATH,
            r#""nats-server""#,
            "Binary of the gateway's own server, looked up in PATH.",
            |c| &mut c.nats.server,
        ),
    ]);
    rows
}
