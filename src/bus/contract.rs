//! The bus contract in code: what each thing is called on NATS. Pure; golden tests hold it to the published tables.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::message::{Class, Code, Fault};

pub mod headers;
pub mod streams;

/// Longest subject, in bytes.
pub const SUBJECT_BYTES: usize = 255;
/// Most tokens in a subject.
pub const SUBJECT_TOKENS: usize = 16;
/// First tokens of everything between gateways.
pub const SYS: &str = "gw.v1.sys.";
/// The action that withdraws a command; no client's word.
pub const CANCEL: &str = "cancel";
/// Reserved for the headers when a body is measured against the broker's payload limit.
pub const HEADER_ROOM: usize = 4096;

const fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Any text as one subject token: `A-Za-z0-9_-` as they are, every other byte as `=XX`, the empty text as `=`.
/// Injective, so two names never meet on one subject.
#[must_use]
pub fn token(text: &str) -> Cow<'_, str> {
    if text.is_empty() {
        return Cow::Borrowed("=");
    }
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    push_escaped(&mut out, text);
    Cow::Owned(out)
}

fn push_escaped(out: &mut String, text: &str) {
    if text.is_empty() {
        out.push('=');
    }
    for byte in text.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            // writing to a String cannot fail
            let _ = write!(out, "={byte:02X}");
        }
    }
}

/// The text behind a token; `None` when an escape is malformed. Bytes that needed no escape by NATS' own rules
/// pass, because workers in any language publish here.
#[must_use]
pub fn untoken(token: &str) -> Option<Cow<'_, str>> {
    if token == "=" {
        return Some(Cow::Borrowed(""));
    }
    if token.is_empty() {
        return None;
    }
    if !token.contains('=') {
        return Some(Cow::Borrowed(token));
    }
    let mut out = Vec::with_capacity(token.len());
    let mut bytes = token.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'=' {
            let (high, low) = (nibble(bytes.next()?)?, nibble(bytes.next()?)?);
            out.push(high << 4 | low);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

const fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn build(root: &str, tokens: &[&str]) -> Result<String, Fault> {
    let mut subject = String::with_capacity(64);
    subject.push_str(root);
    for token in tokens {
        subject.push('.');
        push_escaped(&mut subject, token);
        if subject.len() > SUBJECT_BYTES {
            return Err(Fault::new(
                Code::Invalid,
                "the name is too long; a command, event or topic name may have about 200 characters",
            ));
        }
    }
    Ok(subject)
}

/// Checks a subject that was put together from our own words, such as a path below `gw.v1.sys`.
///
/// # Errors
/// `invalid` when it is longer than [`SUBJECT_BYTES`], has more than [`SUBJECT_TOKENS`] tokens, or one of them is empty.
pub fn checked(subject: &str) -> Result<(), Fault> {
    let tokens = subject.split('.');
    let printable = |byte: u8| byte.is_ascii_graphic();
    if subject.len() <= SUBJECT_BYTES
        && tokens.clone().count() <= SUBJECT_TOKENS
        && tokens.into_iter().all(|token| !token.is_empty())
        && subject.bytes().all(printable)
    {
        Ok(())
    } else {
        Err(Fault::new(
            Code::Invalid,
            "a subject has at most 16 tokens and 255 bytes, none of them empty",
        ))
    }
}

/// `gw.v1.cmd.<space>.<service>.<action>`
///
/// # Errors
/// `invalid` when the names are too long.
pub fn command(space: &str, service: &str, action: &str) -> Result<String, Fault> {
    build("gw.v1.cmd", &[space, service, action])
}

/// `gw.v1.cmd.<space>.<service>.cancel`
///
/// # Errors
/// `invalid` when the names are too long.
pub fn cancel(space: &str, service: &str) -> Result<String, Fault> {
    command(space, service, CANCEL)
}

/// `gw.v1.evt.…` or `gw.v1.state.…` of one topic.
///
/// # Errors
/// `invalid` when the names are too long.
pub fn fact(class: Class, space: &str, dialect: &str, topic: &str) -> Result<String, Fault> {
    build(root(class), &[space, dialect, topic])
}

/// Every topic of one class, space and dialect, as stored: the filter of a history read.
///
/// # Errors
/// `invalid` when the names are too long.
pub fn facts(class: Class, space: &str, dialect: &str) -> Result<String, Fault> {
    Ok(build(root(class), &[space, dialect])? + ".>")
}

/// `gw.v1.live.<space>.<dialect>.>`
///
/// # Errors
/// `invalid` when the names are too long.
pub fn live(space: &str, dialect: &str) -> Result<String, Fault> {
    Ok(build("gw.v1.live", &[space, dialect])? + ".>")
}

/// `gw.v1.lease.<space>.<service>`
///
/// # Errors
/// `invalid` when the names are too long.
pub fn lease(space: &str, service: &str) -> Result<String, Fault> {
    build("gw.v1.lease", &[space, service])
}

/// `gw.v1.sys.<path>`, the path being our own words joined by dots; wildcards pass, for subscriptions.
///
/// # Errors
/// `invalid` when it is no subject.
pub fn sys(path: &str) -> Result<String, Fault> {
    let subject = format!("{SYS}{path}");
    checked(&subject)?;
    Ok(subject)
}

const fn root(class: Class) -> &'static str {
    match class {
        Class::Event => "gw.v1.evt",
        Class::State => "gw.v1.state",
    }
}

