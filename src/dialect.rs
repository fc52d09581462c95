//! What a dialect is: a stateless description, a session per connection, and the table of all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::message::{Body, CallId, Class, Close, Command, Event, Nanos, Now, Offset, Reply, Space};

pub mod assistant;
pub mod cad;
pub mod echo;
pub mod scripting;
pub mod view;
pub mod voice;

pub use crate::wire::frame::Frame;
use view::{Known, Merge, View};

/// Every dialect Causeway speaks. A new one is a file, a `mod` line and a row here.
pub static ALL: &[&dyn Dialect] = &[
    &assistant::Assistant,
    &voice::Voice,
    &scripting::Scripting,
    &cad::Cad,
    &echo::Echo,
];

/// Finds a dialect by name.
#[must_use]
pub fn named(name: &str) -> Option<&'static dyn Dialect> {
    ALL.iter().copied().find(|dialect| dialect.name() == name)
}

/// What carries a dialect's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// WebSocket messages.
    WebSocket,
    /// JSON documents back to back on a byte stream.
    Tcp,
}

/// What a session wants done. Only the connection loop performs steps.
#[derive(Debug)]
pub enum Step {
    /// Send a command to its service.
    Call(Command),
    /// Withdraw a command that is under way.
    Cancel(CallId),
    /// Append an event or state of this session's dialect and space to its stream.
    Append(Append),
    /// Merge keys into a state topic of this session's dialect and space.
    Merge(Merge),
    /// Look at the space's state: [`Session::seen`] follows. Only where [`Dialect::looks`]. With a name it answers one
    /// of [`Dialect::questions`], and counts as a command that the gateway answers itself.
    Look(Option<&'static str>),
    /// Write a frame to this client.
    Send(Frame),
    /// End the connection after what was sent before.
    Close(Close),
}

/// A fact a client states.
#[derive(Debug)]
pub struct Append {
    /// Event or state.
    pub class: Class,
    /// Topic, any text; escaped in the subject.
    pub topic: String,
    /// Payload.
    pub body: Body,
}

/// What the client did wrong, for the counters; the session has already said so in the client's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offence {
    /// A short fixed name: `bad_json`, `no_type`, …
    pub code: &'static str,
    /// Whether the conversation can go on.
    pub fate: Fate,
}

/// What follows an offence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The connection stays.
    Continue,
    /// The connection ends.
    Close(Close),
}

/// News a session may tell its client.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The broker or a service went away; commands may fail.
    Degraded(String),
    /// Everything is back.
    Restored(String),
    /// This many messages were dropped because the client was slow.
    Gap(u64),
    /// An accepted event is not confirmed by the broker; its topic and why.
    NotConfirmed(String),
    /// What the same peer said on an earlier connection was refused, which it may not have noticed.
    Refused(Close),
    /// Which services run now, after one came or went: the answer to `get_status`.
    Services(Body),
}

/// How a connection begins, told to the dialect and to the newcomer.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// ULID of the session.
    pub session: Arc<str>,
    /// Its space.
    pub space: Space,
    /// Where it stands: events after this follow.
    pub offset: Offset,
    /// `Some(true)`: everything since the client's offset was given; `Some(false)`: history is gone, treated as a newcomer; `None`: did not ask.
    pub recovered: Option<bool>,
    /// Whether replay, resume and state exist (JetStream in use).
    pub history: bool,
}

/// What a session is told when its connection opens.
#[derive(Clone, Debug)]
pub struct Opening {
    /// ULID, new for each connection.
    pub session: Arc<str>,
    /// Space chosen by the address.
    pub space: Space,
    /// Which service serves which action.
    pub routes: Arc<Routes>,
    /// Request path and query of the handshake; empty on TCP.
    pub target: Arc<str>,
}

/// Number of an encoding within its dialect. Sessions of one encoding share the bytes of every event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Encoding(pub u8);

/// The stateless part of a client protocol: one static per system.
pub trait Dialect: Send + Sync + 'static {
    /// Configuration key, subject token, metric label, folder of transcripts.
    fn name(&self) -> &'static str;

    /// What carries it.
    fn transport(&self) -> Transport;

    /// Where its WebSocket clients connect on the gateway port; `/<path>/<space>` names a space too.
    fn paths(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether its clients take each read as one document, so that every frame is written alone, a millisecond apart.
    fn paced(&self) -> bool {
        false
    }

    /// A session for a new connection.
    fn open(&self, opening: Opening) -> Box<dyn Session>;

    /// A session that tells its client how large a message may be; for protocols whose handshake announces it.
    fn open_within(&self, opening: Opening, _max_message: usize) -> Box<dyn Session> {
        self.open(opening)
    }

    /// A session of long polling; `sid` is the secret its client polls with, never said on the bus.
    fn open_polled(&self, opening: Opening, max_message: usize, _sid: &Arc<str>) -> Box<dyn Session> {
        self.open_within(opening, max_message)
    }

    /// Encodes an event once for all sessions of an encoding; `None` when they do not get it.
    fn encode(&self, encoding: Encoding, event: &Event) -> Option<Frame>;

    /// Frames that give a newcomer `events`, oldest first, each already encoded by [`Dialect::encode`].
    /// The default sends them one by one.
    fn replay(&self, _now: Nanos, _encoding: Encoding, events: &[Frame], out: &mut Vec<Frame>) {
        out.extend_from_slice(events);
    }

    /// The greeting after the replay and before anything live; `None` for dialects without one.
    fn welcome(&self, _now: Nanos, _encoding: Encoding, _welcome: &Welcome) -> Option<Frame> {
        None
    }

    /// Default routing, overridden by configuration.
    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Whether its sessions look at the space's state, which then is kept at hand for them. Their clients open a
    /// connection for each message, so what one says waits for what the same peer began to say before.
    fn looks(&self) -> bool {
        false
    }

    /// What its clients ask and the gateway answers from the space's state, also as action `<dialect>_<question>` of its
    /// own service.
    fn questions(&self) -> &'static [&'static str] {
        &[]
    }

    /// The answer to one of [`Dialect::questions`].
    fn answer(&self, _question: &str, _view: &View) -> Option<Body> {
        None
    }

    /// Whether a newer value of a state topic may take the place of one that a slow client has not got yet.
    fn conflates(&self, _topic: &str) -> bool {
        true
    }

    /// The encoding in which a newcomer gets state and history, where it differs from the live one.
    fn newcomer(&self, encoding: Encoding) -> Encoding {
        encoding
    }

    /// Which of the states known a newcomer gets, and in which order; given sorted by topic.
    fn arrange(&self, _states: &mut Vec<Known>) {}

    /// The session that speaks for its space: the one a user touched last, by the states known.
    fn foremost<'a>(&self, _state: &dyn Fn(&str) -> Option<&'a Event>) -> Option<&'a str> {
        None
    }

    /// Whether an event is for the foremost session alone, where there is one.
    fn is_private(&self, _event: &Event) -> bool {
        false
    }

    /// Services whose coming and going is announced to this dialect's clients.
    fn services(&self) -> &'static [&'static str] {
        &[]
    }
}

