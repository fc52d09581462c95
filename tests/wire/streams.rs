//! What clients may send, good and hostile: a frame encoder of our own, and the table of streams.

use bytes::Bytes;
use causeway::wire::websocket::Incoming;

/// A client's frame, written from the RFC and not from our encoder: first byte as given, masked.
pub(crate) fn client(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    if payload.len() <= 125 {
        frame.push(0x80 | payload.len() as u8);
    } else if payload.len() <= 65_535 {
        frame.push(0x80 | 126);
        frame.extend(&[(payload.len() >> 8) as u8, payload.len() as u8]);
    } else {
        frame.push(0x80 | 127);
        frame.extend((0..8).rev().map(|byte| (payload.len() >> (8 * byte)) as u8));
    }
    frame.extend(key);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    frame
}

pub(crate) fn f(first: u8, payload: &[u8]) -> Vec<u8> {
    client(first, payload, [0x37, 0xfa, 0x21, 0x3d])
}

pub(crate) fn text(text: &str) -> Incoming {
    Incoming::Text(Bytes::copy_from_slice(text.as_bytes()))
}

pub(crate) fn close(code: impl Into<Option<u16>>, reason: &str) -> Incoming {
    Incoming::Close {
        code: code.into(),
        reason: reason.to_owned(),
    }
}

