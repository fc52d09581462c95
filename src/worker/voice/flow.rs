//! A whole conversation: hear, recall, think, ask a tool, remember, speak, and how long each took.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::listen::Mode;
use super::rules::{self, Plan};
use super::{Room, Wish, memory, seconds};
use crate::message::Fault;

/// Voice of the answers unless the command names one.
const VOICE: &str = "en-us";

/// How long each stage of a flow took.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    pub(super) stt: Duration,
    llm: Duration,
    tts: Duration,
    tool: Duration,
    memory: Duration,
    total: Duration,
}

impl Trace {
    /// As clients read it.
    pub(super) fn json(&self) -> Value {
        json!({
            "stt_seconds": seconds(self.stt),
            "llm_seconds": seconds(self.llm),
            "tts_seconds": seconds(self.tts),
            "total_seconds": seconds(self.total),
            "tool_seconds": seconds(self.tool),
            "memory_seconds": seconds(self.memory),
        })
    }
}

/// How much of a stage's result clients are shown.
fn preview(text: &str) -> String {
    text.chars().take(100).collect()
}

impl Room {
    /// `demo_flow`: one conversation from the sound to the answer. It never uses the microphone, so that it works
    /// unattended, on any machine.
    pub(super) async fn demo(&self, space: &str, wish: &Wish) -> Result<(), Fault> {
        let began = Instant::now();
        let mut trace = Trace::default();
        if let Some(text) = self.hear_once(space, wish, Mode::File, &mut trace).await? {
            self.answer(space, wish, &text, &mut trace).await?;
        }
        self.finish(space, began, trace).await
    }

    /// Says the times last, and keeps them for `get_performance_metrics`.
    pub(super) async fn finish(&self, space: &str, began: Instant, mut trace: Trace) -> Result<(), Fault> {
        trace.total = began.elapsed();
        let data = trace.json();
        {
            let mut last = self.last.lock();
            *last = (trace, last.1 + 1);
        }
        self.say(space, "latency_trace", data).await
    }

    /// Everything after the words are known.
    pub(super) async fn answer(
        &self,
        space: &str,
        wish: &Wish,
        text: &str,
        trace: &mut Trace,
    ) -> Result<(), Fault> {
        let recalled = self.recall(space, wish, text, trace).await?;
        let memory_works = recalled.is_some();
        let Some((answer, fact)) = self.think(space, wish, text, recalled.flatten(), trace).await? else {
            return Ok(());
        };
        if memory_works {
            let (text, kind, importance) = match &fact {
                Some(fact) => (fact.as_str(), "fact", 0.9),
                None => (text, "conversation", 0.3),
            };
            let began = Instant::now();
            let stored = memory::store(&self.outlet, space, text, kind, importance).await;
            trace.memory += began.elapsed();
            match stored {
                Ok(kept) => {
                    let data = json!({
                        "content_preview": preview(&kept.text), "memory_type": kept.kind,
                        "importance": kept.importance, "memory_id": kept.id,
                    });
                    self.say(space, "memory_store", data).await?;
                }
                Err(fault) => self.say_error(space, "memory_error", &fault.text, None).await?,
            }
        }
        self.speak(space, wish, &answer, trace).await
    }

    /// `None`: the memory failed. `Some(None)`: nothing fits.
    async fn recall(
        &self,
        space: &str,
        wish: &Wish,
        text: &str,
        trace: &mut Trace,
    ) -> Result<Option<Option<String>>, Fault> {
        if wish.fails("memory") {
            self.say_error(space, "memory_error", "the memory failed, as asked", None)
                .await?;
            return Ok(None);
        }
        let began = Instant::now();
        let found = memory::recall(&self.outlet, space, text).await;
        trace.memory += began.elapsed();
        match found {
            Ok(found) => {
                let top = found.first().map(|memory| preview(&memory.text));
                let data = json!({"query": text, "results_count": found.len(), "top_result_preview": top});
                self.say(space, "memory_recall", data).await?;
                let fact = found.into_iter().find(|memory| memory.kind == "fact");
                Ok(Some(fact.map(|memory| memory.text)))
            }
            Err(fault) => {
                self.say_error(space, "memory_error", &fault.text, None).await?;
                Ok(None)
            }
        }
    }

