//! Placeholder topic: contract.
