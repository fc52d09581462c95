//! Whether this gateway should be given traffic, and if not, why.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// Shared by the parts that know and the probe that tells. A new one is starting, without the bus.
pub struct Readiness {
    started: AtomicBool,
    draining: AtomicBool,
    bus: Mutex<Option<String>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            bus: Mutex::new(Some("not connected yet".to_owned())),
        }
    }
}

impl Readiness {
    /// Every door is open.
    pub fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Shutdown has begun; there is no way back.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The bus answers and subscriptions are caught up.
    pub fn bus_up(&self) {
        *self.bus.lock() = None;
    }

    /// The bus is away.
    pub fn bus_down(&self, reason: impl Into<String>) {
        *self.bus.lock() = Some(reason.into());
    }

    /// Why there should be no traffic; empty when ready.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.draining.load(Ordering::Acquire) {
            reasons.push(Reason::new("draining", "shutting down"));
        } else if !self.started.load(Ordering::Acquire) {
            reasons.push(Reason::new("starting", "not every port is open yet"));
        }
        if let Some(reason) = self.bus.lock().as_deref() {
            reasons.push(Reason::new("nats", reason));
        }
        reasons
    }

    /// Whether traffic is welcome.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Acquire)
            && self.started.load(Ordering::Acquire)
            && self.bus.lock().is_none()
    }
}

/// One reason against traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// `starting`, `draining` or `nats`.
    pub part: &'static str,
    /// In words.
    pub text: String,
}

impl Reason {
    fn new(part: &'static str, text: &str) -> Self {
        Self {
            part,
            text: text.to_owned(),
        }
    }

    /// As the probe shows it.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"part": self.part, "reason": self.text})
    }
}
