//! What scripts ask and the gateway answers from the space's state: what the page reports, how the viewer is set up.

use crate::dialect::cad::parts;
use crate::dialect::cad::{MODEL, STATUS as REPORTED};
use crate::dialect::view::{Merged, View};

/// What the page touched last reports.
pub(super) const STATUS: &str = "status";
/// The viewer's settings.
pub(super) const CONFIG: &str = "config";

/// The answer to [`STATUS`].
pub(super) fn status(view: &View) -> String {
    let body = view.value(REPORTED).map(|event| &event.body.bytes[..]);
    let text = match body.map(|body| (Merged::read(body), std::str::from_utf8(body))) {
        Some((Some(held), _)) => held.merged.get(),
        Some((None, Ok(text))) => text,
        _ => "{}",
    };
    parts::status(text)
}

/// The answer to [`CONFIG`].
pub(super) fn config(view: &View) -> String {
    let settings = (view.settings)();
    let text = String::from_utf8_lossy(&settings);
    let inside = text.trim().trim_start_matches('{').trim_end_matches('}');
    let comma = if inside.trim().is_empty() { "" } else { "," };
    let splash = !view.states.contains_key(MODEL);
    format!(r#"{{{inside}{comma}"_splash":{splash}}}"#)
}
