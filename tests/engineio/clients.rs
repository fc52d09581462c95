//! What real clients do with long polling, the upgrade and the close, beyond the official suite.

use causeway::wire::engineio::polling::{End, Response};
use causeway::wire::engineio::{Frame, Refusal, Request, Transport};

use crate::cases;
use crate::rig::{Server, body, echo, text};

#[test]
fn refusals_have_the_reference_servers_words() {
    let bodies = [
        (
            Refusal::TransportUnknown,
            r#"{"code":0,"message":"Transport unknown"}"#,
        ),
        (
            Refusal::SessionUnknown,
            r#"{"code":1,"message":"Session ID unknown"}"#,
        ),
        (
            Refusal::BadMethod,
            r#"{"code":2,"message":"Bad handshake method"}"#,
        ),
        (Refusal::BadRequest, r#"{"code":3,"message":"Bad request"}"#),
        (
            Refusal::Version,
            r#"{"code":5,"message":"Unsupported protocol version"}"#,
        ),
    ];
    for (refusal, body) in bodies {
        let response = Response::Refused(refusal);
        assert_eq!(response.body(), body);
        assert_eq!(response.status(), 400);
        assert_eq!(response.content_type(), Some("application/json"));
    }
}

#[test]
fn requests_of_a_session_are_checked_in_order() {
    let parse = |query| Request::parse(query);
    let polling = parse("/socket.io/?token=a=b&EIO=4&transport=polling&t=x&sid=abc");
    assert_eq!(polling.sid, Some("abc"));
    assert_eq!(polling.admit(false, false, true), Ok(Transport::Polling));
    assert_eq!(polling.admit(true, false, false), Err(Refusal::SessionUnknown));
    assert_eq!(polling.admit(true, true, true), Err(Refusal::BadRequest));
    let websocket = parse("/socket.io/?EIO=4&transport=websocket&sid=abc");
    assert_eq!(websocket.admit(true, true, true), Ok(Transport::WebSocket));
    assert_eq!(websocket.admit(true, false, true), Err(Refusal::BadRequest));
    // WebSocket named by a request that asks for no upgrade, and an upgrade of a poll
    assert_eq!(
        parse("?EIO=4&transport=websocket").admit(true, false, false),
        Err(Refusal::BadRequest)
    );
    assert_eq!(
        parse("?EIO=4&transport=polling").admit(true, true, false),
        Err(Refusal::BadRequest)
    );
    assert_eq!(parse("?EIO=4&transport=polling&sid=").sid, None);
    assert_eq!(
        parse("?transport=abc&sid=abc").admit(true, false, false),
        Err(Refusal::TransportUnknown)
    );
}

#[test]
fn a_post_above_the_limit_is_413_and_the_session_stays() {
    let mut server = Server::poll(echo());
    assert_eq!(server.post(vec![b'4'; 1_000_001]), Response::TooLarge);
    assert_eq!(Response::TooLarge.status(), 413);
    assert_eq!(server.post(vec![b'4'; 1_000_000]), Response::Accepted);
    assert_eq!(server.over, None);
}

#[test]
fn what_was_sent_before_a_close_reaches_the_next_poll() {
    let mut server = Server::poll(echo());
    server.send(text("4last words"));
    server.close();
    assert_eq!(server.over, None);
    assert_eq!(body(&server.get().1.unwrap()), "4last words\x1e1");
    assert_eq!(server.over, Some(End::Closed));
    assert_eq!(server.get().1, Some(Response::Refused(Refusal::SessionUnknown)));

    let mut server = Server::poll(echo());
    let (pending, _) = server.get();
    server.close();
    assert_eq!(body(&server.answer(pending).unwrap()), "1");
    assert_eq!(server.over, Some(End::Closed));
}

#[test]
fn nobody_waits_for_a_poll_that_does_not_come() {
    let mut server = Server::poll(echo());
    server.send(text("4last words"));
    server.pass(200);
    server.close();
    assert_eq!(server.post("3"), Response::Refused(Refusal::SessionUnknown));
    server.pass(60_000);
    assert!(server.over.is_some());
}

#[test]
fn a_bad_probe_closes_the_websocket_only() {
    for first in ["hello", "2", "2prob", "5", "4hello", "1"] {
        let mut server = Server::poll(echo());
        let socket = server.probe();
        server.write(socket, text(first));
        assert_eq!(server.shut, [socket], "{first}");
        assert_eq!(server.heard(socket), []);
        server.post("4hello");
        assert_eq!(body(&server.get().1.unwrap()), "4hello");
        // and a second try may succeed
        let socket = server.probe();
        server.write(socket, text("2probe"));
        server.write(socket, text("5"));
        server.send(text("4x"));
        assert_eq!(server.heard(socket), [text("3probe"), text("4x")]);
    }
}

#[test]
fn a_probe_that_stalls_is_given_up() {
    let mut server = Server::poll(echo());
    let socket = server.probe();
    server.write(socket, text("2probe"));
    for _ in 0..101 {
        server.pass(100);
        server.post("3");
    }
    assert_eq!(server.shut, [socket]);
    assert_eq!(server.over, None);
}

#[test]
fn two_probes_do_not_share_a_session() {
    let mut server = Server::poll(echo());
    let first = server.probe();
    let second = server.probe();
    assert_eq!(server.shut, [second]);
    server.write(first, text("2probe"));
    assert_eq!(server.heard(first), [text("3probe")]);
}

#[test]
fn nothing_is_lost_or_reordered_by_an_upgrade() {
    let mut server = Server::poll(echo());
    server.send(text("4one"));
    let socket = server.probe();
    server.write(socket, text("2probe"));
    assert_eq!(body(&server.get().1.unwrap()), "4one");
    server.send(text("4two"));
    server.send(Frame::Binary(vec![3].into()));
    server.write(socket, text("5"));
    server.send(text("4four"));
    let heard = server.heard(socket);
    assert_eq!(
        heard,
        [
            text("3probe"),
            text("4two"),
            Frame::Binary(vec![3].into()),
            text("4four")
        ]
    );
}

#[test]
fn a_session_ends_with_the_websocket_it_moved_to() {
    let (mut server, socket) = cases::upgraded(echo);
    server.drop_socket(socket);
    assert_eq!(server.over, Some(End::Gone));
}

#[test]
fn a_probe_that_leaves_changes_nothing() {
    let mut server = Server::poll(echo());
    let socket = server.probe();
    server.write(socket, text("2probe"));
    server.drop_socket(socket);
    let (pending, answer) = server.get();
    assert_eq!(answer, None, "polls wait again");
    server.send(text("4x"));
    assert_eq!(body(&server.answer(pending).unwrap()), "4x");
}

#[test]
fn a_client_that_never_polls_is_too_slow() {
    let mut server = Server::poll(echo());
    for _ in 0..20 {
        server.send(Frame::Binary(vec![0; 100_000].into()));
    }
    assert_eq!(server.over, Some(End::Slow));
}

#[test]
fn one_message_may_be_larger_than_the_queue() {
    let mut server = Server::poll(echo());
    server.send(Frame::Binary(vec![0; 5 << 20].into()));
    assert_eq!(server.over, None);
    assert_eq!(server.get().1.unwrap().status(), 200);
}

#[test]
fn frames_after_a_close_in_one_payload_are_nobodys() {
    let mut server = Server::poll(echo());
    assert_eq!(server.post("4a\x1e1\x1e4b"), Response::Accepted);
    assert_eq!(server.over, Some(End::Left));
}

#[test]
fn a_client_that_sends_is_alive() {
    let mut server = Server::poll(echo());
    server.pass(300);
    server.post("4long upload");
    server.pass(299);
    assert_eq!(server.over, None);
}

/// As clients write it over WebSocket that were told `forceBase64`.
#[test]
fn binary_may_come_as_text() {
    let mut server = Server::websocket(echo());
    server.write(0, text("bAQIDBA=="));
    assert_eq!(server.heard(0), [Frame::Binary(vec![1, 2, 3, 4].into())]);
}
