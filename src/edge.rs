//! Sockets: accept loop, HTTP routes, upgrades.
