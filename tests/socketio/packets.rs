//! Packets there and back, and what hostile clients send: nothing panics, nothing grows beyond what was sent.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use causeway::wire::socketio::attachment::{inline, spots};
use causeway::wire::socketio::conversation::{Conversation, Heard};
use causeway::wire::socketio::{Arguments, Breach, Kind, MAX_ATTACHMENTS, MAX_ID, Packet, ack, event};

fn read(text: &str) -> Result<Packet, Breach> {
    Packet::read(Bytes::from(text.to_owned()))
}

fn conversation(limit: usize) -> Conversation {
    let mut conversation = Conversation::new(&["/ws", "/"], limit);
    let joined = conversation.text(Bytes::from("0/ws,")).unwrap();
    assert_eq!(
        joined,
        Heard::Joined {
            namespace: 0,
            auth: Bytes::new()
        }
    );
    conversation
}

#[test]
fn arguments_are_slices_of_the_packet() {
    let data = Bytes::from(r#" [ "a\u0062" , {"x":[1,"]"]} ,2 ] "#);
    let (name, arguments) = event(&data).unwrap();
    assert_eq!(name, "ab");
    let first = Bytes::from(r#"{"x":[1,"]"]}"#);
    let rest = Bytes::from(r#"{"x":[1,"]"]} ,2 "#);
    assert_eq!(
        arguments,
        Arguments {
            count: 2,
            first: Some(first),
            rest
        }
    );
    let none = Arguments {
        count: 0,
        first: None,
        rest: Bytes::new(),
    };
    assert_eq!(
        event(&Bytes::from(r#"["a"]"#)),
        Ok(("a".to_owned(), none.clone()))
    );
    assert_eq!(ack(&Bytes::from("[]")), Ok(none));
    assert_eq!(ack(&Bytes::from("[1,2]")).unwrap().rest, "1,2");
}

#[test]
fn an_array_of_a_million_elements_costs_no_memory_of_its_own() {
    let data = Bytes::from(format!("[\"a\"{}]", ",1".repeat(1_000_000)));
    assert_eq!(event(&data).unwrap().1.count, 1_000_000);
}

#[test]
fn nesting_without_end_is_refused_or_passed_through_but_never_followed() {
    let deep = "[".repeat(100_000);
    assert_eq!(event(&Bytes::from(format!("[\"a\",{deep}"))), Err(Breach::Json));
    let whole = format!("[\"a\",{deep}{}]", "]".repeat(100_000));
    assert_eq!(event(&Bytes::from(whole)).unwrap().1.count, 1);
}

#[test]
fn a_packet_and_its_attachments_share_one_limit() {
    let head = Bytes::from(r#"51-/ws,["a",{"_placeholder":true,"num":0}]"#);
    let mut small = conversation(head.len() + 10);
    assert_eq!(small.text(head.clone()), Ok(Heard::Nothing));
    assert!(matches!(
        small.binary(Bytes::from(vec![0; 10])),
        Ok(Heard::Event(_))
    ));
    assert_eq!(small.text(head.clone()), Ok(Heard::Nothing));
    assert_eq!(small.binary(Bytes::from(vec![0; 11])), Err(Breach::TooLarge));
    assert_eq!(conversation(head.len() - 1).text(head), Err(Breach::TooLarge));
}

#[test]
fn as_many_attachments_as_may_be_arrive() {
    let spots: Vec<_> = (0..MAX_ATTACHMENTS)
        .map(|n| format!(r#"{{"num":{n},"_placeholder":true}}"#))
        .collect();
    let head = format!("5{MAX_ATTACHMENTS}-/ws,[\"a\",{}]", spots.join(","));
    let mut conversation = conversation(1 << 20);
    conversation.text(head.into()).unwrap();
    for number in 0..MAX_ATTACHMENTS {
        let heard = conversation.binary(vec![number as u8].into()).unwrap();
        match heard {
            Heard::Event(event) => {
                assert_eq!(
                    (number, event.attachments.len()),
                    (MAX_ATTACHMENTS - 1, MAX_ATTACHMENTS)
                );
                assert_eq!(event.attachments[7], [7][..]);
            }
            other => assert_eq!(other, Heard::Nothing),
        }
    }
    assert_eq!(conversation.binary(Bytes::new()), Err(Breach::StrayBinary));
}

#[test]
fn a_refused_packet_leaves_no_half_of_it_behind() {
    let mut conversation = conversation(1 << 20);
    let forged = r#"51-/ws,["a",{"_placeholder":true,"num":9}]"#;
    assert_eq!(conversation.text(forged.into()), Err(Breach::Placeholder));
    assert_eq!(conversation.binary(Bytes::new()), Err(Breach::StrayBinary));
}

#[test]
fn placeholders_stand_only_where_they_are_objects_of_their_own() {
    let parts = [Bytes::from("a")];
    let good = [
        (r#"{"_placeholder":true,"num":0}"#, r#""YQ==""#),
        (
            "[1, {\n\"num\" : 0 ,\t\"_placeholder\":true}\r]",
            r#"[1, "YQ=="
]"#,
        ),
        (r#"["\"{",{"_placeholder":true,"num":0}]"#, r#"["\"{","YQ=="]"#),
        (r#"{"\\":{"_placeholder":true,"num":0}}"#, r#"{"\\":"YQ=="}"#),
    ];
    for (json, expected) in good {
        let expected = expected.replace('\n', "\r");
        assert_eq!(
            inline(&Bytes::from(json), &parts),
            Ok(Bytes::from(expected)),
            "{json}"
        );
    }
    let bad = [
        r#"{"_placeholder":false,"num":0}"#,
        r#"{"_placeholder":true,"num":0,"x":1}"#,
        r#"{"_placeholder":true,"num":1}"#,
        r#"{"_placeholder":true,"num":-1}"#,
        r#"{"_placeholder":true,"num":"0"}"#,
        r#"{"_placeholder":true,"num":99999999999999999999999}"#,
        r#"{"_placeholder":true}"#,
        r#""{\"_placeholder\":true,\"num\":0}""#,
        r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#,
        "{",
        "",
    ];
    for json in bad {
        assert_eq!(
            inline(&Bytes::from(json), &parts),
            Err(Breach::Placeholder),
            "{json}"
        );
    }
}

fn packet() -> impl Strategy<Value = Packet> {
    let kind = prop_oneof![
        Just((Kind::Connect, None)),
        Just((Kind::Disconnect, None)),
        Just((Kind::ConnectError, None)),
        proptest::option::of(0..=MAX_ATTACHMENTS).prop_map(|count| (Kind::Event, count)),
        proptest::option::of(0..=MAX_ATTACHMENTS).prop_map(|count| (Kind::Ack, count)),
    ];
    let namespace = prop_oneof![Just("/".to_owned()), "/[^,]{1,40}"];
    (
        kind,
        namespace,
        proptest::option::of(0..=MAX_ID),
        "|[{\\[\"tfn][^\u{0}]{0,30}",
    )
        .prop_map(|((kind, attachments), namespace, id, data)| Packet {
            kind,
            attachments,
            namespace: namespace.into(),
            id,
            data: data.into(),
        })
}

proptest! {
    #[test]
    fn packets_survive_there_and_back(packet in packet()) {
        let text = packet.write();
        prop_assert_eq!(text.first(), Some(&b'4'));
        prop_assert_eq!(Packet::read(text.slice(1..)), Ok(packet));
    }

    #[test]
    fn arbitrary_text_never_panics(text in "[0-6]?[0-9]{0,3}-?(/[a-z]{0,3},?)?[0-9]{0,21}.{0,30}") {
        let _ = read(&text);
        let data = Bytes::from(text);
        let _ = (event(&data), ack(&data), spots(&data, 1), inline(&data, &[Bytes::from("a")]));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..60)) {
        let data = Bytes::from(bytes);
        let _ = (event(&data), ack(&data), spots(&data, 1), inline(&data, &[Bytes::from("a")]));
    }

    #[test]
    fn no_order_of_packets_breaks_a_conversation(
        packets in vec(
            prop_oneof![
                Just(Err(vec![1, 2])),
                prop_oneof![
                    Just("0/ws,"), Just("0"), Just("1/ws,"), Just("1"), Just("0/x,"), Just("2/ws,[\"a\",1]"),
                    Just("51-/ws,[\"a\",{\"_placeholder\":true,\"num\":0}]"), Just("3/ws,1[]"), Just("4/ws,{}"),
                    Just("61-[{\"_placeholder\":true,\"num\":0}]"), Just("2[1]"), Just("0/ws,1"),
                ].prop_map(|text| Ok(text.to_owned())),
                "[0-6].{0,12}".prop_map(Ok),
            ],
            0..40,
        )
    ) {
        let mut conversation = Conversation::new(&["/ws", "/"], 1000);
        for packet in packets {
            let heard = match packet {
                Ok(text) => conversation.text(text.into()),
                Err(bytes) => conversation.binary(bytes.into()),
            };
            match heard {
                Ok(Heard::Event(event)) => prop_assert!(conversation.is_in(event.namespace)),
                Ok(Heard::Left(namespace)) => prop_assert!(!conversation.is_in(namespace)),
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}
