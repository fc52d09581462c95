//! Reference workers: NATS micro services that use only the contract.
