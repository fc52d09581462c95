//! A page filled in: the settings it starts with, and the address it dials.

use minijinja::{Environment, Value as Raw, context};
use serde_json::{Map, Value};

use super::assets::Generation;

const SCRIPTS: &str = r#"<script type="module" src="static/js/three-cad-viewer.esm.js"></script>"#;
/// A function of whether the page is the later one.
const NAMES: &str = include_str!("names.js");
const IMPORTS: &str = r#"
            import { Comms } from "./static/js/comms.js";
            import { logo } from "./static/js/logo.js";"#;

/// What the earlier page must be told first: it always says `ws`, which browsers refuse behind a TLS proxy.
const SECURE: &str = r#"if (location.protocol === "https:") {
                const Plain = window.WebSocket;
                window.WebSocket = class extends Plain {
                    constructor(url, ...rest) { super(url.replace(/^ws:/, "wss:"), ...rest); }
                };
            }"#;

/// Where the page dials.
pub(super) struct Dial {
    /// Name or address; for the later page all of it.
    pub(super) host: String,
    /// Port; empty where the page was asked for without one, or `host` says it.
    pub(super) port: String,
    /// The path behind them.
    pub(super) way: String,
}

impl Dial {
    /// What the earlier page writes behind its colon. Without a port it is the one of the page's own scheme, which only
    /// the page knows: a proxy may stand before us.
    fn behind(&self) -> String {
        match self.port.as_str() {
            "" => {
                let own = r#"(location.protocol === "https:" ? "443" : "80")"#;
                format!("{own} + {}", literal(&self.way))
            }
            port => literal(&format!("{port}{}", self.way)),
        }
    }
}

/// The earlier generation: a Jinja template with fragments of script.
pub(super) fn third(page: &Generation, settings: &Map<String, Value>, dial: &Dial) -> Result<String, String> {
    let comms = format!(
        r"{SECURE}
            const comms = new Comms({}, {}, -1);
            const vscode = {{ postMessage: (message) => comms.sendStatus(message) }};
            window.showViewer = () => {{
                const ocpLogo = logo();
                viewer = showViewer(ocpLogo.data, ocpLogo.config);
                window.viewer = viewer;
            }};",
        literal(&dial.host),
        dial.behind(),
    );
    let mut environment = Environment::new();
    environment
        .add_template("viewer.html", &page.template)
        .map_err(|error| error.to_string())?;
    let value = |name: &str| settings.get(name).cloned().unwrap_or_default();
    let template = environment.get_template("viewer.html");
    let text = |name: &str| value(name).as_str().unwrap_or_default().to_owned();
    let filled = template
        .and_then(|template| {
            template.render(context! {
                // a script reads them as they stand: no slash may be escaped
                styleSrc => Raw::from_safe_string("./static/css/three-cad-viewer.css".to_owned()),
                scriptSrc => Raw::from_safe_string("./static/js/three-cad-viewer.esm.js".to_owned()),
                treeWidth => value("tree_width").as_i64().unwrap_or(240),
                glass => value("glass").as_bool().unwrap_or(true),
                tools => value("tools").as_bool().unwrap_or(true),
                theme => text("theme"),
                up => text("up"),
                control => text("control"),
                standalone_scripts => SCRIPTS,
                standalone_imports => IMPORTS,
                standalone_comms => comms,
                standalone_init => r#"onload="showViewer()""#,
            })
        })
        .map_err(|error| error.to_string())?;
    Ok(renaming(filled, false))
}

/// The later generation: names after a dollar sign, each a JSON literal; a doubled one is itself.
pub(super) fn fourth(
    page: &Generation,
    settings: &Map<String, Value>,
    dial: &Dial,
) -> Result<String, String> {
    let mut out = String::with_capacity(page.template.len() + 512);
    let mut rest = page.template.as_str();
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        match name {
            "ws_host" => out.push_str(&literal(&dial.host)),
            "ws_port" => out.push_str(&literal(&dial.port)),
            "max_retries" => out.push_str("-1"),
            _ => {
                let value = settings.get(name);
                let value = value.ok_or_else(|| format!("the page asks for {name}, which is no setting"))?;
                out.push_str(&value.to_string().replace('<', "\\u003c"));
            }
        }
    }
    out.push_str(rest);
    Ok(renaming(out, true))
}

/// The page with a first script that tells it the other generation's settings by its own names.
fn renaming(mut page: String, later: bool) -> String {
    const HEAD: &str = "<head>";
    if let Some(at) = page.find(HEAD) {
        let script = format!("<script>(\n{NAMES})({later});</script>");
        page.insert_str(at + HEAD.len(), &script);
    }
    page
}

/// A text in a script that stands in a page.
fn literal(text: &str) -> String {
    Value::from(text).to_string().replace('<', "\\u003c")
}
