//! One CAD client: what it says becomes steps, what it asks is answered from the state at hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::dialect::cad::parts::{broken, event, ignored, is_object, of, state, two};
use crate::dialect::cad::questions;
use crate::dialect::cad::{
    ANIMATION, CURRENT, EXACT, MODEL, PAGE, RELATIVE_TIME, RESPONSE, STATUS, UI, WORKER, current,
};
use crate::dialect::view::{Merge, View};
use crate::dialect::{Encoding, Frame, Notice, Offence, Opening, Routes, Session, Step};
use crate::message::{Answer, Body, CallId, Close, Command, Now, Reply};

/// How a measurement worker introduces itself; anything else after `L:` is a page.
const LISTENER: &[u8] = b"Python listener";
/// After something was sent to the pages, all of them report; only later reports come from a user's hand.
const SETTLE: u64 = 3_000_000_000;
/// A page that reported what it was sent and was silent so long reports a hand sooner.
const QUIET: Duration = Duration::from_millis(500);
/// The service that measures.
const MEASURES: &str = "cad";

/// Who it is, by what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Unknown,
    Script,
    Page,
    Worker,
}

/// What is to be done with the state that was asked for.
enum Want {
    Status,
    Config,
    /// Exact shapes came.
    Backend(Bytes),
    /// A page came.
    Arrival,
    /// A page's report: a JSON object.
    Report(Bytes),
}

/// One connection.
pub(super) struct Client {
    session: Arc<str>,
    routes: Arc<Routes>,
    role: Role,
    wants: VecDeque<Want>,
    calls: u64,
    /// When this page last said that it is the one touched last, until the state says so or names a later one.
    claimed: Option<Now>,
    /// When this page reported last, and the time of what had been sent by then.
    reported: Option<(Duration, u64)>,
}

impl Client {
    pub(super) fn new(opening: Opening) -> Self {
        Self {
            session: opening.session,
            routes: opening.routes,
            role: Role::Unknown,
            wants: VecDeque::new(),
            calls: 0,
            claimed: None,
            reported: None,
        }
    }

    fn look(&mut self, want: Want, out: &mut Vec<Step>) {
        let asked = match want {
            Want::Status => Some(questions::STATUS),
            Want::Config => Some(questions::CONFIG),
            _ => None,
        };
        self.wants.push_back(want);
        out.push(Step::Look(asked));
    }

    fn command(&mut self, payload: Bytes, out: &mut Vec<Step>) -> Result<(), Offence> {
        let trimmed = payload.trim_ascii();
        match trimmed {
            b"\"status\"" => self.look(Want::Status, out),
            b"\"config\"" => self.look(Want::Config, out),
            // its sender would wait for ever
            [b'"', ..] => return Err(broken("unknown_request", "C: knows status and config")),
            _ => {
                let [kind, _] = two(&payload, ["type", ""])?;
                match kind.map(|kind| &payload[kind]) {
                    Some(b"\"set_relative_time\"") => out.push(state(RELATIVE_TIME, payload)),
                    Some(b"\"screenshot\"") => self.screenshot(payload, out),
                    _ => return Err(ignored("unknown_type")),
                }
            }
        }
        Ok(())
    }

    fn screenshot(&mut self, payload: Bytes, out: &mut Vec<Step>) {
        let Some(service) = self.routes.service("screenshot") else {
            return;
        };
        self.calls += 1;
        out.push(Step::Call(Command {
            id: CallId(self.calls),
            service,
            action: "screenshot".to_owned(),
            body: Body::json(payload),
            correlation: None,
            traceparent: None,
        }));
    }

    fn data(payload: Bytes, out: &mut Vec<Step>) -> Result<(), Offence> {
        let [kind, _] = two(&payload, ["type", ""])?;
        let topic = match kind.map(|kind| &payload[kind]) {
            Some(b"\"data\"") => MODEL,
            Some(b"\"animation\"") => ANIMATION,
            Some(b"\"clear\"") => {
                out.push(state(MODEL, Bytes::new()));
                return Ok(());
            }
            _ => return Err(ignored("unknown_type")),
        };
        out.push(state(topic, payload));
        Ok(())
    }

