//! One who does not read: neighbours do not notice, the gateway's memory is bounded, the slow one is told; each policy.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{caught_up, exact, memory, read};
use crate::crowd::Crowd;
use crate::load;
use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::Report;
use crate::{Outcome, PATIENCE, Scale};

/// Bytes of one event: few of them fill what the kernel holds for the one who does not read.
const FILL: usize = 16 << 10;

/// A client whose kernel holds little for it.
async fn narrow_at(port: u16, path: &str) -> Outcome<WebSocketStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let stream = socket.connect(([127, 0, 0, 1], port).into()).await?;
    Ok(client_async(format!("ws://127.0.0.1:{port}{path}"), stream)
        .await?
        .0)
}

/// One that listens to events and was greeted.
async fn narrow(port: u16) -> Outcome<WebSocketStream<TcpStream>> {
    let mut socket = narrow_at(port, "/events").await?;
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
    let crowd = Crowd::on(&gateway, scale, scale.pick(50, 499)).await?;
    let base = gateway.forget_peak()?;
    let mut last = 0;
    let mut events = 0_u64;
    // until the gateway has had enough of it
    while gateway.labelled("gw_slow_consumer_total", "close").await? < 1.0 {
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
    // what was still queued for it is counted: at least what its budget holds less what one event weighs
    let begun = Instant::now();
    let unsent = loop {
        // its books are closed when its connection is, a moment after its client was told
        let unsent = gateway.labelled("gw_messages_dropped_total", "closed").await?;
        if unsent >= 1.0 || begun.elapsed() > PATIENCE {
            break unsent;
        }
        sleep(Duration::from_millis(20)).await;
    };
    report.figure("unsent", unsent);
    report.hold(unsent >= 1.0, "what was queued for the closed one is not counted");
    let closed = gateway.labelled("gw_slow_consumer_total", "close").await?;
    report.expect("slow_close", closed, 1.0);
    report.books.sent = Some(events);
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
    let dropped = gateway.labelled("gw_messages_dropped_total", "slow").await?;
    report.expect("dropped", dropped, gaps as f64);
    let acted = gateway.labelled("gw_slow_consumer_total", "drop_oldest").await?;
    report.hold(acted >= 1.0, "what was done is not counted");
    report.books.sent = Some(last);
    report.books.received = Some(last - gaps);
    report.books.gaps = Some(gaps);
    report.books.silent = Some(gaps.saturating_sub(announced));
    report.hold(
        news.iter().any(|news| news["what"] == "dropped"),
        &format!("gw.v1.sys.slow said {news:?}"),
    );
    report.hold(news.len() < 20, "gw.v1.sys.slow is not limited");
    memory(report, &gateway, base, 24.0)?;
    Ok(())
}

/// Newer state takes the place of older state of the same topic that its reader has not got yet.
pub(super) async fn conflated(_scale: Scale, report: &mut Report) -> Outcome<()> {
    const VALUES: u64 = 300;
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let settings = [("SLOW_QUEUE_BYTES", "64KiB"), ("SLOW_WRITE_TIMEOUT", "60s")];
    let gateway = Gateway::start(&nats.url(), &settings).await?;
    let mut page = narrow_at(gateway.port, "/cad").await?;
    page.send(Message::text("L:{}")).await?;
    let fill = "x".repeat(FILL);
    let state = async |n: u64| {
        let body = format!("{{\"type\":\"set_relative_time\",\"value\":{n},\"fill\":\"{fill}\"}}");
        let subject = "gw.v1.state.main.cad.relative_time";
        let answer = client.request(subject, body.into()).await?;
        let stored: Value = serde_json::from_slice(&answer.payload)?;
        match stored["seq"].as_u64() {
            Some(_) => Outcome::Ok(()),
            None => Err(format!("a state was not stored: {stored}").into()),
        }
    };
    let next = async |page: &mut WebSocketStream<TcpStream>| loop {
        match timeout(PATIENCE, page.next()).await? {
            Some(Ok(Message::Text(text))) => {
                let frame: Value = serde_json::from_str(text.as_str())?;
                if let Some(value) = frame["value"].as_u64() {
                    return Outcome::Ok(value);
                }
            }
            Some(Ok(Message::Close(frame))) => return Err(format!("closed: {frame:?}").into()),
            Some(Ok(_)) => {}
            ended => return Err(format!("the page's connection ended: {ended:?}").into()),
        }
    };
    // from here on it is owed every state, until a newer one makes up for it
    state(0).await?;
    next(&mut page).await?;
    let base = gateway.forget_peak()?;
    for n in 1..=VALUES {
        state(n).await?;
    }
    // the last one is with the gateway when it has gone to a page that reads
    let mut witness = narrow_at(gateway.port, "/cad").await?;
    witness.send(Message::text("L:{}")).await?;
    while next(&mut witness).await? < VALUES {}
    let (mut received, mut last) = (0, 0);
    while last < VALUES {
        let value = next(&mut page).await?;
        report.hold(value > last, "an older state came after a newer one");
        last = value;
        received += 1;
    }
    let conflated = gateway.labelled("gw_messages_dropped_total", "conflated").await?;
    report.figure("received", received);
    report.figure("conflated", conflated);
    // the witness may have been spared a value too
    report.hold(
        conflated >= (VALUES - received) as f64,
        "states are missing that are not counted",
    );
    report.hold(received < VALUES, "nothing was conflated, so nothing was tested");
    let acted = gateway.labelled("gw_slow_consumer_total", "conflate").await?;
    report.hold(acted >= 1.0, "what was done is not counted");
    report.books.sent = Some(VALUES);
    report.books.received = Some(received);
    report.books.silent = Some(0);
    memory(report, &gateway, base, 16.0)
}

/// Events at a steady rate, measured with and without a few who do not read, in turns.
pub(super) async fn neighbours(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let settings = [("SLOW_WRITE_TIMEOUT", "60s"), ("EVENTS_MEMORY", "4MiB")];
    let gateway = Gateway::start(&nats.url(), &settings).await?;
    let crowd = Crowd::on(&gateway, scale, scale.pick(50, 500)).await?;
    let load = load::Load::start(nats.client().await?, 20, 4 << 10);
    load.more(40).await?;
    let base = gateway.forget_peak()?;
    let mut rounds = Vec::new();
    for _ in 0..scale.pick(2, 9) {
        let without = crowd.seen.measure(load.more(50)).await?;
        let mut stalled = Vec::new();
        for _ in 0..5 {
            stalled.push(narrow(gateway.port).await?);
        }
        let beside = crowd.seen.measure(load.more(50)).await?;
        rounds.push((without, beside));
        drop(stalled);
        load.more(10).await?;
    }
    report.beside(&mut rounds, "who reads waits for who does not");
    caught_up(report, load, &crowd).await?;
    report.expect("others_closed", read(&crowd.seen.ended), 0);
    exact(report, &crowd.seen);
    memory(report, &gateway, base, 48.0)?;
    crowd.leave().await;
    Ok(())
}
