//! Pure framing: bytes to frames and back, no domain, no I/O.

pub mod frame;
pub mod handshake;
pub mod json;
pub mod utf8;
pub mod websocket;

pub mod engineio;
pub mod socketio;