    fn settings(payload: Bytes, out: &mut Vec<Step>) -> Result<(), Offence> {
        let [kind, config] = two(&payload, ["type", "config"])?;
        let ui = kind.is_some_and(|kind| &payload[kind] == b"\"ui\"");
        if !ui || !is_object(&payload, config.as_ref()) {
            return Err(ignored("unknown_type"));
        }
        out.push(Step::Merge(Merge {
            topic: UI,
            keys: of(&payload, config.as_ref()),
            said: payload,
            voided_by: Some(MODEL),
            gather: false,
        }));
        Ok(())
    }

    fn exact(&mut self, payload: Bytes, out: &mut Vec<Step>) -> Result<(), Offence> {
        let [model, _] = two(&payload, ["model", ""])?;
        if model.is_none() {
            return Err(broken("no_model", "B: carries an object with a model"));
        }
        self.look(Want::Backend(payload), out);
        Ok(())
    }

    fn report(&mut self, payload: &Bytes, out: &mut Vec<Step>) -> Result<(), Offence> {
        let [command, text] = two(payload, ["command", "text"])?;
        let Some(said) = text.as_ref() else {
            return Err(broken("no_text", "U: carries an object with command and text"));
        };
        match command.map(|command| &payload[command]) {
            Some(b"\"log\"") => out.push(event("log", of(payload, Some(said)))),
            Some(b"\"screenshot\"") => out.push(event("screenshot", of(payload, Some(said)))),
            Some(b"\"started\"") => {}
            Some(_) if is_object(payload, Some(said)) => {
                let want = Want::Report(of(payload, Some(said)));
                self.look(want, out);
            }
            _ => return Err(ignored("unknown_command")),
        }
        Ok(())
    }

    fn claim(&mut self, now: Now, out: &mut Vec<Step>) {
        self.claimed = Some(now);
        out.push(state(
            CURRENT,
            format!(r#"{{"session":"{}"}}"#, self.session).into(),
        ));
    }

    /// Whether this page's report is from a user's hand, or the page is the one that counts anyway.
    fn counts(&mut self, now: Now, view: &View, out: &mut Vec<Step>) -> bool {
        match current(view) {
            Some(current) if *current == *self.session => true,
            Some(_) => {
                let sent = [MODEL, UI, ANIMATION, RELATIVE_TIME]
                    .into_iter()
                    .filter_map(|topic| view.states.get(topic))
                    .map(|event| event.time)
                    .max()
                    .unwrap_or(0);
                let before = self.reported.replace((now.mono, sent));
                if self.claimed.is_some_and(|claim| pending(claim, now, view)) {
                    return true;
                }
                let quiet = |(at, of)| of == sent && now.mono.saturating_sub(at) > QUIET;
                let touched = now.unix.saturating_sub(sent) > SETTLE || before.is_some_and(quiet);
                if touched {
                    self.claim(now, out);
                }
                touched
            }
            None => {
                self.claim(now, out);
                true
            }
        }
    }

    fn answer(text: String, out: &mut Vec<Step>) {
        out.push(Step::Send(Frame::Binary(text.into())));
    }
}

/// Whether a page's own claim is still on its way: it is young and nobody claimed after it.
fn pending(claim: Now, now: Now, view: &View) -> bool {
    let young = now.mono.saturating_sub(claim.mono) < Duration::from_secs(2);
    let overtaken = view
        .states
        .get(CURRENT)
        .is_some_and(|state| state.time > claim.unix);
    young && !overtaken
}

impl Session for Client {
    fn encoding(&self) -> Encoding {
        if self.role == Role::Worker { WORKER } else { PAGE }
    }

    fn joined(&self) -> bool {
        // scripts come for one message and get no events
        matches!(self.role, Role::Page | Role::Worker)
    }

