//! The pure framing rooms, driven from outside with bytes alone.

#[path = "wire/handshake.rs"]
mod handshake;
#[path = "wire/json.rs"]
mod json;
#[path = "wire/streams.rs"]
mod streams;
#[path = "wire/websocket.rs"]
mod websocket;
