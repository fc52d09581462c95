//! `make bench`: the gateway beside those who do the same work, same machine, same run, same client.
//!
//! Three questions: what one delivery costs when a thousand clients hear every event, how long a
//! command takes there and back, and what an idle connection holds. This process is client, worker
//! and publisher; the servers are processes of their own, so that their CPU and memory are theirs.
//! The client's WebSocket code is its own and shares nothing with the gateway's. Each part compares with another
//! server and prints its own table; `--part` picks some.
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

mod bare;
mod cad;
mod fanout;
mod idle;
mod nats;
mod nats_part;
mod overhead;
mod report;
mod roundtrip;
mod servers;
mod socket;
mod socketio;
mod tcp;
mod watched;

use clap::Parser;

/// Everything fails into this: a benchmark that cannot run says why and ends.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The space all bench clients are in.
pub(crate) const SPACE: &str = "bench";

/// What to measure and how much of it.
#[derive(Clone, Debug, Parser)]
#[command(about = "Measures the gateway beside other servers")]
pub(crate) struct Plan {
    /// Clients that hear every event.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Events in one burst.
    #[arg(long, default_value_t = 300)]
    events: u64,
    /// Events a second within a burst.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Bursts on each side, by turns.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Commands on each side, in blocks by turns.
    #[arg(long, default_value_t = 3000)]
    calls: u64,
    /// Idle connections on each side.
    #[arg(long, default_value_t = 4000)]
    idle: usize,
    /// Leaves the gateway out.
    #[arg(long)]
    nats_only: bool,
    /// Only this part; may be repeated.
    #[arg(long)]
    part: Vec<String>,
    /// Is the process that only writes, for clients told by this NATS.
    #[arg(long, hide = true)]
    bare: Option<String>,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Plan {
    /// Whether a part is to be measured.
    fn has(&self, part: &str) -> bool {
        self.part.is_empty() || self.part.iter().any(|asked| asked == part)
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Outcome<()> {
    let plan = Plan::parse();
    if let Some(nats) = &plan.bare {
        return bare::serve(nats).await;
    }
    servers::raise_descriptor_limit(plan.idle.max(plan.clients) as u64 + 512)?;
    println!(
        "{} clients hear {} x {} events at {}/s; {} commands; {} idle connections",
        plan.clients, plan.repeats, plan.events, plan.rate, plan.calls, plan.idle
    );
    // one line a part: each starts servers of its own, so that none finds the heaps of another
    if plan.has("nats") {
        nats_part::run(&plan).await?;
    }
    if plan.has("socketio") {
        socketio::run(&plan).await?;
    }
    if plan.has("tcp") {
        tcp::run(&plan).await?;
    }
    if plan.has("cad") {
        cad::run(&plan).await?;
    }
    if plan.has("watched") {
        watched::run(&plan).await?;
    }
    Ok(())
}
