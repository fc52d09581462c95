//! Voice clients: JSON events and commands over WebSocket.

use crate::dialect::{Dialect, Encoding, Frame, Offence, Opening, Session, Step, Transport};
use crate::message::{Event, Now, Reply};

/// The voice dialect.
pub struct Voice;

impl Dialect for Voice {
    fn name(&self) -> &'static str {
        "voice"
    }

    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn open(&self, _opening: Opening) -> Box<dyn Session> {
        Box::new(Talk)
    }

    fn encode(&self, _encoding: Encoding, _event: &Event) -> Option<Frame> {
        None
    }
}

struct Talk;

impl Session for Talk {
    fn receive(&mut self, _now: Now, _frame: Frame, _out: &mut Vec<Step>) -> Result<(), Offence> {
        Ok(())
    }

    fn reply(&mut self, _now: Now, _reply: Reply, _out: &mut Vec<Step>) {}
}
