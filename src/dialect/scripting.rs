//! Scripting clients: JSON documents back to back on TCP, in two shapes that share the port.
//!
//! | a request | its answers |
//! |---|---|
//! | `{"action","params","id"}` | carry the id and come in any order; `execute_code` is acknowledged without it first |
//! | `{"type","params"}` | exactly one each, in request order, nothing else ever |
//!
//! Each document decides by itself. `"progress": true` beside an `action` asks for live output. The action `cancel`
//! is served here: `params.id`, else its own `id`, names the running command that ends.
//!
//! Every answer is one [`Step::Send`] of one document: these clients take each read as one document, so the
//! connection writes them apart ([`Dialect::paced`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::dialect::{Dialect, Encoding, Fate, Frame, Offence, Opening, Routes, Session, Step, Transport};
use crate::message::{Answer, Body, CallId, Close, Code, Command, Event, Fault, Now, Reply};
use crate::wire::json::{Documents, Refused};

mod answer;
mod ascii;
mod refused;
mod request;

use request::{Request, Shape};

/// Largest document where the configuration does not say.
const MAX_DOCUMENT: usize = 64 * 1024 * 1024;

/// `type` requests one client may leave unanswered. Their answers keep request order, so answers wait here for the
/// slowest, where no write queue bounds them.
const MAX_OWED: usize = 4096;

/// A begun document must go on within this.
const STALL: Duration = Duration::from_secs(10);

/// The scripting dialect.
pub struct Scripting;

impl Dialect for Scripting {
    fn name(&self) -> &'static str {
        "scripting"
    }

    fn transport(&self) -> Transport {
        Transport::Tcp
    }

    fn open(&self, opening: Opening) -> Box<dyn Session> {
        self.open_within(opening, MAX_DOCUMENT)
    }

    fn open_within(&self, opening: Opening, max_message: usize) -> Box<dyn Session> {
        Box::new(Talk {
            routes: opening.routes,
            documents: Documents::new(max_message),
            max: max_message,
            last: 0,
            asked: HashMap::new(),
            named: HashMap::new(),
            owed: VecDeque::new(),
            waiting: 0,
            heard: None,
            over: false,
        })
    }

    /// These clients know no events: an unasked document would be taken for an answer.
    fn encode(&self, _encoding: Encoding, _event: &Event) -> Option<Frame> {
        None
    }

    fn paced(&self) -> bool {
        true
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[("*", "blender")]
    }
}

/// What a session remembers of a command until its final answer.
struct Asked {
    shape: Shape,
    name: String,
    progress: bool,
    /// Whether the client was told that its code runs.
    acked: bool,
}

/// A place in the order of `type` answers.
struct Owed {
    call: CallId,
    /// The answer, when it came before an earlier one.
    ready: Option<Frame>,
}

/// One scripting client.
struct Talk {
    routes: Arc<Routes>,
    documents: Documents,
    max: usize,
    last: u64,
    asked: HashMap<CallId, Asked>,
    /// Running commands by the client's id, for `cancel`.
    named: HashMap<Box<str>, CallId>,
    owed: VecDeque<Owed>,
    /// Bytes of answers that wait for an earlier one.
    waiting: usize,
    /// When the last bytes of a begun document came.
    heard: Option<Duration>,
    over: bool,
}

impl Talk {
    fn number(&mut self) -> CallId {
        self.last += 1;
        CallId(self.last)
    }

    /// Sends an answer, or keeps it until every earlier `type` request has its own.
    fn settle(&mut self, call: CallId, frame: Frame, out: &mut Vec<Step>) {
        let Ok(at) = self.owed.binary_search_by_key(&call, |owed| owed.call) else {
            out.push(Step::Send(frame));
            return;
        };
        self.waiting += frame.bytes().len();
        self.owed[at].ready = Some(frame);
        while let Some(frame) = self.owed.front_mut().and_then(|first| first.ready.take()) {
            self.owed.pop_front();
            self.waiting -= frame.bytes().len();
            out.push(Step::Send(frame));
        }
        if self.waiting > self.max {
            self.over = true;
            out.push(Step::Close(Close::BUSY));
        }
    }

