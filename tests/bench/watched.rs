//! What it costs to be watched, on whole gateways: one that counts and decides about traces, one that does neither.
//!
//! They stand side by side before the same NATS and take turns with the same short loads, so that whatever else the
//! machine does meets all alike. A third one is set up as the first: how far these two are apart is what the
//! comparison cannot tell. What the counting itself takes, `overhead` measures apart from all that.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::fanout::{Tally, arrived, deliveries, hear_gateway, send};
use crate::report::{median, verdict};
use crate::roundtrip::{ask_gateway, worker};
use crate::servers::{Server, Servers};
use crate::socket::Socket;
use crate::{Outcome, Plan};

/// Share of the CPU that may go into metrics and the decision to trace.
const WATCHED: f64 = 0.03;
/// Rounds of turns: many short ones, since a machine's mood lasts longer than a turn and so meets all in a round alike.
const ROUNDS: usize = 400;
/// Clients of each gateway that ask at once, and commands of each in one turn.
const CALLERS: usize = 16;
const CALLS: u64 = 10;

/// Whose turn it is.
const ON: usize = 0;
const OFF: usize = 1;
const ALIKE: usize = 2;

/// A collector is named, so that each message's gate is asked; at this ratio none is ever traced.
const WATCHING: [(&str, &str); 2] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
    ("GW_TRACE_RATIO", "0.000000000001"),
];
const UNWATCHED: [(&str, &str); 2] = [("GW_OPS_METRICS", "false"), ("GW_TRACE_RATIO", "0")];

/// A gateway, its clients, and what they cost it.
struct Side {
    server: Server,
    callers: Vec<Socket>,
    tally: Arc<Tally>,
    subject: String,
    sent: u64,
    asked: u64,
    /// Nanoseconds of CPU for each command and for each delivery, one entry a round.
    commands: Vec<f64>,
    deliveries: Vec<f64>,
}

/// Measures and prints.
pub(crate) async fn run(plan: &Plan) -> Outcome<()> {
    let plan = Plan {
        clients: 300.min(plan.clients),
        events: 10,
        rate: 400,
        nats_only: true,
        ..plan.clone()
    };
    let servers = Servers::start(&plan).await?;
    println!("watched: three gateways by turns ...");
    let worker = tokio::spawn(worker(async_nats::connect(&servers.url).await?));
    let publisher = async_nats::connect(&servers.url).await?;
    let mut tasks = JoinSet::new();
    let mut sides = Vec::new();
    for (nth, settings) in [WATCHING, UNWATCHED, WATCHING].iter().enumerate() {
        let server = servers.gateway(&format!("gateway-{nth}"), settings).await?;
        sides.push(Side::open(&plan, server, nth, &mut tasks).await?);
    }
    for side in &mut sides {
        side.is_served().await?;
    }
    // greetings are no deliveries
    sleep(Duration::from_secs(1)).await;
    // the first round warms up
    for round in 0..=ROUNDS {
        // everybody is as often the first
        for turn in 0..sides.len() {
            let nth = (round + turn) % sides.len();
            let Some(side) = sides.get_mut(nth) else { continue };
            let command = side.ask().await?;
            let delivery = side.deliver(&plan, &publisher, &mut tasks).await?;
            if round > 0 {
                side.commands.push(command);
                side.deliveries.push(delivery);
            }
        }
    }
    for side in &sides {
        side.tally.exact("a gateway")?;
    }
    worker.abort();
    print(&sides);
    Ok(())
}

impl Side {
    async fn open(
        plan: &Plan,
        server: Server,
        nth: usize,
        tasks: &mut JoinSet<Outcome<()>>,
    ) -> Outcome<Self> {
        let tally = Arc::<Tally>::default();
        for _ in 0..plan.clients {
            let client = Socket::open(server.websocket, &format!("/events/heard-{nth}")).await?;
            tasks.spawn(hear_gateway(client, tally.clone()));
        }
        let asking = format!("/events/asking-{nth}");
        let mut callers = Vec::with_capacity(CALLERS);
        for _ in 0..CALLERS {
            callers.push(Socket::open(server.websocket, &asking).await?);
        }
        Ok(Self {
            server,
            callers,
            tally,
            subject: format!("gw.v1.evt.heard-{nth}.voice.bench"),
            sent: 0,
            asked: 0,
            commands: Vec::new(),
            deliveries: Vec::new(),
        })
    }

