//! Placeholder topic: inbox.