/// One connection's protocol state: plain data, no I/O, no clock.
pub trait Session: Send {
    /// Which encoding of events this session gets; asked when it joins.
    fn encoding(&self) -> Encoding {
        Encoding::default()
    }

    /// Whether the session takes events now: replay, welcome and live ones. Asked when the connection opens and after
    /// each frame from the client; `false` for protocols in which the client first names what it joins.
    fn joined(&self) -> bool {
        true
    }

    /// The service that this client performs over its own connection; it takes events once it is the one that does.
    fn performs(&self) -> Option<&'static str> {
        None
    }

    /// A frame from the client.
    ///
    /// # Errors
    /// An [`Offence`]; the session has already put its answer in the client's own words into `out`.
    fn receive(&mut self, now: Now, frame: Frame, out: &mut Vec<Step>) -> Result<(), Offence>;

    /// Bytes the session holds of a message that is not whole yet, where it finds the ends of messages itself (TCP).
    /// They count against what the gateway receives at once.
    fn receiving(&self) -> u64 {
        0
    }

    /// An answer to a command of this session.
    fn reply(&mut self, now: Now, reply: Reply, out: &mut Vec<Step>);

    /// The space's state, as asked for by [`Step::Look`].
    fn seen(&mut self, _now: Now, _view: &View, _out: &mut Vec<Step>) {}

    /// The client is gone: what is still to be stated. Only where [`Dialect::looks`].
    fn left(&mut self, _now: Now, _view: &View, _out: &mut Vec<Step>) {}

    /// News for this client.
    fn notice(&mut self, _now: Now, _notice: &Notice, _out: &mut Vec<Step>) {}

    /// The client will send no more but still reads (half-close on TCP). `true` when nothing is owed and the connection may end.
    fn finished(&mut self) -> bool {
        true
    }

    /// Whether a quiet client may be pinged by WebSocket.
    fn may_ping(&self) -> bool {
        true
    }

    /// Time passed; called at or after [`Session::deadline`].
    fn wake(&mut self, _now: Now, _out: &mut Vec<Step>) {}

    /// When to be woken, on the monotonic clock.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// A goodbye in the client's own words before the connection is closed by the gateway.
    fn farewell(&mut self, _now: Now, _why: &Close, _out: &mut Vec<Step>) {}
}

/// Which service serves an action: exact names first, then the longest `prefix*`.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    exact: BTreeMap<String, Arc<str>>,
    prefix: Vec<(String, Arc<str>)>,
}

impl Routes {
    /// Builds the table; later rows win over earlier ones of the same pattern.
    #[must_use]
    pub fn new<'a>(rows: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut routes = Self::default();
        for (pattern, service) in rows {
            if let Some(prefix) = pattern.strip_suffix('*') {
                routes.prefix.retain(|(known, _)| known != prefix);
                routes.prefix.push((prefix.to_owned(), service.into()));
            } else {
                routes.exact.insert(pattern.to_owned(), service.into());
            }
        }
        routes
            .prefix
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        routes
    }

    /// The service for an action.
    #[must_use]
    pub fn service(&self, action: &str) -> Option<Arc<str>> {
        if let Some(service) = self.exact.get(action) {
            return Some(service.clone());
        }
        let (_, service) = self
            .prefix
            .iter()
            .find(|(prefix, _)| action.starts_with(prefix.as_str()))?;
        Some(service.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::Routes;

    #[test]
    fn exact_wins_over_the_longest_prefix() {
        let routes = Routes::new([("*", "any"), ("stt_*", "voice"), ("stt_debug", "lab")]);
        assert_eq!(routes.service("stt_start").as_deref(), Some("voice"));
        assert_eq!(routes.service("stt_debug").as_deref(), Some("lab"));
        assert_eq!(routes.service("fly").as_deref(), Some("any"));
        assert_eq!(Routes::default().service("fly"), None);
    }
}
