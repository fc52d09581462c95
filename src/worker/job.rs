//! One command at a worker: what was asked, and the ways to answer before the end.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subject};
use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::large;
use super::outlet::unix_now;
use crate::bus::contract::{self, headers};
use crate::message::{Code, Fault, Nanos};

/// One publish; a hanging connection must not hang the work.
pub(super) const PUBLISH: Duration = Duration::from_secs(2);

/// What was asked.
#[derive(Clone, Debug)]
pub struct Work {
    /// `Nats-Msg-Id`; what `cancel` names.
    pub id: String,
    /// The space it belongs to.
    pub space: String,
    /// What to do.
    pub action: String,
    /// The parameters.
    pub body: Bytes,
    /// `<dialect>/<session>` of the client behind it.
    pub session: Option<String>,
    /// The client's own id for it.
    pub correlation: Option<String>,
    /// W3C `traceparent`, handed on with whatever the work asks of others.
    pub traceparent: Option<String>,
}

/// A command under way.
pub struct Job {
    /// What was asked.
    pub work: Work,
    /// Cancelled when the client is gone or the gateway's limit is reached.
    pub cancelled: CancellationToken,
    pub(super) client: Client,
    pub(super) reply: Option<Subject>,
}

impl Work {
    /// The members of the parameters; none where they are no object.
    ///
    /// # Errors
    /// `invalid`: they cannot be read, and why: half of a character, say, cut off by a client.
    pub(super) fn params(&self) -> Result<Map<String, Value>, Fault> {
        match serde_json::from_slice(&self.body) {
            Ok(params) => Ok(params),
            Err(error) if error.is_data() || self.body.is_empty() => Ok(Map::new()),
            Err(error) => Err(Fault::new(
                Code::Invalid,
                format!("the parameters cannot be read: {error}"),
            )),
        }
    }

    /// Reads a message on `gw.v1.cmd.…`; `None` when the subject is no command.
    pub(super) fn read(message: &Message) -> Option<Self> {
        let (space, _, action) = contract::command_parts(&message.subject)?;
        Some(Self {
            id: header(message, headers::MSG_ID).unwrap_or_default().to_owned(),
            space,
            action,
            body: message.payload.clone(),
            session: header(message, headers::SESSION).map(str::to_owned),
            correlation: header(message, headers::CORRELATION).map(str::to_owned),
            traceparent: header(message, headers::TRACEPARENT).map(str::to_owned),
        })
    }
}

/// Whether nobody waits for the answer any more.
pub(super) fn is_late(message: &Message, now: Nanos) -> bool {
    let number = |name| header(message, name).and_then(|value| value.parse::<u64>().ok());
    match (number(headers::TIME), number(headers::DEADLINE)) {
        (Some(time), Some(millis)) => now > time.saturating_add(millis.saturating_mul(1_000_000)),
        _ => false,
    }
}

/// A header of a message.
pub(super) fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message
        .headers
        .as_ref()?
        .get(name)
        .map(async_nats::HeaderValue::as_str)
}

impl Job {
    /// Tells the sender that the work was taken.
    pub async fn ack(&self) {
        self.interim("ack", Bytes::new()).await;
    }

    /// Tells the sender how it goes; empty only keeps the deadline away.
    pub async fn progress(&self, body: Bytes) {
        self.interim("progress", body).await;
    }

    // A plain publish: through the services API every interim answer would count as a request.
    async fn interim(&self, status: &'static str, body: Bytes) {
        let Some(reply) = self.reply.clone() else { return };
        let mut head = HeaderMap::new();
        head.insert(headers::STATUS, status);
        head.insert(headers::TIME, unix_now().to_string());
        let body = match large::outgoing(&self.client, body).await {
            Ok((body, None)) => body,
            Ok((body, Some(reference))) => {
                head.insert(headers::BODY, reference);
                body
            }
            Err(fault) => return tracing::debug!(%fault, status, "an interim answer was not sent"),
        };
        let sent = self.client.publish_with_headers(reply, head, body);
        if !matches!(timeout(PUBLISH, sent).await, Ok(Ok(()))) {
            tracing::debug!(status, "an interim answer was not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Work;

    fn params(body: &'static str) -> Result<String, String> {
        let work = Work {
            id: String::new(),
            space: String::new(),
            action: String::new(),
            body: body.into(),
            session: None,
            correlation: None,
            traceparent: None,
        };
        let params = work.params().map_err(|fault| fault.text)?;
        Ok(serde_json::Value::Object(params).to_string())
    }

    #[test]
    fn parameters_that_cannot_be_read_are_not_called_missing() {
        assert_eq!(params(r#"{"a":[1]}"#).as_deref(), Ok(r#"{"a":[1]}"#));
        for none in ["", "[1]", "null", "\"a\""] {
            assert_eq!(params(none).as_deref(), Ok("{}"), "{none}");
        }
        for (body, why) in [
            (r#"{"command":"search \ud83d"}"#, "hex escape"),
            (r#"{"command":"help","x":1e999}"#, "out of range"),
            ("{", "EOF"),
        ] {
            let text = params(body).unwrap_err();
            assert!(text.contains(why), "{text}");
        }
    }
}
