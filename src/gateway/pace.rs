//! When the next document may follow the last one, for clients that take each read as one document.
//!
//! Two documents in one read are lost to such a client. So each goes out alone, at least a millisecond after the last
//! one, and not before the client has read that one. The latter can be known of clients on this machine; for others the
//! millisecond has to do. Whoever is known to have read the last one and has asked again since waits for neither: that
//! is how those work who send a request when they have the answer to the one before. A client that does not read holds
//! nobody up for long, itself included.

use std::io;
use std::time::{Duration, Instant};

use crate::gateway::outbox::Outbox;
use crate::gateway::unread::Unread;

/// The least time between two documents.
const APART: Duration = Duration::from_millis(1);
/// A client that reads again after this long may find two documents at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest time between two looks at a client that does not read.
const SELDOM: Duration = Duration::from_millis(20);

/// The rhythm of one connection.
#[derive(Default)]
pub struct Pace {
    /// Not before.
    next: Option<Instant>,
    /// When the last document went out whole.
    wrote: Option<Instant>,
    /// The client has said something since.
    asked: bool,
}

impl Pace {
    /// When to come again, as long as something is queued.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.next
    }

    /// The socket takes bytes again: the rest of a document does not wait.
    pub fn resume(&mut self) {
        self.next = None;
    }

    /// The client said something.
    pub fn heard(&mut self) {
        self.asked = true;
    }

    /// Writes one document, if it is time.
    ///
    /// # Errors
    /// The socket's.
    pub fn write(&mut self, outbox: &Outbox, unread: &Unread, now: Instant) -> io::Result<()> {
        let early = self.next.is_some_and(|at| at > now);
        if outbox.queued() == 0 || early && !self.asked {
            return Ok(());
        }
        if let Some(wrote) = self.wrote {
            match outbox.stream().and_then(|stream| unread.by_peer(stream)) {
                Some(0) => {}
                None if early => return Ok(()),
                None => {}
                Some(_) => {
                    let waited = now.duration_since(wrote);
                    if waited < PATIENCE && outbox.may_wait() {
                        self.next = Some(now + (waited / 4).clamp(APART, SELDOM));
                        return Ok(());
                    }
                    if early {
                        return Ok(());
                    }
                }
            }
        }
        // also when nothing is queued behind it: the next answer may come within the millisecond
        let whole = outbox.write_one()?;
        self.next = whole.then(|| now + APART);
        self.wrote = whole.then_some(now);
        self.asked = false;
        Ok(())
    }
}