pub(crate) type Row = (&'static str, Vec<u8>, Vec<Incoming>, Option<u16>);

pub(crate) fn table() -> Vec<Row> {
    let long = "ü".repeat(40_000);
    vec![
        ("nothing", vec![], vec![], None),
        ("rfc 5.7 hello", f(0x81, b"Hello"), vec![text("Hello")], None),
        ("empty text", f(0x81, b""), vec![text("")], None),
        (
            "empty binary",
            f(0x82, b""),
            vec![Incoming::Binary(Bytes::new())],
            None,
        ),
        ("125", f(0x81, &[b'x'; 125]), vec![text(&"x".repeat(125))], None),
        ("126", f(0x81, &[b'x'; 126]), vec![text(&"x".repeat(126))], None),
        (
            "65535",
            f(0x81, &[b'x'; 65_535]),
            vec![text(&"x".repeat(65_535))],
            None,
        ),
        (
            "65536",
            f(0x81, &[b'x'; 65_536]),
            vec![text(&"x".repeat(65_536))],
            None,
        ),
        (
            "two-byte characters",
            f(0x81, long.as_bytes()),
            vec![text(&long)],
            None,
        ),
        (
            "three messages",
            [f(0x81, b"a"), f(0x82, b"b"), f(0x81, b"c")].concat(),
            vec![text("a"), Incoming::Binary("b".into()), text("c")],
            None,
        ),
        (
            "fragments",
            [f(0x01, b"He"), f(0x00, b"l"), f(0x80, b"lo")].concat(),
            vec![text("Hello")],
            None,
        ),
        (
            "empty fragments",
            [f(0x01, b""), f(0x00, b""), f(0x80, b"")].concat(),
            vec![text("")],
            None,
        ),
        (
            "late fragment",
            [f(0x02, b""), f(0x80, b"x")].concat(),
            vec![Incoming::Binary("x".into())],
            None,
        ),
        (
            "character across fragments",
            [f(0x01, b"\xf0\x9f"), f(0x00, b"\x98"), f(0x80, b"\x80")].concat(),
            vec![text("😀")],
            None,
        ),
        (
            "ping",
            f(0x89, b"are you there"),
            vec![Incoming::Ping("are you there".into())],
            None,
        ),
        (
            "ping of 125",
            f(0x89, &[7; 125]),
            vec![Incoming::Ping(Bytes::from_static(&[7; 125]))],
            None,
        ),
        (
            "pong unasked",
            f(0x8a, b""),
            vec![Incoming::Pong(Bytes::new())],
            None,
        ),
        (
            "controls inside a message",
            [f(0x01, b"a"), f(0x89, b"p"), f(0x8a, b"q"), f(0x80, b"b")].concat(),
            vec![Incoming::Ping("p".into()), Incoming::Pong("q".into()), text("ab")],
            None,
        ),
        ("close", f(0x88, b"\x03\xe8bye"), vec![close(1000, "bye")], None),
        ("close without code", f(0x88, b""), vec![close(None, "")], None),
        (
            "close inside a message",
            [f(0x01, b"a"), f(0x88, b"\x0f\xa0")].concat(),
            vec![close(4000, "")],
            None,
        ),
        (
            "after close nothing counts",
            [f(0x88, b""), f(0xff, b"junk")].concat(),
            vec![close(None, "")],
            None,
        ),
        ("close of one byte", f(0x88, b"\x03"), vec![], Some(1002)),
        (
            "close reason not utf-8",
            f(0x88, b"\x03\xe8\xff"),
            vec![],
            Some(1007),
        ),
        (
            "close reason cut",
            f(0x88, b"\x03\xe8\xf0\x9f"),
            vec![],
            Some(1007),
        ),
        ("rsv1", f(0xc1, b"x"), vec![], Some(1002)),
        ("rsv2", f(0xa1, b"x"), vec![], Some(1002)),
        ("rsv3 on ping", f(0x99, b"x"), vec![], Some(1002)),
        ("opcode 3", f(0x83, b"x"), vec![], Some(1002)),
        ("opcode 7", f(0x87, b"x"), vec![], Some(1002)),
        ("opcode 11", f(0x8b, b"x"), vec![], Some(1002)),
        ("opcode 15", f(0x8f, b"x"), vec![], Some(1002)),
        (
            "good then reserved",
            [f(0x81, b"a"), f(0x83, b"")].concat(),
            vec![text("a")],
            Some(1002),
        ),
        ("unmasked", vec![0x81, 0x00], vec![], Some(1002)),
        (
            "unmasked with payload",
            vec![0x81, 0x01, b'x'],
            vec![],
            Some(1002),
        ),
        ("ping of 126", f(0x89, &[0; 126]), vec![], Some(1002)),
        ("close of 126", f(0x88, &[0; 126]), vec![], Some(1002)),
        ("fragmented ping", f(0x09, b"x"), vec![], Some(1002)),
        ("fragmented close", f(0x08, b""), vec![], Some(1002)),
        ("continuation first", f(0x80, b"x"), vec![], Some(1002)),
        (
            "continuation after whole",
            [f(0x81, b"a"), f(0x00, b"b")].concat(),
            vec![text("a")],
            Some(1002),
        ),
        (
            "text inside text",
            [f(0x01, b"a"), f(0x81, b"b")].concat(),
            vec![],
            Some(1002),
        ),
        (
            "binary inside text",
            [f(0x01, b"a"), f(0x02, b"b")].concat(),
            vec![],
            Some(1002),
        ),
        (
            "top bit",
            vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
            vec![],
            Some(1002),
        ),
        (
            "2^63-1",
            vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            vec![],
            Some(1009),
        ),
        (
            "all ones",
            [0x82, 0xff].into_iter().chain([0xff; 8]).collect(),
            vec![],
            Some(1002),
        ),
        (
            "one over",
            vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1],
            vec![],
            Some(1009),
        ),
        (
            "sum overflows",
            [
                f(0x02, b"abcd"),
                vec![0x80, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            ]
            .concat(),
            vec![],
            Some(1009),
        ),
        (
            "not utf-8",
            f(
                0x81,
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
            ),
            vec![],
            Some(1007),
        ),
        (
            "binary may be anything",
            f(0x82, b"\xff\xfe"),
            vec![Incoming::Binary(Bytes::from_static(b"\xff\xfe"))],
            None,
        ),
        (
            "text ends inside a character",
            f(0x81, b"\xf0\x9f\x98"),
            vec![],
            Some(1007),
        ),
        (
            "fragments end inside a character",
            [f(0x01, b"\xf0"), f(0x80, b"\x9f")].concat(),
            vec![],
            Some(1007),
        ),
        (
            "surrogate across fragments",
            [f(0x01, b"\xed"), f(0x80, b"\xa0\x80")].concat(),
            vec![],
            Some(1007),
        ),
        (
            "state is fresh for the next text",
            [f(0x82, b"\xf0"), f(0x81, b"ok")].concat(),
            vec![Incoming::Binary(Bytes::from_static(b"\xf0")), text("ok")],
            None,
        ),
    ]
}
