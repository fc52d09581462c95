//! Everybody of one gateway comes to another at once: nobody loses anything, and who is there already hardly notices.

use std::time::Duration;

use tokio::time::sleep;

use super::accounted;
use crate::apart::{FarCrowd, Neighbours};
use crate::crowd::Manner;
use crate::load::{Load, micros};
use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::Report;
use crate::rounds::{self, Round};
use crate::{Outcome, Scale};

/// Storms after which it is judged; where others keep the machine busy, there are more of them first.
const STORMS: u64 = 7;

/// A gateway dies and all its clients come to the other, where others ask all the time. Then the dead one is back, and
/// the other dies.
pub(super) async fn storm(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let mut leaving = Gateway::start(&nats.url(), &[]).await?;
    let mut taking = Gateway::start(&nats.url(), &[]).await?;
    let clients = scale.pick(200, 2000);
    let manner = Manner::on(&[leaving.port, taking.port], scale);
    let mut crowd = FarCrowd::join(manner, clients).await?;
    let load = Load::start(nats.client().await?, 20, 64);
    let (mut beside, mut settled) = (Vec::new(), Vec::new());
    let (mut slowest, mut peak) = (0, 0.0_f64);
    let mut storms = 0;
    loop {
        let doubtful = |rounds: &mut [Round]| rounds::are_doubtful(rounds);
        let more = doubtful(&mut beside) || doubtful(&mut settled);
        if storms >= scale.pick(2, if more { 3 * STORMS } else { STORMS }) {
            break;
        }
        storms += 1;
        // growing it later would stop the thread that accepts, each time for longer than all the handshakes it holds up
        report.hold(
            taking.descriptor_slots()? >= clients,
            "the table of descriptors grows while clients come",
        );
        load.more(20).await?;
        let base = taking.forget_peak()?;
        let neighbours = Neighbours::start(taking.port, nats.url()).await?;
        let calm = Duration::from_millis(scale.pick(300, 2000));
        sleep(calm).await;
        let cut = micros();
        leaving.kill()?;
        crowd.ended(clients as u64 * storms).await?;
        // the last few wait for a lost packet of their own
        let most = crowd.greeted_but(clients / 20).await?.at;
        let back = crowd.greeted_but(0).await?.at;
        sleep(calm).await;
        let took = neighbours.end().await?;
        beside.push(Round::new(&took, 0..cut, cut..most));
        settled.push(Round::new(&took, 0..cut, back..u64::MAX));
        slowest = slowest.max((back - cut) / 1000);
        peak = peak.max((taking.peak()? - base).round());
        leaving.restart().await?;
        std::mem::swap(&mut leaving, &mut taking);
    }
    report.figure("clients", clients);
    report.figure("storms", storms);
    report.figure("slowest_all_back_ms", slowest);
    rounds::judge(report, "storm", &mut beside, scale.full);
    rounds::judge(report, "settled", &mut settled, scale.full);
    let last = load.stop().await?;
    report.books.sent = Some(last);
    let seen = crowd.reach(last).await?;
    report.expect("unrecovered", seen.unrecovered, 0);
    report.figure("handshakes_failed", seen.refused);
    accounted(report, &seen);
    report.at_most("peak_over_base_mib", peak, scale.pick(32.0, 160.0));
    report.books.peak = Some(peak);
    Ok(())
}
