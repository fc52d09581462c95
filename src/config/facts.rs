//! What the configuration needs to know of a dialect: its own port, its limit, whether operators see it.

use crate::dialect::Dialect;

/// The port its clients know.
pub(super) fn port(dialect: &dyn Dialect) -> Option<u16> {
    match dialect.name() {
        "cad" => Some(3939),
        "assistant" => Some(8000),
        "voice" => Some(8765),
        "scripting" => Some(9876),
        _ => None,
    }
}

/// Largest message a client may send.
pub(super) fn max_message(dialect: &dyn Dialect) -> usize {
    match dialect.name() {
        "voice" => 1 << 20,
        // the conformance suite sends messages of 16 MiB
        "echo" => 32 << 20,
        _ => 64 << 20,
    }
}

/// Exists for conformance tests only: no section, no port.
pub(super) fn test_only(dialect: &dyn Dialect) -> bool {
    dialect.name() == "echo"
}
