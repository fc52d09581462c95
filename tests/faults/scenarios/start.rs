//! A start before NATS can be found, a clock that jumps, a disk that is full: said clearly, waited for, survived.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{caught_up, exact, memory, read};
use crate::crowd::Crowd;
use crate::load::Load;
use crate::nats::Nats;
use crate::process::{Gateway, free_port};
use crate::report::Report;
use crate::small_disk::SmallDisk;
use crate::talk::Talk;
use crate::{Outcome, PATIENCE, Scale, worker};

/// A name that does not resolve, and a server that starts after the gateway.
pub(super) async fn before_nats(scale: Scale, report: &mut Report) -> Outcome<()> {
    let port = free_port()?;
    // too long for any name server to be asked
    let nowhere = format!("nats://{}:4222", "n".repeat(64));
    let mut gateway = Gateway::spawn(&format!("{nowhere},nats://127.0.0.1:{port}"), &[])?;
    let begun = Instant::now();
    while !gateway.log().contains("waiting for NATS") {
        if let Some(status) = gateway.exited()? {
            return Err(format!("it ended with {status}:\n{}", gateway.log()).into());
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("it does not say what it waits for:\n{}", gateway.log()).into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    report.expect("livez", gateway.status("/livez").await.unwrap_or(0), 200);
    report.expect("readyz", gateway.status("/readyz").await.unwrap_or(0), 503);
    report.hold(
        gateway.log().contains(&format!("127.0.0.1:{port}")),
        "the log does not name the address",
    );
    report.hold(
        gateway.log().lines().count() < 30,
        "the log is flooded while it waits",
    );
    let nats = Nats::start_at(port).await?;
    gateway.ready().await?;
    let crowd = Crowd::on(&gateway, scale, 20).await?;
    let load = Load::start(nats.client().await?, 50, 64);
    load.more(50).await?;
    caught_up(report, load, &crowd).await?;
    exact(report, &crowd.seen);
    crowd.leave().await;
    // and whoever ends it while it waits need not wait with it
    let mut waiting = Gateway::spawn(&nowhere, &[])?;
    while waiting.status("/livez").await != Some(200) {
        if begun.elapsed() > PATIENCE * 2 {
            return Err("a waiting gateway does not answer its probe".into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    waiting.terminate()?;
    let status = waiting.ended().await?;
    report.expect("exit", status.code().unwrap_or(-1), 0);
    Ok(())
}

/// The gateway's clock jumps an hour ahead, then two back: order, history and deadlines do not depend on it.
pub(super) async fn clock(scale: Scale, report: &mut Report) -> Outcome<()> {
    let Some(library) = faketime() else {
        report.skip("libfaketime is not installed (apt-get install libfaketime): the clock was not moved");
        return Ok(());
    };
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    worker::slow(client.clone()).await?;
    let now = crate::process::Scratch::new()?;
    let file = now.0.join("now");
    let set = |offset: &str| std::fs::write(&file, offset);
    set("+0")?;
    let shift = file.to_string_lossy().into_owned();
    let environment = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", &*shift),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let mut gateway = Gateway::spawn_in(&nats.url(), &[], &environment)?;
    gateway.ready().await?;
    let crowd = Crowd::on(&gateway, scale, scale.pick(20, 100)).await?;
    let mut talk = Talk::open(gateway.port).await?;
    let load = Load::start(client, 50, 64);
    let base = gateway.forget_peak()?;
    let (mut asked, mut answered) = (0, 0);
    let mut stamps = Vec::new();
    for offset in ["+0", "+3600", "-3600", "+0"] {
        set(offset)?;
        load.more(50).await?;
        for _ in 0..2 {
            let (answer, _) = talk.ask("get_system_info").await?;
            asked += 1;
            answered += u64::from(answer["type"] != "error");
            stamps.push(answer["timestamp"].as_str().unwrap_or_default().to_owned());
        }
        crowd.shake().await?;
    }
    // the stamps of answers are the gateway's clock: proof that it did jump
    let ahead = stamps.get(2).cloned().unwrap_or_default();
    report.hold(
        stamps.last().is_some_and(|last| *last < ahead),
        &format!("the clock did not jump: {stamps:?}"),
    );
    report.answers(asked, answered);
    caught_up(report, load, &crowd).await?;
    report.expect("closed", read(&crowd.seen.ended), 0);
    report.expect("unrecovered", read(&crowd.seen.unrecovered), 0);
    exact(report, &crowd.seen);
    memory(report, &gateway, base, 32.0)?;
    crowd.leave().await;
    Ok(())
}

fn faketime() -> Option<&'static str> {
    [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
}

/// JetStream has no room left to write: sockets stay, commands are answered, what was confirmed comes when there is room.
pub(super) async fn disk_full(scale: Scale, report: &mut Report) -> Outcome<()> {
    let Some(disk) = SmallDisk::new(24)? else {
        report.skip("this system lets nobody mount a small disk of his own: none was filled");
        return Ok(());
    };
    let mut nats = Nats::start_on(&disk).await?;
    let client = nats.client().await?;
    worker::slow(client.clone()).await?;
    let gateway = Gateway::start(&nats.url(), &[]).await?;
    let crowd = Crowd::on(&gateway, scale, 20).await?;
    let mut talk = Talk::aside(gateway.port).await?;
    let load = Load::start(client, 50, 16 << 10);
    load.more(50).await?;
    let base = gateway.forget_peak()?;
    disk.fill()?;
    let begun = Instant::now();
    let mut stored = load.stored();
    loop {
        // two seconds without one that is taken
        sleep(Duration::from_secs(2)).await;
        let now = load.stored();
        if now == stored {
            break;
        }
        stored = now;
        if begun.elapsed() > PATIENCE {
            return Err("the disk does not become full".into());
        }
    }
    report.figure("stored_when_full", stored);
    // a server of this age stands still when its disk is full: then commands are refused, and never lost
    let (mut done, mut refused) = (0, 0);
    for _ in 0..5 {
        let (answer, _) = talk.ask("get_system_info").await?;
        match answer["data"]["code"].as_str() {
            None => done += 1,
            Some("bus_down" | "timeout") => refused += 1,
            Some(_) => {}
        }
        sleep(Duration::from_secs(2)).await;
    }
    report.figure("readyz_full", gateway.status("/readyz").await.unwrap_or(0));
    report.expect("livez", gateway.status("/livez").await.unwrap_or(0), 200);
    disk.free()?;
    // a server that ran out of room stops its streams until it is started again
    nats.kill()?;
    nats.restart().await?;
    load.more(50).await?;
    report.figure("done", done);
    report.figure("refused", refused);
    report.answers(5, done + refused);
    caught_up(report, load, &crowd).await?;
    report.expect("closed", read(&crowd.seen.ended), 0);
    exact(report, &crowd.seen);
    memory(report, &gateway, base, 48.0)?;
    crowd.leave().await;
    Ok(())
}
