//! Settings of the dialects: what each has, and what only one needs.

use crate::config::facts;
use crate::config::settings::{Setting, row};
use crate::config::value::{self as kind, size_text};
use crate::config::{Config, DialectSettings};
use crate::dialect;

/// What only CAD clients need.
pub(super) fn cad() -> [Setting; 4] {
    [
        row(
            "cad.viewer",
            kind::VIEWER,
            "",
            "Settings of the viewer, over its defaults and `~/.ocpvscode_standalone`.",
            |c| &mut c.cad.viewer,
        ),
        row(
            "cad.assets",
            kind::PATH,
            "",
            "Where the viewer's pages are; `make viewer-assets` puts them into `$XDG_CACHE_HOME/causeway/viewer`.",
            |c| &mut c.cad.assets,
        ),
        row(
            "cad.screenshots",
            kind::FOLDERS,
            "",
            "Below these directories screenshots may be written; home, working and temporary directory by default.",
            |c| &mut c.cad.screenshots,
        ),
        row(
            "cad.register",
            kind::FLAG,
            "false",
            "Tells scripts on this machine by `~/.ocpvscode` where the viewer is.",
            |c| &mut c.cad.register,
        ),
    ]
}

/// What every dialect has.
pub(super) fn common(dialect: &'static dyn dialect::Dialect) -> [Setting; 4] {
    let name = dialect.name();
    let key = |key: &str| format!("{name}.{key}");
    let port = facts::port(dialect).map_or(r#""off""#.to_owned(), |port| port.to_string());
    [
        row(
            key("port"),
            kind::PORT_OR_OFF,
            port,
            format!("The port {name} clients know; `\"off\"` for none."),
            move |c| &mut of(c, name).port,
        ),
        row(
            key("space"),
            kind::SPACE,
            r#""main""#,
            "Space of clients on that port that name none.",
            move |c| &mut of(c, name).space,
        ),
        row(
            key("max_message"),
            kind::MEMORY,
            format!("{:?}", size_text(facts::max_message(dialect))),
            "Largest message a client may send.",
            move |c| &mut of(c, name).max_message,
        ),
        row(
            key("routes"),
            kind::ROUTES,
            "",
            "Services by action or `prefix*`, over the dialect's own.",
            move |c| &mut of(c, name).routes,
        ),
    ]
}

fn of<'a>(config: &'a mut Config, dialect: &str) -> &'a mut DialectSettings {
    config.dialects.entry(dialect.to_owned()).or_default()
}
