//! The scenarios by name, and what several of them share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::crowd::{Crowd, Seen, Tally};
use crate::load::Load;
use crate::process::Gateway;
use crate::report::Report;
use crate::{Outcome, Scale};

mod bodies;
mod broker;
mod cluster;
mod drain;
mod gateways;
mod history;
mod idlers;
mod slow;
mod soak;
mod start;
mod storm;
mod workers;

/// One way to break things.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Which demand on gateways it answers; deploy/docs/promises.md says which do not apply.
    pub(crate) row: &'static str,
    /// Whether `make test` runs it too.
    pub(crate) short: bool,
    pub(crate) within: Duration,
    pub(crate) run: Run,
}

type Run = for<'a> fn(Scale, &'a mut Report) -> BoxFuture<'a, Outcome<()>>;

const fn scenario(name: &'static str, row: &'static str, short: bool, seconds: u64, run: Run) -> Scenario {
    Scenario {
        name,
        row,
        short,
        within: Duration::from_secs(seconds),
        run,
    }
}

/// In the order they run.
pub(crate) const ALL: &[Scenario] = &[
    scenario("nats_killed_1s", "C13", true, 120, |scale, report| {
        Box::pin(broker::killed(scale, report, Duration::from_secs(1)))
    }),
    scenario("nats_killed_5s", "C13", false, 120, |scale, report| {
        Box::pin(broker::killed(scale, report, Duration::from_secs(5)))
    }),
    scenario("nats_killed_30s", "C13", false, 180, |scale, report| {
        Box::pin(broker::killed(scale, report, Duration::from_secs(30)))
    }),
    scenario("nats_paused_10s", "C14", false, 180, |scale, report| {
        Box::pin(broker::paused(scale, report))
    }),
    scenario("network_cut", "C14", true, 120, |scale, report| {
        Box::pin(broker::cut(scale, report))
    }),
    scenario("network_silent", "C14", false, 180, |scale, report| {
        Box::pin(broker::silent(scale, report))
    }),
    scenario("network_lossy", "C14", false, 240, |scale, report| {
        Box::pin(broker::lossy(scale, report))
    }),
    scenario("worker_killed", "C17", true, 120, |scale, report| {
        Box::pin(workers::killed(scale, report))
    }),
    scenario("worker_hung", "C17", false, 240, |scale, report| {
        Box::pin(workers::hung(scale, report))
    }),
    scenario("worker_crowded", "D24", true, 180, |scale, report| {
        Box::pin(workers::crowded(scale, report))
    }),
    scenario("stream_purged", "C15", true, 120, |scale, report| {
        Box::pin(history::purged(scale, report))
    }),
    scenario("stream_recreated", "C15", false, 120, |scale, report| {
        Box::pin(history::recreated(scale, report))
    }),
    scenario("cluster_nodes_killed", "C13", false, 240, |scale, report| {
        Box::pin(cluster::killed(scale, report))
    }),
    scenario("gateway_killed", "C16", true, 240, |scale, report| {
        Box::pin(gateways::killed(scale, report))
    }),
    scenario("reconnect_storm", "C19", true, 400, |scale, report| {
        Box::pin(storm::storm(scale, report))
    }),
    scenario("recovery_storm_rounds", "C20", true, 400, |scale, report| {
        Box::pin(gateways::rounds(scale, report))
    }),
    scenario("rolling_restart", "C18", false, 240, |scale, report| {
        Box::pin(drain::rolling(scale, report))
    }),
    scenario("drain", "C18", true, 240, |scale, report| {
        Box::pin(drain::drained(scale, report))
    }),
    scenario("stalled_reader", "D23", true, 180, |scale, report| {
        Box::pin(slow::stalled(scale, report))
    }),
    scenario("drop_oldest", "D23", true, 120, |scale, report| {
        Box::pin(slow::drop_oldest(scale, report))
    }),
    scenario("conflate", "D23", true, 120, |scale, report| {
        Box::pin(slow::conflated(scale, report))
    }),
    scenario("stalled_neighbours", "D23", false, 240, |scale, report| {
        Box::pin(slow::neighbours(scale, report))
    }),
    scenario("large_bodies", "B11", false, 400, |scale, report| {
        Box::pin(bodies::large(scale, report))
    }),
    scenario("slow_heads", "D25", false, 240, |scale, report| {
        Box::pin(idlers::slow_heads(scale, report))
    }),
    scenario("no_pong", "D26", true, 120, |scale, report| {
        Box::pin(idlers::no_pong(scale, report))
    }),
    scenario("before_nats", "C22", false, 240, |scale, report| {
        Box::pin(start::before_nats(scale, report))
    }),
    scenario("clock_jumps", "C22", false, 120, |scale, report| {
        Box::pin(start::clock(scale, report))
    }),
    scenario("disk_full", "C22", false, 180, |scale, report| {
        Box::pin(start::disk_full(scale, report))
    }),
    scenario("soak", "B12", false, 900, |scale, report| {
        Box::pin(soak::soak(scale, report))
    }),
];

fn read(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

/// What every scenario promises: nothing missing, nothing twice.
fn exact(report: &mut Report, seen: &Seen) {
    accounted(report, &seen.tally());
}

/// The same of a crowd in another process.
fn accounted(report: &mut Report, seen: &Tally) {
    report.figure("events", seen.events);
    report.expect("gaps", seen.gaps, 0);
    report.expect("repeats", seen.repeats, 0);
    report.books.received = Some(seen.events);
    report.books.gaps = Some(seen.gaps);
    report.books.repeats = Some(seen.repeats);
    let silent = seen.gaps.saturating_sub(seen.announced);
    report.books.silent = Some(report.books.silent.unwrap_or(0) + silent);
}

/// Ends the load, and waits until everybody has all of it.
async fn caught_up(report: &mut Report, load: Load, crowd: &Crowd) -> Outcome<()> {
    let last = load.stop().await?;
    report.books.sent = Some(last);
    crowd.reach(last).await
}

/// Peak over base, in MiB.
fn memory(report: &mut Report, gateway: &Gateway, base: f64, bound: f64) -> Outcome<()> {
    let peak = (gateway.peak()? - base).max(0.0).round();
    report.figure("base_mib", base.round());
    report.at_most("peak_over_base_mib", peak, bound);
    report.books.peak = Some(peak);
    Ok(())
}
