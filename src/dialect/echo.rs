//! Returns every frame as it came: the peer of conformance suites, mounted only by a test configuration.

use crate::dialect::{Dialect, Encoding, Frame, Offence, Opening, Session, Step, Transport};
use crate::message::{Event, Now, Reply};

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
        &["/echo"]
    }

    fn open(&self, _opening: Opening) -> Box<dyn Session> {
        Box::new(Mirror)
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
