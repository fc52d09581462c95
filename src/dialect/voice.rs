//! Voice clients: JSON events and commands over WebSocket. Also the generic event dialect: any topic reaches the
//! clients, any command type is routed by configuration.
//!
//! A command `{"type","data","timestamp"}` is sent to the service its type is routed to, `data` whole; `timestamp` is
//! never read. Two fields are optional: `id` (text) comes back with every answer, `traceparent` continues a trace.
//!
//! | the worker says | the sender hears |
//! |---|---|
//! | `done` to `get_system_info` | `system_info`, `data` = body |
//! | `done` to `get_performance_metrics` | `latency_trace`, `data` = body |
//! | `done` with a body to anything else | `command_result`, `data` = `{"command":type,"result":body}` |
//! | `progress` with a body | `command_progress`, `data` = `{"command":type,"progress":body}` |
//! | empty `done`, empty `progress`, `ack` | nothing |
//! | an error | `error`, `data` = `{"message","code","command"}`, `details` where there are any |

use std::collections::HashMap;
use std::sync::Arc;

use crate::dialect::{
    Dialect, Encoding, Fate, Frame, Notice, Offence, Opening, Routes, Session, Step, Transport, Welcome,
};
use crate::message::{Answer, Body, CallId, Close, Code, Command, Event, Fault, Nanos, Now, Reply};

mod frame;
mod parse;
mod replay;

use parse::Refusal;

/// The voice dialect.
pub struct Voice;

impl Dialect for Voice {
    fn name(&self) -> &'static str {
        "voice"
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/events"]
    }

    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn open(&self, opening: Opening) -> Box<dyn Session> {
        Box::new(Talk {
            routes: opening.routes,
            last: 0,
            asked: HashMap::new(),
        })
    }

    fn encode(&self, _encoding: Encoding, event: &Event) -> Option<Frame> {
        Some(frame::event(event))
    }

    fn replay(&self, now: Nanos, _encoding: Encoding, events: &[Frame], out: &mut Vec<Frame>) {
        replay::split(now, events, out);
    }

    fn welcome(&self, now: Nanos, _encoding: Encoding, welcome: &Welcome) -> Option<Frame> {
        Some(frame::welcome(now, welcome))
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("stt_*", "voice"),
            ("demo_flow", "voice"),
            ("get_system_info", "voice"),
            ("get_performance_metrics", "voice"),
        ]
    }

    fn services(&self) -> &'static [&'static str] {
        &["voice"]
    }
}

/// What a session remembers of a command until its final answer.
struct Asked {
    action: String,
    id: Option<String>,
}

/// One voice client.
struct Talk {
    routes: Arc<Routes>,
    last: u64,
    asked: HashMap<CallId, Asked>,
}

impl Talk {
    fn refuse(now: Now, refusal: Refusal, id: Option<&str>, out: &mut Vec<Step>) -> Offence {
        let fault = Fault::new(refusal.code, refusal.text);
        out.push(Step::Send(frame::error(now.unix, &fault, None, id)));
        Offence {
            code: refusal.offence,
            fate: Fate::Continue,
        }
    }
}

impl Session for Talk {
    fn receive(&mut self, now: Now, frame: Frame, out: &mut Vec<Step>) -> Result<(), Offence> {
        let said = match parse::command(&frame) {
            Ok(said) => said,
            Err(refusal) => return Err(Self::refuse(now, refusal, None, out)),
        };
        let (action, id) = match (said.action, said.id) {
            (Ok(action), Ok(id)) => (action, id),
            (Err(refusal), id) => return Err(Self::refuse(now, refusal, id.ok().flatten().as_deref(), out)),
            (Ok(_), Err(refusal)) => return Err(Self::refuse(now, refusal, None, out)),
        };
        let Some(service) = self.routes.service(&action) else {
            let refusal = Refusal {
                code: Code::UnknownAction,
                offence: "unknown_action",
                text: format!("no service is routed for the type \"{action}\""),
            };
            return Err(Self::refuse(now, refusal, id.as_deref(), out));
        };
        self.last += 1;
        let call = CallId(self.last);
        // The header that carries it is ASCII; what does not fit there is still echoed to the client.
        let correlation = id
            .clone()
            .filter(|id| id.bytes().all(|b| (0x20..0x7f).contains(&b)));
        self.asked.insert(
            call,
            Asked {
                action: action.clone(),
                id,
            },
        );
        out.push(Step::Call(Command {
            id: call,
            service,
            action,
            body: Body::json(said.data),
            correlation,
            traceparent: said.traceparent,
        }));
        Ok(())
    }

    fn reply(&mut self, now: Now, reply: Reply, out: &mut Vec<Step>) {
        let Some(asked) = self.asked.get(&reply.id) else {
            return;
        };
        let (action, id) = (asked.action.as_str(), asked.id.as_deref());
        let frame = match &reply.answer {
            Answer::Ack(_) => None,
            Answer::Progress(body) | Answer::Done(body) if body.is_empty() => None,
            Answer::Progress(body) => Some(frame::progress(now.unix, action, body, id)),
            Answer::Done(body) => Some(frame::done(now.unix, action, body, id)),
            Answer::Failed(fault) => Some(frame::error(now.unix, fault, Some(action), id)),
        };
        out.extend(frame.map(Step::Send));
        if reply.answer.is_final() {
            self.asked.remove(&reply.id);
        }
    }

    fn notice(&mut self, now: Now, notice: &Notice, out: &mut Vec<Step>) {
        out.push(Step::Send(match notice {
            Notice::Degraded(reason) => frame::status(now.unix, "degraded", reason),
            Notice::Restored(reason) => frame::status(now.unix, "ok", reason),
            // services are asked for here, never told
            Notice::Services(_) | Notice::Refused(_) => return,
            Notice::Gap(missed) => frame::gap(now.unix, *missed),
            Notice::NotConfirmed(what) => {
                frame::error(now.unix, &Fault::new(Code::BusDown, what.as_str()), None, None)
            }
        }));
    }

    fn finished(&mut self) -> bool {
        self.asked.is_empty()
    }

    fn farewell(&mut self, now: Now, why: &Close, out: &mut Vec<Step>) {
        if *why == Close::FLOOD {
            let fault = Fault::new(Code::Busy, why.reason.as_ref());
            out.push(Step::Send(frame::error(now.unix, &fault, None, None)));
        }
        if why.code == Close::DRAIN.code {
            out.push(Step::Send(frame::status(now.unix, "degraded", &why.reason)));
        }
    }
}
