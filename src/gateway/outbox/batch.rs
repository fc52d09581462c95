//! Packets on their way to many clients of one kind, put together once and handed to every outbox by reference; and
//! what became of them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::wire::frame::{Packet, SHARED};

/// What a packet is, which decides what may happen to it when the client is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An answer, a greeting: never dropped.
    Own,
    /// A ping, a goodbye, a blank: part of the wire, no message, and in no books.
    Control,
    /// An event: dropped oldest first where the policy says so.
    Event,
    /// A state topic, by number: a newer value takes the place of one not yet written.
    State(u32),
}

/// Whether a packet was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Queued or written.
    Yes,
    /// The queue is full; the connection is being closed.
    Overflow,
    /// The connection is over.
    Gone,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Older events dropped for it.
    pub dropped: u64,
    /// How it ended.
    pub taken: Taken,
}

/// One packet of a batch.
pub struct Parcel {
    /// As it goes out.
    pub packet: Packet,
    /// What may happen to it on the way.
    pub kind: Kind,
    /// The one session it is for, where not everybody gets it.
    pub only: Option<Arc<str>>,
}

/// What one kind of listener gets at once, in order.
#[derive(Default)]
pub struct Batch {
    parcels: Vec<Parcel>,
    /// All of it in one piece; empty where it has to be handled packet by packet.
    whole: Bytes,
}

impl Batch {
    /// A batch of these. Small ones are joined, so that a client that keeps up costs one write of one piece.
    #[must_use]
    pub fn new(parcels: Vec<Parcel>) -> Self {
        let whole = match parcels.as_slice() {
            parcels if parcels.iter().any(|parcel| parcel.only.is_some()) => Bytes::new(),
            [one] if one.packet.body.is_empty() => one.packet.head.clone(),
            many => join(many),
        };
        Self { parcels, whole }
    }

    /// Whether nobody gets anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// Packets, whoever they are for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parcels.len()
    }

    /// What everybody gets, in one piece; empty where there is none.
    #[must_use]
    pub fn whole(&self) -> &Bytes {
        &self.whole
    }

    /// The packets for one session.
    pub fn of(&self, session: &str) -> impl Iterator<Item = (&Packet, Kind)> {
        let mine = move |parcel: &&Parcel| parcel.only.as_deref().is_none_or(|only| only == session);
        self.parcels
            .iter()
            .filter(mine)
            .map(|parcel| (&parcel.packet, parcel.kind))
    }
}

/// One piece of several packets; empty where that would copy too much, or where a newer state may replace an older one.
fn join(parcels: &[Parcel]) -> Bytes {
    let len: usize = parcels.iter().map(|parcel| parcel.packet.len()).sum();
    let state = |parcel: &Parcel| matches!(parcel.kind, Kind::State(_));
    if len >= SHARED || parcels.iter().any(state) {
        return Bytes::new();
    }
    let mut whole = BytesMut::with_capacity(len);
    for Parcel { packet, .. } in parcels {
        whole.extend_from_slice(&packet.head);
        whole.extend_from_slice(&packet.body);
    }
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::{Batch, Kind, Parcel, Taken};
    use crate::config::SlowPolicy;
    use crate::gateway::outbox::Outbox;
    use crate::telemetry::metrics::Metrics;
    use crate::wire::frame::{Packet, SHARED};

    fn parcel(text: &'static [u8], kind: Kind, only: Option<&str>) -> Parcel {
        Parcel {
            packet: Packet::new(Bytes::from_static(text)),
            kind,
            only: only.map(Arc::from),
        }
    }

    #[test]
    fn small_events_are_one_piece() {
        let batch = Batch::new(vec![
            parcel(b"one", Kind::Event, None),
            parcel(b"two", Kind::Own, None),
        ]);
        assert_eq!(&batch.whole()[..], b"onetwo");
        assert_eq!(batch.of("anybody").count(), 2);
    }

    #[test]
    fn states_private_packets_and_big_ones_stay_apart() {
        static BIG: [u8; SHARED] = [b'x'; SHARED];
        for (kind, only, first) in [
            (Kind::State(1), None, &b"one"[..]),
            (Kind::Event, Some("me"), b"one"),
            (Kind::Event, None, &BIG),
        ] {
            let batch = Batch::new(vec![parcel(first, kind, only), parcel(b"two", Kind::Event, None)]);
            assert!(batch.whole().is_empty(), "{kind:?} {only:?}");
            assert_eq!(batch.of("me").count(), 2);
            assert_eq!(batch.of("you").count(), if only.is_some() { 1 } else { 2 });
        }
    }
    /// More than the socket takes, again and again, so that the cut falls within a batch wherever it likes.
    #[tokio::test]
    async fn a_batch_cut_by_a_full_socket_arrives_whole_and_in_order() -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let near = TcpStream::connect(listener.local_addr()?).await?;
        let (mut far, _) = listener.accept().await?;
        socket2::SockRef::from(&near).set_send_buffer_size(5_000)?;
        near.writable().await?;
        let books = Metrics::new(&["voice"]).dialect("voice");
        let outbox = Outbox::new(Some(near), 64 << 20, SlowPolicy::Close, false, books.clone());
        let (mut expected, mut blocked) = (Vec::new(), 0);
        for number in 0..600 {
            let parcels = (0..3).map(|part| {
                let text = format!("<{number}.{part}:{:-<1$}>", "", (number * 7 + part * 331) % 4_999);
                expected.extend_from_slice(text.as_bytes());
                Parcel {
                    packet: Packet::new(Bytes::from(text)),
                    kind: Kind::Event,
                    only: None,
                }
            });
            let batch = Batch::new(parcels.collect());
            assert!(!batch.whole().is_empty());
            let delivery = outbox.deliver(&batch, "anybody");
            assert_eq!(delivery.taken, Taken::Yes);
            if outbox.blocked().is_some() && outbox.queued() > 100_000 {
                blocked += 1;
                let mut got = vec![0; expected.len()];
                let read = async { far.read_exact(&mut got).await };
                let write = async {
                    while outbox.queued() > 0 {
                        outbox.writable().await?;
                        assert!(outbox.resume());
                    }
                    std::io::Result::Ok(())
                };
                let (read, write) = tokio::join!(read, write);
                read?;
                write?;
                assert!(got == expected, "bytes differ before batch {number}");
                expected.clear();
            }
        }
        assert!(blocked > 1, "the socket took everything");
        assert_eq!(outbox.packets(), 1_800);
        // what is not written yet is lost with the connection, and nothing is in the books twice
        outbox.bury();
        let (sent, lost) = (books.sent.get(), books.dropped.closed.get());
        assert_eq!(sent + lost, 1_800);
        assert!(sent > 0 && outbox.queued() == 0);
        Ok(())
    }
}
