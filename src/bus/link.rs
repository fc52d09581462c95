//! Placeholder topic: link.
