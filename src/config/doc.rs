//! The configuration explained: a commented file and a table, both from the table of settings.

use std::fmt::Write as _;

use crate::config::settings::Setting;
use crate::config::table;

/// A file with every setting at its default, commented out, ready to edit.
#[must_use]
pub fn default_toml() -> String {
    let mut out = String::from(
        "# Causeway. Every setting with its default; remove the # of what you change.\n\
         # Weight: this file < environment (GW_SECTION_KEY) < flags (--set section.key=value).\n\
         # Durations and sizes carry a unit: \"25s\", \"500ms\", \"1MiB\", \"64 MB\".\n",
    );
    let settings = table::all();
    let mut section = "";
    for setting in &settings {
        let (head, key) = setting.key.split_once('.').unwrap_or(("", &setting.key));
        if head != section {
            section = head;
            let _ = write!(out, "\n[{head}]\n");
        }
        let default = setting.default.as_deref().unwrap_or(example(setting));
        let _ = writeln!(out, "# {}\n#{key} = {default}", setting.doc);
    }
    out
}

/// What a setting without default looks like when it is empty.
fn example(setting: &Setting) -> &'static str {
    if setting.table { "{}" } else { "\"\"" }
}

/// The table of settings for documentation.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("| key | variable | value | default | meaning |\n|---|---|---|---|---|\n");
    for setting in table::all() {
        let default = setting
            .default
            .as_ref()
            .map_or(String::new(), |text| format!("`{text}`"));
        let _ = writeln!(
            out,
            "| `{}` | `{}` | {} | {default} | {} |",
            setting.key,
            setting.env(),
            setting.kind,
            setting.doc
        );
    }
    out
}

/// The defaults as a document that loads.
pub(super) fn defaults(settings: &[Setting]) -> String {
    let mut out = String::new();
    for setting in settings {
        if let Some(default) = &setting.default {
            let _ = writeln!(out, "{} = {default}", setting.key);
        }
    }
    out
}
