//! Steady work for a long time: memory does not grow, and what was opened is closed again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{caught_up, exact, read};
use crate::crowd::Crowd;
use crate::load::Load;
use crate::nats::{Nats, subscriptions};
use crate::process::Gateway;
use crate::report::Report;
use crate::talk::Talk;
use crate::{Outcome, PATIENCE, Scale};

/// `FAULTS_SOAK` seconds, two minutes unless told: events, commands, and everybody coming back now and then.
pub(super) async fn soak(scale: Scale, report: &mut Report) -> Outcome<()> {
    let told = std::env::var("FAULTS_SOAK")
        .ok()
        .and_then(|text| text.parse().ok());
    let length = Duration::from_secs(told.unwrap_or(scale.pick(30, 120)).min(840));
    let (nats, monitor) = Nats::watched().await?;
    // little history in memory, so that it is full when the measurement begins
    let gateway = Gateway::start(&nats.url(), &[("EVENTS_MEMORY", "1MiB")]).await?;
    let client = nats.client().await?;
    // it stays, so that its room does
    let mut talk = Talk::open(gateway.port).await?;
    talk.ask("get_system_info").await?;
    let opened = (gateway.descriptors()?, subscriptions(monitor).await?);
    let crowd = Crowd::on(&gateway, scale, scale.pick(50, 100)).await?;
    let load = Load::start(client, 100, 256);
    let begun = Instant::now();
    let mut samples = Vec::new();
    while begun.elapsed() < length {
        for _ in 0..20 {
            talk.ask("get_system_info").await?;
        }
        sleep(Duration::from_secs(1)).await;
        if samples.len() % 10 == 9 {
            crowd.shake().await?;
            // others come and go, and so do spaces
            let mut guest = Talk::at(gateway.port, &format!("/events/guests-{}", samples.len())).await?;
            guest.wait(|frame| frame["data"]["status"] == "connected").await?;
        }
        samples.push((begun.elapsed().as_secs_f64() / 60.0, gateway.resident()?));
    }
    caught_up(report, load, &crowd).await?;
    let settled = samples.split_off(samples.len() / 2);
    let base = settled.first().map_or(0.0, |(_, mib)| *mib);
    let peak = settled.iter().map(|(_, mib)| *mib).fold(0.0, f64::max);
    report.figure("base_mib", base.round());
    report.figure("peak_over_base_mib", ((peak - base) * 10.0).round() / 10.0);
    report.books.peak = Some(peak - base);
    // what a short run calls a slope is the last of its warming up
    let bound = if length >= Duration::from_secs(300) {
        0.5
    } else {
        2.0
    };
    report.at_most(
        "slope_mib_per_min",
        (slope(&settled) * 100.0).round() / 100.0,
        bound,
    );
    report.expect("closed", read(&crowd.seen.ended), 0);
    exact(report, &crowd.seen);
    crowd.leave().await;
    // rooms wait half a minute for somebody to come back
    let begun = Instant::now();
    let left = loop {
        let now = (gateway.descriptors()?, subscriptions(monitor).await?);
        if (now.0 <= opened.0 && now.1 <= opened.1) || begun.elapsed() > PATIENCE * 2 {
            break now;
        }
        sleep(Duration::from_millis(500)).await;
    };
    report.figure("descriptors_before", opened.0);
    report.at_most("descriptors_after", left.0, opened.0);
    report.figure("subscriptions_before", opened.1);
    report.at_most("subscriptions_after", left.1, opened.1);
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
