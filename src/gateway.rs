//! Sessions, rooms and the connection loop.
