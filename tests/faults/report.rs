//! What a scenario found: figures, and everything that is not as promised.

use std::fmt::Display;
use std::time::Instant;

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    Failed,
}

/// Figures of one scenario.
pub(crate) struct Report {
    name: &'static str,
    begun: Instant,
    figures: Vec<String>,
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            begun: Instant::now(),
            figures: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// A figure for the line.
    pub(crate) fn figure(&mut self, name: &str, value: impl Display) {
        self.figures.push(format!("{name}={value}"));
    }

    /// A figure that has one right value.
    pub(crate) fn expect<T: Display + PartialEq>(&mut self, name: &str, value: T, right: T) {
        if value != right {
            self.failures.push(format!("{name} is {value}, not {right}"));
        }
        self.figure(name, value);
    }

    /// A figure that must not exceed a bound.
    pub(crate) fn at_most<T: Display + PartialOrd>(&mut self, name: &str, value: T, bound: T) {
        if value > bound {
            self.failures.push(format!("{name} is {value}, above {bound}"));
        }
        self.figure(name, value);
    }

    /// Something that must hold.
    pub(crate) fn hold(&mut self, holds: bool, what: &str) {
        if !holds {
            self.failures.push(what.to_owned());
        }
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    pub(crate) fn print(&self) -> Verdict {
        let seconds = self.begun.elapsed().as_secs_f64();
        let verdict = if self.failures.is_empty() {
            Verdict::Kept
        } else {
            Verdict::Failed
        };
        let word = if verdict == Verdict::Kept {
            "ok    "
        } else {
            "FAILED"
        };
        println!(
            "{word} {:24} {seconds:6.1}s  {}",
            self.name,
            self.figures.join(" ")
        );
        for failure in &self.failures {
            println!("       {:24}          {failure}", "");
        }
        verdict
    }
}
