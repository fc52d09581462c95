//! Which messages are traced, decided before anything is built: an unsampled message costs a comparison.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

pub use crate::telemetry::trace::export::{TraceError, broker, start, stop};
pub use crate::telemetry::trace::facts::{AppendSpan, DeliverSpan};
pub use crate::telemetry::trace::layer::{TARGET, layer};
pub use crate::telemetry::trace::spans::CommandSpan;
pub use crate::telemetry::trace::work::WorkSpan;

mod export;
mod facts;
mod layer;
mod spans;
mod work;

/// The span id of clients that begin a trace and record no span of their own, as the landing page's: what they send is
/// the trace's root. Nobody draws it by chance.
const NOBODY: u64 = 1;

/// Decides which messages are traced.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// A random number below this starts a trace.
    threshold: u64,
    all: bool,
}

impl Gate {
    /// Starts a trace for this share of messages, 0 to 1.
    #[must_use]
    pub fn new(ratio: f64) -> Self {
        Self {
            // 2^64 as a float; a cast from float saturates
            threshold: (ratio.clamp(0.0, 1.0) * 18_446_744_073_709_551_616.0) as u64,
            all: ratio >= 1.0,
        }
    }

    /// As configured; without a collector no trace is started here, since nobody would see its root.
    #[must_use]
    pub fn of(trace: &crate::config::Trace) -> Self {
        Self::new(if trace.export { trace.ratio } else { 0.0 })
    }

    /// Whether a message is traced, and as which span. What came with it decides where it came well formed:
    /// its sampled bit continues the trace, its absence ends it. Anything else is a new root by chance.
    #[must_use]
    #[inline]
    pub fn sample(&self, incoming: Option<&str>) -> Option<TraceContext> {
        match incoming {
            None if self.threshold == 0 => None,
            None => self.root(),
            Some(header) => match TraceContext::parse(header) {
                Some((parent, true)) if parent.span == NOBODY => Some(TraceContext {
                    parent: 0,
                    remote: false,
                    ..parent.child()
                }),
                Some((parent, true)) => Some(parent.child()),
                Some((_, false)) => None,
                None => self.root(),
            },
        }
    }

    fn root(&self) -> Option<TraceContext> {
        (self.all || random() < self.threshold).then(TraceContext::root)
    }
}

/// The `traceparent` a handshake came with, where it is well formed: what the client then says belongs to that trace
/// unless a message names another.
#[must_use]
pub fn of(headers: &http::HeaderMap) -> Option<Box<str>> {
    let header = headers.get("traceparent")?.to_str().ok()?;
    TraceContext::parse(header).map(|_| header.into())
}

/// One span's place in its trace. Small and plain, so that it travels with the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    /// 0 for a root.
    parent: u64,
    /// Whether the parent span belongs to another process.
    remote: bool,
}

impl TraceContext {
    /// A new trace.
    #[must_use]
    pub fn root() -> Self {
        Self {
            trace: (u128::from(id()) << 64) | u128::from(id()),
            span: id(),
            parent: 0,
            remote: false,
        }
    }

    /// The span named by a `traceparent` header and whether it is sampled; `None` where the header is malformed.
    #[must_use]
    pub fn parse(header: &str) -> Option<(Self, bool)> {
        let bytes = header.as_bytes();
        let version = hex(bytes.get(..2)?)?;
        // later versions may say more after what this one says
        let whole = match version {
            0 => bytes.len() == 55,
            0xff => false,
            _ => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if !whole || !dashes {
            return None;
        }
        let trace = hex(bytes.get(3..35)?)?;
        let span = u64::try_from(hex(bytes.get(36..52)?)?).ok()?;
        let flags = hex(bytes.get(53..55)?)?;
        if trace == 0 || span == 0 {
            return None;
        }
        let context = Self {
            trace,
            span,
            parent: 0,
            remote: true,
        };
        Some((context, flags & 1 == 1))
    }

    /// A span below this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            trace: self.trace,
            span: id(),
            parent: self.span,
            remote: self.remote && self.parent == 0,
        }
    }

    /// The header that makes the receiver's span a child of this one.
    #[must_use]
    pub fn traceparent(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = String::with_capacity(55);
        let mut write = |value: u128, digits: u32| {
            for place in (0..digits).rev() {
                let digit = (value >> (4 * place)) & 0xf;
                out.push(char::from(DIGITS[digit as usize]));
            }
            out.push('-');
        };
        write(0, 2);
        write(self.trace, 32);
        write(u128::from(self.span), 16);
        write(1, 2);
        out.pop();
        out
    }

    /// The id of the trace, for log lines and links.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// Lower-case hexadecimal, as the header demands.
