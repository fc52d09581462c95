//! Sockets: the ports, the accept loop, HTTP routes, upgrades.

pub mod accept;
pub mod asyncapi;
pub mod http;
pub mod landing;
pub mod ops;
pub mod ports;
pub mod raw;
pub mod upgrade;
