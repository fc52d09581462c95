//! Which messages are traced, and their spans.
