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

/// What stands above the table of settings.
const INTRODUCTION: &str = "\
<!-- Every setting, from the table the program loads by: `causeway config doc > deploy/docs/configuration.md` -->
# Configuration

Without any configuration the gateway runs on loopback with a NATS server of its own. What differs is written in a
TOML file (`--config FILE`, `GW_CONFIG`, else `./causeway.toml`, else `/etc/causeway/causeway.toml`), above it in the
environment, above that on the command line:

| where | example |
|---|---|
| file | `[voice]` and below it `port = 9765` |
| environment | `GW_VOICE_PORT=9765` |
| command line | `causeway --set voice.port=9765` |

Durations and sizes carry a unit (`\"25s\"`, `\"1MiB\"`). Unknown keys are refused. `causeway check` tells all problems at
once, `causeway config default` prints a file with every setting at its default. SIGHUP reads
`log.level` again and tells which other keys have changed and need a restart. Traces leave the process when `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector.

";

/// The page of settings: `deploy/docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    out.push_str("| key | variable | value | default | meaning |\n|---|---|---|---|---|\n");
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