    /// Returns when the worker answers through this gateway.
    async fn is_served(&mut self) -> Outcome<()> {
        let Some(caller) = self.callers.first_mut() else {
            return Ok(());
        };
        for _ in 0..100 {
            if ask_gateway(caller, 0).await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err("the bench worker does not answer".into())
    }

    /// One turn of commands; what each cost.
    async fn ask(&mut self) -> Outcome<f64> {
        let first = self.asked + 1;
        self.asked += CALLS;
        let before = self.server.cpu_exact()?;
        try_join_all(self.callers.iter_mut().map(|caller| async move {
            for number in first..first + CALLS {
                ask_gateway(caller, number).await?;
            }
            Outcome::Ok(())
        }))
        .await?;
        let spent = self.server.cpu_exact()? - before;
        Ok(spent / (CALLERS as u64 * CALLS) as f64)
    }

    /// One turn of events; what each delivery cost.
    async fn deliver(
        &mut self,
        plan: &Plan,
        publisher: &async_nats::Client,
        tasks: &mut JoinSet<Outcome<()>>,
    ) -> Outcome<f64> {
        let before = self.server.cpu_exact()?;
        send(plan, publisher, &self.subject, &mut self.sent, 1).await?;
        arrived(plan, &self.tally, self.sent, tasks).await?;
        Ok((self.server.cpu_exact()? - before) / deliveries(plan))
    }
}

fn print(sides: &[Side]) {
    let [on, off, alike] = [ON, OFF, ALIKE].map(|nth| sides.get(nth));
    let (Some(on), Some(off), Some(alike)) = (on, off, alike) else {
        return;
    };
    println!();
    println!(
        "{:<34} {:>10} {:>12} {:>8}  target",
        "whole gateways by turns", "watched", "not", "more"
    );
    for (name, of) in [
        (
            "command, us CPU",
            (|side| &side.commands) as fn(&Side) -> &Vec<f64>,
        ),
        ("delivery, us CPU", |side| &side.deliveries),
    ] {
        let cost = Spread::of(of(on), of(off));
        let noise = Spread::of(of(on), of(alike));
        let middle = |side| median(of(side)).unwrap_or(f64::NAN) / 1e3;
        println!(
            "{name:<34} {:>10.2} {:>12.2} {:>+7.2}%  {}",
            middle(on),
            middle(off),
            cost.middle,
            verdict("<= 3 %", cost.middle <= WATCHED * 100.0)
        );
        println!(
            "  give or take {:.2} %; half of {ROUNDS} rounds {:+.1} to {:+.1} %; two alike {:+.2} %, give or take {:.2} %{}",
            cost.doubt,
            cost.low,
            cost.high,
            noise.middle,
            noise.doubt,
            if cost.middle.abs() < noise.middle.abs() + noise.doubt {
                ": no more than two alike differ by"
            } else {
                ""
            }
        );
    }
}

/// How much more one side took than another in the same round, in percent.
struct Spread {
    low: f64,
    middle: f64,
    high: f64,
    /// How far the middle of as many rounds again may well be from this one.
    doubt: f64,
}

impl Spread {
    fn of(more: &[f64], less: &[f64]) -> Self {
        let mut shares: Vec<f64> = more
            .iter()
            .zip(less)
            .map(|(more, less)| (more / less - 1.0) * 100.0)
            .collect();
        shares.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            shares
                .get(shares.len() * quarter / 4)
                .copied()
                .unwrap_or(f64::NAN)
        };
        let (low, middle, high) = (at(1), at(2), at(3));
        Self {
            low,
            middle,
            high,
            // the notch of a box plot
            doubt: 1.57 * (high - low) / (shares.len() as f64).sqrt(),
        }
    }
}
