//! Causeway: a gateway that keeps real-time clients' own wire and puts NATS behind it.

pub mod app;
pub mod bus;
pub mod cli;
pub mod config;
pub mod dialect;
pub mod edge;
pub mod gateway;
pub mod message;
pub mod telemetry;
pub mod wire;
pub mod worker;
