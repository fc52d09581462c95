//! The last moments of a connection: the farewell goes out, the close code gets through.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::gateway::outbox::{Kind, Outbox};
use crate::gateway::pace::Pace;
use crate::gateway::ring::Carrier;
use crate::gateway::unread::Unread;
use crate::message::Close;
use crate::telemetry::clock;
use crate::wire::frame::{self, Packet};

/// How long what is queued may take to go out; a slow client's queue is only its half-written packet and the code.
const FLUSH: Duration = Duration::from_secs(10);
/// How long the peer may take to end its side, so that a reset does not eat the close code.
const LINGER: Duration = Duration::from_millis(300);

/// Says goodbye. `echo` is the client's own code where the client closed first.
pub async fn close(
    outbox: &Outbox,
    carrier: Carrier,
    close: Option<&Close>,
    echo: Option<Option<u16>>,
    rhythm: (Pace, &Unread),
) {
    if carrier == Carrier::WebSocket {
        let bytes = match (close, echo) {
            (_, Some(Some(code))) => frame::close(code, ""),
            (_, Some(None)) => frame::close_empty(),
            (Some(close), None) => frame::close(close.code, &close.reason),
            (None, None) => frame::close_empty(),
        };
        let discard = close.is_some_and(|close| close.code == Close::SLOW.code);
        outbox.push_last(&Packet::new(bytes), Kind::Control, discard);
    }
    let _late = timeout_at(Instant::now() + FLUSH, drain(outbox, rhythm)).await;
    let _gone = shutdown(outbox);
    let _late = timeout_at(Instant::now() + LINGER, ended(outbox)).await;
    outbox.bury();
}

/// Writes until nothing is queued.
async fn drain(outbox: &Outbox, (mut pace, unread): (Pace, &Unread)) {
    while outbox.queued() > 0 {
        if outbox.is_paced() {
            if pace.write(outbox, unread, clock::now()).is_err() {
                return;
            }
            match pace.due() {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None if outbox.writable().await.is_err() => return,
                None => {}
            }
        } else if outbox.writable().await.is_err() || !outbox.resume() {
            return;
        }
    }
}

fn shutdown(outbox: &Outbox) -> std::io::Result<()> {
    match outbox.stream() {
        Some(stream) => socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write),
        None => Ok(()),
    }
}

async fn ended(outbox: &Outbox) {
    let Some(stream) = outbox.stream() else { return };
    let mut sink = [0_u8; 512];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::close;
    use crate::config::SlowPolicy;
    use crate::gateway::outbox::{Batch, Kind, Outbox, Parcel, Taken};
    use crate::gateway::pace::Pace;
    use crate::gateway::ring::Carrier;
    use crate::gateway::unread::Unread;
    use crate::message::Close;
    use crate::telemetry::metrics::Metrics;
    use crate::wire::frame::{self, Packet};

    /// A room may still deliver while the peer takes its time to end its side.
    #[tokio::test]
    async fn nothing_follows_a_close_frame() -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let near = TcpStream::connect(listener.local_addr()?).await?;
        let (mut far, _) = listener.accept().await?;
        near.writable().await?;
        let books = Metrics::new(&["voice"]).dialect("voice");
        let outbox = Outbox::new(Some(near), 1 << 20, SlowPolicy::Close, false, books);
        let packet = || Packet::new("event".into());
        assert_eq!(outbox.push(&packet(), Kind::Event), Taken::Yes);
        let (unread, drain) = (Unread::open(), Close::DRAIN);
        let ending = close(
            &outbox,
            Carrier::WebSocket,
            Some(&drain),
            None,
            (Pace::default(), &unread),
        );
        let expected = [&b"event"[..], &frame::close(1001, &drain.reason)].concat();
        let hearing = async {
            let mut heard = vec![0; expected.len()];
            far.read_exact(&mut heard).await?;
            let parcel = Parcel {
                packet: packet(),
                kind: Kind::Event,
                only: None,
            };
            let delivered = outbox.deliver(&Batch::new(vec![parcel]), "anybody");
            assert_eq!(delivered.taken, Taken::Gone);
            assert_eq!(outbox.push(&packet(), Kind::Own), Taken::Gone);
            outbox.push_granted(&packet(), Kind::Event);
            outbox.flush();
            far.read_to_end(&mut heard).await?;
            drop(far);
            std::io::Result::Ok(heard)
        };
        let ((), heard) = tokio::join!(ending, hearing);
        assert_eq!(heard?, expected);
        Ok(())
    }
}
