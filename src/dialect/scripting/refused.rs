//! What a client hears, and what is counted, when its stream can no longer be cut into documents.

use crate::message::{Close, Code, Fault};
use crate::wire::json::{MAX_DEPTH, Refused};

/// The offence's name, the end of the connection, and the fault told before it.
pub(super) fn told(refused: Refused, max: usize) -> (&'static str, Close, Fault) {
    let invalid = |text: String| Fault::new(Code::Invalid, text);
    match refused {
        Refused::NotJson => {
            let text = "not JSON; the connection ends, since where the next document begins is lost";
            ("bad_json", Close::new(1007, "not JSON"), invalid(text.to_owned()))
        }
        Refused::Bare => {
            let text = "a document is an object; a bare value has no end here, so the connection ends";
            (
                "bare_value",
                Close::new(1007, "bare value"),
                invalid(text.to_owned()),
            )
        }
        Refused::TooDeep => {
            let text = format!("nested deeper than {MAX_DEPTH} levels; the connection ends");
            ("too_deep", Close::new(1009, "nested too deep"), invalid(text))
        }
        Refused::TooLarge => {
            let text = format!("larger than {max} bytes; the connection ends");
            (
                "too_large",
                Close::new(1009, "document too large"),
                Fault::new(Code::TooLarge, text),
            )
        }
    }
}