fn hex(digits: &[u8]) -> Option<u128> {
    let mut value = 0;
    for digit in digits {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = (value << 4) | u128::from(digit);
    }
    Some(value)
}

fn id() -> u64 {
    // zero means absent
    random().max(1)
}

/// Xorshift of its own in every thread: no lock, no allocation, and no secret depends on it.
#[inline]
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }
    STATE.with(|state| {
        let mut x = state.get();
        if x == 0 {
            x = RandomState::new().build_hasher().finish() | 1;
        }
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    #[test]
    fn what_came_sampled_continues_whatever_the_ratio() {
        let context = Gate::new(0.0).sample(Some(SAMPLED)).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.parent, 0x00f0_67aa_0ba9_02b7);
        assert!(context.remote);
        let child = context.child();
        assert_eq!(
            (child.trace, child.parent, child.remote),
            (context.trace, context.span, false)
        );
        assert_ne!(child.span, context.span);
    }

    #[test]
    fn a_client_without_spans_of_its_own_begins_the_trace() {
        let header = SAMPLED.replace("00f067aa0ba902b7", "0000000000000001");
        let context = Gate::new(0.0).sample(Some(&header)).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((context.parent, context.remote), (0, false));
        assert_ne!(context.span, NOBODY);
    }

    #[test]
    fn what_came_unsampled_stays_so() {
        assert_eq!(Gate::new(1.0).sample(Some(UNSAMPLED)), None);
    }

    #[test]
    fn a_malformed_header_is_a_new_root() {
        let long = format!("{SAMPLED}-x");
        for header in [
            "",
            "junk",
            &SAMPLED.to_uppercase(),
            &SAMPLED[..54],
            &long,
            &SAMPLED.replace("00-4", "ff-4"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Gate::new(0.0).sample(Some(header)), None, "{header}");
            let context = Gate::new(1.0).sample(Some(header)).unwrap();
            assert_eq!(context.parent, 0, "{header}");
            assert_ne!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        }
        let later = SAMPLED.replace("00-4", "01-4") + "-more";
        assert!(Gate::new(0.0).sample(Some(&later)).is_some());
    }

    #[test]
    fn the_header_written_is_the_header_read() {
        let context = TraceContext::root();
        let (read, sampled) = TraceContext::parse(&context.traceparent()).unwrap();
        assert_eq!(
            (read.trace, read.span, sampled),
            (context.trace, context.span, true)
        );
        let (parent, _) = TraceContext::parse(SAMPLED).unwrap();
        assert_eq!(parent.traceparent(), SAMPLED);
    }

    #[test]
    fn the_ratio_is_kept() {
        assert!((0..1000).all(|_| Gate::new(0.0).sample(None).is_none()));
        assert!((0..1000).all(|_| Gate::new(1.0).sample(None).is_some()));
        let gate = Gate::new(0.1);
        let sampled = (0..100_000).filter(|_| gate.sample(None).is_some()).count();
        // ten standard deviations
        assert!((9_050..=10_950).contains(&sampled), "{sampled}");
    }

    #[test]
    fn ids_do_not_repeat() {
        let spans: std::collections::HashSet<u64> = (0..10_000).map(|_| TraceContext::root().span).collect();
        assert_eq!(spans.len(), 10_000);
    }
}
