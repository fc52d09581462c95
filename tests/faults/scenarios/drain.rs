//! A gateway asked to end: not ready, nobody new, answers under way delivered, everybody told to come back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{caught_up, exact, read};
use crate::crowd::{Crowd, Manner};
use crate::load::Load;
use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::Report;
use crate::talk::{self, Talk};
use crate::{Outcome, PATIENCE, Scale, worker};

/// SIGTERM with many sockets.
pub(super) async fn drained(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    worker::slow(client.clone()).await?;
    let window = scale.pick(3, 8);
    let spread = format!("{window}s");
    let mut gateway = Gateway::start(&nats.url(), &[("GATEWAY_DRAIN_SPREAD", &spread)]).await?;
    let clients = scale.pick(200, 2000);
    let manner = Manner {
        comes_back: false,
        ..Manner::on(&[gateway.port], scale)
    };
    let crowd = Crowd::join(manner, clients).await?;
    let mut asks = Vec::new();
    for _ in 0..20 {
        let mut talk = Talk::open(gateway.port).await?;
        let id = talk.send("get_system_info").await?;
        asks.push((talk, id));
    }
    // the commands are with the worker
    while gateway.metric("gw_commands_in_flight").await? < 20.0 {
        sleep(Duration::from_millis(5)).await;
    }
    let base = gateway.forget_peak()?;
    gateway.terminate()?;
    let begun = Instant::now();
    while gateway.status("/readyz").await != Some(503) {
        if begun.elapsed() > PATIENCE {
            return Err("/readyz still says ready".into());
        }
    }
    report.hold(
        talk::open(gateway.port, "/events").await.is_err(),
        "a new client came in while the gateway drains",
    );
    report.figure("left_when_not_ready", clients as u64 - read(&crowd.seen.ended));
    let (mut answered, mut told) = (0, 0);
    for (mut talk, id) in asks {
        if talk.answer(&id).await.is_ok() {
            answered += 1;
        }
        if talk.closed().await? == 1001 {
            told += 1;
        }
    }
    report.answers(20, answered);
    report.expect("their_1001", told, 20);
    let peak = (gateway.peak().unwrap_or(base) - base).max(0.0).round();
    let status = gateway.ended().await?;
    crowd.ended(clients as u64).await?;
    report.figure("took_ms", begun.elapsed().as_millis());
    report.expect("closed_1001", crowd.seen.code(1001), clients as u64);
    report.expect("exit", status.code().unwrap_or(-1), 0);
    let crowding = (crowd.seen.crowding(begun, window) * 100.0).round() / 100.0;
    if scale.full {
        report.at_most("most_over_mean_per_s", crowding, 2.0);
    } else {
        // a machine that stands still for a second would be judged here, not the gateway; the shares are tested alone
        report.figure("most_over_mean_per_s", crowding);
    }
    report.figure("base_mib", base.round());
    report.at_most("peak_over_base_mib", peak, 64.0);
    report.books.peak = Some(peak);
    crowd.leave().await;
    Ok(())
}

/// One gateway after the other is replaced under load; clients move along and miss nothing.
pub(super) async fn rolling(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let settings = [("GATEWAY_DRAIN_SPREAD", "2s")];
    let mut first = Gateway::start(&nats.url(), &settings).await?;
    let mut second = Gateway::start(&nats.url(), &settings).await?;
    let third = Gateway::start(&nats.url(), &settings).await?;
    let manner = Manner {
        spread: true,
        ..Manner::on(&[first.port, second.port, third.port], scale)
    };
    let crowd = Crowd::join(manner, scale.pick(60, 300)).await?;
    let load = Load::start(client, scale.pick(50, 200), 64);
    for gateway in [&mut first, &mut second] {
        load.more(50).await?;
        gateway.terminate()?;
        let status = gateway.ended().await?;
        report.hold(status.success(), "a gateway did not exit with 0");
        crowd.greeted().await?;
    }
    caught_up(report, load, &crowd).await?;
    report.figure("moved", read(&crowd.seen.ended));
    report.expect("moved_by_1001", crowd.seen.code(1001), read(&crowd.seen.ended));
    report.expect("unrecovered", read(&crowd.seen.unrecovered), 0);
    exact(report, &crowd.seen);
    crowd.leave().await;
    Ok(())
}
