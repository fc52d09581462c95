//! The ends of JSON documents: a table of streams, each whole, cut at every byte and glued; the grammar
//! against serde_json; limits; one look at every byte.

use bytes::Bytes;
use causeway::wire::json::{Documents, MAX_DEPTH, Refused, Scanner};
use proptest::prelude::*;
use serde::de::IgnoredAny;

const MAX: usize = 1 << 20;

/// Documents of a stream fed in pieces of `cut`, why it was refused, and whether one is begun.
fn run(stream: &[u8], cut: usize, max: usize) -> (Vec<Bytes>, Option<Refused>, bool) {
    let mut documents = Documents::new(max);
    let mut got = Vec::new();
    for piece in stream.chunks(cut.max(1)) {
        documents.push(Bytes::copy_from_slice(piece));
        loop {
            match documents.cut() {
                Ok(Some(document)) => got.push(document),
                Ok(None) => break,
                Err(refused) => return (got, Some(refused), false),
            }
        }
    }
    let begun = !documents.begun().is_empty();
    (got, None, begun)
}

enum Then {
    /// Between documents.
    Idle,
    /// A document is begun.
    Begun,
    Refused(Refused),
}
use Then::{Begun, Idle};

const NOT: Then = Then::Refused(Refused::NotJson);
const BARE: Then = Then::Refused(Refused::Bare);

const A: &str = r#"{"action":"get_state","params":{},"id":"a"}"#;
const B: &str = r#"{"type": "ping"}"#;

