//! The pure framing rooms, driven from outside with bytes alone.

#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

#[path = "wire/handshake.rs"]
mod handshake;
#[path = "wire/json.rs"]
mod json;
#[path = "wire/streams.rs"]
mod streams;
#[path = "wire/websocket.rs"]
mod websocket;
