//! The cases of the official suites that concern the transports, for any application behind them.

use causeway::wire::engineio::polling::{End, Response};
use causeway::wire::engineio::{Frame, Refusal};

use crate::rig::{App, SID, Server, body, text};

type Make = fn() -> Box<dyn App>;

fn refused(make: Make, method: &str, query: &str) -> Refusal {
    Server::handshake(make(), method, query).err().expect("refused")
}

pub(crate) fn opens_by_polling(make: Make) {
    let (_, first) = Server::handshake(make(), "GET", "/engine.io/?EIO=4&transport=polling").unwrap();
    assert_eq!(
        first,
        format!(
            r#"0{{"sid":"{SID}","upgrades":["websocket"],"pingInterval":300,"pingTimeout":200,"maxPayload":1000000}}"#
        )
    );
}

pub(crate) fn opens_by_websocket(make: Make) {
    let (_, first) = Server::handshake(make(), "WS", "/engine.io/?EIO=4&transport=websocket").unwrap();
    assert_eq!(
        first,
        format!(
            r#"0{{"sid":"{SID}","upgrades":[],"pingInterval":300,"pingTimeout":200,"maxPayload":1000000}}"#
        )
    );
}

pub(crate) fn refuses_versions(make: Make, method: &str, transport: &str) {
    for query in ["", "EIO=abc&", "EIO=3&", "eio=4&", "EIO=&"] {
        let query = format!("/engine.io/?{query}transport={transport}");
        assert_eq!(refused(make, method, &query), Refusal::Version, "{query}");
    }
}

pub(crate) fn refuses_transports(make: Make, method: &str) {
    for query in [
        "/engine.io/",
        "?EIO=4",
        "?EIO=4&transport=abc",
        "?EIO=4&transport=",
        "?EIO=4&transport",
    ] {
        assert_eq!(refused(make, method, query), Refusal::TransportUnknown, "{query}");
    }
}

pub(crate) fn refuses_methods(make: Make) {
    for method in ["POST", "PUT", "HEAD", "DELETE"] {
        let refusal = refused(make, method, "/engine.io/?EIO=4&transport=polling");
        assert_eq!(refusal, Refusal::BadMethod, "{method}");
    }
}

pub(crate) fn pings_by_polling(make: Make) {
    let mut server = Server::poll(make());
    for _ in 0..3 {
        let (ticket, answer) = server.get();
        assert_eq!(answer, None, "nothing to say yet");
        server.pass(299);
        assert_eq!(server.answer(ticket), None);
        server.pass(1);
        assert_eq!(body(&server.answer(ticket).unwrap()), "2");
        server.pass(199);
        assert_eq!(server.post("3"), Response::Accepted);
    }
    assert_eq!(server.over, None);
}

pub(crate) fn polling_times_out(make: Make) {
    let mut server = Server::poll(make());
    server.pass(499);
    assert_eq!(server.over, None);
    server.pass(1);
    assert_eq!(server.get().1, Some(Response::Refused(Refusal::SessionUnknown)));
}

pub(crate) fn pings_by_websocket(make: Make) {
    let mut server = Server::websocket(make());
    for _ in 0..3 {
        server.pass(299);
        assert_eq!(server.heard(0), []);
        server.pass(1);
        assert_eq!(server.heard(0), [text("2")]);
        server.write(0, text("3"));
    }
    assert_eq!(server.over, None);
}

pub(crate) fn websocket_times_out(make: Make) {
    let mut server = Server::websocket(make());
    server.pass(499);
    assert_eq!(server.over, None);
    server.pass(1);
    assert_eq!(server.over, Some(End::Broken));
}

pub(crate) fn closes_by_polling(make: Make) {
    let mut server = Server::poll(make());
    let (ticket, _) = server.get();
    assert_eq!(server.post("1"), Response::Accepted);
    assert_eq!(body(&server.answer(ticket).unwrap()), "6");
    assert_eq!(server.over, Some(End::Left));
    assert_eq!(server.get().1, Some(Response::Refused(Refusal::SessionUnknown)));
}

pub(crate) fn closes_by_websocket(make: Make) {
    let mut server = Server::websocket(make());
    server.write(0, text("1"));
    assert_eq!(server.over, Some(End::Left));
}

/// A session that is on a WebSocket now, and that WebSocket.
pub(crate) fn upgraded(make: Make) -> (Server, u64) {
    let mut server = Server::poll(make());
    let (pending, _) = server.get();
    let socket = server.probe();
    server.write(socket, text("2probe"));
    assert_eq!(server.heard(socket), [text("3probe")]);
    assert_eq!(body(&server.answer(pending).unwrap()), "6");
    let late = server.get().1.expect("no GET stays during an upgrade");
    assert_eq!(body(&late), "6");
    server.write(socket, text("5"));
    assert!(server.shut.is_empty() && server.over.is_none());
    (server, socket)
}

pub(crate) fn ignores_http_after_upgrade(make: Make) {
    let (mut server, socket) = upgraded(make);
    assert_eq!(server.get().1, Some(Response::Refused(Refusal::BadRequest)));
    assert_eq!(server.post("4hello"), Response::Refused(Refusal::BadRequest));
    server.send(text("4still here"));
    assert_eq!(server.heard(socket), [text("4still here")]);
}

pub(crate) fn ignores_websockets_after_upgrade(make: Make) {
    let (mut server, socket) = upgraded(make);
    let second = server.probe();
    assert_eq!(server.shut, [second]);
    server.write(second, text("2probe"));
    server.drop_socket(second);
    server.send(Frame::Binary(vec![1].into()));
    assert_eq!(server.heard(socket), [Frame::Binary(vec![1].into())]);
    assert_eq!((server.heard(second), server.over), (vec![], None));
}
