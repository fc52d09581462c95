//! The language model: a few rules. It shows every event of a real one and is never wrong about its limits. Pure.

/// Name in `llm_start`.
pub(super) const MODEL: &str = "rules";
/// What a real model would be told; clients show the beginning.
pub(super) const PROMPT: &str = "You are a friendly voice assistant. Answer in one sentence.";
/// More words than this do not fit the model: the natural `llm_error`.
pub(super) const MOST_WORDS: usize = 200;

/// What the model wants to do before it can answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Answer at once.
    Say(String),
    /// Ask a tool, then answer with what it said.
    Tool {
        /// Which tool.
        name: &'static str,
        /// Answer around the tool's result.
        around: (&'static str, &'static str),
        /// Answer when the tool fails.
        otherwise: &'static str,
    },
    /// Keep a fact, then confirm.
    Remember(String),
}

/// Decides by the words; `recalled` is the best memory, if any.
pub(super) fn plan(text: &str, recalled: Option<&str>) -> Plan {
    let low = text.to_lowercase();
    let has = |word: &str| low.split(|c: char| !c.is_alphanumeric()).any(|w| w == word);
    if let Some(at) = low.find("remember that ").map(|at| at + "remember that ".len())
        && let Some(fact) = low.get(at..).map(str::trim).filter(|fact| !fact.is_empty())
    {
        return Plan::Remember(fact.to_owned());
    }
    if has("time") {
        return Plan::Tool {
            name: "get_time",
            around: ("It is ", "."),
            otherwise: "I do not know the time.",
        };
    }
    if has("weather") {
        // There is no such tool here: the natural tool_error.
        return Plan::Tool {
            name: "get_weather",
            around: ("The weather: ", "."),
            otherwise: "I cannot look out of the window.",
        };
    }
    Plan::Say(match recalled {
        Some(fact) if has("what") || has("do") || has("who") => format!("You told me that {fact}."),
        _ if has("joke") => {
            "Why did the message cross the causeway? To get to the other side, exactly once.".to_owned()
        }
        _ if has("hello") || has("hi") => "Hello. What can I do for you?".to_owned(),
        _ if has("door") => "I have no door to open.".to_owned(),
        _ => format!("You said: {text}."),
    })
}

/// The answer as a model would stream it: every token with its space.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_decide() {
        assert!(matches!(
            plan("What TIME is it?", None),
            Plan::Tool { name: "get_time", .. }
        ));
        assert!(matches!(
            plan("what is the weather today", None),
            Plan::Tool {
                name: "get_weather",
                ..
            }
        ));
        assert_eq!(
            plan("Remember that I like tea", None),
            Plan::Remember("i like tea".to_owned())
        );
        assert_eq!(
            plan("sometimes", None),
            Plan::Say("You said: sometimes.".to_owned())
        );
        assert_eq!(
            plan("what do i like", Some("i like tea")),
            Plan::Say("You told me that i like tea.".to_owned())
        );
        assert_eq!(
            plan("remember that ", None),
            Plan::Say("You said: remember that .".to_owned())
        );
    }

    #[test]
    fn tokens_make_the_text_again() {
        let text = "It is 12:00  UTC.";
        assert_eq!(tokens(text).collect::<String>(), text);
    }
}
