//! Placeholders in the JSON of a binary packet: which attachment stands where.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::Breach;

/// A placeholder found in JSON text: where its object begins and ends, and the attachment it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// First byte of the object.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    /// Number of the attachment.
    pub number: usize,
}

/// Finds the placeholders of `count` attachments in JSON that is known to be good, in the order of the text.
///
/// # Errors
/// [`Breach::Placeholder`] unless each attachment is named exactly once: a forged number reads another packet's
/// memory in careless servers, and one attachment named a million times is a million copies.
pub fn spots(json: &[u8], count: usize) -> Result<Vec<Spot>, Breach> {
    let mut found: Vec<Spot> = Vec::new();
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'"' => at = past_string(json, at),
            b'{' => match placeholder(json, at) {
                Some(spot) => {
                    let fresh = found.iter().all(|known| known.number != spot.number);
                    if spot.number >= count || !fresh {
                        return Err(Breach::Placeholder);
                    }
                    found.push(spot);
                    at = spot.end;
                }
                None => at += 1,
            },
            _ => at += 1,
        }
    }
    if found.len() == count {
        Ok(found)
    } else {
        Err(Breach::Placeholder)
    }
}

/// The JSON with each attachment as base64 text in its place: the form in which clients that cannot send binary
/// write the same bytes.
///
/// # Errors
/// [`Breach::Placeholder`] as [`spots`].
pub fn inline(json: &Bytes, attachments: &[Bytes]) -> Result<Bytes, Breach> {
    if attachments.is_empty() {
        return Ok(json.clone());
    }
    let spots = spots(json, attachments.len())?;
    let size: usize = attachments.iter().map(|bytes| bytes.len() * 4 / 3 + 8).sum();
    let mut text = String::with_capacity(json.len() + size);
    let mut from = 0;
    let copy = |text: &mut String, range: std::ops::Range<usize>| match std::str::from_utf8(&json[range]) {
        Ok(part) => {
            text.push_str(part);
            Ok(())
        }
        Err(_) => Err(Breach::Json),
    };
    for spot in spots {
        copy(&mut text, from..spot.start)?;
        text.push('"');
        if let Some(bytes) = attachments.get(spot.number) {
            STANDARD.encode_string(bytes, &mut text);
        }
        text.push('"');
        from = spot.end;
    }
    copy(&mut text, from..json.len())?;
    Ok(text.into())
}

/// One past the closing quote of the string that begins at `at`.
fn past_string(json: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while at < json.len() {
        match json[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    json.len()
}

/// Reads `{"_placeholder":true,"num":N}` at `at`, in either order of keys and with any white space.
fn placeholder(json: &[u8], at: usize) -> Option<Spot> {
    let mut text = Cursor { json, at };
    text.take(b"{")?;
    let number = if text.take(b"\"_placeholder\"").is_some() {
        text.take(b":")?;
        text.take(b"true")?;
        text.take(b",")?;
        text.take(b"\"num\"")?;
        text.take(b":")?;
        text.number()?
    } else {
        text.take(b"\"num\"")?;
        text.take(b":")?;
        let number = text.number()?;
        text.take(b",")?;
        text.take(b"\"_placeholder\"")?;
        text.take(b":")?;
        text.take(b"true")?;
        number
    };
    text.take(b"}")?;
    Some(Spot {
        start: at,
        end: text.at,
        number,
    })
}

struct Cursor<'a> {
    json: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.json.get(self.at) {
            self.at += 1;
        }
    }

    fn take(&mut self, word: &[u8]) -> Option<()> {
        self.space();
        let found = self.json.get(self.at..)?.starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found.then_some(())
    }

    fn number(&mut self) -> Option<usize> {
        self.space();
        let start = self.at;
        while self.json.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        std::str::from_utf8(&self.json[start..self.at]).ok()?.parse().ok()
    }
}
