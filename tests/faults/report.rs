//! What a scenario found: figures, and everything that is not as promised.

use std::fmt::Display;
use std::time::Instant;

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    Failed,
    /// This machine lacks what it needs.
    Skipped,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Kept => "ok",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
        }
    }
}

/// Microseconds that are never held against anybody.
const SPARE: u64 = 15_000;

/// What one in a hundred takes, or longer.
pub(crate) fn p99(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or(0)
}

/// What was given, what came, what is missing: the columns of the table at the end.
#[derive(Clone, Copy, Default)]
pub(crate) struct Books {
    /// Messages or commands handed in.
    pub(crate) sent: Option<u64>,
    /// Messages or answers that came, over all clients.
    pub(crate) received: Option<u64>,
    pub(crate) gaps: Option<u64>,
    pub(crate) repeats: Option<u64>,
    /// Lost without a word: gaps nobody announced, commands nobody answered.
    pub(crate) silent: Option<u64>,
    /// Peak of resident memory over its base, in MiB.
    pub(crate) peak: Option<f64>,
}

/// Figures of one scenario.
pub(crate) struct Report {
    name: &'static str,
    row: &'static str,
    pub(crate) books: Books,
    skipped: Option<String>,
    begun: Instant,
    figures: Vec<String>,
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(name: &'static str, row: &'static str) -> Self {
        Self {
            name,
            row,
            books: Books::default(),
            skipped: None,
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

    /// Commands handed in and answered: what has no answer was lost in silence.
    pub(crate) fn answers(&mut self, sent: u64, answered: u64) {
        self.books.sent = Some(self.books.sent.unwrap_or(0) + sent);
        self.books.received = Some(self.books.received.unwrap_or(0) + answered);
        let silent = self.books.silent.unwrap_or(0) + sent.saturating_sub(answered);
        self.books.silent = Some(silent);
        self.expect("answered", answered, sent);
    }

    /// What takes long beside something, round by round: in half of the rounds it must not take more than twice as
    /// long as without, and a few milliseconds. A pause of the machine falls into one round and is nobody's doing.
    pub(crate) fn beside(&mut self, rounds: &mut [(Vec<u64>, Vec<u64>)], what: &str) {
        let mut ratios = Vec::new();
        for (without, beside) in rounds {
            let (without, beside) = (p99(without), p99(beside));
            ratios.push((
                beside.saturating_sub(SPARE) as f64 / without.max(1) as f64,
                without,
                beside,
            ));
        }
        ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
        let Some((ratio, without, beside)) = ratios.get(ratios.len() / 2).copied() else {
            return self.fail("nothing was measured".to_owned());
        };
        self.figure("p99_ms_without", without / 1000);
        self.figure("p99_ms_beside", beside / 1000);
        self.figure("ratio", format!("{:.2}", beside as f64 / without.max(1) as f64));
        self.hold(ratio <= 2.0, what);
    }

    /// This machine lacks what the scenario needs: said aloud, and never counted as kept.
    pub(crate) fn skip(&mut self, why: &str) {
        self.skipped = Some(why.to_owned());
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match (&self.skipped, self.failures.is_empty()) {
            (_, false) => Verdict::Failed,
            (Some(_), true) => Verdict::Skipped,
            (None, true) => Verdict::Kept,
        }
    }

    pub(crate) fn print(&self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        println!(
            "{:7} {:24} {seconds:6.1}s  {}",
            self.verdict().word(),
            self.name,
            self.figures.join(" ")
        );
        let skipped = self.skipped.iter();
        for line in skipped.chain(&self.failures) {
            println!("        {:24}          {line}", "");
        }
    }

    /// The head of the table at the end.
    pub(crate) fn head() {
        println!(
            "\n{:24} {:8} {:>8} {:>9} {:>5} {:>8} {:>7} {:>9}  verdict",
            "scenario", "row", "sent", "received", "gaps", "repeats", "silent", "peak MiB"
        );
    }

    /// Its line in that table.
    pub(crate) fn line(&self) {
        let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let books = &self.books;
        println!(
            "{:24} {:8} {:>8} {:>9} {:>5} {:>8} {:>7} {:>9}  {}",
            self.name,
            self.row,
            count(books.sent),
            count(books.received),
            count(books.gaps),
            count(books.repeats),
            count(books.silent),
            books
                .peak
                .map_or_else(|| "-".to_owned(), |peak| format!("{peak:.0}")),
            self.verdict().word(),
        );
    }
}
