//! References to large bodies, read strictly.

use causeway::bus::bodies::{BadReference, MAX_SIZE, Reference};

#[test]
fn references_are_read_strictly() {
    let hash = "00ff".repeat(16);
    let good = format!("object:GW_BODIES/01J0ABC-_9;size=123;sha256={hash}");
    let reference: Reference = good.parse().expect("good");
    assert_eq!(reference.size, 123);
    assert_eq!(reference.sha256[..2], [0, 0xff]);
    assert_eq!(reference.to_string(), good);
    let largest = good.replace("=123;", &format!("={MAX_SIZE};"));
    assert!(largest.parse::<Reference>().is_ok());
    let beyond = MAX_SIZE + 1;
    for (bad, why) in [
        (String::new(), BadReference::Form),
        (good.replace("object:", "file:"), BadReference::Form),
        (format!(" {good}"), BadReference::Form),
        (good.replace(";size=", ";len="), BadReference::Form),
        (good.replace("GW_BODIES", "OTHER"), BadReference::Bucket),
        (good.replace("GW_BODIES", "gw_bodies"), BadReference::Bucket),
        (good.replace("01J0ABC-_9", ""), BadReference::Name),
        (good.replace("01J0ABC-_9", "a.b"), BadReference::Name),
        (good.replace("01J0ABC-_9", "a>"), BadReference::Name),
        (good.replace("01J0ABC-_9", "a/../b"), BadReference::Name),
        (good.replace("01J0ABC-_9", &"x".repeat(65)), BadReference::Name),
        (good.replace("=123;", "=0;"), BadReference::Size),
        (good.replace("=123;", "=0123;"), BadReference::Size),
        (good.replace("=123;", "=+123;"), BadReference::Size),
        (good.replace("=123;", "=;"), BadReference::Size),
        (good.replace("=123;", &format!("={beyond};")), BadReference::Size),
        (
            good.replace("=123;", "=99999999999999999999999;"),
            BadReference::Size,
        ),
        (good.replace("00ff", "00FF"), BadReference::Hash),
        (good[..good.len() - 1].to_owned(), BadReference::Hash),
        (format!("{good};more=1"), BadReference::Hash),
        (format!("{good} "), BadReference::Hash),
    ] {
        assert_eq!(bad.parse::<Reference>(), Err(why), "{bad}");
    }
}
