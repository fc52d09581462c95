//! What is seen from outside: metrics, logs, traces, readiness.

pub mod clock;
pub mod log;
pub mod metrics;
pub mod ready;
pub mod seams;
pub mod trace;
