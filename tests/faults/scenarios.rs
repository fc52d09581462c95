//! The scenarios by name, and what several of them share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::crowd::Seen;
use crate::process::Gateway;
use crate::report::Report;
use crate::{Outcome, Scale};

mod broker;
mod cluster;
mod drain;
mod gateways;
mod history;
mod slow;
mod soak;

/// One way to break things.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Whether `make test` runs it too.
    pub(crate) short: bool,
    pub(crate) within: Duration,
    pub(crate) run: Run,
}

type Run = for<'a> fn(Scale, &'a mut Report) -> BoxFuture<'a, Outcome<()>>;

const fn scenario(name: &'static str, short: bool, seconds: u64, run: Run) -> Scenario {
    Scenario {
        name,
        short,
        within: Duration::from_secs(seconds),
        run,
    }
}

/// In the order they run.
pub(crate) const ALL: &[Scenario] = &[
    scenario("nats_killed_1s", true, 120, |scale, report| {
        Box::pin(broker::killed(scale, report, Duration::from_secs(1)))
    }),
    scenario("nats_killed_5s", false, 120, |scale, report| {
        Box::pin(broker::killed(scale, report, Duration::from_secs(5)))
    }),
    scenario("nats_killed_30s", false, 180, |scale, report| {
        Box::pin(broker::killed(scale, report, Duration::from_secs(30)))
    }),
    scenario("nats_paused_10s", false, 180, |scale, report| {
        Box::pin(broker::paused(scale, report))
    }),
    scenario("network_cut", true, 120, |scale, report| {
        Box::pin(broker::cut(scale, report))
    }),
    scenario("network_silent", false, 180, |scale, report| {
        Box::pin(broker::silent(scale, report))
    }),
    scenario("stream_purged", true, 120, |scale, report| {
        Box::pin(history::purged(scale, report))
    }),
    scenario("stream_recreated", true, 120, |scale, report| {
        Box::pin(history::recreated(scale, report))
    }),
    scenario("cluster_nodes_killed", false, 240, |scale, report| {
        Box::pin(cluster::killed(scale, report))
    }),
    scenario("gateway_killed", true, 240, |scale, report| {
        Box::pin(gateways::killed(scale, report))
    }),
    scenario("reconnect_storm", true, 240, |scale, report| {
        Box::pin(gateways::storm(scale, report))
    }),
    scenario("recovery_storm_rounds", true, 400, |scale, report| {
        Box::pin(gateways::rounds(scale, report))
    }),
    scenario("rolling_restart", false, 240, |scale, report| {
        Box::pin(drain::rolling(scale, report))
    }),
    scenario("drain", true, 240, |scale, report| {
        Box::pin(drain::drained(scale, report))
    }),
    scenario("stalled_reader", true, 180, |scale, report| {
        Box::pin(slow::stalled(scale, report))
    }),
    scenario("drop_oldest", true, 120, |scale, report| {
        Box::pin(slow::drop_oldest(scale, report))
    }),
    scenario("soak", false, 900, |scale, report| {
        Box::pin(soak::soak(scale, report))
    }),
];

fn read(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

/// What every scenario promises: nothing missing, nothing twice.
fn exact(report: &mut Report, seen: &Seen) {
    report.figure("events", read(&seen.events));
    report.expect("gaps", read(&seen.gaps), 0);
    report.expect("repeats", read(&seen.repeats), 0);
}

/// Peak over base, in MiB.
fn memory(report: &mut Report, gateway: &Gateway, base: f64, bound: f64) -> Outcome<()> {
    let peak = (gateway.peak()? - base).max(0.0).round();
    report.figure("base_mib", base.round());
    report.at_most("peak_over_base_mib", peak, bound);
    Ok(())
}
