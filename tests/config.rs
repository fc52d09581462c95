//! What an operator sees: defaults, layers, and the full text for configurations that cannot be used.

#[path = "config/ports.rs"]
mod ports;

use std::path::PathBuf;
use std::time::Duration;

use causeway::config::{self, Config, SlowPolicy, Sources};

/// A directory of its own, removed with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("causeway-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn env<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Sources {
    Sources {
        env: pairs
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        ..Sources::default()
    }
}

fn flags<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Sources {
    Sources {
        flags: pairs
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        ..Sources::default()
    }
}

fn refused(sources: &Sources) -> String {
    Config::load(sources).unwrap_err().to_string()
}

/// Loads a file and compares what the operator sees, the directory taken out of paths.
fn check(name: &str, text: &str, expected: &str) {
    let scratch = Scratch::new(name);
    let file = scratch.file("causeway.toml", text);
    let seen = refused(&Sources {
        file: Some(file),
        ..Sources::default()
    });
    let seen = seen.replace(&format!("{}/", scratch.0.display()), "");
    assert_eq!(seen, expected);
}

#[test]
fn the_defaults_are_valid_and_those_of_the_contract() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(format!("{:?}", config.gateway.bind), "[127.0.0.1, ::1]");
    assert_eq!(
        (config.gateway.port, config.ops.port, config.nats.port),
        (8080, 8081, 4222)
    );
    assert_eq!(config.dialects["voice"].port, Some(8765));
    assert_eq!(config.dialects["voice"].max_message, 1 << 20);
    assert_eq!(config.dialects["voice"].space, "main");
    assert_eq!(config.websocket.ping, Duration::from_secs(25));
    assert_eq!(config.websocket.pong, Duration::from_secs(8));
    assert_eq!(config.slow.queue_bytes, 1 << 20);
    assert_eq!(config.slow.policy, SlowPolicy::Close);
    assert_eq!(config.commands.limits["blender"], Duration::from_secs(3600));
    assert_eq!(config.events.max_age, Duration::from_secs(86400));
    assert_eq!(config.bodies.max_bytes, 4 << 30);
    assert_eq!(config.trace.ratio, 0.01);
    assert!(!config.trace.export);
    assert_eq!(format!("{:?}", Config::defaults()), format!("{config:?}"));
}

#[test]
fn every_dialect_has_an_entry_and_only_real_ones_a_section() {
    let config = Config::defaults();
    let document = config::markdown();
    for dialect in causeway::dialect::ALL {
        let name = dialect.name();
        assert!(config.dialects[name].max_message > 0, "{name}");
        assert_eq!(
            document.contains(&format!("| `{name}.port` |")),
            name != "echo",
            "{name}"
        );
    }
}

#[test]
fn the_published_page_is_the_programs_own() {
    let page = include_str!("../deploy/docs/configuration.md");
    let stale = "causeway config doc > deploy/docs/configuration.md";
    assert!(page == config::markdown(), "the page is stale: {stale}");
}

#[test]
fn the_default_file_with_every_line_taken_in_is_the_default() {
    let text: String = config::default_toml()
        .lines()
        .filter(|line| !line.ends_with(" = \"\""))
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let scratch = Scratch::new("default-file");
    let sources = Sources {
        file: Some(scratch.file("causeway.toml", &text)),
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::defaults()));
    assert!(text.contains("[voice]\n") && text.contains("\nport = 8765\n"));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let scratch = Scratch::new("layers");
    let text = "[gateway]\nport = 1\nmax_spaces = 1\n[ops]\nport = 1001\n\
                [voice]\nport = \"off\"\nroutes = { \"stt_*\" = \"ears\", fly = \"bird\" }\n";
    let mut sources = env([
        ("GW_GATEWAY_PORT", "2"),
        ("GW_OPS_PORT", "1002"),
        ("GW_VOICE_ROUTES", "fly=plane, swim=fish"),
        ("GW_NATS_URL", "nats://a:4222, nats://b:4222"),
        ("GW_COMMANDS_LIMITS", "cad=2m"),
        ("GW_GATEWAY_ORIGINS", ""),
        ("GW_CONFIG", "somewhere"),
    ]);
    sources.file = Some(scratch.file("causeway.toml", text));
    sources.flags = vec![
        ("gateway.port".into(), "3".into()),
        ("voice.routes.run".into(), "horse".into()),
        ("slow.policy".into(), "drop-oldest".into()),
    ];
    let config = Config::load(&sources).unwrap();
    assert_eq!(
        (config.gateway.port, config.ops.port, config.gateway.max_spaces),
        (3, 1002, 1)
    );
    assert_eq!(config.dialects["voice"].port, None);
    let routes: Vec<String> = config.dialects["voice"]
        .routes
        .iter()
        .map(|(action, service)| format!("{action}={service}"))
        .collect();
    assert_eq!(routes, ["fly=plane", "run=horse", "stt_*=ears", "swim=fish"]);
    assert_eq!(config.nats.url, ["nats://a:4222", "nats://b:4222"]);
    assert_eq!(config.commands.limits["cad"], Duration::from_secs(120));
    assert_eq!(config.commands.limits["blender"], Duration::from_secs(3600));
    assert_eq!(config.slow.policy, SlowPolicy::DropOldest);
}