/// What a stored message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Event or state.
    pub class: Class,
    /// The space, unescaped.
    pub space: String,
    /// The dialect, unescaped.
    pub dialect: String,
    /// The topic, unescaped; several tokens of a foreign publisher are joined by dots.
    pub topic: String,
}

/// Reads the subject of an event or state; `None` for anything else.
#[must_use]
pub fn place(subject: &str) -> Option<Place> {
    let (class, rest) = split(subject)?;
    let mut tokens = rest.splitn(3, '.');
    let space = untoken(tokens.next()?)?.into_owned();
    let dialect = untoken(tokens.next()?)?.into_owned();
    Some(Place {
        class,
        space,
        dialect,
        topic: topic_text(tokens.next()?)?,
    })
}

/// The topic alone, for readers that subscribed to one space and dialect.
#[must_use]
pub fn topic(subject: &str) -> Option<(Class, String)> {
    let (class, rest) = split(subject)?;
    Some((class, topic_text(rest.splitn(3, '.').nth(2)?)?))
}

fn split(subject: &str) -> Option<(Class, &str)> {
    if let Some(rest) = subject.strip_prefix("gw.v1.evt.") {
        Some((Class::Event, rest))
    } else {
        Some((Class::State, subject.strip_prefix("gw.v1.state.")?))
    }
}

fn topic_text(tokens: &str) -> Option<String> {
    let mut text = String::with_capacity(tokens.len());
    for (index, token) in tokens.split('.').enumerate() {
        if index > 0 {
            text.push('.');
        }
        text.push_str(&untoken(token)?);
    }
    Some(text)
}

/// Reads `gw.v1.cmd.<space>.<service>.<action>` into its three names.
#[must_use]
pub fn command_parts(subject: &str) -> Option<(String, String, String)> {
    let mut tokens = subject.strip_prefix("gw.v1.cmd.")?.split('.');
    let mut next = || Some(untoken(tokens.next()?)?.into_owned());
    let parts = (next()?, next()?, next()?);
    tokens.next().is_none().then_some(parts)
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// When the stream was created, in Unix nanoseconds.
    pub epoch: u64,
    /// The oldest sequence still there (last + 1 when empty).
    pub first_seq: u64,
    /// The newest sequence ever given.
    pub last_seq: u64,
}

impl Tail {
    /// Whether everything after `since` can still be given to a client that saw the stream of `epoch`.
    /// State keeps only last values, so what left it by replacement is not missing.
    #[must_use]
    pub const fn resumes(&self, class: Class, epoch: u64, since: u64) -> bool {
        let kept = match class {
            Class::Event => since.saturating_add(1) >= self.first_seq,
            Class::State => true,
        };
        self.epoch == epoch && since <= self.last_seq && kept
    }
}
