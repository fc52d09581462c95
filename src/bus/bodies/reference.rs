//! The value of `Gw-Body`: which object holds a large body, how long it is, and its hash. Pure.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use thiserror::Error;

use crate::message::Class;

/// Nothing larger is fetched, whoever refers to it.
pub const MAX_SIZE: u64 = 512 << 20;
/// Longest name of an object.
const MAX_NAME: usize = 64;

/// A bucket of the object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// `GW_BODIES`: commands, replies and events; ages.
    Bodies,
    /// `GW_STATE_BODIES`: state; lives until it is replaced.
    StateBodies,
}

impl Bucket {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bodies, Self::StateBodies];

    /// Where bodies of this class go.
    #[must_use]
    pub const fn of(class: Class) -> Self {
        match class {
            Class::Event => Self::Bodies,
            Class::State => Self::StateBodies,
        }
    }

    /// Its name on the bus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bodies => "GW_BODIES",
            Self::StateBodies => "GW_STATE_BODIES",
        }
    }
}

/// `object:<bucket>/<name>;size=<bytes>;sha256=<hex>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where.
    pub bucket: Bucket,
    /// Which object.
    pub name: String,
    /// Length of the body.
    pub size: u64,
    /// Hash of the body.
    pub sha256: [u8; 32],
}

/// What is wrong with a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadReference {
    /// Not the form `object:<bucket>/<name>;size=<bytes>;sha256=<hex>`.
    #[error("a large body is referred to by `object:<bucket>/<name>;size=<bytes>;sha256=<hex>`")]
    Form,
    /// A bucket that is none of ours.
    #[error("a large body is in GW_BODIES or GW_STATE_BODIES")]
    Bucket,
    /// A name with characters that mean something in a subject.
    #[error("an object is named by 1 to 64 of the characters A-Z a-z 0-9 _ -")]
    Name,
    /// Empty, too large, or not a plain number.
    #[error("the size of a large body is a plain number from 1 to {MAX_SIZE}")]
    Size,
    /// Not 64 lower-case hex digits.
    #[error("the hash of a large body is 64 lower-case hex digits")]
    Hash,
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let rest = text.strip_prefix("object:").ok_or(BadReference::Form)?;
        let (bucket, rest) = rest.split_once('/').ok_or(BadReference::Form)?;
        let (name, rest) = rest.split_once(";size=").ok_or(BadReference::Form)?;
        let (size, hash) = rest.split_once(";sha256=").ok_or(BadReference::Form)?;
        let bucket = Bucket::ALL
            .into_iter()
            .find(|known| known.name() == bucket)
            .ok_or(BadReference::Bucket)?;
        let safe = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(safe) {
            return Err(BadReference::Name);
        }
        Ok(Self {
            bucket,
            name: name.to_owned(),
            size: parse_size(size).ok_or(BadReference::Size)?,
            sha256: parse_hash(hash).ok_or(BadReference::Hash)?,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bucket = self.bucket.name();
        write!(f, "object:{bucket}/{};size={};sha256=", self.name, self.size)?;
        for byte in self.sha256 {
            f.write_char(char::from(HEX[usize::from(byte >> 4)]))?;
            f.write_char(char::from(HEX[usize::from(byte & 15)]))?;
        }
        Ok(())
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Digits alone: no sign, no leading zero, within bounds.
fn parse_size(text: &str) -> Option<u64> {
    if text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let size = text.parse().ok()?;
    (1..=MAX_SIZE).contains(&size).then_some(size)
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(hash)
}
