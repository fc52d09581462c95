//! Sessions of long polling: found by a secret id, visited by one HTTP request after the other, carried over to a
//! WebSocket when the client upgrades.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::gateway::Gateway;
use crate::gateway::intake::Intake;
use crate::gateway::ring::Carrier;
use crate::wire::engineio::Refusal;
use crate::wire::engineio::polling::{Act, Polling, Response, Ticket};

/// Visits that may wait for a session; a client has one GET, one POST and one WebSocket at a time.
const VISITS: usize = 4;

/// A request or a WebSocket that comes to a session.
pub enum Visit {
    /// A GET: wants what there is, or waits for it.
    Get(oneshot::Sender<Response>),
    /// A POST with its whole body.
    Post(Bytes, oneshot::Sender<Response>),
    /// A WebSocket that wants to take over, and the bytes that came with its handshake.
    Socket(TcpStream, Bytes),
}

/// What an id leads to.
pub enum Found {
    /// A session that polls.
    Polls(mpsc::Sender<Visit>),
    /// A session that a WebSocket carries by now.
    Upgraded,
}

/// The sessions that began with long polling and still live.
#[derive(Default)]
pub struct Polls {
    sessions: Mutex<Sessions>,
    fewer: Notify,
}

#[derive(Default)]
struct Sessions {
    /// `None`: a WebSocket carries it by now.
    known: HashMap<Arc<str>, Option<mpsc::Sender<Visit>>>,
    /// How many still poll.
    polling: usize,
}

impl Polls {
    /// Opens a session under a new id that nobody can guess. `None` when the system has no randomness to give.
    #[must_use]
    pub fn open(self: &Arc<Self>, max_payload: usize) -> Option<Box<Poller>> {
        let mut secret = [0_u8; 15];
        let flags = rustix::rand::GetRandomFlags::empty();
        let filled = rustix::rand::getrandom(&mut secret, flags).ok()?;
        if filled < secret.len() {
            return None;
        }
        let sid: Arc<str> = URL_SAFE_NO_PAD.encode(secret).into();
        let (sender, visits) = mpsc::channel(VISITS);
        let mut sessions = self.sessions.lock();
        sessions.known.insert(sid.clone(), Some(sender));
        sessions.polling += 1;
        drop(sessions);
        Some(Box::new(Poller {
            id: Registered {
                polls: self.clone(),
                sid,
            },
            // what waits for a GET is bounded by the outbox
            polling: Polling::new(max_payload, usize::MAX),
            max_payload,
            visits,
            answers: Vec::new(),
            pending: None,
            probe: None,
            held: None,
            tickets: 0,
        }))
    }

    /// Finds a session.
    #[must_use]
    pub fn find(&self, sid: &str) -> Option<Found> {
        let sessions = self.sessions.lock();
        sessions.known.get(sid).map(|session| match session {
            Some(visits) => Found::Polls(visits.clone()),
            None => Found::Upgraded,
        })
    }

    /// Resolves when nobody polls.
    pub async fn none_left(&self) {
        loop {
            let fewer = self.fewer.notified();
            tokio::pin!(fewer);
            fewer.as_mut().enable();
            if self.sessions.lock().polling == 0 {
                return;
            }
            fewer.await;
        }
    }

    fn one_less(&self, sessions: &mut Sessions) {
        sessions.polling -= 1;
        if sessions.polling == 0 {
            self.fewer.notify_waiters();
        }
    }
}

/// The place of a session in the list; given up when dropped.
pub struct Registered {
    polls: Arc<Polls>,
    sid: Arc<str>,
}

impl Registered {
    /// The id the client polls with.
    #[must_use]
    pub fn sid(&self) -> &Arc<str> {
        &self.sid
    }

    /// A WebSocket carries the session now: later polls are told so.
    pub fn upgraded(&self) {
        let mut sessions = self.polls.sessions.lock();
        let session = sessions.known.get_mut(&self.sid);
        if session.and_then(Option::take).is_some() {
            self.polls.one_less(&mut sessions);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut sessions = self.polls.sessions.lock();
        if let Some(Some(_)) = sessions.known.remove(&self.sid) {
            self.polls.one_less(&mut sessions);
        }
    }
}

/// A WebSocket that wants to take over.
pub(super) struct Probe {
    pub(super) ticket: Ticket,
    pub(super) stream: TcpStream,
    pub(super) intake: Intake,
}

/// The session's side of long polling.
pub struct Poller {
    pub(super) id: Registered,
    pub(super) polling: Polling,
    max_payload: usize,
    visits: mpsc::Receiver<Visit>,
    answers: Vec<(Ticket, oneshot::Sender<Response>)>,
    /// The GET that waits.
    pending: Option<(Ticket, oneshot::Sender<Response>)>,
    pub(super) probe: Option<Probe>,
    /// A POST that waits until the one before it is worked off.
    held: Option<(Bytes, oneshot::Sender<Response>)>,
    tickets: Ticket,
}

/// What happened.
pub(super) enum News {
    Visit(Visit),
    /// The client gave up the GET that waited.
    Abandoned(Ticket),
    /// The probing WebSocket has something to read, or failed.
    Probe,
    /// Nobody can come any more.
    Nobody,
}

impl Poller {
    /// The id the client polls with.
    #[must_use]
    pub fn sid(&self) -> &Arc<str> {
        self.id.sid()
    }

