//! The pure framing rooms, driven from outside with bytes alone.

#[path = "wire/streams.rs"]
mod streams;
#[path = "wire/websocket.rs"]
mod websocket;
