//! `make faults`: breaks things on purpose and counts what clients lose, get twice or notice. One line a scenario.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program that reports on the terminal

mod apart;
mod crowd;
mod load;
mod models;
mod nats;
mod process;
mod proxy;
mod report;
mod rounds;
mod scenarios;
mod small_disk;
mod talk;
mod worker;

use std::time::Duration;

use report::{Report, Verdict};

/// Whatever ends a scenario early.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Longer than anything here takes; what exceeds it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How much is done: short for every change, full for `make faults`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) full: bool,
    pub(crate) seed: u64,
}

impl Scale {
    /// One number for `make test`, another for `make faults`.
    pub(crate) fn pick<T>(self, short: T, full: T) -> T {
        if self.full { full } else { short }
    }
}

fn main() {
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let scale = Scale {
        full: std::env::var_os("FAULTS").is_some_and(|scale| scale == "full"),
        seed: std::env::var("FAULTS_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(1),
    };
    process::raise_descriptors();
    if let Some(role) = std::env::args().find_map(|arg| arg.strip_prefix("--apart=").map(str::to_owned)) {
        if let Err(error) = apart::main(&role) {
            eprintln!("{role}: {error}");
            std::process::exit(1);
        }
        return;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            std::process::exit(1);
        }
    };
    let mut reports = Vec::new();
    for scenario in scenarios::ALL {
        let chosen = names.is_empty() || names.iter().any(|name| scenario.name.contains(name));
        // a scenario asked for by its whole name runs at any scale
        let wanted = scenario.short || scale.full || names.iter().any(|name| name == scenario.name);
        if !chosen || !wanted {
            continue;
        }
        let mut report = Report::new(scenario.name, scenario.row);
        let run = async {
            tokio::time::timeout(scenario.within, (scenario.run)(scale, &mut report))
                .await
                .unwrap_or_else(|_late| Err("it did not end in time".into()))
        };
        if let Err(error) = runtime.block_on(run) {
            report.fail(error.to_string());
        }
        report.print();
        reports.push(report);
    }
    Report::head();
    reports.iter().for_each(Report::line);
    let failed = reports
        .iter()
        .filter(|report| report.verdict() == Verdict::Failed)
        .count();
    if reports.is_empty() {
        eprintln!("no scenario has such a name");
        std::process::exit(1);
    }
    if failed > 0 {
        eprintln!("{failed} scenarios failed (FAULTS_SEED={})", scale.seed);
        std::process::exit(1);
    }
}
