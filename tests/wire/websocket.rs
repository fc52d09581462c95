//! WebSocket codec: a table of streams, each whole, cut at every byte and with more behind it; round
//! trips against a client encoder of the test's own; hostile input.

use bytes::Bytes;
use causeway::dialect::Frame;
use causeway::wire::frame::{self, SHARED};
use causeway::wire::websocket::{Broken, Decoder, Incoming, MAX_FRAMES};
use proptest::prelude::*;

use crate::streams::{client, close, f, table, text};

const MAX: usize = 1 << 20;

/// Feeds a stream in pieces of `cut` bytes.
fn run(stream: &[u8], cut: usize, max: usize) -> (Vec<Incoming>, Option<Broken>) {
    let mut decoder = Decoder::new(max);
    let mut out = Vec::new();
    for piece in stream.chunks(cut.max(1)) {
        if let Err(broken) = decoder.feed(&mut piece.to_vec(), &mut out) {
            return (out, Some(broken));
        }
    }
    (out, None)
}

#[test]
fn the_table_whole_cut_and_followed() {
    for (name, stream, expected, code) in table() {
        let cuts: Vec<usize> = if stream.len() < 300 {
            (1..=stream.len().max(1)).collect()
        } else {
            vec![1, 2, 3, 7, 4096, stream.len()]
        };
        for cut in cuts {
            let (got, broken) = run(&stream, cut, MAX);
            assert_eq!(got, expected, "{name}, pieces of {cut}");
            assert_eq!(broken.map(|broken| broken.code), code, "{name}, pieces of {cut}");
        }
        let behind = [stream, f(0x81, b"behind")].concat();
        let (got, broken) = run(&behind, behind.len(), MAX);
        let mut expected = expected;
        let open = name == "nothing"
            || expected
                .last()
                .is_some_and(|last| !matches!(last, Incoming::Close { .. }));
        if code.is_none() && open {
            expected.push(text("behind"));
        }
        assert_eq!(
            (got, broken.map(|broken| broken.code)),
            (expected, code),
            "{name}, followed"
        );
    }
}

#[test]
fn close_codes() {
    let valid = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    for code in (0u16..=5100).chain([65_535]) {
        let (got, broken) = run(&f(0x88, &code.to_be_bytes()), 99, MAX);
        if valid(code) {
            assert_eq!(got, [close(code, "")]);
        } else {
            assert_eq!(broken.map(|broken| broken.code), Some(1002), "{code}");
        }
    }
}

#[test]
fn wrong_is_told_by_the_byte_that_makes_it_wrong() {
    let bad_text = f(0x81, b"caf\xff and a long rest that has not come yet");
    let split = f(0x81, b"\xf4\x90\x80\x80");
    let surrogate = f(0x81, b"\xed\xa0\x80");
    let second = [f(0x01, b"\xf0"), f(0x80, b"\x80 never looked at")].concat();
    for (name, stream, at, code) in [
        ("reserved bit", vec![0xc1], 1, 1002),
        ("reserved opcode", vec![0x83], 1, 1002),
        ("continuation first", vec![0x00], 1, 1002),
        ("unmasked", vec![0x81, 0x05], 2, 1002),
        ("long ping", vec![0x89, 0xfe], 2, 1002),
        ("2^63", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 10, 1002),
        ("too large", vec![0x82, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0], 10, 1009),
        ("mid-frame text", bad_text, 6 + 4, 1007),
        ("beyond U+10FFFF", split, 6 + 2, 1007),
        ("surrogate", surrogate, 6 + 2, 1007),
        ("second fragment", second, 7 + 6 + 1, 1007),
    ] {
        let mut decoder = Decoder::new(MAX);
        let mut out = Vec::new();
        let told = stream
            .iter()
            .position(|byte| decoder.feed(&mut [*byte], &mut out).is_err());
        assert_eq!(told, Some(at - 1), "{name}");
        let (_, broken) = run(&stream, stream.len(), MAX);
        assert_eq!(broken.map(|broken| broken.code), Some(code), "{name}");
    }
}

#[test]
fn limits() {
    assert_eq!(run(&f(0x82, &[0; 10]), 99, 10).1, None);
    assert_eq!(run(&f(0x82, &[0; 11]), 99, 10).1.map(|b| b.code), Some(1009));
    let sum = [f(0x02, &[0; 6]), f(0x80, &[0; 5])].concat();
    assert_eq!(run(&sum, 99, 10).1.map(|b| b.code), Some(1009));
    assert_eq!(run(&sum, 99, 11).1, None);
    assert_eq!(run(&f(0x89, &[0; 125]), 999, 10).1, None, "a ping is no message");
    let mut endless = f(0x01, b"");
    for _ in 1..MAX_FRAMES {
        endless.extend(f(0x00, b""));
    }
    assert_eq!(run(&endless, endless.len(), MAX), (vec![], None));
    endless.extend(f(0x00, b""));
    assert_eq!(run(&endless, endless.len(), MAX).1.map(|b| b.code), Some(1002));
}

