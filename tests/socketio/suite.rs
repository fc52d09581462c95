//! The official Socket.IO 5 suite, one test for each of its 32 cases, named after it.

use causeway::wire::engineio::Frame;
use causeway::wire::engineio::polling::End;

use crate::chat::app;
use crate::rig::{Server, shown, text};

/// What the server answers to these frames.
fn answers(server: &mut Server, frames: &[Frame]) -> Vec<String> {
    for frame in frames {
        server.write(0, frame.clone());
    }
    server.heard(0).iter().map(shown).collect()
}

fn connected() -> Server {
    let mut server = Server::websocket(app());
    assert_eq!(answers(&mut server, &[text("40")]).len(), 2);
    server
}

fn ends(server: &mut Server, frame: &str) {
    server.write(0, text(frame));
    assert_eq!(server.over, Some(End::Broken));
    assert_eq!(server.heard(0), []);
}

mod engine_io_protocol {
    mod handshake {
        use crate::{cases, chat::app};

        #[test]
        fn polling_should_successfully_open_a_session() {
            cases::opens_by_polling(app);
        }

        #[test]
        fn polling_should_fail_with_an_invalid_eio_query_parameter() {
            cases::refuses_versions(app, "GET", "polling");
        }

        #[test]
        fn polling_should_fail_with_an_invalid_transport_query_parameter() {
            cases::refuses_transports(app, "GET");
        }

        #[test]
        fn polling_should_fail_with_an_invalid_request_method() {
            cases::refuses_methods(app);
        }

        #[test]
        fn websocket_should_successfully_open_a_session() {
            cases::opens_by_websocket(app);
        }

        #[test]
        fn websocket_should_fail_with_an_invalid_eio_query_parameter() {
            cases::refuses_versions(app, "WS", "websocket");
        }

        #[test]
        fn websocket_should_fail_with_an_invalid_transport_query_parameter() {
            cases::refuses_transports(app, "WS");
        }
    }

    mod heartbeat {
        use crate::{cases, chat::app};

        #[test]
        fn polling_should_send_ping_pong_packets() {
            cases::pings_by_polling(app);
        }

        #[test]
        fn polling_should_close_the_session_upon_ping_timeout() {
            cases::polling_times_out(app);
        }

        #[test]
        fn websocket_should_send_ping_pong_packets() {
            cases::pings_by_websocket(app);
        }

        #[test]
        fn websocket_should_close_the_session_upon_ping_timeout() {
            cases::websocket_times_out(app);
        }
    }

    mod close {
        use crate::{cases, chat::app};

        #[test]
        fn polling_should_forcefully_close_the_session() {
            cases::closes_by_polling(app);
        }

        #[test]
        fn websocket_should_forcefully_close_the_session() {
            cases::closes_by_websocket(app);
        }
    }

    mod upgrade {
        use crate::{cases, chat::app};

        #[test]
        fn should_successfully_upgrade_from_http_long_polling_to_websocket() {
            cases::upgraded(app);
        }

        #[test]
        fn should_ignore_http_requests_with_same_sid_after_upgrade() {
            cases::ignores_http_after_upgrade(app);
        }

        #[test]
        fn should_ignore_websocket_connection_with_same_sid_after_upgrade() {
            cases::ignores_websockets_after_upgrade(app);
        }
    }
}

mod connect {
    use super::*;

    fn joins(frame: &str, expected: [&str; 2]) {
        assert_eq!(answers(&mut Server::websocket(app()), &[text(frame)]), expected);
    }

