//! What it costs to be watched: metrics and the decision to trace, on and off by turns, against what a command costs in all.
//!
//! The gateway counts by handles resolved at start; this program calls the same functions in the same order as a
//! command's way does, and the same loop without them, block by block. What is between the two is the price; the
//! gateway's own CPU for a command, measured on its process, is what it is a share of.
//!
//! Two whole gateways, one of them without metrics, stand beside each other in `watched`: there the CPU of a command
//! differs from turn to turn by more than all of this costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use causeway::message::Code;
use causeway::telemetry::clock;
use causeway::telemetry::metrics::{Metrics, Outcome as Ended};
use causeway::telemetry::trace::Gate;

/// Calls in one block, and blocks of each kind.
const CALLS: u32 = 20_000;
const BLOCKS: usize = 41;

/// Nanoseconds.
pub(crate) struct Overhead {
    /// The metrics and the gate of one command.
    pub(crate) command: f64,
    /// The metrics of one event for a room, whatever its size.
    pub(crate) event: f64,
    /// The books of one client that is given it.
    pub(crate) written: f64,
    /// The gate of one message that is not traced.
    pub(crate) gate: f64,
}

/// Measures in this process, on one thread.
pub(crate) fn measure() -> Overhead {
    let metrics = Metrics::new(&["voice"]);
    let voice = metrics.dialect("voice");
    // as configured without a word, which is dearer than no tracing at all
    let gate = Gate::new(0.01);
    let command = price(|| {
        voice.received_bytes.inc_by(64);
        voice.frame_in(clock::now());
        let since = clock::now();
        black_box(gate.sample(black_box(None)));
        voice.in_flight.inc();
        voice.stage.bus.took(Duration::from_micros(100));
        voice.stage.worker.took(Duration::from_micros(50));
        voice.in_flight.dec();
        voice.command_ended(since, Ended::Done);
        let began = clock::now();
        let rendered = clock::now();
        voice.encoded(rendered - began);
        voice.written(1, 128);
        voice.stage.write.since(rendered);
    });
    let event = price(|| {
        let started = clock::now();
        let began = clock::now();
        voice.encoded(began - started);
        voice.stage.write.since(began);
        voice.delivered(&[clock::unix()]);
    });
    let written = price(|| voice.written(black_box(1), black_box(128)));
    let gate = price(|| {
        black_box(gate.sample(black_box(None)));
    });
    black_box(voice.command(Ended::Failed(Code::Busy)).count());
    Overhead {
        command,
        event,
        written,
        gate,
    }
}

/// What `work` costs beyond an empty loop: the median over blocks that take turns.
fn price(work: impl Fn()) -> f64 {
    let time = |run: &dyn Fn()| {
        let begun = Instant::now();
        for _ in 0..CALLS {
            run();
        }
        begun.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    let nothing = || {
        black_box(());
    };
    let mut prices: Vec<f64> = (0..BLOCKS).map(|_| time(&work) - time(&nothing)).collect();
    prices.sort_by(f64::total_cmp);
    prices[BLOCKS / 2].max(0.0)
}
