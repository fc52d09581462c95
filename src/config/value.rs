//! Kinds of values: how each is written, what is expected, how it is read.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::{Tag, Value};

use crate::config::{LogFormat, SlowPolicy};
use crate::message::Space;

mod lists;

/// A value that cannot be used, and why.
pub(super) struct Wrong {
    /// The entry of a table, where it is not the whole value.
    pub(super) entry: Option<String>,
    /// Where the entry came from, where that differs from the whole.
    pub(super) tag: Option<Tag>,
    /// What was expected and what was found.
    pub(super) text: String,
}

impl From<String> for Wrong {
    fn from(text: String) -> Self {
        Self {
            entry: None,
            tag: None,
            text,
        }
    }
}

/// What reading a value gives: the value, or everything wrong with it.
pub(super) type Parsed<T> = Result<T, Vec<Wrong>>;

/// One way to write a value.
pub(super) struct Kind<T> {
    /// Short name for the table of settings.
    pub(super) name: &'static str,
    /// Reads it.
    pub(super) parse: fn(&Value) -> Parsed<T>,
}

pub(super) const PORT: Kind<u16> = Kind {
    name: "port",
    parse: port,
};
pub(super) const PORT_OR_OFF: Kind<Option<u16>> = Kind {
    name: "port or \"off\"",
    parse: port_or_off,
};
pub(super) const FLAG: Kind<bool> = Kind {
    name: "true or false",
    parse: flag,
};
pub(super) const COUNT: Kind<usize> = Kind {
    name: "number",
    parse: count::<1, 1_000_000_000>,
};
pub(super) const COUNT_OR_NONE: Kind<usize> = Kind {
    name: "number",
    parse: count::<0, 100_000>,
};
pub(super) const REPLICAS: Kind<usize> = Kind {
    name: "1 to 5",
    parse: count::<1, 5>,
};
pub(super) const DURATION: Kind<Duration> = Kind {
    name: "duration",
    parse: duration,
};
pub(super) const SIZE: Kind<u64> = Kind {
    name: "size",
    parse: size,
};
pub(super) const MEMORY: Kind<usize> = Kind {
    name: "size",
    parse: memory,
};
pub(super) const RATIO: Kind<f64> = Kind {
    name: "0 to 1",
    parse: ratio,
};
pub(super) const SOME_TEXT: Kind<Option<String>> = Kind {
    name: "text",
    parse: |v| text(v).map(Some),
};
pub(super) const PATH: Kind<PathBuf> = Kind {
    name: "path",
    parse: |v| text(v).map(PathBuf::from),
};
pub(super) const FILE: Kind<Option<PathBuf>> = Kind {
    name: "file",
    parse: file,
};
pub(super) const SECRET: Kind<Option<String>> = Kind {
    name: "secret",
    parse: secret,
};
pub(super) const SECRET_FILE: Kind<String> = Kind {
    name: "file",
    parse: secret_file,
};
pub(super) const ADDRESSES: Kind<Vec<IpAddr>> = Kind {
    name: "addresses",
    parse: lists::addresses,
};
pub(super) const ORIGINS: Kind<Vec<String>> = Kind {
    name: "origins",
    parse: lists::origins,
};
pub(super) const URLS: Kind<Vec<String>> = Kind {
    name: "URLs",
    parse: lists::urls,
};
pub(super) const SPACE: Kind<String> = Kind {
    name: "space",
    parse: space,
};
pub(super) const ROUTES: Kind<Vec<(String, String)>> = Kind {
    name: "table of services",
    parse: lists::routes,
};
pub(super) const VIEWER: Kind<BTreeMap<String, serde_json::Value>> = Kind {
    name: "table of viewer settings",
    parse: lists::viewer,
};
pub(super) const FOLDERS: Kind<Vec<PathBuf>> = Kind {
    name: "directories",
    parse: lists::folders,
};
pub(super) const DURATIONS: Kind<BTreeMap<String, Duration>> = Kind {
    name: "table of durations",
    parse: lists::durations,
};
pub(super) const PORTS: Kind<BTreeMap<String, u16>> = Kind {
    name: "table of ports",
    parse: lists::ports,
};
pub(super) const WORDS: Kind<BTreeMap<String, String>> = Kind {
    name: "table of commands",
    parse: lists::words,
};
pub(super) const FILTER: Kind<String> = Kind {
    name: "log filter",
    parse: filter,
};
pub(super) const FORMAT: Kind<LogFormat> = Kind {
    name: "auto, text or json",
    parse: |v| {
        choice(
            v,
            &[
                ("auto", LogFormat::Auto),
                ("text", LogFormat::Text),
                ("json", LogFormat::Json),
            ],
        )
    },
};
pub(super) const POLICY: Kind<SlowPolicy> = Kind {
    name: "close or drop-oldest",
    parse: |v| {
        choice(
            v,
            &[
                ("close", SlowPolicy::Close),
                ("drop-oldest", SlowPolicy::DropOldest),
            ],
        )
    },
};