    /// Takes the place of an answer in the order of its shape. An answer to nobody knows stands in order too while
    /// `type` answers are due: their client takes whatever comes first for the next one.
    fn place(&mut self, shape: &Shape) -> CallId {
        let call = self.number();
        if *shape == Shape::Type || !self.owed.is_empty() && *shape == (Shape::Action { id: None }) {
            self.owed.push_back(Owed { call, ready: None });
        }
        call
    }

    /// Answers a document that will not become a command.
    fn refuse(&mut self, shape: &Shape, name: Option<&str>, fault: &Fault, out: &mut Vec<Step>) {
        let call = self.place(shape);
        self.settle(call, answer::failed(shape, name, fault), out);
    }

    fn document(&mut self, document: &Bytes, out: &mut Vec<Step>) -> Result<(), Offence> {
        if self.owed.len() >= MAX_OWED {
            return Err(Offence {
                code: "too_many",
                fate: Fate::Close(Close::BUSY),
            });
        }
        let request = match request::read(document) {
            Ok(request) => request,
            Err(refusal) => {
                let fault = Fault::new(Code::Invalid, refusal.text);
                self.refuse(&refusal.shape, None, &fault, out);
                return Err(Offence {
                    code: refusal.offence,
                    fate: Fate::Continue,
                });
            }
        };
        if request.name == "cancel" && request.shape != Shape::Type {
            self.cancel(&request, out);
            return Ok(());
        }
        let Some(service) = self.routes.service(&request.name) else {
            let fault = Fault::new(Code::UnknownAction, "no service is routed for it");
            self.refuse(&request.shape, Some(&request.name), &fault, out);
            return Err(Offence {
                code: "unknown_action",
                fate: Fate::Continue,
            });
        };
        let id = match &request.shape {
            Shape::Type => self.place(&Shape::Type),
            Shape::Action { .. } => self.number(),
        };
        if let Shape::Action { id: Some(name) } = &request.shape {
            self.named.insert(name.clone(), id);
        }
        let asked = Asked {
            shape: request.shape,
            name: request.name.clone(),
            progress: request.progress,
            acked: false,
        };
        self.asked.insert(id, asked);
        out.push(Step::Call(Command {
            id,
            service,
            action: request.name,
            body: Body::json(request.params),
            correlation: request.correlation,
            traceparent: request.traceparent,
        }));
        Ok(())
    }

    /// Ends a running command: it gets its one final answer here, since a withdrawn command gets none from the bus.
    fn cancel(&mut self, request: &Request, out: &mut Vec<Step>) {
        let Shape::Action { id: own } = &request.shape else {
            return;
        };
        let meant = request::id_in(&request.params);
        let Some(call) = meant
            .as_ref()
            .or(own.as_ref())
            .and_then(|id| self.named.get(id).copied())
        else {
            let fault = Fault::new(Code::Invalid, "no command with this id is running");
            self.refuse(&request.shape, Some("cancel"), &fault, out);
            return;
        };
        out.push(Step::Cancel(call));
        self.end(call, &Fault::new(Code::Cancelled, "cancelled by the client"), out);
        // Without a name of its own the request has its answer in that of the command.
        if meant.is_some() {
            let call = self.place(&request.shape);
            self.settle(call, answer::cancelled(&request.shape), out);
        }
    }

    fn forget(&mut self, call: CallId) -> Option<Asked> {
        let asked = self.asked.remove(&call)?;
        if let Shape::Action { id: Some(name) } = &asked.shape
            && self.named.get(name) == Some(&call)
        {
            self.named.remove(name);
        }
        // A client that once had thousands of commands under way does not keep their room while it is idle.
        if self.asked.is_empty() {
            self.asked.shrink_to(16);
            self.named.shrink_to(16);
        }
        Some(asked)
    }

    fn end(&mut self, call: CallId, fault: &Fault, out: &mut Vec<Step>) {
        if let Some(asked) = self.forget(call) {
            self.settle(call, answer::failed(&asked.shape, Some(&asked.name), fault), out);
        }
    }

