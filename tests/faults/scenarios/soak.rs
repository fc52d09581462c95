//! Steady work for a long time: memory must not grow.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{exact, read};
use crate::crowd::{Crowd, Manner};
use crate::load::Load;
use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::Report;
use crate::talk::Talk;
use crate::{Outcome, Scale};

/// `FAULTS_SOAK` seconds, two minutes unless told: events, commands, and everybody coming back now and then.
pub(super) async fn soak(scale: Scale, report: &mut Report) -> Outcome<()> {
    let told = std::env::var("FAULTS_SOAK")
        .ok()
        .and_then(|text| text.parse().ok());
    let length = Duration::from_secs(told.unwrap_or(scale.pick(30, 120)).min(840));
    let nats = Nats::start().await?;
    // little history in memory, so that it is full when the measurement begins
    let gateway = Gateway::start(&nats.url(), &[("EVENTS_MEMORY", "1MiB")]).await?;
    let manner = Manner {
        ports: vec![gateway.port],
        comes_back: true,
        spread: false,
        seed: scale.seed,
    };
    let crowd = Crowd::join(manner, scale.pick(50, 100)).await?;
    let load = Load::start(nats.client().await?, 100, 256);
    let mut talk = Talk::open(gateway.port).await?;
    let begun = Instant::now();
    let mut samples = Vec::new();
    while begun.elapsed() < length {
        for _ in 0..20 {
            talk.ask("get_system_info").await?;
        }
        sleep(Duration::from_secs(1)).await;
        if samples.len() % 10 == 9 {
            crowd.shake().await?;
        }
        samples.push((begun.elapsed().as_secs_f64() / 60.0, gateway.resident()?));
    }
    let last = load.stop().await?;
    report.books.sent = Some(last);
    crowd.reach(last).await?;
    let settled = samples.split_off(samples.len() / 2);
    let base = settled.first().map_or(0.0, |(_, mib)| *mib);
    report.figure("base_mib", base.round());
    report.at_most(
        "slope_mib_per_min",
        (slope(&settled) * 100.0).round() / 100.0,
        2.0,
    );
    report.expect("closed", read(&crowd.seen.ended), 0);
    exact(report, &crowd.seen);
    crowd.leave().await;
    Ok(())
}

/// Least squares.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let (sum_x, sum_y) = samples
        .iter()
        .fold((0.0, 0.0), |(x, y), sample| (x + sample.0, y + sample.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (above, below) = samples.iter().fold((0.0, 0.0), |(above, below), (x, y)| {
        (above + (x - mean_x) * (y - mean_y), below + (x - mean_x).powi(2))
    });
    if below == 0.0 { 0.0 } else { above / below }
}
