//! The reference language worker of the assistant: tells the language and the keywords of a text by counting words.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::{Job, Worker};
use crate::message::{Body, Code, Fault};

/// Words that are frequent in one language and rare in the others.
const COMMON: &[(&str, &[&str])] = &[
    (
        "de",
        &[
            "der", "die", "das", "und", "ist", "nicht", "ein", "eine", "zu", "mit", "auf", "ich", "sie",
            "wir",
        ],
    ),
    (
        "en",
        &[
            "the", "and", "is", "of", "to", "in", "that", "it", "for", "with", "you", "are", "this", "on",
        ],
    ),
    (
        "es",
        &[
            "el", "los", "las", "y", "que", "en", "un", "una", "por", "con", "para", "es", "del", "no",
        ],
    ),
    (
        "fr",
        &[
            "le", "les", "et", "est", "une", "des", "que", "dans", "pour", "pas", "je", "vous", "du", "sur",
        ],
    ),
];
/// How many keywords are told.
const KEYWORDS: usize = 8;
/// Bytes of a text that are looked at.
const MAX_TEXT: usize = 1 << 20;

/// The language worker.
pub(super) struct Language;

/// What a text is about.
#[derive(Debug, PartialEq, Eq)]
struct Findings {
    /// `None` when no language stands out.
    language: Option<&'static str>,
    /// Most frequent first; equals in the order of the text.
    keywords: Vec<String>,
    words: usize,
}

fn analyse(text: &str) -> Findings {
    let words: Vec<String> = text
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let hits = |known: &[&str]| words.iter().filter(|word| known.contains(&word.as_str())).count();
    let mut scores: Vec<_> = COMMON.iter().map(|(name, known)| (hits(known), *name)).collect();
    scores.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let language = (scores[0].0 > scores[1].0).then(|| scores[0].1);
    let mut counted: std::collections::HashMap<&str, (usize, usize)> = std::collections::HashMap::new();
    let is_common = |word: &str| COMMON.iter().any(|(_, known)| known.contains(&word));
    for (at, word) in words.iter().enumerate() {
        if word.chars().count() > 2 && !is_common(word) {
            counted.entry(word).or_insert((0, at)).0 += 1;
        }
    }
    let mut ranked: Vec<_> = counted.into_iter().collect();
    ranked.sort_by_key(|(_, (count, at))| (std::cmp::Reverse(*count), *at));
    Findings {
        language,
        keywords: ranked
            .into_iter()
            .take(KEYWORDS)
            .map(|(word, _)| word.to_owned())
            .collect(),
        words: words.len(),
    }
}

async fn perform(job: &Job) -> Result<Body, Fault> {
    let params = job.work.params()?;
    let Some(text) = params.get("text").and_then(Value::as_str) else {
        return Err(Fault::new(Code::Invalid, "'text' is missing or no text"));
    };
    if text.len() > MAX_TEXT {
        return Err(Fault::new(
            Code::TooLarge,
            "the text is longer than 1 MiB; send parts of it",
        ));
    }
    let found = analyse(text);
    let body = json!({"language": found.language, "keywords": found.keywords, "words": found.words});
    Ok(Body::json(body.to_string()))
}

impl Worker for Language {
    fn name(&self) -> &'static str {
        "language"
    }

    fn description(&self) -> &'static str {
        "Reference language worker: language and keywords of a text"
    }

    fn actions(&self) -> &'static [&'static str] {
        &["analyse_text"]
    }

    fn handle<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Body, Fault>> {
        perform(job).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::analyse;

    #[test]
    fn languages_and_keywords_are_found() {
        let english = analyse("The cat sat on the mat, and the cat is happy with it.");
        assert_eq!(english.language, Some("en"));
        assert_eq!(english.keywords[0], "cat");
        assert_eq!(analyse("Die Katze ist nicht auf der Matte").language, Some("de"));
        assert_eq!(
            analyse("le chat est dans la maison et les chiens").language,
            Some("fr")
        );
        let nothing = analyse("42 !?");
        assert_eq!((nothing.language, nothing.words), (None, 1));
        assert_eq!(analyse("").keywords, Vec::<String>::new());
    }
}
