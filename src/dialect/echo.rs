//! Returns every frame as it came: the peer of conformance suites, mounted only by a test configuration.
//!
//! `/echo` is plain WebSocket; `/echo/engine.io/` and `/echo/socket.io/` are the servers which the Engine.IO and
//! Socket.IO suites expect, with their short heartbeat.

use std::sync::Arc;

use crate::dialect::{Dialect, Encoding, Frame, Offence, Opening, Session, Step, Transport};
use crate::message::{Event, Now, Reply};

mod engine;

/// The echo dialect.
pub struct Echo;

impl Dialect for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/echo", "/echo/engine.io/", "/echo/socket.io/"]
    }

    fn open(&self, opening: Opening) -> Box<dyn Session> {
        if opening.target.contains(".io/") {
            let sid = opening.session.clone();
            return Box::new(engine::Engine::new(&opening, sid));
        }
        Box::new(Mirror)
    }

    fn open_polled(&self, opening: Opening, _max_message: usize, sid: &Arc<str>) -> Box<dyn Session> {
        Box::new(engine::Engine::new(&opening, sid.clone()))
    }

    fn encode(&self, _encoding: Encoding, _event: &Event) -> Option<Frame> {
        None
    }
}

struct Mirror;

impl Session for Mirror {
    fn receive(&mut self, _now: Now, frame: Frame, out: &mut Vec<Step>) -> Result<(), Offence> {
        out.push(Step::Send(frame));
        Ok(())
    }

    fn reply(&mut self, _now: Now, _reply: Reply, _out: &mut Vec<Step>) {}
}
