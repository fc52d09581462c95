//! CAD clients: scripts that show models, pages that draw them, workers that measure them. Three kinds of client on
//! one path, told apart by what they say first; every message is a letter, a colon and a payload.
//!
//! | said | by | becomes |
//! |---|---|---|
//! | `C:"status"`, `C:"config"` | script | an answer from the space's state at hand |
//! | `C:{"type":"screenshot"}` | script | command `screenshot` to service `viewer`, never answered |
//! | `C:{"type":"set_relative_time"}` | script | state `relative_time` |
//! | `D:` data, clear, animation | script | state `model`, its tombstone, state `animation` |
//! | `S:{"type":"ui"}` | script | state `ui`, merged |
//! | `B:` | script | state `exact`, and whether a worker of service `cad` runs |
//! | `L:{}`, `U:` | page | it gets models; `status` is merged, `log` and `screenshot` are events |
//! | `L:Python listener` | worker | it gets `exact` and `status` |
//! | `R:` | worker | event `response` |
//!
//! Payloads reach pages byte for byte as text. What reaches them is all state, hence in one order, except answers to
//! measurements. A newcomer's model has its camera reset, since the page still has the camera of its logo.

use bytes::Bytes;

use crate::dialect::view::{Known, Merged, View};
use crate::dialect::{Dialect, Encoding, Frame, Opening, Session, Transport};
use crate::message::{Body, Class, Event};
use crate::wire::json::Members;

mod client;
mod parts;
mod questions;
mod reset;
pub mod settings;

/// Live traffic of pages.
const PAGE: Encoding = Encoding(0);
/// What a page is given when it comes.
const NEW_PAGE: Encoding = Encoding(1);
/// Live traffic of measurement workers.
const WORKER: Encoding = Encoding(2);
/// What a worker is given when it comes.
const NEW_WORKER: Encoding = Encoding(3);

/// The model shown; a tombstone when it was cleared.
const MODEL: &str = "model";
/// Settings of the viewer, merged.
const UI: &str = "ui";
/// What the page touched last reports, merged.
const STATUS: &str = "status";
/// Tracks of the model shown.
const ANIMATION: &str = "animation";
/// Where the animation stands.
const RELATIVE_TIME: &str = "relative_time";
/// Exact shapes of the model shown, for measurement.
const EXACT: &str = "exact";
/// The page touched last.
const CURRENT: &str = "page";
/// Event: the answer to a measurement.
const RESPONSE: &str = "response";

/// What a cleared view is called on the wire.
const CLEAR: &[u8] = br#"{"type":"clear"}"#;

/// The CAD dialect.
pub struct Cad;

impl Dialect for Cad {
    fn name(&self) -> &'static str {
        "cad"
    }

    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/cad"]
    }

    fn open(&self, opening: Opening) -> Box<dyn Session> {
        Box::new(client::Client::new(opening))
    }

    fn encode(&self, encoding: Encoding, event: &Event) -> Option<Frame> {
        match (encoding, event.class, &*event.topic) {
            (PAGE | NEW_PAGE, Class::State, topic) => page(encoding, topic, &event.body),
            (PAGE, Class::Event, RESPONSE) | (WORKER | NEW_WORKER, Class::State, EXACT) => text(&event.body),
            (WORKER, Class::State, STATUS) => {
                let said = Merged::read(&event.body.bytes)?.said;
                Some(Frame::text(parts::status(said.get())))
            }
            _ => None,
        }
    }

    fn looks(&self) -> bool {
        true
    }

    fn questions(&self) -> &'static [&'static str] {
        &[questions::STATUS, questions::CONFIG]
    }

    fn answer(&self, question: &str, view: &View) -> Option<Body> {
        match question {
            questions::STATUS => Some(Body::json(questions::status(view))),
            questions::CONFIG => Some(Body::json(questions::config(view))),
            _ => None,
        }
    }

    fn conflates(&self, topic: &str) -> bool {
        // a page is told what was said last, not what was merged: none may be left out
        topic != UI
    }

    fn newcomer(&self, encoding: Encoding) -> Encoding {
        match encoding {
            PAGE => NEW_PAGE,
            WORKER => NEW_WORKER,
            other => other,
        }
    }

    fn arrange(&self, states: &mut Vec<Known>) {
        // as they were said; what was said of an earlier model went with it
        let model = states.iter().find(|known| &*known.topic == MODEL);
        let shown = model.map_or(0, |known| known.seq);
        states.retain(|known| known.seq >= shown || !matches!(&*known.topic, UI | ANIMATION | RELATIVE_TIME));
        states.sort_by_key(|known| known.seq);
    }

    fn foremost<'a>(&self, state: &dyn Fn(&str) -> Option<&'a Event>) -> Option<&'a str> {
        session_of(&state(CURRENT)?.body)
    }

    fn is_private(&self, event: &Event) -> bool {
        // what was measured is shown where it was selected
        event.class == Class::Event && &*event.topic == RESPONSE
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[("screenshot", "viewer")]
    }
}

/// The session of the page that a user touched last, as long as it is connected.
#[must_use]
pub fn current(view: &View) -> Option<String> {
    let session = session_of(&view.value(CURRENT)?.body)?;
    (view.present)(session).then(|| session.to_owned())
}

/// The session that a state `page` names; `None` for a tombstone.
fn session_of(body: &Body) -> Option<&str> {
    let session = Members::find(&body.bytes, "session")?;
    let text = std::str::from_utf8(&body.bytes[session]).ok()?;
    Some(text.trim_matches('"'))
}

fn page(encoding: Encoding, topic: &str, body: &Body) -> Option<Frame> {
    match topic {
        MODEL if body.is_empty() && body.content_type.is_none() => {
            Some(Frame::Text(Bytes::from_static(CLEAR)))
        }
        MODEL if encoding == NEW_PAGE => match text(body)? {
            Frame::Text(model) => Some(Frame::Text(reset::camera(&model))),
            Frame::Binary(_) => None,
        },
        UI => match Merged::read(&body.bytes) {
            Some(ui) if encoding == NEW_PAGE => Some(Frame::text(format!(
                r#"{{"type":"ui","config":{}}}"#,
                ui.merged.get()
            ))),
            Some(ui) => Some(Frame::Text(body.bytes.slice_ref(ui.said.get().as_bytes()))),
            None => text(body),
        },
        MODEL | ANIMATION | RELATIVE_TIME => text(body),
        _ => None,
    }
}

/// A body as it is; pages only take text, so what is none does not reach them.
fn text(body: &Body) -> Option<Frame> {
    let plain = body.content_type.is_none() && !body.is_empty() && std::str::from_utf8(&body.bytes).is_ok();
    plain.then(|| Frame::Text(body.bytes.clone()))
}
