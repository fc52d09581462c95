//! Values of several parts: lists of addresses, origins and URLs; tables of routes and limits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;

use crate::dialect::{self, cad::settings};

use super::{Parsed, Wrong, duration, port, shorten, string, without_login, wrong};

/// A list, or one text with commas, as variables and flags write lists.
fn list(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(_, items) => items.iter().map(string).collect(),
        _ => Some(
            string(value)?
                .split(',')
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect(),
        ),
    }
}

fn items<T>(value: &Value, expected: &str, read: impl Fn(&str) -> Option<T>) -> Parsed<Vec<T>> {
    let Some(items) = list(value) else {
        return wrong(&format!("a list, each item {expected}"), value);
    };
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for item in &items {
        match read(item) {
            Some(item) => good.push(item),
            None => bad.push(format!("expected {expected}, got {}", shorten(item)).into()),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

pub(super) fn addresses(value: &Value) -> Parsed<Vec<IpAddr>> {
    let addresses = items(value, "an IP address such as \"127.0.0.1\" or \"::1\"", |item| {
        item.parse().ok()
    })?;
    if addresses.is_empty() {
        return Err(vec!["expected at least one IP address".to_owned().into()]);
    }
    Ok(addresses)
}

pub(super) fn origins(value: &Value) -> Parsed<Vec<String>> {
    items(
        value,
        "an origin such as \"https://app.example\", or \"*\"",
        |item| {
            let (scheme, host) = item.split_once("://").unwrap_or_default();
            let whole = !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '@', ' ']);
            (item == "*" || whole).then(|| item.to_ascii_lowercase())
        },
    )
}

pub(super) fn urls(value: &Value) -> Parsed<Vec<String>> {
    let Some(items) = list(value) else {
        return wrong("one or more URLs such as \"nats://host:4222\"", value);
    };
    let mut bad = Vec::new();
    for item in &items {
        let (scheme, rest) = item.split_once("://").unwrap_or(("nats", item));
        let host = rest.rsplit('@').next().unwrap_or_default();
        let plain = !host.is_empty() && !host.contains(['/', ' ', '?', '#']);
        let port = match host.rsplit_once(':') {
            // an address of IPv6 has colons of its own
            Some((_, port)) if !port.ends_with(']') => port.parse::<u16>().is_ok(),
            _ => true,
        };
        if !(matches!(scheme, "nats" | "tls") && plain && port) {
            let shown = shorten(&without_login(item));
            bad.push(
                format!("expected a URL such as \"nats://host:4222\" or \"tls://host:4222\", got {shown}")
                    .into(),
            );
        }
    }
    if bad.is_empty() { Ok(items) } else { Err(bad) }
}

/// Reads every entry of a table and reports every bad one.
fn entries<T>(value: &Value, read: impl Fn(&str, &Value) -> Parsed<T>) -> Parsed<Vec<(String, T)>> {
    let Value::Dict(_, entries) = value else {
        return wrong("a table of name = value", value);
    };
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for (name, value) in entries {
        match read(name, value) {
            Ok(entry) => good.push((name.clone(), entry)),
            Err(wrongs) => bad.extend(wrongs.into_iter().map(|wrong| Wrong {
                entry: Some(name.clone()),
                tag: Some(value.tag()),
                text: wrong.text,
            })),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

pub(super) fn routes(value: &Value) -> Parsed<Vec<(String, String)>> {
    entries(value, |pattern, value| {
        let star = pattern.find('*');
        if star.is_some_and(|at| at + 1 != pattern.len()) {
            let text = "expected an action, or a prefix that ends in *".to_owned();
            return Err(vec![text.into()]);
        }
        service(value)
    })
}

fn service(value: &Value) -> Parsed<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    match string(value) {
        Some(text) if !text.is_empty() && text.bytes().all(token) => Ok(text),
        _ => wrong("a service name of the characters A-Z a-z 0-9 _ -", value),
    }
}

pub(super) fn durations(value: &Value) -> Parsed<BTreeMap<String, Duration>> {
    entries(value, |_, value| duration(value)).map(|rows| rows.into_iter().collect())
}

/// Ports by what they are for; 0, as where a proxy has taken a port over, says nothing of it.
pub(super) fn ports(value: &Value) -> Parsed<BTreeMap<String, u16>> {
    let read = |name: &str, value: &Value| {
        let dialects = dialect::ALL.iter().map(|dialect| dialect.name());
        if !dialects
            .chain(["gateway", "ops", "nats"])
            .any(|known| known == name)
        {
            let text =
                "expected a port that the gateway has: gateway, ops, nats, or a dialect's name".to_owned();
            return Err(vec![text.into()]);
        }
        port(value)
    };
    let rows = entries(value, read)?.into_iter();
    Ok(rows.filter(|(_, port)| *port != 0).collect())
}

/// What to type, by name.
pub(super) fn words(value: &Value) -> Parsed<BTreeMap<String, String>> {
    let read = |_: &str, value: &Value| match string(value) {
        Some(text) if !text.contains(char::is_control) => Ok(text),
        _ => wrong("one line of text", value),
    };
    entries(value, read).map(|rows| rows.into_iter().collect())
}

/// Settings of the CAD viewer, each of the kind the viewer takes.
pub(super) fn viewer(value: &Value) -> Parsed<BTreeMap<String, serde_json::Value>> {
    let read = |name: &str, value: &Value| {
        let given = serde_json::to_value(value).unwrap_or_default();
        let Err(expected) = settings::check(name, &given) else {
            return Ok(given);
        };
        // variables and flags say everything as text
        let said = given.as_str().and_then(|text| serde_json::from_str(text).ok());
        match said.filter(|said| settings::check(name, said).is_ok()) {
            Some(said) => Ok(said),
            None => wrong(&expected, value),
        }
    };
    entries(value, read).map(|rows| rows.into_iter().collect())
}

pub(super) fn folders(value: &Value) -> Parsed<Vec<PathBuf>> {
    match list(value) {
        Some(items) if items.iter().all(|item| item.starts_with('/')) => {
            Ok(items.into_iter().map(PathBuf::from).collect())
        }
        _ => wrong("absolute directories such as [\"/home/me/pictures\"]", value),
    }
}
