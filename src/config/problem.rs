//! What is wrong with a configuration, in the operator's words, all of it at once.

use std::fmt;

/// One thing to put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as written in a file: `voice.port`.
    pub key: String,
    /// Where the value came from: a path, a variable, the command line. Empty when nothing was given.
    pub origin: String,
    /// What was expected, and what was found unless it is secret.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.is_empty(), self.origin.is_empty()) {
            (true, _) => write!(f, "{}: {}", self.origin, self.text),
            (false, true) => write!(f, "{}: {}", self.key, self.text),
            (false, false) => write!(f, "{} ({}): {}", self.key, self.origin, self.text),
        }
    }
}

/// Everything that is wrong; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the configuration has a problem:")?,
            n => write!(f, "the configuration has {n} problems:")?,
        }
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