    /// The next thing that happens.
    pub(super) async fn next(&mut self) -> News {
        let Self {
            visits,
            pending,
            probe,
            ..
        } = self;
        tokio::select! {
            visit = visits.recv() => visit.map_or(News::Nobody, News::Visit),
            ticket = given_up(pending) => News::Abandoned(ticket),
            () = readable(probe) => News::Probe,
        }
    }

    /// A request comes in: acts follow from it. `busy`: messages of an earlier POST still wait.
    pub(super) fn visit(
        &mut self,
        gateway: &Gateway,
        now: Duration,
        visit: Visit,
        busy: bool,
        acts: &mut Vec<Act>,
    ) {
        self.tickets += 1;
        let ticket = self.tickets;
        match visit {
            Visit::Get(answer) => {
                self.answers.push((ticket, answer));
                self.polling.get(ticket, acts);
                let unanswered = !acts
                    .iter()
                    .any(|act| matches!(act, Act::Answer(to, _) if *to == ticket));
                if unanswered {
                    self.pending = self.answers.pop();
                }
            }
            Visit::Post(_, answer) if self.held.is_some() => {
                self.answers.push((ticket, answer));
                acts.push(Act::Answer(ticket, Response::Overlap));
                // nothing will have its turn any more
                if let Some((_, waits)) = self.held.take() {
                    let _gone = waits.send(Response::Refused(Refusal::SessionUnknown));
                }
                self.polling.abort(acts);
            }
            Visit::Post(body, answer) if busy => self.held = Some((body, answer)),
            Visit::Post(body, answer) => self.post(body, answer, acts),
            Visit::Socket(stream, early) => {
                self.polling.socket(now, ticket, acts);
                if acts.contains(&Act::Shut(ticket)) {
                    // another one is probing: this one is dropped, and so closed
                    return acts.retain(|act| *act != Act::Shut(ticket));
                }
                let mut intake = Intake::new(Carrier::WebSocket, self.max_payload);
                if !early.is_empty() {
                    let limit = gateway.config.gateway.max_receiving;
                    intake.feed(&early, &gateway.receiving, limit);
                }
                self.probe = Some(Probe {
                    ticket,
                    stream,
                    intake,
                });
            }
        }
    }

    /// The probing WebSocket is closed.
    pub(super) fn shut(&mut self, ticket: Ticket, gateway: &Gateway) {
        if let Some(mut probe) = self.probe.take_if(|probe| probe.ticket == ticket) {
            probe.intake.release(&gateway.receiving);
        }
    }

    /// The POST that waited is looked at now.
    pub(super) fn release(&mut self, acts: &mut Vec<Act>) {
        if let Some((body, answer)) = self.held.take() {
            self.post(body, answer, acts);
        }
    }

    /// Whether a POST waits until the one before it is worked off.
    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }

    fn post(&mut self, body: Bytes, answer: oneshot::Sender<Response>, acts: &mut Vec<Act>) {
        self.tickets += 1;
        self.answers.push((self.tickets, answer));
        self.polling.post(self.tickets, body, acts);
    }

    /// Answers a request; a client that is gone does not hear it.
    pub(super) fn answer(&mut self, ticket: Ticket, response: Response) {
        let waits = self.pending.take_if(|(pending, _)| *pending == ticket);
        let answer = waits.or_else(|| {
            let at = self.answers.iter().position(|(known, _)| *known == ticket)?;
            Some(self.answers.swap_remove(at))
        });
        if let Some((_, answer)) = answer {
            let _gone = answer.send(response);
        }
    }
}

async fn given_up(pending: &mut Option<(Ticket, oneshot::Sender<Response>)>) -> Ticket {
    match pending {
        Some((ticket, answer)) => {
            answer.closed().await;
            *ticket
        }
        None => std::future::pending().await,
    }
}

async fn readable(probe: &Option<Probe>) {
    match probe {
        // a failure shows when it is read
        Some(probe) => drop(probe.stream.readable().await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_until_their_session_ends() {
        let polls = Arc::new(Polls::default());
        let first = polls.open(100).unwrap();
        let second = polls.open(100).unwrap();
        assert_ne!(first.sid(), second.sid());
        let sid = first.sid().clone();
        assert!(matches!(polls.find(&sid), Some(Found::Polls(_))));
        first.id.upgraded();
        assert!(matches!(polls.find(&sid), Some(Found::Upgraded)));
        drop(first);
        assert!(polls.find(&sid).is_none());
        assert!(polls.find(second.sid()).is_some());
    }

    #[test]
    fn none_is_left_when_the_last_ends_or_is_carried_over() {
        use futures_util::FutureExt;

        let polls = Arc::new(Polls::default());
        assert!(polls.none_left().now_or_never().is_some());
        let (first, second) = (polls.open(100).unwrap(), polls.open(100).unwrap());
        let waits = polls.none_left();
        tokio::pin!(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        first.id.upgraded();
        drop(first);
        assert!(waits.as_mut().now_or_never().is_none());
        drop(second);
        assert!(waits.now_or_never().is_some());
    }
}
