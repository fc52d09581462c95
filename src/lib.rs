//! What the house consists of; the map is ARCHITECTURE.md.
#![doc = include_str!("ARCHITECTURE.md")]

pub mod app;
pub mod bus;
pub mod cli;
pub mod config;
pub mod dialect;
pub mod edge;
pub mod gateway;
pub mod message;
pub mod picture;
pub mod telemetry;
pub mod wire;
pub mod worker;
