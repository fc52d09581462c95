//! The gateway beside nats-server's own WebSocket.

use crate::servers::Servers;
use crate::{Outcome, Plan, fanout, idle, overhead, report, roundtrip};

/// Measures and prints.
pub(crate) async fn run(plan: &Plan) -> Outcome<()> {
    let servers = Servers::start(plan).await?;
    println!("nats-server: idle connections ...");
    // memory first: later loads leave room in both heaps that idle connections would then fill for free
    let idle = idle::measure(plan, &servers).await?;
    println!("nats-server: commands ...");
    let roundtrip = roundtrip::measure(plan, &servers).await?;
    println!("nats-server: fan-out ...");
    let fanout = fanout::measure(plan, &servers).await?;
    println!("metrics on and off ...");
    let overhead = overhead::measure();
    report::print(&idle, &roundtrip, &fanout);
    report::watched(&overhead, &roundtrip, &fanout, plan.clients);
    Ok(())
}