#[test]
fn all_problems_are_told_at_once() {
    check(
        "many",
        r#"
[gateway]
port = 99999
bind = ["localhost", "127.0.0.1"]
header_timeout = 30
max_receiving = 1000000
max_connection = 5
allow_exposed = "perhaps"
origins = ["app.example"]

[voise]
port = 8765

[voice]
space = "a.b"
max_message = "1 megabyte"
[voice.routes]
"a*b" = "voice"
fly = "no service"

[events]
replicas = 9
retry = "soon"
max_age = "300 years"

[commands.limits]
blender = 3600

[slow]
policy = "wait"

[trace]
ratio = 2
"#,
        r#"the configuration has 18 problems:
  gateway.max_connection (causeway.toml): unknown key, did you mean gateway.max_connections?
  voise.port (causeway.toml): unknown key, did you mean voice.port?
  gateway.bind (causeway.toml): expected an IP address such as "127.0.0.1" or "::1", got "localhost"
  gateway.port (causeway.toml): expected a port from 0 to 65535, got 99999
  gateway.allow_exposed (causeway.toml): expected true or false, got "perhaps"
  gateway.origins (causeway.toml): expected an origin such as "https://app.example", or "*", got "app.example"
  gateway.header_timeout (causeway.toml): expected a duration with a unit, such as "25s", "500ms" or "1h 30m" ("30s" for seconds, "30ms" for milliseconds), got 30
  gateway.max_receiving (causeway.toml): expected a size with a unit, such as "1MiB", "64 MB" or "512KiB" ("1000000B" for bytes, "1000000MiB" for mebibytes), got 1000000
  slow.policy (causeway.toml): expected one of "close", "drop-oldest", got "wait"
  events.max_age (causeway.toml): expected a duration of at most 100 years, got "300 years"
  events.replicas (causeway.toml): expected a whole number from 1 to 5, got 9
  events.retry (causeway.toml): expected a duration with a unit, such as "25s", "500ms" or "1h 30m", got "soon"
  commands.limits.blender (causeway.toml): expected a duration with a unit, such as "25s", "500ms" or "1h 30m" ("3600s" for seconds, "3600ms" for milliseconds), got 3600
  trace.ratio (causeway.toml): expected a number from 0 to 1, got 2
  voice.space (causeway.toml): expected a space: 1 to 64 of the characters A-Z a-z 0-9 _ -, got "a.b"
  voice.max_message (causeway.toml): expected a size with a unit, such as "1MiB", "64 MB" or "512KiB", got "1 megabyte"
  voice.routes.a*b (causeway.toml): expected an action, or a prefix that ends in *
  voice.routes.fly (causeway.toml): expected a service name of the characters A-Z a-z 0-9 _ -, got "no service""#,
    );
}

#[test]
fn a_file_that_is_no_toml_names_the_line_and_not_its_text() {
    check(
        "syntax",
        "[gateway]\nport = 8080\n[nats]\npassword = \"hunter2\nuser = 1\n",
        "the configuration has a problem:\n  causeway.toml: line 4: expected TOML: invalid basic string",
    );
    check(
        "section",
        "voice = 8765\n",
        "the configuration has a problem:\n  voice (causeway.toml): this is a section: expected [voice] with keys in it",
    );
    let absent = Sources {
        file: Some("/nowhere/causeway.toml".into()),
        ..Sources::default()
    };
    assert_eq!(
        refused(&absent),
        "the configuration has a problem:\n  /nowhere/causeway.toml: expected a readable file: No such file or directory (os error 2)"
    );
}

