//! Where values come from: defaults, a file, environment variables, flags. Later layers win.

use std::collections::BTreeMap;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use crate::config::doc;
use crate::config::load::Sources;
use crate::config::nearest::nearest;
use crate::config::problem::Problem;
use crate::config::settings::Setting;

/// Values of one origin; the origin's name is what a problem shows.
pub(super) struct Layer {
    origin: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// The layers in order of growing weight, and what is wrong before any value is looked at.
pub(super) fn layers(settings: &[Setting], sources: &Sources) -> (Vec<Layer>, Vec<Problem>) {
    let mut layers = Vec::new();
    let mut problems = Vec::new();
    // the defaults take the same road as an operator's file
    match Toml::from_str::<Dict>(&doc::defaults(settings)) {
        Ok(values) => layers.push(Layer {
            origin: "default".to_owned(),
            values,
        }),
        Err(error) => problems.push(Problem {
            key: String::new(),
            origin: "default".to_owned(),
            text: error.to_string(),
        }),
    }
    match file(sources) {
        Ok(found) => layers.extend(found),
        Err(problem) => problems.push(problem),
    }
    for (name, value) in variables(&sources.env) {
        match settings.iter().find(|setting| setting.env() == name) {
            Some(setting) => layers.push(Layer {
                origin: name.to_owned(),
                values: nested(&setting.key, written(setting, value)),
            }),
            None => problems.push(unknown_variable(settings, name)),
        }
    }
    for (key, value) in &sources.flags {
        let value = match settings.iter().find(|setting| setting.key == *key) {
            Some(setting) => written(setting, value),
            None => Value::from(value.as_str()),
        };
        layers.push(Layer {
            origin: "command line".to_owned(),
            values: match entry_of_table(settings, key) {
                Some((table, entry)) => nested(table, Value::from(Dict::from([(entry.to_owned(), value)]))),
                None => nested(key, value),
            },
        });
    }
    (layers, problems)
}

fn file(sources: &Sources) -> Result<Option<Layer>, Problem> {
    let Some(path) = &sources.file else {
        return Ok(None);
    };
    let origin = path.display().to_string();
    let problem = |text: String| Problem {
        key: String::new(),
        origin: origin.clone(),
        text,
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| problem(format!("expected a readable file: {error}")))?;
    match Toml::from_str::<Dict>(&text) {
        Ok(values) => Ok(Some(Layer { origin, values })),
        // the parser's own rendering repeats the line, which may hold a secret
        Err(error) => {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            let what = error.message().lines().next().unwrap_or_default().to_owned();
            Err(problem(format!("line {line}: expected TOML: {what}")))
        }
    }
}

/// Variables meant for the gateway. An empty one counts as not given: compose files write `${X:-}`.
fn variables(env: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    env.iter()
        .filter(|(name, value)| name.starts_with("GW_") && *name != "GW_CONFIG" && !value.trim().is_empty())
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

fn unknown_variable(settings: &[Setting], name: &str) -> Problem {
    let known: Vec<String> = settings.iter().map(Setting::env).collect();
    let text = match nearest(name, known.iter().map(String::as_str)) {
        Some(close) => format!("unknown variable, did you mean {close}?"),
        None => "unknown variable, `causeway config doc` lists all".to_owned(),
    };
    Problem {
        key: name.to_owned(),
        origin: String::new(),
        text,
    }
}

/// A text from a variable or flag; tables are written `name=value,name=value`.
fn written(setting: &Setting, text: &str) -> Value {
    if !setting.table {
        return Value::from(text);
    }
    let mut entries = Dict::new();
    for entry in text.split(',').filter(|entry| !entry.trim().is_empty()) {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        entries.insert(name.trim().to_owned(), Value::from(value.trim()));
    }
    Value::from(entries)
}

/// Splits `voice.routes.stt_*` where `voice.routes` is a table.
fn entry_of_table<'a>(settings: &[Setting], key: &'a str) -> Option<(&'a str, &'a str)> {
    settings
        .iter()
        .filter(|setting| setting.table)
        .find_map(|setting| {
            let rest = key.strip_prefix(setting.key.as_str())?;
            let entry = rest.strip_prefix('.')?;
            Some((key.get(..setting.key.len())?, entry))
        })
}

fn nested(key: &str, value: Value) -> Dict {
    match key.split_once('.') {
        Some((section, rest)) => Dict::from([(section.to_owned(), Value::from(nested(rest, value)))]),
        None => Dict::from([(key.to_owned(), value)]),
    }
}
