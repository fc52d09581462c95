//! Loading: layers in, valid configuration or every problem out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::{Tag, Value};

use crate::config::collector;
use crate::config::facts;
use crate::config::layers::layers;
use crate::config::nearest::nearest;
use crate::config::problem::{Problem, Problems};
use crate::config::settings::Setting;
use crate::config::table;
use crate::config::{
    Bodies, Cad, Commands, Config, DialectSettings, Events, Gateway, Links, Log, Nats, Ops, Slow, Trace,
    WebSocket,
};
use crate::dialect;
use crate::message::Space;

/// Where a configuration comes from, in order of growing weight.
#[derive(Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The environment; `GW_…` are settings, the rest only locates directories and collectors.
    pub env: BTreeMap<String, String>,
    /// Settings of the command line: dotted key and value.
    pub flags: Vec<(String, String)>,
}

impl Config {
    /// Loads and checks everything.
    ///
    /// # Errors
    /// All [`Problems`] at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let (config, problems) = assemble(sources);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Problems(problems))
        }
    }

    /// The configuration of an operator who sets nothing.
    #[must_use]
    pub fn defaults() -> Self {
        assemble(&Sources::default()).0
    }
}

fn assemble(sources: &Sources) -> (Config, Vec<Problem>) {
    let settings = table::all();
    let (layers, mut problems) = layers(&settings, sources);
    let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
    let mut config = empty();
    match figment.find_value("") {
        Ok(values) => {
            let reading = Reading {
                figment: &figment,
                settings: &settings,
            };
            reading.unknown("", &values, &mut problems);
            reading.fill(&values, &mut config, &mut problems);
            reading.check(&values, &config, &mut problems);
        }
        Err(errors) => problems.extend(errors.into_iter().map(|error| Problem {
            key: error.path.join("."),
            origin: String::new(),
            text: error.kind.to_string(),
        })),
    }
    finish(&mut config, sources);
    let (export, unreachable) = collector::read(&sources.env);
    config.trace.export = export;
    problems.extend(unreachable);
    (config, problems)
}

/// A configuration in which nothing is set; every dialect has its entry.
fn empty() -> Config {
    let entry = |dialect: &&dyn dialect::Dialect| {
        let settings = DialectSettings {
            port: None,
            space: Space::MAIN.to_owned(),
            max_message: facts::max_message(*dialect),
            routes: Vec::new(),
        };
        (dialect.name().to_owned(), settings)
    };
    Config {
        gateway: Gateway::default(),
        ops: Ops::default(),
        websocket: WebSocket::default(),
        slow: Slow::default(),
        events: Events::default(),
        commands: Commands::default(),
        bodies: Bodies::default(),
        nats: Nats::default(),
        log: Log::default(),
        trace: Trace::default(),
        links: Links::default(),
        cad: Cad::default(),
        dialects: dialect::ALL.iter().map(entry).collect(),
    }
}