/// A found value as shown to the operator; never called for secrets.
fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => shorten(text),
        Value::Char(_, c) => shorten(&c.to_string()),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| number.to_f64().map(|n| n.to_string()))
            .unwrap_or_else(|| "a number".to_owned()),
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Array(..) => "a list".to_owned(),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

fn wrong<T>(expected: &str, value: &Value) -> Parsed<T> {
    Err(vec![format!("expected {expected}, got {}", show(value)).into()])
}

fn string(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.trim().to_owned()),
        Value::Char(_, c) => Some(c.to_string()),
        _ => None,
    }
}

/// A whole number, also when written as text, as variables and flags are.
fn number(value: &Value) -> Option<i128> {
    match value {
        Value::Num(_, number) => number.to_i128(),
        _ => string(value)?.parse().ok(),
    }
}

fn port(value: &Value) -> Parsed<u16> {
    match number(value).and_then(|n| u16::try_from(n).ok()) {
        Some(port) => Ok(port),
        None => wrong("a port from 0 to 65535", value),
    }
}

fn port_or_off(value: &Value) -> Parsed<Option<u16>> {
    if string(value).is_some_and(|text| text == "off") {
        return Ok(None);
    }
    port(value)
        .map(Some)
        .or_else(|_| wrong("a port from 0 to 65535, or \"off\"", value))
}

fn flag(value: &Value) -> Parsed<bool> {
    match (value, string(value).as_deref()) {
        (Value::Bool(_, flag), _) => Ok(*flag),
        (_, Some("true")) => Ok(true),
        (_, Some("false")) => Ok(false),
        _ => wrong("true or false", value),
    }
}

fn count<const MIN: usize, const MAX: usize>(value: &Value) -> Parsed<usize> {
    match number(value).and_then(|n| usize::try_from(n).ok()) {
        Some(n) if (MIN..=MAX).contains(&n) => Ok(n),
        _ => wrong(&format!("a whole number from {MIN} to {MAX}"), value),
    }
}

