//! The table: both sides, their ratio, the target, and whether it is met.

use crate::fanout::Fanout;
use crate::idle::Idle;
use crate::overhead::Overhead;
use crate::roundtrip::Roundtrip;

/// Share of the CPU that may go into metrics and the decision to trace.
const WATCHED: f64 = 0.03;
/// Nanoseconds a message that is not traced may pay for that.
const GATE: f64 = 20.0;
/// Bytes an idle connection may hold.
const IDLE_BYTES: f64 = 6.0 * 1024.0;
/// CPU of a delivery, against nats-server's own.
const FANOUT_RATIO: f64 = 0.6;
/// Median round trip, against nats-server's own.
const ROUNDTRIP_RATIO: f64 = 1.6;

/// Prints everything found.
pub(crate) fn print(idle: &Idle, roundtrip: &Roundtrip, fanout: &Fanout) {
    head("nats-server");
    row(
        "idle memory, KB a connection",
        idle.gateway.map(|bytes| bytes / 1024.0),
        idle.nats / 1024.0,
        idle.gateway.map(|bytes| verdict("<= 6 KB", bytes <= IDLE_BYTES)),
    );
    let gateway = median(&fanout.gateway);
    let nats = median(&fanout.nats).unwrap_or(f64::NAN);
    row(
        "fan-out, us CPU a delivery",
        gateway.map(|ns| ns / 1e3),
        nats / 1e3,
        gateway.map(|ns| verdict("<= 0.6 x", ns <= FANOUT_RATIO * nats)),
    );
    let both = gateway
        .zip(median(&fanout.broker))
        .map(|(gateway, broker)| gateway + broker);
    row(
        "  with the broker's share",
        both.map(|ns| ns / 1e3),
        nats / 1e3,
        None,
    );
    let times = roundtrip.gateway.as_ref();
    row(
        "command round trip p50, us",
        times.map(|times| times.p50 / 1e3),
        roundtrip.nats.p50 / 1e3,
        times.map(|times| verdict("<= 1.6 x", times.p50 <= ROUNDTRIP_RATIO * roundtrip.nats.p50)),
    );
    row(
        "command round trip p99, us",
        times.map(|times| times.p99 / 1e3),
        roundtrip.nats.p99 / 1e3,
        None,
    );
    spread("gateway", &fanout.gateway);
    spread("nats-server", &fanout.nats);
}

/// Prints what being watched costs.
pub(crate) fn watched(overhead: &Overhead, roundtrip: &Roundtrip, fanout: &Fanout, clients: usize) {
    println!();
    println!(
        "{:<34} {:>10} {:>12} {:>8}  target",
        "", "watching", "in all", "share"
    );
    share("command, us CPU", overhead.command, roundtrip.cpu);
    // an event is counted once for all clients of a room, and for each of them when it is written
    let delivery = overhead.event / clients as f64 + overhead.written;
    share("delivery, us CPU", delivery, median(&fanout.gateway));
    let verdict = verdict("<= 20 ns", overhead.gate <= GATE);
    println!(
        "{:<34} {:>10.1} {:>12} {:>8}  {verdict}",
        "message not traced, ns", overhead.gate, "", ""
    );
}

fn share(name: &str, watching: f64, whole: Option<f64>) {
    let Some(whole) = whole else { return };
    let share = watching / whole;
    println!(
        "{name:<34} {:>10.3} {:>12.2} {:>7.2}%  {}",
        watching / 1e3,
        whole / 1e3,
        share * 100.0,
        verdict("<= 3 %", share <= WATCHED)
    );
}

/// The head of a table that compares the gateway with `other`.
pub(crate) fn head(other: &str) {
    println!();
    println!("{:<34} {:>10} {other:>12} {:>8}  target", "", "gateway", "ratio");
}

/// Every burst of one side, so that a reader sees how far they are apart.
pub(crate) fn spread(name: &str, bursts: &[f64]) {
    let bursts: Vec<_> = bursts.iter().map(|ns| format!("{:.2}", ns / 1e3)).collect();
    println!("fan-out bursts, {name}: {}", bursts.join(" "));
}

/// One line of a table.
pub(crate) fn row(name: &str, gateway: Option<f64>, other: f64, verdict: Option<String>) {
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    println!(
        "{name:<34} {:>10} {:>12} {:>8}  {}",
        cell(gateway),
        cell(Some(other)),
        cell(gateway.map(|gateway| gateway / other)),
        verdict.unwrap_or_default()
    );
}

/// A target and whether it is met.
pub(crate) fn verdict(target: &str, met: bool) -> String {
    format!("{target}: {}", if met { "pass" } else { "falls short" })
}

/// The value in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