    /// Tells why nothing more can be understood.
    fn lost(&mut self, refused: Refused, out: &mut Vec<Step>) -> Offence {
        let (offence, close, fault) = refused::told(refused, self.max);
        let begun = self.documents.begun();
        let shape = match refused {
            Refused::TooLarge | Refused::TooDeep => request::shape_of_head(begun),
            Refused::NotJson | Refused::Bare => Shape::Action { id: None },
        };
        self.documents = Documents::new(self.max);
        self.refuse(&shape, None, &fault, out);
        Offence {
            code: offence,
            fate: Fate::Close(close),
        }
    }
}

impl Session for Talk {
    fn receive(&mut self, now: Now, frame: Frame, out: &mut Vec<Step>) -> Result<(), Offence> {
        let mut first = Ok(());
        let (Frame::Text(bytes) | Frame::Binary(bytes)) = frame;
        if !self.over {
            self.documents.push(bytes);
        }
        while !self.over {
            let told = match self.documents.cut() {
                Ok(Some(document)) => self.document(&document, out),
                Ok(None) => break,
                Err(refused) => Err(self.lost(refused, out)),
            };
            if let Err(offence) = told {
                self.over |= matches!(offence.fate, Fate::Close(_));
                if first.is_ok() || self.over {
                    first = Err(offence);
                }
            }
        }
        self.heard = (!self.over && !self.documents.begun().is_empty()).then_some(now.mono);
        first
    }

    fn receiving(&self) -> u64 {
        self.documents.begun().len() as u64
    }

    fn reply(&mut self, now: Now, reply: Reply, out: &mut Vec<Step>) {
        let call = reply.id;
        let Some(asked) = self.asked.get_mut(&call) else {
            return;
        };
        let acknowledges = asked.shape != Shape::Type && asked.name == answer::EXECUTE;
        let ran = match &reply.answer {
            Answer::Ack(_) | Answer::Done(_) => true,
            Answer::Failed(fault) => fault.code == Code::WorkerError,
            Answer::Progress(_) => false,
        };
        if acknowledges && ran && !asked.acked {
            asked.acked = true;
            out.push(Step::Send(answer::processing()));
        }
        match &reply.answer {
            Answer::Ack(_) => {}
            Answer::Progress(body) => {
                if let Shape::Action { id } = &asked.shape
                    && asked.progress
                {
                    out.extend(answer::progress(id.as_deref(), body).map(Step::Send));
                }
            }
            Answer::Done(body) => {
                if let Some(asked) = self.forget(call) {
                    self.settle(call, answer::done(&asked.shape, &asked.name, body), out);
                }
            }
            Answer::Failed(fault) => self.end(call, fault, out),
        }
        // The patience with a begun document starts anew when nothing is under way any more.
        if self.heard.is_some() {
            self.heard = Some(now.mono);
        }
    }

    fn finished(&mut self) -> bool {
        self.asked.is_empty() && self.owed.is_empty()
    }

    fn wake(&mut self, now: Now, out: &mut Vec<Step>) {
        if self.deadline().is_none_or(|due| due > now.mono) {
            return;
        }
        self.over = true;
        self.heard = None;
        let fault = Fault::new(
            Code::Timeout,
            "the document stopped half-way; the connection ends",
        );
        let shape = request::shape_of_head(self.documents.begun());
        self.refuse(&shape, None, &fault, out);
        out.push(Step::Close(Close::new(1008, "document stopped half-way")));
    }

    /// While commands are under way the connection may have paused reading, and silence says nothing.
    fn deadline(&self) -> Option<Duration> {
        let heard = self.heard.filter(|_| self.asked.is_empty())?;
        Some(heard + STALL)
    }

    /// Nothing is said unasked; but whoever still waits is told that no answer comes.
    fn farewell(&mut self, _now: Now, why: &Close, out: &mut Vec<Step>) {
        let text = format!("the connection ends before the answer: {}", why.reason);
        let fault = Fault::new(Code::Cancelled, text);
        let mut calls: Vec<CallId> = self.asked.keys().copied().collect();
        calls.sort_unstable();
        for call in calls {
            self.end(call, &fault, out);
        }
    }
}
