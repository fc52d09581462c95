//! Placeholder topic: streams.