fn ratio(value: &Value) -> Parsed<f64> {
    let found = match value {
        Value::Num(_, number) => number.to_f64().or_else(|| number.to_i128().map(|n| n as f64)),
        _ => string(value).and_then(|text| text.parse().ok()),
    };
    match found {
        Some(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => wrong("a number from 0 to 1", value),
    }
}

/// The broker counts nanoseconds in signed 64 bit, and deadlines are added to clocks.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

fn duration(value: &Value) -> Parsed<Duration> {
    const EXPECTED: &str = "a duration with a unit, such as \"25s\", \"500ms\" or \"1h 30m\"";
    if let Some(n) = number(value) {
        let hint = format!("{EXPECTED} (\"{n}s\" for seconds, \"{n}ms\" for milliseconds)");
        return wrong(&hint, value);
    }
    let parsed = string(value).and_then(|text| humantime::parse_duration(&text).ok());
    match parsed {
        Some(Duration::ZERO) => wrong("a duration above zero", value),
        Some(duration) if duration > LONGEST => wrong("a duration of at most 100 years", value),
        Some(duration) => Ok(duration),
        None => wrong(EXPECTED, value),
    }
}

const UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

fn size(value: &Value) -> Parsed<u64> {
    const EXPECTED: &str = "a size with a unit, such as \"1MiB\", \"64 MB\" or \"512KiB\"";
    if let Some(n) = number(value) {
        let hint = format!("{EXPECTED} (\"{n}B\" for bytes, \"{n}MiB\" for mebibytes)");
        return wrong(&hint, value);
    }
    let parsed = string(value).and_then(|text| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits)?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        number.parse::<u64>().ok()?.checked_mul(*factor)
    });
    match parsed {
        Some(0) => wrong("a size above zero", value),
        // the broker counts in signed 64 bit
        Some(size) if i64::try_from(size).is_ok() => Ok(size),
        _ => wrong(EXPECTED, value),
    }
}

fn memory(value: &Value) -> Parsed<usize> {
    let size = size(value)?;
    usize::try_from(size).or_else(|_| wrong("a size this machine can address", value))
}

/// Writes a size with the largest unit that divides it.
pub(super) fn size_text(size: usize) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if size > 0 && size.trailing_zeros() >= shift {
            return format!("{}{unit}", size >> shift);
        }
    }
    format!("{size}B")
}

fn text(value: &Value) -> Parsed<String> {
    match string(value) {
        Some(text) if !text.is_empty() => Ok(text),
        _ => wrong("some text", value),
    }
}

fn file(value: &Value) -> Parsed<Option<PathBuf>> {
    let path = PathBuf::from(text(value)?);
    match std::fs::File::open(&path) {
        Ok(_) => Ok(Some(path)),
        Err(error) => Err(vec![
            format!("expected a readable file, got {}: {error}", show(value)).into(),
        ]),
    }
}

/// Never repeats what it was given.
fn secret(value: &Value) -> Parsed<Option<String>> {
    match value {
        Value::String(_, text) if !text.is_empty() => Ok(Some(text.clone())),
        _ => Err(vec!["expected a text in quotes".to_owned().into()]),
    }
}

fn secret_file(value: &Value) -> Parsed<String> {
    let path = text(value)?;
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) => Err(vec![
            format!("expected a secret in {path:?}, the file is empty").into(),
        ]),
        Err(error) => Err(vec![
            format!("expected a readable file, got {path:?}: {error}").into(),
        ]),
    }
}

/// A URL as it may be shown: user and password replaced.
pub(super) fn without_login(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        (_, None) => url.to_owned(),
    }
}

fn space(value: &Value) -> Parsed<String> {
    match string(value).map(|text| Space::parse(&text)) {
        Some(Ok(space)) => Ok(space.as_str().to_owned()),
        _ => wrong("a space: 1 to 64 of the characters A-Z a-z 0-9 _ -", value),
    }
}

fn filter(value: &Value) -> Parsed<String> {
    let text = text(value)?;
    match tracing_subscriber::EnvFilter::builder().parse(&text) {
        Ok(_) => Ok(text),
        Err(_) => wrong("a log filter such as \"info\" or \"causeway=debug,info\"", value),
    }
}

fn choice<T: Copy>(value: &Value, options: &[(&str, T)]) -> Parsed<T> {
    let found = string(value);
    if let Some((_, option)) = options.iter().find(|(name, _)| Some(*name) == found.as_deref()) {
        return Ok(*option);
    }
    let names: Vec<String> = options.iter().map(|(name, _)| format!("{name:?}")).collect();
    wrong(&format!("one of {}", names.join(", ")), value)
}
