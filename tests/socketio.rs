//! Engine.IO and Socket.IO without I/O, on invented time. `engineio_suite` holds the 25 cases of the official
//! Engine.IO 4 suite, `socketio_suite` the 32 of the Socket.IO 5 suite, each a test of the same name.

#[path = "engineio/cases.rs"]
mod cases;
#[path = "socketio/chat.rs"]
mod chat;
#[path = "engineio/clients.rs"]
mod engineio_clients;
#[path = "engineio/noise.rs"]
mod engineio_noise;
#[path = "engineio/suite.rs"]
mod engineio_suite;
#[path = "engineio/rig.rs"]
mod rig;
#[path = "socketio/session.rs"]
mod session;
#[path = "socketio/packets.rs"]
mod socketio_packets;
#[path = "socketio/suite.rs"]
mod socketio_suite;
