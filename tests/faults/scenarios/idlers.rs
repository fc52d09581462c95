//! Clients that begin and never go on, or no longer answer: closed in their time, in the way of nobody.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{caught_up, exact, memory, read};
use crate::crowd::Crowd;
use crate::load::Load;
use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::Report;
use crate::talk::Talk;
use crate::{Outcome, PATIENCE, Scale};

/// The way in for a WebSocket whose frames we write ourselves.
const UPGRADE: &str = "GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// How far an idler goes before it stops.
#[derive(Clone, Copy, Debug)]
enum Idler {
    /// It says nothing.
    Silent,
    /// Half of a request head.
    Head,
    /// The first byte of a frame.
    Frame,
    /// Half of a document.
    Document,
}

impl Idler {
    const ALL: [Self; 4] = [Self::Silent, Self::Head, Self::Frame, Self::Document];

    /// Connects, stops where it stops, and returns when the gateway has ended the connection.
    async fn live(self, port: u16) -> Outcome<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        match self {
            Self::Silent => {}
            Self::Head => stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\nX-").await?,
            Self::Document => {
                stream
                    .write_all(b"{\"action\": \"execute_code\", \"params\": {")
                    .await?
            }
            Self::Frame => {
                stream.write_all(UPGRADE.as_bytes()).await?;
                stream.write_all(&[0x81]).await?;
            }
        }
        let mut said = Vec::new();
        match timeout(PATIENCE, stream.read_to_end(&mut said)).await {
            // a reset is an end too: what we wrote may not have been read
            Ok(_) => Ok(()),
            Err(_) => Err(format!("{self:?} is still connected").into()),
        }
    }
}

/// Thousands of beginnings, and nobody who is well notices.
pub(super) async fn slow_heads(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let gateway = Gateway::start(&nats.url(), &[]).await?;
    let crowd = Crowd::on(&gateway, scale, 20).await?;
    let load = Load::start(nats.client().await?, 20, 64);
    let base = gateway.forget_peak()?;
    let each = scale.pick(20, 1000);
    let mut idlers = JoinSet::new();
    for number in 0..each {
        for idler in Idler::ALL {
            idlers.spawn(idler.live(gateway.port));
        }
        if number % 100 == 99 {
            // in steps the accept queue can take
            Talk::open(gateway.port).await?;
        }
    }
    // a good one comes in among them and is answered
    let mut talk = Talk::open(gateway.port).await?;
    let (answer, _) = talk.ask("get_system_info").await?;
    report.hold(
        answer["data"]["code"] == "no_worker",
        &format!("a good client got {answer}"),
    );
    report.figure("idlers", idlers.len());
    let mut ended = 0_u64;
    while let Some(idler) = idlers.join_next().await {
        idler??;
        ended += 1;
    }
    report.expect("idlers_ended", ended, 4 * each);
    for (reason, kind) in [
        ("first_byte", "said nothing"),
        ("header_timeout", "stopped in a head"),
        ("stalled", "stopped in a frame"),
    ] {
        let counted = gateway.labelled("gw_rejected_total", reason).await?;
        report.hold(
            counted >= each as f64,
            &format!("{counted} of those who {kind} are counted, not {each}"),
        );
    }
    let (answer, _) = talk.ask("get_system_info").await?;
    report.hold(
        answer["data"]["code"] == "no_worker",
        "a good client is no longer answered",
    );
    caught_up(report, load, &crowd).await?;
    report.expect("others_closed", read(&crowd.seen.ended), 0);
    exact(report, &crowd.seen);
    memory(report, &gateway, base, scale.pick(16.0, 96.0))?;
    crowd.leave().await;
    Ok(())
}

/// A masked text frame, as clients send it, with a mask of zeros.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap_or(125), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Who does not answer a ping is gone; who does stays, however long it says nothing itself.
pub(super) async fn no_pong(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let settings = [("WEBSOCKET_PING", "1s"), ("WEBSOCKET_PONG", "4s")];
    let gateway = Gateway::start(&nats.url(), &settings).await?;
    let mut well = Talk::open(gateway.port).await?;
    // only who has said something is pinged
    let (first, _) = well.ask("get_system_info").await?;
    report.hold(
        first["data"]["code"] == "no_worker",
        "a good client is not answered",
    );
    let base = gateway.forget_peak()?;
    let count = scale.pick(20, 500);
    let mut mutes = JoinSet::new();
    for _ in 0..count {
        let port = gateway.port;
        mutes.spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.write_all(UPGRADE.as_bytes()).await?;
            stream
                .write_all(&frame(r#"{"type":"get_system_info","data":{}}"#))
                .await?;
            let mut said = Vec::new();
            timeout(PATIENCE, stream.read_to_end(&mut said)).await??;
            // 0x89 0x00 is the ping it was sent and did not answer
            Outcome::Ok(said.windows(2).any(|pair| pair == [0x89, 0]))
        });
    }
    // its pongs go out while it reads
    let reading = tokio::spawn(async move {
        let ended = well.wait(|frame| frame["type"] == "the end").await;
        (well, ended)
    });
    let (mut ended, mut pinged) = (0, 0);
    while let Some(mute) = mutes.join_next().await {
        pinged += u64::from(mute??);
        ended += 1;
    }
    report.expect("mutes_ended", ended, count);
    report.expect("pinged_before", pinged, count);
    let lost = gateway.labelled("gw_connections_closed_total", "1006").await?;
    report.hold(lost >= count as f64, "they are not counted as lost");
    // it was pinged as often as they were, and more
    report.hold(
        !reading.is_finished(),
        "a client that answers its pings was closed too",
    );
    reading.abort();
    memory(report, &gateway, base, 32.0)
}
