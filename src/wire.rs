//! Pure framing: bytes to frames and back, no domain, no I/O.
