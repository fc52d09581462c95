//! Sockets: the ports, the accept loop, HTTP routes, upgrades.

pub mod accept;
pub mod asyncapi;
pub mod body;
pub mod cors;
pub mod door;
pub mod http;
pub mod landing;
pub mod ops;
pub mod polling;
pub mod ports;
pub mod raw;
pub mod registry;
pub mod rest;
pub mod upgrade;
pub mod viewer;