/// What follows from the environment and is no setting of its own.
fn finish(config: &mut Config, sources: &Sources) {
    let given = |name: &str| sources.env.get(name).filter(|value| !value.trim().is_empty());
    if config.nats.store.as_os_str().is_empty() {
        let data = given("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| given("HOME").map(|home| Path::new(home).join(".local/share")))
            .unwrap_or_else(|| PathBuf::from("/var/lib"));
        config.nats.store = data.join("causeway/nats");
    }
    let home = given("HOME").map(PathBuf::from);
    let cad = &mut config.cad;
    if cad.assets.as_os_str().is_empty() {
        let cache = given("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| home.as_ref().map(|home| home.join(".cache")))
            .unwrap_or_else(|| PathBuf::from("/var/cache"));
        cad.assets = cache.join("causeway/viewer");
    }
    if let Some(home) = &home {
        cad.settings_file = home.join(".ocpvscode_standalone");
        cad.registry = home.join(".ocpvscode");
    }
    if cad.screenshots.is_empty() {
        let temporary = given("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        cad.screenshots.extend(home);
        cad.screenshots.extend(given("PWD").map(PathBuf::from));
        cad.screenshots.push(temporary);
    }
}

struct Reading<'a> {
    figment: &'a Figment,
    settings: &'a [Setting],
}

impl Reading<'_> {
    fn origin(&self, tag: Tag) -> String {
        let metadata = self.figment.get_metadata(tag);
        metadata.map_or(String::new(), |metadata| metadata.name.to_string())
    }

    /// Reports every key that no setting has.
    fn unknown(&self, path: &str, value: &Value, problems: &mut Vec<Problem>) {
        if self.settings.iter().any(|setting| setting.key == path) {
            return;
        }
        let section = format!("{path}.");
        let known = path.is_empty()
            || self
                .settings
                .iter()
                .any(|setting| setting.key.starts_with(&section));
        match value {
            Value::Dict(_, entries) if known || !entries.is_empty() => {
                for (name, value) in entries {
                    let inner = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    self.unknown(&inner, value, problems);
                }
            }
            _ => problems.push(Problem {
                key: path.to_owned(),
                origin: self.origin(value.tag()),
                text: if known {
                    format!("this is a section: expected [{path}] with keys in it")
                } else {
                    match nearest(path, self.settings.iter().map(|setting| setting.key.as_str())) {
                        Some(close) => format!("unknown key, did you mean {close}?"),
                        None => "unknown key, `causeway config doc` lists all".to_owned(),
                    }
                },
            }),
        }
    }

    fn fill(&self, values: &Value, config: &mut Config, problems: &mut Vec<Problem>) {
        for setting in self.settings {
            let Some(value) = values.find_ref(&setting.key) else {
                continue;
            };
            let Err(wrongs) = (setting.put)(config, value) else {
                continue;
            };
            problems.extend(wrongs.into_iter().map(|wrong| Problem {
                key: match &wrong.entry {
                    Some(entry) => format!("{}.{entry}", setting.key),
                    None => setting.key.clone(),
                },
                origin: self.origin(wrong.tag.unwrap_or(value.tag())),
                text: wrong.text,
            }));
        }
    }

    /// Rules between settings.
    fn check(&self, values: &Value, config: &Config, problems: &mut Vec<Problem>) {
        let mut report = |key: &str, text: String| {
            let tag = values.find_ref(key).map(Value::tag);
            problems.push(Problem {
                key: key.to_owned(),
                origin: tag.map_or(String::new(), |tag| self.origin(tag)),
                text,
            });
        };
        for (key, bind) in [
            ("gateway.bind", &config.gateway.bind),
            ("ops.bind", &config.ops.bind),
        ] {
            let beyond = bind.iter().find(|address| !loopback(**address));
            if let (Some(address), false) = (beyond, config.gateway.allow_exposed) {
                report(
                    key,
                    format!(
                        "expected a loopback address, got {address}: there is no authentication, so whoever reaches \
                     the port can use it; set gateway.allow_exposed = true if that is meant"
                    ),
                );
            }
        }
        let mut ports = BTreeMap::from([(config.gateway.port, "gateway.port".to_owned())]);
        let doors = config
            .dialects
            .iter()
            .filter_map(|(name, settings)| Some((format!("{name}.port"), settings.port?)));
        let ops = ("ops.port".to_owned(), config.ops.port);
        // where NATS is another's, its port is not ours to give
        let own = config.nats.url.is_empty();
        let own = own.then(|| ("nats.port".to_owned(), config.nats.port));
        for (key, port) in std::iter::once(ops).chain(doors).chain(own) {
            match ports.get(&port) {
                Some(other) if port != 0 => {
                    report(
                        &key,
                        format!("expected a port of its own, {port} is that of {other} too"),
                    );
                }
                _ => _ = ports.insert(port, key),
            }
        }
        for (name, settings) in &config.dialects {
            if settings.max_message as u64 > config.gateway.max_receiving && config.gateway.max_receiving > 0
            {
                report(
                    &format!("{name}.max_message"),
                    "expected at most gateway.max_receiving, or no such message could ever arrive".to_owned(),
                );
            }
        }
        let nats = &config.nats;
        match (&nats.tls_cert, &nats.tls_key) {
            (Some(_), None) => report("nats.tls_cert", "expected nats.tls_key beside it".to_owned()),
            (None, Some(_)) => report("nats.tls_key", "expected nats.tls_cert beside it".to_owned()),
            _ => {}
        }
        if nats.password.is_some() && nats.user.is_none() {
            report("nats.password", "expected nats.user beside it".to_owned());
        }
    }
}

fn loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
    }
}
