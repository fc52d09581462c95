//! The reference command processor of the assistant: reads a command as the original did and does the small safe ones.
//!
//! It answers with the original's fields `user-command` and, where a domain is named, `task-domain-id`; what it did
//! stands in `result`. While it works, everybody in the space hears `status_update`: operation, status, message, progress.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::ask::ask;
use super::{Job, Outlet, Worker};
use crate::message::{Body, Code, Fault};

mod calculate;
mod parse;

use parse::{Deed, Parsed};

/// Letters of a command or an error that a status repeats.
const SHORT: usize = 200;
/// A status is news: one that cannot be told soon is not worth waiting for.
const TELL: Duration = Duration::from_secs(1);

/// The command processor.
pub(super) struct CommandProcessor {
    outlet: Outlet,
}

impl CommandProcessor {
    /// A processor that tells its status through `outlet`.
    pub(super) const fn new(outlet: Outlet) -> Self {
        Self { outlet }
    }

    async fn perform(&self, job: &Job) -> Result<Body, Fault> {
        let params = job.work.params()?;
        let Some(command) = params.get("command").and_then(Value::as_str) else {
            return Err(Fault::new(Code::Invalid, "'command' is missing or no text"));
        };
        if command.trim().is_empty() {
            return Err(Fault::new(Code::Invalid, "'command' is empty; try \"help\""));
        }
        job.ack().await;
        let parsed = Parsed::read(command);
        self.tell(job, "processing", &parsed.command, 0).await;
        let result = self.carry_out(job, &parsed, &params).await;
        match &result {
            Ok(_) => self.tell(job, "completed", &parsed.command, 100).await,
            Err(fault) => self.tell(job, "error", &fault.text, 100).await,
        }
        let mut data = json!({"user-command": parsed.command, "result": result?});
        if let Some(domain) = parsed.domain {
            data["task-domain-id"] = domain.into();
        }
        Ok(Body::json(data.to_string()))
    }

    /// Does what the command asks for.
    async fn carry_out(
        &self,
        job: &Job,
        parsed: &Parsed,
        params: &Map<String, Value>,
    ) -> Result<Value, Fault> {
        match parsed.deed() {
            Deed::Help => Ok(json!({
                        "commands": [
            "help", "time", "calculate 2*(3+4)", "search cats, domain youtube.com", "analyse any text",
            "analyse this, with a picture as base64 in params.image",
            ],
                    })),
            Deed::Time => Ok(json!({
                "utc": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            })),
            Deed::Calculate(formula) => match calculate::value(formula) {
                Ok(value) => Ok(json!({"formula": formula, "value": value})),
                Err(why) => Err(Fault::new(Code::Invalid, format!("cannot calculate: {why}"))),
            },
            Deed::Search(words) => Ok(json!({"url": parse::search_url(words, parsed.domain.as_deref())})),
            Deed::Analyse(text) => self.analyse(job, text, params).await,
            // the original took any text and left the doing to others
            Deed::Other => Ok(Value::Null),
        }
    }

    /// Pictures are the vision worker's, texts the language worker's.
    async fn analyse(&self, job: &Job, text: &str, params: &Map<String, Value>) -> Result<Value, Fault> {
        let (service, action, body) = match params.get("image") {
            Some(image) => ("vision", "analyse_image", json!({"image": image})),
            None => ("language", "analyse_text", json!({"text": text})),
        };
        self.tell(job, "running", service, 50).await;
        let body = Body::json(body.to_string());
        let found = ask(self.outlet.client(), &job.work, service, action, body).await?;
        serde_json::from_slice(&found.bytes)
            .map_err(|error| Fault::new(Code::WorkerError, format!("{service} answered no JSON: {error}")))
    }

    async fn tell(&self, job: &Job, status: &str, message: &str, progress: u8) {
        let message: String = message.chars().take(SHORT).collect();
        let body = json!({
            "operation": "command_execution", "status": status, "message": message, "progress": progress,
        });
        let body = Bytes::from(body.to_string());
        let told = self.outlet.event(&job.work.space, "assistant", "status", body);
        if !matches!(timeout(TELL, told).await, Ok(Ok(()))) {
            tracing::debug!(status, "nobody was told");
        }
    }
}

impl Worker for CommandProcessor {
    fn name(&self) -> &'static str {
        "command_processor"
    }

    fn description(&self) -> &'static str {
        "Reference command processor: help, time, calculate, search, analyse"
    }

    fn actions(&self) -> &'static [&'static str] {
        &["execute_command"]
    }

    fn handle<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Body, Fault>> {
        self.perform(job).boxed()
    }
}
