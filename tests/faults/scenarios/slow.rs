//! One who does not read: neighbours do not notice, the gateway's memory is bounded, the slow one is told.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{exact, memory, read};
use crate::crowd::{Crowd, Manner};
use crate::load;
use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::Report;
use crate::{Outcome, PATIENCE, Scale};

/// Bytes of one event: few of them fill what the kernel holds for the one who does not read.
const FILL: usize = 16 << 10;

/// A client whose kernel holds little for it.
async fn narrow(port: u16) -> Outcome<WebSocketStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let stream = socket.connect(([127, 0, 0, 1], port).into()).await?;
    let (mut socket, _) = client_async(format!("ws://127.0.0.1:{port}/events"), stream).await?;
    // greeted: from here on it is owed every event
    timeout(PATIENCE, socket.next()).await?.ok_or("no greeting")??;
    Ok(socket)
}

/// Closed with a code that says come back.
pub(super) async fn stalled(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let mut slow_news = client.subscribe("gw.v1.sys.slow").await?;
    client.flush().await?;
    let settings = [("SLOW_QUEUE_BYTES", "256KiB"), ("EVENTS_MEMORY", "4MiB")];
    let gateway = Gateway::start(&nats.url(), &settings).await?;
    let mut stalled = narrow(gateway.port).await?;
    let manner = Manner {
        ports: vec![gateway.port],
        comes_back: true,
        spread: false,
        seed: scale.seed,
    };
    let crowd = Crowd::join(manner, scale.pick(50, 499)).await?;
    let base = gateway.forget_peak()?;
    let mut last = 0;
    let mut events = 0_u64;
    // until the gateway has had enough of it
    while gateway.metric("gw_slow_consumer_total").await? < 1.0 {
        for n in events..events + 5 {
            last = load::store(&client, n, FILL).await;
        }
        events += 5;
        // the neighbours of one who does not read are held to what they have, not to how fast this program reads
        crowd.reach(last).await?;
        if events > 2000 {
            return Err("nobody was too slow".into());
        }
    }
    crowd.reach(last).await?;
    report.figure("sent", events);
    report.expect("others_closed", read(&crowd.seen.ended), 0);
    exact(report, &crowd.seen);
    let code = timeout(PATIENCE, async {
        loop {
            match stalled.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map_or(1005, |frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return 1006,
            }
        }
    })
    .await?;
    report.expect::<u16>("stalled_closed", code, 1013);
    let news = timeout(Duration::from_secs(10), slow_news.next()).await;
    let news = news.ok().flatten().ok_or("no gw.v1.sys.slow was published")?;
    let news: Value = serde_json::from_slice(&news.payload)?;
    report.hold(news["what"] == "closed", &format!("gw.v1.sys.slow says {news}"));
    memory(report, &gateway, base, 32.0)?;
    crowd.leave().await;
    Ok(())
}

/// What was dropped is announced to the last event, and the client stays.
pub(super) async fn drop_oldest(_scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let mut slow_news = client.subscribe("gw.v1.sys.slow").await?;
    client.flush().await?;
    let settings = [
        ("SLOW_QUEUE_BYTES", "256KiB"),
        ("SLOW_POLICY", "drop-oldest"),
        ("SLOW_WRITE_TIMEOUT", "60s"),
        ("EVENTS_MEMORY", "4MiB"),
    ];
    let gateway = Gateway::start(&nats.url(), &settings).await?;
    let mut slow = narrow(gateway.port).await?;
    let base = gateway.forget_peak()?;
    let mut last = 0;
    for n in 0..400 {
        last = load::store(&client, n, FILL).await;
    }
    let mut news = Vec::new();
    while let Ok(Some(message)) = timeout(Duration::from_secs(3), slow_news.next()).await {
        news.push(serde_json::from_slice::<Value>(&message.payload)?);
    }
    let (mut seen, mut gaps, mut announced) = (0, 0, 0);
    let reading = async {
        while seen < last {
            let text = match slow.next().await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(frame))) => return Err(format!("closed: {frame:?}").into()),
                Some(Ok(_)) => continue,
                ended => return Err(format!("the slow client's connection ended: {ended:?}").into()),
            };
            let frame: Value = serde_json::from_str(text.as_str())?;
            if let Some(seq) = frame["seq"].as_u64() {
                gaps += seq.saturating_sub(seen + 1);
                seen = seen.max(seq);
            }
            if frame["data"]["status"] == "gap" {
                announced += frame["data"]["missed"].as_u64().unwrap_or(0);
            }
        }
        // the notice may come after the last event
        while announced < gaps {
            let Ok(Some(Ok(Message::Text(text)))) = timeout(Duration::from_secs(5), slow.next()).await else {
                break;
            };
            let frame: Value = serde_json::from_str(text.as_str())?;
            announced += frame["data"]["missed"].as_u64().unwrap_or(0);
        }
        Outcome::Ok(())
    };
    timeout(PATIENCE, reading).await??;
    report.figure("sent", last);
    report.hold(gaps > 0, "nothing was dropped, so nothing was tested");
    report.expect("announced", announced, gaps);
    report.hold(
        news.iter().any(|news| news["what"] == "dropped"),
        &format!("gw.v1.sys.slow said {news:?}"),
    );
    report.hold(news.len() < 20, "gw.v1.sys.slow is not limited");
    memory(report, &gateway, base, 24.0)?;
    Ok(())
}
