//! The members of one JSON object, found without parsing what is inside them.

use std::ops::Range;

use super::text::plain;

/// One member: where its name (without quotes) and its value stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name as written, escapes and all.
    pub name: Range<usize>,
    /// The value.
    pub value: Range<usize>,
}

/// Walks the members of the object that `bytes` holds. A value is not checked beyond where it ends, so a large
/// document costs one fast pass; `None` in the middle means that it is no JSON object.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    bytes: &'a [u8],
    at: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Begin,
    Next,
    Done,
    Broken,
}

impl<'a> Members<'a> {
    /// Nothing found yet.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            state: State::Begin,
        }
    }

    /// Whether the object was walked to its end and nothing follows it.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.state == State::Done
    }

    /// The value of the first member of that name.
    #[must_use]
    pub fn find(bytes: &'a [u8], name: &str) -> Option<Range<usize>> {
        Self::new(bytes)
            .find(|member| &bytes[member.name.clone()] == name.as_bytes())
            .map(|member| member.value)
    }

    fn blank(&mut self) -> Option<u8> {
        while self
            .bytes
            .get(self.at)
            .is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
        {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.blank()? == byte).then(|| self.at += 1)
    }

    /// Past a text whose opening quote is at hand.
    fn text(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.at += plain(self.bytes.get(self.at..)?);
            match self.bytes.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += 2,
                _ => return None,
            }
        }
    }

    fn value(&mut self) -> Option<Range<usize>> {
        self.blank()?;
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => self.text()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth == 0 => break,
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => break,
                _ => {
                    self.at += 1;
                    if depth == 0 {
                        continue;
                    }
                }
            }
            if depth == 0 {
                break;
            }
        }
        (self.at > start).then_some(start..self.at)
    }

    fn member(&mut self) -> Option<Member> {
        if self.blank()? != b'"' {
            return None;
        }
        let start = self.at + 1;
        self.text()?;
        let name = start..self.at - 1;
        self.eat(b':')?;
        let value = self.value()?;
        Some(Member { name, value })
    }

    fn step(&mut self) -> Option<Option<Member>> {
        let close = match self.state {
            State::Begin => {
                self.eat(b'{')?;
                self.blank()? == b'}'
            }
            _ => match self.blank()? {
                b',' => {
                    self.at += 1;
                    false
                }
                b'}' => true,
                _ => return None,
            },
        };
        if !close {
            return self.member().map(Some);
        }
        self.at += 1;
        // only white space may follow
        self.blank().is_none().then_some(None)
    }
}

impl Iterator for Members<'_> {
    type Item = Member;

    fn next(&mut self) -> Option<Member> {
        if matches!(self.state, State::Done | State::Broken) {
            return None;
        }
        let step = self.step();
        self.state = match &step {
            Some(Some(_)) => State::Next,
            Some(None) => State::Done,
            None => State::Broken,
        };
        step.flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::Members;

    fn walk(text: &str) -> (Vec<(&str, &str)>, bool) {
        let mut members = Members::new(text.as_bytes());
        let found = members
            .by_ref()
            .map(|m| (&text[m.name], &text[m.value]))
            .collect();
        (found, members.whole())
    }

    #[test]
    fn members_stand_where_they_are() {
        let text = r#" { "a\"}" : [1,{"b":"]"}] ,"c":"x\\","d" : -1.5e3 ,"e":{}, "f":null } "#;
        let expected = vec![
            (r#"a\"}"#, r#"[1,{"b":"]"}]"#),
            ("c", r#""x\\""#),
            ("d", "-1.5e3"),
            ("e", "{}"),
            ("f", "null"),
        ];
        assert_eq!(walk(text), (expected, true));
        assert_eq!(walk("{}"), (vec![], true));
        assert_eq!(walk(" {\n} "), (vec![], true));
    }

    #[test]
    fn what_is_no_object_is_not_whole() {
        for text in [
            "",
            "{",
            "[]",
            "1",
            "{nope",
            "{}x",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1"#,
            r#"{"a":1,}"#,
            r#"{"a":"b}"#,
            r#"{"a":[1}"#,
            r#"{"a":1 2}"#,
            r#"{"a":"\"#,
        ] {
            // brackets are counted, not matched: the reader of the value sees the rest
            assert!(!walk(text).1, "{text}");
        }
    }
}
