//! A command in the original's form: parts between commas, `domain X` and `use keys …` told apart from the rest.

use std::fmt::Write as _;

/// A command taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// What the user wants, without the other parts.
    pub(super) command: String,
    /// Where it shall happen.
    pub(super) domain: Option<String>,
}

/// What a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed<'a> {
    Help,
    Time,
    Calculate(&'a str),
    Search(&'a str),
    /// A text, or nothing where a picture is meant.
    Analyse(&'a str),
    Other,
}

impl Parsed {
    pub(super) fn read(text: &str) -> Self {
        let mut parsed = Self {
            command: String::new(),
            domain: None,
        };
        for part in text.split(',').map(str::trim) {
            if let Some(domain) = after(part, "domain") {
                parsed.domain = Some(domain.to_owned());
            } else if after(part, "use keys").is_none() && !part.eq_ignore_ascii_case("use keys") {
                if !parsed.command.is_empty() {
                    parsed.command.push_str(", ");
                }
                parsed.command.push_str(part);
            }
        }
        parsed
    }

    pub(super) fn deed(&self) -> Deed<'_> {
        let text = self.command.as_str();
        if text.eq_ignore_ascii_case("help") {
            Deed::Help
        } else if text.eq_ignore_ascii_case("time") {
            Deed::Time
        } else if let Some(formula) = after(text, "calculate") {
            Deed::Calculate(formula)
        } else if let Some(words) = after(text, "search") {
            let words = after(words, "for").unwrap_or(words);
            // "Search cats on youtube": the place is named by the domain
            Deed::Search(words.rsplit_once(" on ").map_or(words, |(words, _)| words))
        } else if let Some(text) = after(text, "analyse").or_else(|| after(text, "analyze")) {
            Deed::Analyse(text)
        } else {
            Deed::Other
        }
    }
}

/// What follows a first word, whatever its case; `None` when it is not the first or nothing follows.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = (text.get(..word.len())?, text.get(word.len()..)?);
    let rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
    (first.eq_ignore_ascii_case(word) && !rest.is_empty()).then_some(rest)
}

/// An address a browser can open. The domain is used only when it is a plain host name.
pub(super) fn search_url(words: &str, domain: Option<&str>) -> String {
    let plain = |host: &&str| {
        host.len() <= 253
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
    };
    let mut url = match domain.filter(plain) {
        Some(host) if host.ends_with("youtube.com") => format!("https://{host}/results?search_query="),
        Some(host) => format!("https://{host}/search?q="),
        None => "https://duckduckgo.com/?q=".to_owned(),
    };
    for byte in words.bytes() {
        match byte {
            b' ' => url.push('+'),
            b'-' | b'_' | b'.' | b'~' => url.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => url.push(char::from(byte)),
            _ => {
                let _ = write!(url, "%{byte:02X}");
            }
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Option<String>) {
        let Parsed { command, domain } = Parsed::read(text);
        (command, domain)
    }

    #[test]
    fn commands_are_taken_apart_as_the_original_did() {
        let youtube = Some("youtube.com".to_owned());
        assert_eq!(
            parsed("Search cats on youtube, domain youtube.com"),
            ("Search cats on youtube".to_owned(), youtube.clone())
        );
        assert_eq!(
            parsed("open a, then b , use keys ctrl+t,Domain  youtube.com"),
            ("open a, then b".to_owned(), youtube)
        );
        assert_eq!(parsed("domain"), ("domain".to_owned(), None));
        assert_eq!(parsed("use keys"), (String::new(), None));
        assert_eq!(parsed("é"), ("é".to_owned(), None));
    }

    #[test]
    fn deeds_are_recognised() {
        let deed = |text: &str| format!("{:?}", Parsed::read(text).deed());
        assert_eq!(deed("HELP"), "Help");
        assert_eq!(
            deed("Search for cats on youtube, domain youtube.com"),
            "Search(\"cats\")"
        );
        assert_eq!(deed("calculate 1 + 1"), "Calculate(\"1 + 1\")");
        assert_eq!(deed("calculateur"), "Other");
        assert_eq!(deed("open door"), "Other");
    }

    #[test]
    fn addresses_are_escaped_and_hosts_checked() {
        assert_eq!(
            search_url("cats & dögs", Some("youtube.com")),
            "https://youtube.com/results?search_query=cats+%26+d%C3%B6gs"
        );
        assert_eq!(search_url("x", Some("evil/@host")), "https://duckduckgo.com/?q=x");
    }
}
