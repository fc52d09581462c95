//! What is seen from outside: metrics, logs, traces, readiness.

pub mod log;
pub mod metrics;
pub mod ready;
pub mod trace;