#[test]
fn a_problem_names_the_variable_or_the_command_line() {
    assert_eq!(
        refused(&env([
            ("GW_VOICE_PORT", "eighty"),
            ("GW_VOICE_PRT", "1"),
            ("GW_ZZZ", "1"),
            ("GW_SLOW_WRITE_TIMEOUT", "10")
        ])),
        r#"the configuration has 4 problems:
  GW_VOICE_PRT: unknown variable, did you mean GW_VOICE_PORT?
  GW_ZZZ: unknown variable, `causeway config doc` lists all
  slow.write_timeout (GW_SLOW_WRITE_TIMEOUT): expected a duration with a unit, such as "25s", "500ms" or "1h 30m" ("10s" for seconds, "10ms" for milliseconds), got "10"
  voice.port (GW_VOICE_PORT): expected a port from 0 to 65535, or "off", got "eighty""#
    );
    assert_eq!(
        refused(&flags([("gateway.prot", "1"), ("log.level", "causeway=loud")])),
        r#"the configuration has 2 problems:
  gateway.prot (command line): unknown key, did you mean gateway.port?
  log.level (command line): expected a log filter such as "info" or "causeway=debug,info", got "causeway=loud""#
    );
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let scratch = Scratch::new("secrets");
    let path = scratch.file("password", "hunter2\n").display().to_string();
    let config = Config::load(&env([
        ("GW_NATS_USER", "gw"),
        ("GW_NATS_PASSWORD_FILE", &path),
        ("GW_NATS_TOKEN", "hunter3"),
        ("GW_NATS_URL", "nats://me:hunter4@host:4222"),
    ]))
    .unwrap();
    assert_eq!(config.nats.password.as_deref(), Some("hunter2"));
    assert_eq!(config.nats.token.as_deref(), Some("hunter3"));
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(shown.contains("nats://…@host:4222"), "{shown}");

    assert_eq!(
        refused(&env([
            ("GW_NATS_TOKEN", "hunter3"),
            ("GW_NATS_TOKEN_FILE", &path),
            ("GW_NATS_URL", "http://me:hunter4@host"),
            ("GW_NATS_NKEY_FILE", "/nowhere")
        ])),
        "the configuration has 3 problems:\n  \
         nats.url (GW_NATS_URL): expected a URL such as \"nats://host:4222\" or \"tls://host:4222\", got \"http://…@host\"\n  \
         nats.token_file (GW_NATS_TOKEN_FILE): expected either nats.token or nats.token_file, both are set\n  \
         nats.nkey_file (GW_NATS_NKEY_FILE): expected a readable file, got \"/nowhere\": No such file or directory (os error 2)"
    );
    check(
        "secret-number",
        "[nats]\ntoken = 31337\n",
        "the configuration has a problem:\n  nats.token (causeway.toml): expected a text in quotes",
    );
}

#[test]
fn surroundings_locate_the_store_and_the_collector() {
    let store = |pairs: &[(&str, &str)]| Config::load(&env(pairs.iter().copied())).unwrap().nats.store;
    assert_eq!(store(&[]), PathBuf::from("/var/lib/causeway/nats"));
    assert_eq!(
        store(&[("HOME", "/home/a")]),
        PathBuf::from("/home/a/.local/share/causeway/nats")
    );
    assert_eq!(
        store(&[("HOME", "/home/a"), ("XDG_DATA_HOME", "/d")]),
        PathBuf::from("/d/causeway/nats")
    );
    assert_eq!(
        store(&[("GW_NATS_STORE", "/s"), ("HOME", "/home/a")]),
        PathBuf::from("/s")
    );
    let export = |pairs: &[(&str, &str)]| Config::load(&env(pairs.iter().copied())).unwrap().trace.export;
    assert!(export(&[(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://127.0.0.1:4318"
    )]));
    assert!(!export(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_SDK_DISABLED", "true")
    ]));
    assert!(!export(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]));
}