    #[test]
    fn should_allow_connection_to_the_main_namespace() {
        joins("40", [r#"40{"sid":"another id"}"#, r#"42["auth",{}]"#]);
    }

    #[test]
    fn should_allow_connection_to_the_main_namespace_with_a_payload() {
        joins(
            r#"40{"token":"123"}"#,
            [r#"40{"sid":"another id"}"#, r#"42["auth",{"token":"123"}]"#],
        );
    }

    #[test]
    fn should_allow_connection_to_a_custom_namespace() {
        joins(
            "40/custom,",
            [r#"40/custom,{"sid":"another id"}"#, r#"42/custom,["auth",{}]"#],
        );
    }

    #[test]
    fn should_allow_connection_to_a_custom_namespace_with_a_payload() {
        joins(
            r#"40/custom,{"token":"abc"}"#,
            [
                r#"40/custom,{"sid":"another id"}"#,
                r#"42/custom,["auth",{"token":"abc"}]"#,
            ],
        );
    }

    #[test]
    fn should_disallow_connection_to_an_unknown_namespace() {
        let mut server = Server::websocket(app());
        let heard = answers(&mut server, &[text("40/random")]);
        assert_eq!(heard, [r#"44/random,{"message":"Invalid namespace"}"#]);
        assert_eq!(server.over, None);
    }

    #[test]
    fn should_disallow_connection_with_an_invalid_handshake() {
        ends(&mut Server::websocket(app()), "4abc");
    }

    #[test]
    fn should_close_the_connection_if_no_handshake_is_received() {
        let mut server = Server::websocket(app());
        server.pass(500);
        assert_eq!(server.over, Some(End::Broken));
    }
}

mod disconnect {
    use super::*;

    #[test]
    fn should_disconnect_from_the_main_namespace() {
        let mut server = connected();
        server.write(0, text("41"));
        server.pass(300);
        assert_eq!(server.heard(0), [text("2")]);
    }

    #[test]
    fn should_connect_then_disconnect_from_a_custom_namespace() {
        let mut server = connected();
        assert_eq!(answers(&mut server, &[text("40/custom")]).len(), 2);
        let said = text(r#"42["message","message to main namespace"]"#);
        let heard = answers(&mut server, &[text("41/custom"), said]);
        assert_eq!(heard, [r#"42["message-back","message to main namespace"]"#]);
    }
}

mod message {
    use super::*;

    fn binary() -> [Frame; 2] {
        [
            Frame::Binary(vec![1, 2, 3].into()),
            Frame::Binary(vec![4, 5, 6].into()),
        ]
    }

    #[test]
    fn should_send_a_plain_text_packet() {
        let heard = answers(&mut connected(), &[text(r#"42["message",1,"2",{"3":[true]}]"#)]);
        assert_eq!(heard, [r#"42["message-back",1,"2",{"3":[true]}]"#]);
    }

    #[test]
    fn should_send_a_packet_with_binary_attachments() {
        let mut server = connected();
        let head = r#"452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
        server.write(0, text(head));
        let [one, two] = binary();
        server.write(0, one.clone());
        assert_eq!(server.heard(0), [], "incomplete");
        server.write(0, two.clone());
        let back = head.replace("message", "message-back");
        assert_eq!(server.heard(0), [text(&back), one, two]);
    }

    #[test]
    fn should_send_a_plain_text_packet_with_an_ack() {
        let heard = answers(
            &mut connected(),
            &[text(r#"42456["message-with-ack",1,"2",{"3":[false]}]"#)],
        );
        assert_eq!(heard, [r#"43456[1,"2",{"3":[false]}]"#]);
    }

    #[test]
    fn should_send_a_packet_with_binary_attachments_and_an_ack() {
        let mut server = connected();
        let spots = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
        server.write(0, text(&format!(r#"452-789["message-with-ack",{spots}"#)));
        let [one, two] = binary();
        server.write(0, one.clone());
        server.write(0, two.clone());
        assert_eq!(server.heard(0), [text(&format!("462-789[{spots}")), one, two]);
    }

    #[test]
    fn should_close_the_connection_upon_invalid_format_unknown_packet_type() {
        ends(&mut connected(), "4abc");
    }

    #[test]
    fn should_close_the_connection_upon_invalid_format_invalid_payload_format() {
        ends(&mut connected(), "42{}");
    }

    #[test]
    fn should_close_the_connection_upon_invalid_format_invalid_ack_id() {
        ends(
            &mut connected(),
            r#"42abc["message-with-ack",1,"2",{"3":[false]}]"#,
        );
    }
}