#[test]
fn the_table_whole_cut_and_glued() {
    let both = format!("{A}{B}");
    let lines = format!("{A}\n{B}\r\n");
    let blanks = format!("\n \t{A} ");
    let array = format!("[1,2]{A}");
    let bad_behind = format!("{A}xyz");
    let begun_behind = format!(r#"{A}{{"action":"x"#);
    let quoted = r#"{"action":"execute_code","params":{"code":"print(\"}{\")"},"id":"c"}"#;
    let unbalanced = format!(r#"{{"code":"print('{{{{{{[')"}}{A}"#);
    let backslash = format!(r#"{{"code":"x=\"\\\\\""}}{A}"#);
    let rows: Vec<(&str, &[u8], Vec<&str>, Then)> = vec![
        ("nothing", b"", vec![], Idle),
        ("blanks alone", b" \r\n\t", vec![], Idle),
        ("one", A.as_bytes(), vec![A], Idle),
        ("two in one", both.as_bytes(), vec![A, B], Idle),
        ("a line each", lines.as_bytes(), vec![A, B], Idle),
        ("blanks around", blanks.as_bytes(), vec![A], Idle),
        ("brackets in a text", quoted.as_bytes(), vec![quoted], Idle),
        (
            "unbalanced in a text",
            unbalanced.as_bytes(),
            vec![r#"{"code":"print('{{{[')"}"#, A],
            Idle,
        ),
        (
            "backslash before the quote",
            backslash.as_bytes(),
            vec![r#"{"code":"x=\"\\\\\""}"#, A],
            Idle,
        ),
        (
            "escapes",
            br#"{"a":"\"\\\/\b\f\n\r\t\u00e9\uD83d\uDe00"}"#,
            vec![r#"{"a":"\"\\\/\b\f\n\r\t\u00e9\uD83d\uDe00"}"#],
            Idle,
        ),
        (
            "characters of four bytes",
            "{\"é\":\"😀\"}".as_bytes(),
            vec!["{\"é\":\"😀\"}"],
            Idle,
        ),
        (
            "nested",
            br#"{"a":[{"b":[1,{"c":{}}]},[]]}"#,
            vec![r#"{"a":[{"b":[1,{"c":{}}]},[]]}"#],
            Idle,
        ),
        ("an array is a document", array.as_bytes(), vec!["[1,2]", A], Idle),
        ("literals", b"[true,false,null]", vec!["[true,false,null]"], Idle),
        (
            "numbers",
            b"[0,-0,10,0.5,-1.25e+10,1E5,3e-7]",
            vec!["[0,-0,10,0.5,-1.25e+10,1E5,3e-7]"],
            Idle,
        ),
        (
            "blanks inside",
            b"{ \"a\" : [ 1 , 2 ] }",
            vec!["{ \"a\" : [ 1 , 2 ] }"],
            Idle,
        ),
        ("begun", br#"{"action":"get_sta"#, vec![], Begun),
        (
            "begun behind a whole one",
            begun_behind.as_bytes(),
            vec![A],
            Begun,
        ),
        ("begun after a backslash", br#"{"a":"\"#, vec![], Begun),
        ("words", b"hello\n", vec![], NOT),
        ("garbage behind a whole one", bad_behind.as_bytes(), vec![A], NOT),
        ("broken member", br#"{"action": nope}"#, vec![], NOT),
        ("wrong bracket", br#"{"a":[1}"#, vec![], NOT),
        ("wrong brace", b"[1}", vec![], NOT),
        ("closing first", b"}", vec![], NOT),
        ("byte order mark", b"\xef\xbb\xbf{}", vec![], NOT),
        ("not utf-8 outside", b"\xff\xfe", vec![], NOT),
        ("not utf-8 where a value is due", b"{\"a\":\xff}", vec![], NOT),
        ("vertical tab is no blank", b"\x0b{}", vec![], NOT),
        ("no-break space is no blank", b"\xc2\xa0{}", vec![], NOT),
        ("name without quotes", b"{a:1}", vec![], NOT),
        ("single quotes", b"{'a':1}", vec![], NOT),
        ("comma before the end", br#"{"a":1,}"#, vec![], NOT),
        ("comma before the bracket", b"[1,]", vec![], NOT),
        ("comma first", b"[,1]", vec![], NOT),
        ("two commas", b"[1,,2]", vec![], NOT),
        ("no colon", br#"{"a" 1}"#, vec![], NOT),
        ("a name alone", br#"{"a"}"#, vec![], NOT),
        ("number as a name", b"{1:2}", vec![], NOT),
        ("line end in a text", b"[\"a\nb\"]", vec![], NOT),
        ("zero byte in a text", b"[\"\x00\"]", vec![], NOT),
        ("unknown escape", br#"["\x41"]"#, vec![], NOT),
        ("short hex escape", br#"["\u12g4"]"#, vec![], NOT),
        ("wrong literal", b"[tru]", vec![], NOT),
        ("capital literal", b"[True]", vec![], NOT),
        ("literal goes on", b"[nullx]", vec![], NOT),
        ("NaN", b"[NaN]", vec![], NOT),
        ("leading zero", b"[01]", vec![], NOT),
        ("leading plus", b"[+1]", vec![], NOT),
        ("leading point", b"[.5]", vec![], NOT),
        ("no fraction", b"[1.]", vec![], NOT),
        ("no exponent", b"[1e]", vec![], NOT),
        ("minus alone", b"[-]", vec![], NOT),
        ("comment", b"[1/*x*/]", vec![], NOT),
        ("http", b"GET / HTTP/1.1\r\n", vec![], NOT),
        ("number", b"5", vec![], BARE),
        ("text", b"\"hi\"", vec![], BARE),
        ("null", b"null", vec![], BARE),
        ("null after blanks", b"  null", vec![], BARE),
    ];
    for (name, stream, expected, then) in rows {
        for cut in 1..=stream.len().max(1) {
            let (got, refused, begun) = run(stream, cut, MAX);
            assert_eq!(got, expected, "{name}, pieces of {cut}");
            match &then {
                Then::Refused(why) => assert_eq!(refused, Some(*why), "{name}, pieces of {cut}"),
                Idle => assert_eq!((refused, begun), (None, false), "{name}, pieces of {cut}"),
                Begun => assert_eq!((refused, begun), (None, true), "{name}, pieces of {cut}"),
            }
        }
        if matches!(then, Idle) {
            let glued = stream.repeat(100);
            for cut in [1, 7, 64, glued.len()] {
                assert_eq!(run(&glued, cut, MAX).0, expected.repeat(100), "{name}, glued");
            }
        }
    }
}

#[test]
fn refused_at_the_first_byte_that_cannot_be() {
    for (stream, at) in [
        (&b"hello, a long line"[..], 0),
        (b"{\"a\": nope, and more}", 7),
        (b"{\"a\":[1}, and more", 7),
        (b"{} x", 3),
        (b"[\"\\x41\"]", 3),
        (b"[01]", 2),
    ] {
        let mut scanner = Scanner::new(MAX);
        let told = stream.iter().position(|byte| scanner.advance(&[*byte]).is_err());
        assert_eq!(told, Some(at), "{}", String::from_utf8_lossy(stream));
    }
}

#[test]
fn size_is_bounded_to_the_byte() {
    for cut in 1..=A.len() {
        assert_eq!(run(A.as_bytes(), cut, A.len()).1, None);
        assert_eq!(run(A.as_bytes(), cut, A.len() - 1).1, Some(Refused::TooLarge));
        let endless = format!("[\"{}", "x".repeat(200));
        assert_eq!(run(endless.as_bytes(), cut, 100).1, Some(Refused::TooLarge));
    }
    let many = A.repeat(50);
    assert_eq!(
        run(many.as_bytes(), many.len(), A.len()).1,
        None,
        "the limit is each document's"
    );
    let spaced = format!("{}{A}", " ".repeat(1000));
    assert_eq!(
        run(spaced.as_bytes(), 3, A.len()).1,
        None,
        "white space between is nobody's"
    );
}

#[test]
fn depth_is_bounded() {
    let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    let most = usize::from(MAX_DEPTH);
    assert_eq!(run(&deep(most), 1, MAX).0.len(), 1);
    assert!(serde_json::from_slice::<serde_json::Value>(&deep(most)).is_ok());
    assert_eq!(run(&deep(most + 1), 1, MAX).1, Some(Refused::TooDeep));
    let objects = [br#"{"a":"#.repeat(most), b"1".to_vec(), vec![b'}'; most]].concat();
    assert_eq!(run(&objects, 1, MAX).0.len(), 1);
    let sibling = [b"[", &b"[[]],".repeat(1000)[..], b"1]"].concat();
    assert_eq!(run(&sibling, 9, MAX).0.len(), 1);
}

#[test]
fn every_byte_is_looked_at_once() {
    for size in [10_000, 40_000] {
        let document = format!(r#"{{"code":"{}"}}"#, "print('\\n')😀".repeat(size / 16));
        let mut scanner = Scanner::new(MAX);
        let mut looked = 0;
        for piece in document.as_bytes().chunks(13) {
            let before = scanner.size();
            assert_eq!(before, looked, "it resumes where it stopped");
            let found = scanner.advance(piece).unwrap();
            assert_eq!(found.start, 0);
            looked += scanner.size() - before;
        }
        assert_eq!(looked, document.len());
        assert!(!scanner.partial());
    }
}

#[test]
fn a_document_within_a_piece_is_not_copied() {
    let piece = Bytes::from(format!(" {A}{B}"));
    let mut documents = Documents::new(MAX);
    documents.push(piece.clone());
    assert_eq!(documents.cut().unwrap().unwrap().as_ptr(), piece[1..].as_ptr());
    assert_eq!(
        documents.cut().unwrap().unwrap().as_ptr(),
        piece[1 + A.len()..].as_ptr()
    );
    assert_eq!(documents.cut(), Ok(None));
}

/// JSON of every kind, as text.
fn json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>().prop_map(|value| serde_json::json!(value).to_string()),
        any::<String>().prop_map(|value| serde_json::json!(value).to_string()),
    ];
    scalar.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(|all| format!("[{}]", all.join(" , "))),
            proptest::collection::vec((any::<String>(), inner), 0..6).prop_map(|all| {
                let members: Vec<_> = all
                    .iter()
                    .map(|(name, value)| format!("{}:{value}", serde_json::json!(name)))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn valid(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_back_to_back(all in proptest::collection::vec(json(), 0..6), cut in 1usize..60) {
        let all: Vec<String> = all.into_iter().map(|value| format!("[{value}]")).collect();
        let (got, refused, begun) = run(all.concat().as_bytes(), cut, MAX);
        prop_assert_eq!((refused, begun), (None, false));
        prop_assert_eq!(got, all);
    }

    #[test]
    fn whole_means_whole_to_serde_json_too(noise in proptest::collection::vec(
        proptest::sample::select(br#"[]{}",:\/ -+.019eEutrfalsn"#.as_slice()), 0..14), cut in 1usize..9,
    ) {
        let stream = [b"[", &noise[..]].concat();
        let (got, refused, begun) = run(&stream, cut, MAX);
        for document in &got {
            prop_assert!(valid(document), "{:?}", document);
        }
        // The first document serde_json sees, if any, is the first one found here.
        let first = (1..=stream.len()).find(|end| valid(&stream[..*end]));
        prop_assert_eq!(first, got.first().map(Bytes::len));
        // serde_json calls a number that ends in the middle wrong, not unfinished
        let half_number = matches!(stream.last(), Some(b'-' | b'+' | b'.' | b'e' | b'E'));
        if begun && got.is_empty() && !half_number {
            prop_assert!(serde_json::from_slice::<IgnoredAny>(&stream).unwrap_err().is_eof());
        }
        // and it looks at the digits of \u only when all four are there
        let half_escape = stream.windows(2).any(|pair| pair == br"\u");
        if refused.is_some() && got.is_empty() && !half_escape {
            prop_assert!(!serde_json::from_slice::<IgnoredAny>(&stream).unwrap_err().is_eof());
        }
    }

    #[test]
    fn one_wrong_byte(value in json(), at: prop::sample::Index, byte: u8, cut in 1usize..30) {
        let mut stream = format!("[{value}]").into_bytes();
        let at = at.index(stream.len());
        stream[at] = byte;
        let (got, refused, _) = run(&stream, cut, MAX);
        if valid(&stream) && stream[0] == b'[' {
            prop_assert_eq!(got, vec![Bytes::from(stream)]);
        } else {
            prop_assert!(got.is_empty() || refused.is_some() || got[0].len() < stream.len());
        }
    }
}
