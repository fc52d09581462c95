//! The JSON scanner beside serde_json: the same documents, ended at the same bytes, however the stream is cut.
//!
//! The first two bytes of an input say how finely it is cut and how large a document may be; the rest is the stream.
#![no_main]

use std::fmt;

use bytes::Bytes;
use json::{Documents, Members, Refused};
use libfuzzer_sys::fuzz_target;
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

// the source itself and not the crate: nothing else is built, and all that is measured is the scanner
#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/wire"]
mod wire {
    pub mod json;
}
use wire::json;

/// No document of an input reaches it.
const ANY: usize = usize::MAX;

/// What a stream was found to be.
#[derive(Debug, PartialEq)]
struct Read {
    documents: Vec<Bytes>,
    refused: Option<Refused>,
    /// Bytes of a document that is begun.
    begun: usize,
}

fn read(stream: &[u8], cut: usize, max: usize) -> Read {
    let mut cutter = Documents::new(max);
    let mut documents = Vec::new();
    for piece in stream.chunks(cut) {
        cutter.push(Bytes::copy_from_slice(piece));
        loop {
            match cutter.cut() {
                Ok(Some(document)) => documents.push(document),
                Ok(None) => break,
                Err(refused) => {
                    return Read {
                        documents,
                        refused: Some(refused),
                        begun: 0,
                    };
                }
            }
        }
    }
    let begun = cutter.begun().len();
    Read {
        documents,
        refused: None,
        begun,
    }
}

/// Follows serde_json through the stream and holds every document's end against its.
fn compare(stream: &[u8], read: &Read) {
    let mut found = read.documents.iter();
    let mut at = 0;
    loop {
        let Some(blanks) = stream[at..].iter().position(|byte| !b" \t\r\n".contains(byte)) else {
            assert_eq!((found.next(), read.refused, read.begun), (None, None, 0));
            return;
        };
        at += blanks;
        let rest = &stream[at..];
        if !matches!(rest[0], b'{' | b'[') {
            assert!(matches!(read.refused, Some(Refused::Bare | Refused::NotJson)));
            assert_eq!(found.next(), None);
            return;
        }
        let mut theirs = Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        match theirs.next() {
            Some(Ok(_)) => {
                let end = theirs.byte_offset();
                let Some(document) = found.next() else {
                    // they set no bound to the depth of what they skip
                    assert_eq!(read.refused, Some(Refused::TooDeep));
                    let opening = rest[..end].iter().filter(|byte| b"[{".contains(byte)).count();
                    assert!(opening > usize::from(json::MAX_DEPTH));
                    return;
                };
                assert_eq!(document, &rest[..end]);
                at += end;
            }
            Some(Err(error)) => {
                assert_eq!(found.next(), None);
                if read.refused == Some(Refused::TooDeep) {
                    return;
                }
                // they look at the digits of \u only when all four are there, and call a number cut short wrong
                let half_escape = rest[rest.len().saturating_sub(6)..]
                    .windows(2)
                    .any(|pair| pair == br"\u");
                let half_number = matches!(rest.last(), Some(b'-' | b'+' | b'.' | b'e' | b'E'));
                if error.is_eof() {
                    assert!(half_escape || (read.refused.is_none() && read.begun == rest.len()));
                } else {
                    assert!(half_number || half_escape || read.refused == Some(Refused::NotJson));
                }
                return;
            }
            None => unreachable!("there is more than white space"),
        }
    }
}

/// The values of an object's members, as serde_json finds them.
struct Values;

impl<'a> Visitor<'a> for Values {
    type Value = Vec<&'a str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while map.next_key::<IgnoredAny>()?.is_some() {
            values.push(map.next_value::<&RawValue>()?.get());
        }
        Ok(values)
    }
}

fn compare_members(document: &[u8]) {
    let mut members = Members::new(document);
    let values: Vec<_> = members.by_ref().map(|member| &document[member.value]).collect();
    assert_eq!(members.whole(), document[0] == b'{');
    let Ok(text) = std::str::from_utf8(document) else {
        return;
    };
    // half a surrogate in a name is theirs to refuse
    if let Ok(theirs) = Deserializer::from_str(text).deserialize_map(Values) {
        assert_eq!(
            values,
            theirs.iter().map(|value| value.as_bytes()).collect::<Vec<_>>()
        );
    }
}

fuzz_target!(|input: &[u8]| {
    let [cut, max, stream @ ..] = input else { return };
    let whole = read(stream, stream.len().max(1), ANY);
    compare(stream, &whole);
    whole
        .documents
        .iter()
        .for_each(|document| compare_members(document));
    let cut = usize::from(*cut).max(1);
    assert_eq!(read(stream, cut, ANY), whole, "pieces of {cut}");
    let max = usize::from(*max);
    let bounded = read(stream, cut, max);
    let fits = whole
        .documents
        .iter()
        .take_while(|document| document.len() <= max)
        .count();
    assert_eq!(bounded.documents, whole.documents[..fits]);
    if fits < whole.documents.len() || whole.begun > max {
        assert_eq!(bounded.refused, Some(Refused::TooLarge));
    }
});