    fn performs(&self) -> Option<&'static str> {
        (self.role == Role::Worker).then_some(MEASURES)
    }

    fn receive(&mut self, _now: Now, frame: Frame, out: &mut Vec<Step>) -> Result<(), Offence> {
        if let Frame::Binary(bytes) = &frame
            && std::str::from_utf8(bytes).is_err()
        {
            return Err(broken("bad_utf8", "the message is not UTF-8"));
        }
        let bytes = frame.bytes();
        let start = bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| !matches!(byte, 0x80..=0xbf))
            .map(|(at, _)| at)
            .take(3)
            .nth(2)
            .unwrap_or(bytes.len());
        let Some(&letter) = bytes.first().filter(|_| bytes.len() > 1) else {
            return Err(broken(
                "too_short",
                "a message is a letter, a colon and a payload",
            ));
        };
        let payload = bytes.slice(start..);
        if self.role == Role::Unknown && matches!(letter, b'C' | b'D' | b'S' | b'B' | b'R') {
            self.role = Role::Script;
        }
        match letter {
            b'C' => self.command(payload, out),
            b'D' => Self::data(payload, out),
            b'S' => Self::settings(payload, out),
            b'B' => self.exact(payload, out),
            b'R' => {
                out.push(event(RESPONSE, payload));
                Ok(())
            }
            b'L' if payload.trim_ascii() == LISTENER => {
                self.role = Role::Worker;
                Ok(())
            }
            b'L' => {
                self.role = Role::Page;
                self.look(Want::Arrival, out);
                Ok(())
            }
            b'U' => {
                if self.role != Role::Worker {
                    self.role = Role::Page;
                }
                self.report(&payload, out)
            }
            _ => Err(ignored("unknown_prefix")),
        }
    }

    fn seen(&mut self, now: Now, view: &View, out: &mut Vec<Step>) {
        let Some(want) = self.wants.pop_front() else {
            return;
        };
        match want {
            Want::Status => Self::answer(questions::status(view), out),
            Want::Config => Self::answer(questions::config(view), out),
            Want::Backend(shapes) => {
                let text = if (view.running)(MEASURES) {
                    r#"{"ok":true}"#
                } else {
                    r#"{"ok":false,"reason":"no_backend"}"#
                };
                // answered before it is stored: the script waits
                Self::answer(text.to_owned(), out);
                out.push(state(EXACT, shapes));
            }
            Want::Arrival => {
                if current(view).is_none() {
                    self.claim(now, out);
                }
            }
            Want::Report(keys) => {
                if self.counts(now, view, out) {
                    out.push(Step::Merge(Merge {
                        topic: STATUS,
                        keys,
                        said: Bytes::new(),
                        voided_by: None,
                        gather: true,
                    }));
                }
            }
        }
    }

    fn left(&mut self, _now: Now, view: &View, out: &mut Vec<Step>) {
        if self.role == Role::Page && current(view).is_some_and(|page| *page == *self.session) {
            out.push(state(CURRENT, Bytes::new()));
        }
    }

    fn reply(&mut self, _now: Now, reply: Reply, out: &mut Vec<Step>) {
        // the script has no ear for it; people read the log
        if let Answer::Failed(fault) = reply.answer {
            let text = serde_json::Value::from(format!("screenshot: {}", fault.text));
            out.push(event("log", text.to_string().into()));
        }
    }

    fn notice(&mut self, _now: Now, notice: &Notice, out: &mut Vec<Step>) {
        if self.role != Role::Script {
            return;
        }
        match notice {
            Notice::NotConfirmed(what) => {
                let reason = what.clone().into();
                out.push(Step::Close(Close { code: 1013, reason }));
            }
            // of what a script says behind a model only the exact shapes wait for an answer, and it prints why there is none
            Notice::Refused(close) if matches!(self.wants.front(), Some(Want::Backend(_))) => {
                self.wants.pop_front();
                out.push(Step::Close(close.clone()));
            }
            _ => {}
        }
    }

    fn may_ping(&self) -> bool {
        self.joined()
    }
}
