//! What neighbours measured before something and beside it, round by round, and what is made of it.

use std::ops::Range;

use crate::apart::Took;
use crate::report::{Report, p99};

/// How many times as long the slowest answers may take.
const BOUND: f64 = 2.0;

/// What answers took before something and beside it, by way of the gateway and past it.
pub(crate) struct Round {
    before: [f64; 2],
    beside: [f64; 2],
}

impl Round {
    pub(crate) fn new(took: &[Took], before: Range<u64>, beside: Range<u64>) -> Self {
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

/// Whether more of them are needed: what others do on the machine may be taken for the gateway's doing.
pub(crate) fn are_doubtful(rounds: &mut [Round]) -> bool {
    middle(rounds).is_some_and(|round| round.times() > BOUND)
}

/// Prints what the round in the middle took; returns how many times as long the gateway's slowest answers took, and how
/// many times as long NATS alone did.
fn print(report: &mut Report, name: &str, rounds: &mut [Round]) -> Option<[f64; 2]> {
    let Some(round) = middle(rounds) else {
        report.fail("nothing was measured".to_owned());
        return None;
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
    Some([round.times(), round.beside[1] / round.before[1]])
}

/// Prints what the round in the middle took, and in a full run holds it against the bound.
pub(crate) fn judge(report: &mut Report, name: &str, rounds: &mut [Round], full: bool) {
    let Some([times, _]) = print(report, name, rounds) else {
        return;
    };
    hold(report, name, times, full);
}

/// The same where the broker itself has the work to do on the same processors: as many times as its own answers take
/// longer is granted.
pub(crate) fn judge_beside_nats(report: &mut Report, name: &str, rounds: &mut [Round], full: bool) {
    let Some([times, nats]) = print(report, name, rounds) else {
        return;
    };
    report.figure(&format!("{name}_plain_times"), format!("{times:.2}"));
    hold(report, name, times / nats.max(1.0), full);
}

fn hold(report: &mut Report, name: &str, times: f64, full: bool) {
    let times = (times * 100.0).round() / 100.0;
    if full {
        report.at_most(&format!("{name}_times"), times, BOUND);
    } else {
        // a machine that stands still would be judged, not the gateway
        report.figure(&format!("{name}_times"), times);
    }
}