#[test]
fn what_is_being_received() {
    let mut decoder = Decoder::new(MAX);
    let mut out = Vec::new();
    assert!(size_of::<Decoder>() <= 96, "{}", size_of::<Decoder>());
    assert!(!decoder.partial());
    for (piece, partial, receiving) in [
        (f(0x01, b"abc"), true, 3),
        (f(0x00, b"0123456789")[..8].to_vec(), true, 13),
        (f(0x00, b"0123456789")[8..].to_vec(), true, 13),
        (f(0x89, b"ping")[..8].to_vec(), true, 13),
        (f(0x89, b"ping")[8..].to_vec(), true, 13),
        (f(0x80, b""), false, 0),
        (vec![0x81], true, 0),
        (f(0x81, b"x")[1..].to_vec(), false, 0),
        (f(0x89, b"ping")[..9].to_vec(), true, 0),
        (f(0x89, b"ping")[9..].to_vec(), false, 0),
        (f(0x82, &[0; 1000])[..9].to_vec(), true, 1000),
    ] {
        decoder.feed(&mut piece.clone(), &mut out).unwrap();
        assert_eq!(
            (decoder.partial(), decoder.receiving()),
            (partial, receiving),
            "after {piece:02x?}"
        );
    }
    assert_eq!(out.len(), 4);
    assert!(decoder.feed(&mut [0; 1000], &mut out).is_err());
    assert_eq!((decoder.partial(), decoder.receiving()), (false, 0));
    assert_eq!(decoder.feed(&mut f(0x81, b"late"), &mut out), Ok(()));
    assert_eq!(out.len(), 5, "the binary message, and nothing after the break");
}

#[test]
fn heads_are_the_shortest() {
    for (len, head) in [
        (0, vec![0x81, 0]),
        (125, vec![0x81, 125]),
        (126, vec![0x81, 126, 0, 126]),
        (65_535, vec![0x81, 126, 0xff, 0xff]),
        (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        assert_eq!(frame::text(&vec![b'x'; len])[..head.len()], head);
        assert_eq!(frame::text(&vec![b'x'; len]).len(), head.len() + len);
    }
}

#[test]
fn big_payloads_are_shared_and_small_ones_joined() {
    let small = frame::packet(&Frame::Binary(vec![7; SHARED - 1].into()));
    assert_eq!((small.head.len(), small.body.len()), (SHARED - 1 + 4, 0));
    let payload = Bytes::from(vec![b'x'; SHARED]);
    let big = frame::packet(&Frame::Text(payload.clone()));
    assert_eq!(big.head[..], [0x81, 126, 0x40, 0]);
    assert_eq!(big.body.as_ptr(), payload.as_ptr(), "not copied");
    assert_eq!(big.len(), SHARED + 4);
}

#[test]
fn control_frames_out() {
    assert_eq!(frame::ping(b"hi")[..], [0x89, 2, b'h', b'i']);
    assert_eq!(frame::pong(&[0; 200]).len(), 127);
    assert_eq!(frame::close_empty()[..], [0x88, 0]);
    assert_eq!(
        frame::close(1013, "slow")[..],
        [0x88, 6, 0x03, 0xf5, b's', b'l', b'o', b'w']
    );
    let reason = format!("{}é", "x".repeat(122));
    assert_eq!(
        frame::close(1000, &reason).len(),
        4 + 122,
        "the character that does not fit goes whole"
    );
    assert_eq!(frame::close(1000, &"x".repeat(500)).len(), 127);
}

fn message() -> impl Strategy<Value = (bool, Vec<u8>)> {
    prop_oneof![
        any::<String>().prop_map(|text| (true, text.into_bytes())),
        proptest::collection::vec(any::<u8>(), 0..700).prop_map(|bytes| (false, bytes)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_client_sends_arrives(
        messages in proptest::collection::vec((message(), 1usize..90, any::<[u8; 4]>(), any::<bool>()), 0..6),
        cut in 1usize..400,
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for ((is_text, payload), piece, key, pinged) in messages {
            let opcode = if is_text { 1 } else { 2 };
            let pieces: Vec<&[u8]> = if payload.is_empty() { vec![&[]] } else { payload.chunks(piece).collect() };
            for (at, part) in pieces.iter().enumerate() {
                let fin = if at + 1 == pieces.len() { 0x80 } else { 0 };
                stream.extend(client(fin | if at == 0 { opcode } else { 0 }, part, key));
                if pinged && fin == 0 {
                    stream.extend(client(0x89, part, key));
                    expected.push(Incoming::Ping(Bytes::copy_from_slice(part)));
                }
            }
            expected.push(if is_text { Incoming::Text(payload.into()) } else { Incoming::Binary(payload.into()) });
        }
        prop_assert_eq!(run(&stream, cut, MAX), (expected, None));
    }

    #[test]
    fn noise_never_panics_and_cuts_never_matter(noise in proptest::collection::vec(any::<u8>(), 0..200), cut in 1usize..30) {
        prop_assert_eq!(run(&noise, cut, 4096), run(&noise, 200, 4096));
    }

    #[test]
    fn text_is_judged_as_std_does(bytes in proptest::collection::vec(
        prop_oneof![Just(b'a'), 0x80u8..=0xff, Just(0xf0), Just(0xe0), Just(0xed), Just(0x90)], 0..9), cut in 1usize..9,
    ) {
        let (got, broken) = run(&f(0x81, &bytes), cut, MAX);
        match std::str::from_utf8(&bytes) {
            Ok(valid) => prop_assert_eq!(got, vec![text(valid)]),
            Err(_) => prop_assert_eq!(broken.map(|broken| broken.code), Some(1007)),
        }
    }

    #[test]
    fn masking_twice_is_nothing(data in proptest::collection::vec(any::<u8>(), 0..100), key: [u8; 4]) {
        let mut masked = data.clone();
        frame::mask(&mut masked, key);
        for (at, byte) in masked.iter().enumerate() {
            prop_assert_eq!(*byte, data[at] ^ key[at % 4]);
        }
    }
}
