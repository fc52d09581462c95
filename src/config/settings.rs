//! A setting: its key, kind, default and meaning, and the place in the configuration that it fills.

use figment::value::Value;

use crate::config::Config;
use crate::config::value::{self as kind, Kind, Parsed};

/// Puts a value where it belongs.
type Put = Box<dyn Fn(&mut Config, &Value) -> Parsed<()>>;

/// One thing an operator can set.
pub(super) struct Setting {
    /// Name in a file: `section.key`.
    pub(super) key: String,
    /// How it is written.
    pub(super) kind: &'static str,
    /// Default as TOML; none where nothing is set by default.
    pub(super) default: Option<String>,
    /// What it is for.
    pub(super) doc: String,
    /// Its entries may be given one by one.
    pub(super) table: bool,
    /// Reads a value into the configuration.
    pub(super) put: Put,
}

impl Setting {
    /// The environment variable of this setting.
    pub(super) fn env(&self) -> String {
        format!("GW_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }
}

/// A row; an empty default means that nothing is set.
pub(super) fn row<T: 'static>(
    key: impl Into<String>,
    kind: Kind<T>,
    default: impl Into<String>,
    doc: impl Into<String>,
    place: impl for<'a> Fn(&'a mut Config) -> &'a mut T + 'static,
) -> Setting {
    let default = default.into();
    Setting {
        key: key.into(),
        kind: kind.name,
        default: (!default.is_empty()).then_some(default),
        doc: doc.into(),
        table: kind.name.starts_with("table"),
        put: Box::new(move |config, value| {
            *place(config) = (kind.parse)(value)?;
            Ok(())
        }),
    }
}

/// A secret and its twin that names a file; both at once are refused, since one of them would be a stale leftover.
pub(super) fn secret(
    key: &'static str,
    doc: &str,
    place: impl for<'a> Fn(&'a mut Config) -> &'a mut Option<String> + Copy + 'static,
) -> [Setting; 2] {
    let from_file = Setting {
        key: format!("{key}_file"),
        kind: kind::SECRET_FILE.name,
        default: None,
        doc: format!("File that holds `{key}`."),
        table: false,
        put: Box::new(move |config, value| {
            let slot = place(config);
            if slot.is_some() {
                let text = format!("expected either {key} or {key}_file, both are set");
                return Err(vec![text.into()]);
            }
            *slot = Some((kind::SECRET_FILE.parse)(value)?);
            Ok(())
        }),
    };
    [row(key, kind::SECRET, "", doc, place), from_file]
}