    /// The answer, and the fact to keep if it is one; `None` when the model failed.
    async fn think(
        &self,
        space: &str,
        wish: &Wish,
        text: &str,
        recalled: Option<String>,
        trace: &mut Trace,
    ) -> Result<Option<(String, Option<String>)>, Fault> {
        let began = Instant::now();
        let words = text.split_whitespace().count();
        let start = json!({
            "model": rules::MODEL, "prompt_tokens": words, "system_prompt_preview": preview(rules::PROMPT),
        });
        self.say(space, "llm_start", start).await?;
        if wish.fails("llm") {
            self.say_error(space, "llm_error", "the model failed, as asked", None)
                .await?;
            return Ok(None);
        }
        if words > rules::MOST_WORDS {
            let details = format!("{words} words; the model takes {}", rules::MOST_WORDS);
            self.say_error(space, "llm_error", "the prompt is too long", Some(&details))
                .await?;
            return Ok(None);
        }
        let (mut fact, mut tools) = (None, false);
        let answer = match rules::plan(text, recalled.as_deref()) {
            Plan::Say(answer) => answer,
            Plan::Remember(what) => {
                let answer = format!("I will remember that {what}.");
                fact = Some(what);
                answer
            }
            Plan::Tool {
                name,
                around,
                otherwise,
            } => {
                tools = true;
                match self.ask_tool(space, wish, name, trace).await? {
                    Some(result) => format!("{}{result}{}", around.0, around.1),
                    None => otherwise.to_owned(),
                }
            }
        };
        let mut count = 0;
        for token in rules::tokens(&answer) {
            self.say(
                space,
                "llm_progress",
                json!({"token": token, "token_index": count}),
            )
            .await?;
            count += 1;
        }
        trace.llm = began.elapsed().saturating_sub(trace.tool);
        let result = json!({
            "text": answer, "total_tokens": count, "duration_seconds": seconds(trace.llm), "has_tool_calls": tools,
        });
        self.say(space, "llm_result", result).await?;
        Ok(Some((answer, fact)))
    }

    async fn ask_tool(
        &self,
        space: &str,
        wish: &Wish,
        name: &str,
        trace: &mut Trace,
    ) -> Result<Option<String>, Fault> {
        let began = Instant::now();
        self.say(space, "tool_call", json!({"tool_name": name, "parameters": {}}))
            .await?;
        let result = match name {
            _ if wish.fails("tool") => Err("the tool failed, as asked"),
            "get_time" => Ok(clock()),
            _ => Err("there is no such tool"),
        };
        trace.tool = began.elapsed();
        match result {
            Ok(text) => {
                let data = json!({
                    "tool_name": name, "result_preview": preview(&text),
                    "duration_seconds": seconds(trace.tool),
                });
                self.say(space, "tool_result", data).await?;
                Ok(Some(text))
            }
            Err(message) => {
                let data = json!({"tool_name": name, "message": message, "details": null});
                self.say(space, "tool_error", data).await?;
                Ok(None)
            }
        }
    }

    async fn speak(&self, space: &str, wish: &Wish, text: &str, trace: &mut Trace) -> Result<(), Fault> {
        let voice = wish.voice.as_deref().unwrap_or(VOICE);
        let start = json!({"text": text, "voice": voice, "provider": self.parts.provider()});
        self.say(space, "tts_start", start).await?;
        if wish.fails("tts") {
            return self
                .say_error(space, "tts_error", "the voice failed, as asked", None)
                .await;
        }
        let began = Instant::now();
        let mut speaking = match self.parts.speak(text, voice) {
            Ok(speaking) => speaking,
            Err(details) => {
                return self
                    .say_error(space, "tts_error", "the voice failed", Some(&details))
                    .await;
            }
        };
        loop {
            match speaking.next().await {
                Ok(Some(percent)) => {
                    self.say(space, "tts_progress", json!({"percent_complete": percent}))
                        .await?;
                }
                Ok(None) => break,
                Err(details) => {
                    return self
                        .say_error(space, "tts_error", "the voice failed", Some(&details))
                        .await;
                }
            }
        }
        trace.tts = began.elapsed();
        let result = json!({
            "duration_seconds": seconds(trace.tts), "audio_duration_seconds": speaking.seconds(),
            "char_count": text.chars().count(),
        });
        self.say(space, "tts_result", result).await
    }
}

/// The tool: the time of day, UTC.
fn clock() -> String {
    let text = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    format!("{} UTC", text.get(11..16).unwrap_or(&text))
}
