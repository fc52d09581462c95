//! Everybody of one gateway comes to another at once: nobody loses anything, and who is there already hardly notices.

use std::ops::Range;
use std::time::Duration;

use tokio::time::sleep;

use super::accounted;
use crate::apart::{FarCrowd, Neighbours, Took};
use crate::crowd::Manner;
use crate::load::{Load, micros};
use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::{Report, p99};
use crate::{Outcome, Scale};

/// How many times as long the slowest answers may take.
const BOUND: f64 = 2.0;
/// Storms after which it is judged; where others keep the machine busy, there are more of them first.
const STORMS: u64 = 7;

/// What answers took before something and beside it, by way of the gateway and past it.
struct Round {
    before: [f64; 2],
    beside: [f64; 2],
}

impl Round {
    fn new(took: &[Took], before: Range<u64>, beside: Range<u64>) -> Self {
        let slowest = |when: &Range<u64>, direct: bool| {
            let when = took
                .iter()
                .filter(|took| took.direct == direct && when.contains(&took.at));
            let mut took: Vec<u64> = when.map(|took| took.took).collect();
            (p99(&mut took) as f64 / 1000.0).max(0.1)
        };
        let both = |when: Range<u64>| [slowest(&when, false), slowest(&when, true)];
        Self {
            before: both(before),
            beside: both(beside),
        }
    }

    /// How many times as long the gateway's slowest answers take. What NATS alone took beside it tells the reader how
    /// busy the machine was; nothing is granted for it.
    fn times(&self) -> f64 {
        self.beside[0] / self.before[0]
    }
}

/// The round in the middle: a pause of the machine falls into one of them.
fn middle(rounds: &mut [Round]) -> Option<&Round> {
    rounds.sort_by(|one, other| one.times().total_cmp(&other.times()));
    rounds.get(rounds.len() / 2)
}

fn judge(report: &mut Report, name: &str, rounds: &mut [Round], full: bool) {
    let Some(round) = middle(rounds) else {
        return report.fail("nothing was measured".to_owned());
    };
    for (way, who) in ["", "_nats"].iter().enumerate() {
        report.figure(
            &format!("before_{name}_p99_ms{who}"),
            format!("{:.1}", round.before[way]),
        );
        report.figure(
            &format!("{name}_p99_ms{who}"),
            format!("{:.1}", round.beside[way]),
        );
    }
    let times = (round.times() * 100.0).round() / 100.0;
    if full {
        report.at_most(&format!("{name}_times"), times, BOUND);
    } else {
        // a machine that stands still would be judged, not the gateway
        report.figure(&format!("{name}_times"), times);
    }
}

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
        let doubtful = |rounds: &mut [Round]| middle(rounds).is_some_and(|round| round.times() > BOUND);
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
    judge(report, "storm", &mut beside, scale.full);
    judge(report, "settled", &mut settled, scale.full);
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
