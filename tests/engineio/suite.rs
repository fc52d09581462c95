//! The official Engine.IO 4 suite, one test for each of its 25 cases, named after it.

mod handshake {
    mod http_long_polling {
        use crate::{cases, rig::echo};

        #[test]
        fn successfully_opens_a_session() {
            cases::opens_by_polling(echo);
        }

        #[test]
        fn fails_with_an_invalid_eio_query_parameter() {
            cases::refuses_versions(echo, "GET", "polling");
        }

        #[test]
        fn fails_with_an_invalid_transport_query_parameter() {
            cases::refuses_transports(echo, "GET");
        }

        #[test]
        fn fails_with_an_invalid_request_method() {
            cases::refuses_methods(echo);
        }
    }

    mod websocket {
        use crate::{cases, rig::echo};

        #[test]
        fn successfully_opens_a_session() {
            cases::opens_by_websocket(echo);
        }

        #[test]
        fn fails_with_an_invalid_eio_query_parameter() {
            cases::refuses_versions(echo, "WS", "websocket");
        }

        #[test]
        fn fails_with_an_invalid_transport_query_parameter() {
            cases::refuses_transports(echo, "WS");
        }
    }
}

mod message {
    mod http_long_polling {
        use causeway::wire::engineio::polling::{End, Response};

        use crate::rig::{Server, body, echo};

        fn echoes(payload: &str) {
            let mut server = Server::poll(echo());
            let answer = server.post(payload);
            assert_eq!((answer.status(), body(&answer).as_str()), (200, "ok"));
            let answer = server.get().1.unwrap();
            assert_eq!(answer.content_type(), Some("text/plain; charset=UTF-8"));
            assert_eq!((answer.status(), body(&answer).as_str()), (200, payload));
        }

        #[test]
        fn sends_and_receives_a_payload_containing_one_plain_text_packet() {
            echoes("4hello");
        }

        #[test]
        fn sends_and_receives_a_payload_containing_several_plain_text_packets() {
            echoes("4test1\x1e4test2\x1e4test3");
        }

        #[test]
        fn sends_and_receives_a_payload_containing_plain_text_and_binary_packets() {
            echoes("4hello\x1ebAQIDBA==");
        }

        #[test]
        fn closes_the_session_upon_invalid_packet_format() {
            for payload in [
                &b"abc"[..],
                b"",
                b"4a\x1e",
                b"\x1e4a",
                b"b!",
                b"4\xff",
                b"bAQIDBA",
            ] {
                let mut server = Server::poll(echo());
                server.post(payload);
                assert_eq!(server.over, Some(End::Broken), "{payload:?}");
                assert_eq!(server.get().1.unwrap().status(), 400);
            }
        }

        #[test]
        fn closes_the_session_upon_duplicate_poll_requests() {
            let mut server = Server::poll(echo());
            let (first, answer) = server.get();
            assert_eq!(answer, None);
            assert_eq!(server.get().1, Some(Response::Overlap));
            assert_eq!(body(&server.answer(first).unwrap()), "1");
            assert_eq!(server.get().1.unwrap().status(), 400);
        }

        #[test]
        fn closes_the_session_upon_cancelled_polling_request() {
            let mut server = Server::poll(echo());
            let (first, _) = server.get();
            server.abandon(first);
            assert_eq!(server.over, Some(End::Gone));
            assert_eq!(server.get().1.unwrap().status(), 400);
        }
    }

    mod websocket {
        use causeway::wire::engineio::Frame;
        use causeway::wire::engineio::polling::End;

        use crate::rig::{Server, echo, text};

        #[test]
        fn sends_and_receives_a_plain_text_packet() {
            let mut server = Server::websocket(echo());
            server.write(0, text("4hello"));
            assert_eq!(server.heard(0), [text("4hello")]);
        }

        #[test]
        fn sends_and_receives_a_binary_packet() {
            let mut server = Server::websocket(echo());
            let binary = Frame::Binary(vec![1, 2, 3, 4].into());
            server.write(0, binary.clone());
            assert_eq!(server.heard(0), [binary]);
        }

        #[test]
        fn closes_the_session_upon_invalid_packet_format() {
            for bad in ["abc", "", "7", "bAQI", "2"] {
                let mut server = Server::websocket(echo());
                server.write(0, text(bad));
                assert_eq!(server.over, Some(End::Broken), "{bad}");
            }
        }
    }
}

mod heartbeat {
    use crate::{cases, rig::echo};

    mod http_long_polling {
        use super::{cases, echo};

        #[test]
        fn sends_ping_pong_packets() {
            cases::pings_by_polling(echo);
        }

        #[test]
        fn closes_the_session_upon_ping_timeout() {
            cases::polling_times_out(echo);
        }
    }

    mod websocket {
        use super::{cases, echo};

        #[test]
        fn sends_ping_pong_packets() {
            cases::pings_by_websocket(echo);
        }

        #[test]
        fn closes_the_session_upon_ping_timeout() {
            cases::websocket_times_out(echo);
        }
    }
}

mod close {
    use crate::{cases, rig::echo};

    #[test]
    fn http_long_polling_forcefully_closes_the_session() {
        cases::closes_by_polling(echo);
    }

    #[test]
    fn websocket_forcefully_closes_the_session() {
        cases::closes_by_websocket(echo);
    }
}

mod upgrade {
    use crate::rig::text;
    use crate::{cases, rig::echo};

    #[test]
    fn successfully_upgrades_from_http_long_polling_to_websocket() {
        let (mut server, socket) = cases::upgraded(echo);
        server.write(socket, text("4hello"));
        assert_eq!(server.heard(socket), [text("4hello")]);
    }

    #[test]
    fn ignores_http_requests_with_same_sid_after_upgrade() {
        cases::ignores_http_after_upgrade(echo);
    }

    #[test]
    fn ignores_websocket_connection_with_same_sid_after_upgrade() {
        cases::ignores_websockets_after_upgrade(echo);
    }
}
