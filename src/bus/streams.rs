//! Creating and checking the streams; small questions to the JetStream API.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::BusError;
use super::connect::{Core, complaint};
use super::contract::streams::Definition;
use super::inbox::Unanswered;
use crate::message::{Code, Fault};

/// How long a JetStream question may take.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// What the JetStream API refuses.
#[derive(Debug)]
pub(super) enum Refused {
    /// No answer, or nobody there.
    Unanswered(Unanswered),
    /// An error of the API.
    Api {
        /// `err_code`.
        number: u64,
        /// HTTP-like code.
        status: u64,
        /// `description`.
        text: String,
    },
    /// Something that is not JSON.
    Garbled,
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unanswered(unanswered) => unanswered.into(),
            Refused::Api { text, .. } => Self::new(
                Code::BusDown,
                format!("the message bus refuses ({text}); try again in a moment"),
            ),
            Refused::Garbled => Self::new(
                Code::BusDown,
                "the message bus gave an answer that makes no sense; try again in a moment",
            ),
        }
    }
}

/// `err_code` of a stream that does not exist.
const NOT_FOUND: u64 = 10059;
/// `err_code` of a stream that exists with another configuration.
const IN_USE: u64 = 10058;
/// `err_code`s of an account or server without JetStream.
const NOT_ENABLED: [u64; 3] = [10039, 10076, 10035];

impl Core {
    /// One question to `$JS.API.<operation>`.
    pub(super) async fn jetstream(&self, operation: &str, body: &Value) -> Result<Value, Refused> {
        let payload = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let message = self
            .ingress
            .ask(format!("$JS.API.{operation}"), None, payload, ANSWER)
            .await
            .map_err(Refused::Unanswered)?;
        let answer: Value = serde_json::from_slice(&message.payload).map_err(|_| Refused::Garbled)?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err(Refused::Api {
                number: error["err_code"].as_u64().unwrap_or_default(),
                status: error["code"].as_u64().unwrap_or_default(),
                text: error["description"]
                    .as_str()
                    .unwrap_or("no reason given")
                    .to_owned(),
            }),
        }
    }

    /// At start: retried until `deadline`, since a cluster elects its leaders after it accepts connections.
    pub(super) async fn start_streams(&self, deadline: Instant) -> Result<(), BusError> {
        // a server that just started may accept connections a moment before JetStream answers
        let settled = deadline.min(Instant::now() + Duration::from_secs(2));
        loop {
            let error = match self.check_streams().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let until = match error {
                BusError::Stream { .. } | BusError::Forbidden { .. } => deadline,
                BusError::NoJetStream { .. } => settled,
                _ => return Err(error),
            };
            if Instant::now() >= until {
                return Err(error);
            }
            tracing::debug!(%error, "streams are not ready yet");
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Creates the streams that are absent, adjusts limits, refuses what differs.
    pub(super) async fn check_streams(&self) -> Result<(), BusError> {
        if !self.settings.events.history {
            return Ok(());
        }
        for definition in &self.settings.definitions {
            self.check_stream(definition).await?;
        }
        Ok(())
    }

    /// A stream somebody deleted under us is created again; one at a time looks.
    pub(super) async fn repair_streams(&self) {
        let Ok(_turn) = self.repair.try_lock() else {
            return;
        };
        if let Err(error) = self.check_streams().await {
            tracing::warn!(%error, "streams are not in order");
        }
    }

    async fn check_stream(&self, definition: &Definition) -> Result<(), BusError> {
        let name = definition.name;
        let info = format!("STREAM.INFO.{name}");
        let found = match self.jetstream(&info, &Value::Null).await {
            Ok(found) => found,
            Err(Refused::Api {
                number: NOT_FOUND, ..
            }) => {
                let create = format!("STREAM.CREATE.{name}");
                match self.jetstream(&create, &definition.config).await {
                    Ok(created) => created,
                    // another gateway was faster
                    Err(Refused::Api { number: IN_USE, .. }) => self
                        .jetstream(&info, &Value::Null)
                        .await
                        .map_err(|refused| self.stream_error(name, refused))?,
                    Err(refused) => return Err(self.stream_error(name, refused)),
                }
            }
            Err(refused) => return Err(self.stream_error(name, refused)),
        };
        let found = &found["config"];
        if let Some(difference) = definition.difference(found) {
            return Err(BusError::StreamDiffers {
                stream: name,
                field: difference.field,
                expected: difference.expected,
                found: difference.found,
            });
        }
        if let Some(config) = definition.adjusted(found) {
            tracing::info!(stream = name, "limits of the stream are adjusted");
            self.jetstream(&format!("STREAM.UPDATE.{name}"), &config)
                .await
                .map_err(|refused| self.stream_error(name, refused))?;
        }
        Ok(())
    }

    fn stream_error(&self, stream: &'static str, refused: Refused) -> BusError {
        match refused {
            Refused::Api { number, text, .. } if NOT_ENABLED.contains(&number) => {
                BusError::NoJetStream { cause: text }
            }
            Refused::Unanswered(Unanswered::Nobody) => BusError::NoJetStream {
                cause: "nobody answers on $JS.API".to_owned(),
            },
            Refused::Unanswered(_) => BusError::Forbidden {
                what: format!("$JS.API.STREAM.*.{stream}"),
                cause: complaint(&self.ingress),
            },
            Refused::Api { text, status, .. } => BusError::Stream {
                stream,
                cause: format!("{status}: {text}"),
            },
            Refused::Garbled => BusError::Stream {
                stream,
                cause: "an answer that is not JSON".to_owned(),
            },
        }
    }

    /// Information about a stream.
    pub(super) async fn stream_info(&self, stream: &str) -> Result<Value, Fault> {
        Ok(self
            .jetstream(&format!("STREAM.INFO.{stream}"), &json!(null))
            .await?)
    }

    /// The same with the subjects that match a filter and hold something.
    pub(super) async fn stream_subjects(&self, stream: &str, filter: &str) -> Result<Value, Fault> {
        let asked = json!({ "subjects_filter": filter });
        let mut info = self.jetstream(&format!("STREAM.INFO.{stream}"), &asked).await?;
        Ok(info["state"]["subjects"].take())
    }
}
