//! The camera reset in a model given to a page that just came.

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::json::Members;

/// Says so in either generation's words.
const RESET: &[u8] = br#""reset""#;

/// The model with `reset_camera` set to `reset` in its `config`, everything else byte for byte; the model itself when
/// it has no such object.
pub(super) fn camera(model: &Bytes) -> Bytes {
    let Some(config) = Members::find(model, "config") else {
        return model.clone();
    };
    let inside = &model[config.clone()];
    if inside.first() != Some(&b'{') {
        return model.clone();
    }
    // only senders of the generation that writes camel case say which core they have
    let name = match Members::find(inside, "_core_version") {
        Some(_) => "resetCamera",
        None => "reset_camera",
    };
    let mut out = BytesMut::with_capacity(model.len() + 32);
    if let Some(value) = Members::find(inside, name) {
        out.put_slice(&model[..config.start + value.start]);
        out.put_slice(RESET);
        out.put_slice(&model[config.start + value.end..]);
    } else {
        let empty = Members::new(inside).next().is_none();
        out.put_slice(&model[..=config.start]);
        out.put_slice(format!("\"{name}\":").as_bytes());
        out.put_slice(RESET);
        out.put_slice(if empty { b"" } else { b"," });
        out.put_slice(&model[config.start + 1..]);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::camera;

    #[test]
    fn the_camera_is_reset_in_either_generations_words() {
        for (given, expected) in [
            (
                r#"{"data":{"config":{"reset_camera":1}},"type":"data","config":{"a": 1,"reset_camera":"keep"},"count":2}"#,
                r#"{"data":{"config":{"reset_camera":1}},"type":"data","config":{"a": 1,"reset_camera":"reset"},"count":2}"#,
            ),
            (
                r#"{"config":{"resetCamera":"iso","_core_version":"1.1.2"}}"#,
                r#"{"config":{"resetCamera":"reset","_core_version":"1.1.2"}}"#,
            ),
            (r#"{"config":{}}"#, r#"{"config":{"reset_camera":"reset"}}"#),
            (
                r#"{"config":{"a":1}}"#,
                r#"{"config":{"reset_camera":"reset","a":1}}"#,
            ),
            (r#"{"type":"data"}"#, r#"{"type":"data"}"#),
            (r#"{"config":[]}"#, r#"{"config":[]}"#),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(camera(&Bytes::from_static(given.as_bytes())), expected.as_bytes());
        }
    }
}
