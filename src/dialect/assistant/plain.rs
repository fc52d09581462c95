//! A client on a plain WebSocket: final answers leave in the order of the requests, since nothing else matches them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::rpc::{self, Envelope, Refusal};
use crate::dialect::{Encoding, Fate, Frame, Notice, Offence, Routes, Session, Step};
use crate::message::{Answer, CallId, Close, Code, Fault, Now, Reply};

/// Answers owed at once. Commands under way are bounded by the connection; refusals that wait behind one are not.
const MAX_OWED: usize = 1024;

/// What is owed to one request.
enum Owed {
    /// The answer to a command under way.
    Answer { id: CallId, method: String },
    /// An answer that waits for those before it.
    Frame(Frame),
}

/// One plain client.
pub(super) struct Plain {
    routes: Arc<Routes>,
    last: u64,
    owed: VecDeque<Owed>,
    held: usize,
    max_held: usize,
}

impl Plain {
    /// `max_held` bounds the bytes of answers that wait for earlier ones.
    pub(super) const fn new(routes: Arc<Routes>, max_held: usize) -> Self {
        Self {
            routes,
            last: 0,
            owed: VecDeque::new(),
            held: 0,
            max_held,
        }
    }

    fn call(&mut self, request: rpc::Request, out: &mut Vec<Step>) {
        self.last += 1;
        let id = CallId(self.last);
        self.owed.push_back(Owed::Answer {
            id,
            method: request.method.clone(),
        });
        out.push(Step::Call(request.command(id, None)));
    }

    fn refuse(&mut self, refusal: &Refusal, out: &mut Vec<Step>) -> Offence {
        if self.owed.len() >= MAX_OWED {
            return Offence {
                code: "flood",
                fate: Fate::Close(Close::new(1008, "too many bad requests before an answer")),
            };
        }
        let frame = rpc::error(Envelope::Plain, &refusal.fault);
        self.held += frame.bytes().len();
        self.owed.push_back(Owed::Frame(frame));
        self.release(out);
        refusal.offence()
    }

    fn release(&mut self, out: &mut Vec<Step>) {
        while let Some(Owed::Frame(_)) = self.owed.front() {
            if let Some(Owed::Frame(frame)) = self.owed.pop_front() {
                self.held -= frame.bytes().len();
                out.push(Step::Send(frame));
            }
        }
    }
}

impl Session for Plain {
    fn encoding(&self) -> Encoding {
        super::PLAIN
    }

    fn receive(&mut self, _now: Now, frame: Frame, out: &mut Vec<Step>) -> Result<(), Offence> {
        let request = match frame {
            Frame::Text(text) => rpc::request(&self.routes, &text),
            Frame::Binary(_) => Err(rpc::binary()),
        };
        match request {
            Ok(request) => {
                self.call(request, out);
                Ok(())
            }
            Err(refusal) => Err(self.refuse(&refusal, out)),
        }
    }

    fn reply(&mut self, _now: Now, reply: Reply, out: &mut Vec<Step>) {
        let asked = self
            .owed
            .iter_mut()
            .enumerate()
            .find_map(|(at, owed)| match owed {
                Owed::Answer { id, method } if *id == reply.id => Some((std::mem::take(method), at, owed)),
                _ => None,
            });
        let Some((method, at, place)) = asked else {
            return;
        };
        let frame = rpc::answer(Envelope::Plain, &method, &reply.answer);
        if !reply.answer.is_final() {
            *place = Owed::Answer { id: reply.id, method };
            out.extend(frame.map(Step::Send));
            return;
        }
        let Some(mut frame) = frame else {
            return;
        };
        // what waits is bounded: the client still gets exactly one answer, only not this one
        if at > 0 && self.held + frame.bytes().len() > self.max_held {
            let text = "too many answers wait for an earlier one; ask again later";
            let busy = Answer::Failed(Fault::new(Code::Busy, text));
            frame = rpc::answer(Envelope::Plain, &method, &busy).unwrap_or(frame);
        }
        self.held += frame.bytes().len();
        *place = Owed::Frame(frame);
        self.release(out);
    }

    fn notice(&mut self, _now: Now, notice: &Notice, out: &mut Vec<Step>) {
        out.push(Step::Send(rpc::notice(Envelope::Plain, notice)));
    }

    fn farewell(&mut self, _now: Now, why: &Close, out: &mut Vec<Step>) {
        out.extend(rpc::farewell(Envelope::Plain, why).map(Step::Send));
    }

    fn finished(&mut self) -> bool {
        self.owed.is_empty()
    }
}
