//! Models of 60 MiB while others talk: small messages do not wait behind them, viewers share one copy, a killed NATS
//! leaves no half of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::apart::{FarPages, Neighbours};
use crate::models::{Viewer, all, show, shown};
use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::Report;
use crate::rounds::{self, Round};
use crate::talk::Talk;
use crate::{Outcome, PATIENCE, Scale, worker};

/// Bytes that are no model: the answer to the handshake, pings, small states.
const SMALL: u64 = 64 << 10;
/// Models after which it is judged; where others keep the machine busy, there are more of them first.
const ROUNDS: u64 = 5;
/// Clients that ask small things while NATS dies.
const TALKERS: usize = 4;

/// How many commands were refused while something went on.
async fn asking(port: u16, during: impl Future<Output = Outcome<()>>) -> Outcome<u64> {
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for _ in 0..TALKERS {
        let over = over.clone();
        tasks.spawn(async move {
            let mut talk = Talk::aside(port).await?;
            let (mut asked, mut refused) = (0, 0);
            while !over.load(Ordering::Relaxed) || asked < 20 {
                asked += 1;
                let (answer, _) = talk.ask("get_system_info").await?;
                refused += u64::from(answer["type"] == "error");
                sleep(Duration::from_millis(5)).await;
            }
            Outcome::Ok(refused)
        });
    }
    let ended = during.await;
    over.store(true, Ordering::Relaxed);
    let mut refused = 0;
    while let Some(task) = tasks.join_next().await {
        refused += task??;
    }
    ended.map(|()| refused)
}

pub(super) async fn large(scale: Scale, report: &mut Report) -> Outcome<()> {
    let mut nats = Nats::start().await?;
    worker::quick(nats.client().await?).await?;
    // viewers that only count answer no pings
    let gateway = Gateway::start(&nats.url(), &[("WEBSOCKET_PING", "10m")]).await?;
    let (port, size) = (gateway.port, scale.pick(4 << 20, 60 << 20));
    let mut pages = FarPages::start(port, size).await?;
    let base = gateway.forget_peak()?;
    let mut beside = Vec::new();
    let mut peaks = Vec::new();
    let (mut sent, mut shows) = (0, 0);
    for count in [1, 10] {
        pages.come(count).await?;
        let mut done = 0;
        loop {
            let more = rounds::are_doubtful(&mut beside);
            if done >= scale.pick(1, if more { 3 * ROUNDS } else { ROUNDS }) {
                break;
            }
            done += 1;
            let neighbours = Neighbours::start(port, nats.url()).await?;
            sleep(Duration::from_secs(2)).await;
            let shown = pages.show().await?;
            beside.push(Round::new(&neighbours.end().await?, 0..shown.start, shown));
            sent += 1;
            shows += count as u64;
        }
        rounds::judge_beside_nats(report, &format!("{count}_viewers"), &mut beside, scale.full);
        beside.clear();
        peaks.push((gateway.peak()? - base).round());
        gateway.forget_peak()?;
    }
    for stage in ["decode", "encode", "write"] {
        let labels = format!("cad {stage}");
        let seconds = gateway.labelled("gw_stage_duration_seconds_sum", &labels).await?;
        report.figure(
            &format!("{stage}_ms_each"),
            (seconds * 1000.0 / sent as f64).round(),
        );
    }
    report.figure("peak_mib_1_viewer", peaks[0]);
    report.figure("peak_mib_10_viewers", peaks[1]);
    // nine more viewers: no more than what one more model takes
    let model = (size >> 20) as f64;
    report.hold(
        peaks[1] - peaks[0] <= model + 32.0,
        "memory grows with the number of viewers",
    );
    report.books.peak = Some(peaks[1].max(peaks[0]));

    // NATS dies in the middle of one
    drop(pages);
    let mut viewers = Vec::new();
    for _ in 0..10 {
        viewers.push(Viewer::come(port).await?);
    }
    shown(&viewers, &[0; 10], size as u64).await?;
    let before = all(&viewers);
    let refused = asking(port, async {
        show(port, size, async { nats.kill() }).await?;
        sleep(Duration::from_secs(1)).await;
        nats.restart().await?;
        let begun = Instant::now();
        while gateway.status("/readyz").await != Some(200) {
            if begun.elapsed() > PATIENCE {
                return Err("the gateway does not find NATS again".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    })
    .await?;
    report.figure("refused_meanwhile", refused);
    report.hold(refused > 0, "NATS was not away");
    show(port, size, async { Ok(()) }).await?;
    shown(&viewers, &before, size as u64).await?;
    sleep(Duration::from_secs(2)).await;
    for (viewer, before) in viewers.iter().zip(&before) {
        let rest = (viewer.got() - before) % (size as u64);
        report.hold(
            rest < SMALL,
            &format!("a viewer got {rest} bytes of a model and not the rest"),
        );
    }
    report.books.sent = Some(sent + 1);
    report.books.received = Some(shows + 10);
    Ok(())
}
