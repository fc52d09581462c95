//! A broker, worker processes, and the ears of a client on the bus.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Subscriber};
use causeway::bus::contract::streams;
use causeway::config::Config;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::broker::{Broker, PATIENCE, eventually};

/// A worker process; killed when dropped.
pub(crate) struct Worker {
    child: Child,
}

impl Worker {
    /// `causeway worker voice`, as an operator starts it.
    pub(crate) fn start(url: &str, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
        command
            .args(["worker", "voice", "--nats-url", url])
            .env("CAUSEWAY_SPEECH", "off")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self {
            child: command.spawn().unwrap(),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    pub(crate) async fn ended(&mut self) -> bool {
        for _ in 0..600 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the worker did not end");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came back for a command.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Bodies of the interim answers, with their status.
    pub(crate) interim: Vec<(String, String)>,
    /// Error code, or 0.
    pub(crate) code: u16,
    pub(crate) text: String,
    pub(crate) body: String,
}

/// Everything a test needs.
pub(crate) struct Stand {
    pub(crate) broker: Broker,
    pub(crate) client: Client,
    pub(crate) worker: Worker,
    live: Subscriber,
}

impl Stand {
    pub(crate) async fn open() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let broker = Broker::start().await;
        let client = broker.client().await;
        // The gateway's streams: the worker itself creates none.
        for stream in streams::definitions(&Config::defaults().events) {
            let subject = format!("$JS.API.STREAM.CREATE.{}", stream.name);
            let reply = client
                .request(subject, stream.config.to_string().into())
                .await
                .unwrap();
            let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
            assert!(reply.get("error").is_none(), "{reply}");
        }
        let live = client.subscribe("gw.v1.live.*.voice.>").await.unwrap();
        let worker = Worker::start(&broker.url(), settings);
        let stand = Self {
            broker,
            client,
            worker,
            live,
        };
        stand.instances(1).await;
        stand
    }

    /// Waits until so many instances serve.
    pub(crate) async fn instances(&self, wanted: usize) {
        eventually("instances of the worker", || async {
            let inbox = self.client.new_inbox();
            let mut answers = self.client.subscribe(inbox.clone()).await.unwrap();
            self.client
                .publish_with_reply("$SRV.INFO.voice", inbox, "".into())
                .await
                .unwrap();
            let mut found = 0;
            while let Ok(Some(answer)) = timeout(Duration::from_millis(200), answers.next()).await {
                let info: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
                found += usize::from(info["endpoints"].as_array().is_some_and(|all| all.len() == 5));
            }
            found == wanted
        })
        .await;
    }

    /// Sends a command; its answers are read by [`Stand::answer`].
    pub(crate) async fn send(&self, space: &str, action: &str, data: Value, head: HeaderMap) -> Subscriber {
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await.unwrap();
        let subject = format!("gw.v1.cmd.{space}.voice.{action}");
        let body = data.to_string();
        self.client
            .publish_with_reply_and_headers(subject, inbox, head, body.into())
            .await
            .unwrap();
        self.client.flush().await.unwrap();
        answers
    }

    /// Waits until the worker has taken a command.
    pub(crate) async fn acknowledged(&self, answers: &mut Subscriber) {
        let message = timeout(PATIENCE, answers.next())
            .await
            .expect("an answer")
            .unwrap();
        let status = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Gw-Status"));
        assert_eq!(status.map(async_nats::HeaderValue::as_str), Some("ack"));
    }

    pub(crate) async fn answer(&self, answers: &mut Subscriber) -> Answered {
        let mut interim = Vec::new();
        loop {
            let message = timeout(PATIENCE, answers.next())
                .await
                .expect("an answer")
                .unwrap();
            let header = |name: &str| {
                let value = message.headers.as_ref().and_then(|headers| headers.get(name));
                value.map(|value| value.as_str().to_owned()).unwrap_or_default()
            };
            let body = String::from_utf8(message.payload.to_vec()).unwrap();
            assert_eq!(message.status, None, "nobody answers");
            assert!(
                header("Gw-Time").parse::<u64>().is_ok(),
                "a reply without Gw-Time"
            );
            let code = header("Nats-Service-Error-Code");
            match header("Gw-Status").as_str() {
                status @ ("ack" | "progress") => interim.push((status.to_owned(), body)),
                _ => {
                    let text = header("Nats-Service-Error");
                    return Answered {
                        interim,
                        code: code.parse().unwrap_or(0),
                        text,
                        body,
                    };
                }
            }
        }
    }

    /// Sends a command and waits for its end.
    pub(crate) async fn call(&self, action: &str, data: Value) -> Answered {
        let mut answers = self.send("main", action, data, HeaderMap::new()).await;
        self.answer(&mut answers).await
    }

    /// The next event: space, topic, data.
    pub(crate) async fn event(&mut self) -> (String, String, Value) {
        let message = timeout(PATIENCE, self.live.next())
            .await
            .expect("an event")
            .unwrap();
        let headers = message.headers.as_ref().expect("live messages have headers");
        for name in ["Nats-Msg-Id", "Gw-Time", "Nats-Sequence"] {
            assert!(headers.get(name).is_some(), "an event without {name}");
        }
        let mut tokens = message.subject.split('.').skip(3);
        let (space, _, topic) = (tokens.next(), tokens.next(), tokens.next());
        let data = serde_json::from_slice(&message.payload).expect("an event is JSON");
        (space.unwrap().to_owned(), topic.unwrap().to_owned(), data)
    }

    /// Events up to and with the first of `topic`.
    pub(crate) async fn until(&mut self, topic: &str) -> Vec<(String, Value)> {
        let mut seen = Vec::new();
        loop {
            let (_, name, data) = self.event().await;
            let last = name == topic;
            seen.push((name, data));
            if last {
                return seen;
            }
        }
    }

    /// A demo flow from beginning to end.
    pub(crate) async fn demo(&mut self, data: Value) -> Vec<(String, Value)> {
        let answered = self.call("demo_flow", data).await;
        assert_eq!((answered.code, answered.body.as_str()), (0, ""), "{answered:?}");
        self.until("latency_trace").await
    }

    /// Requests the services API has counted for an action.
    pub(crate) async fn counted(&self, action: &str) -> u64 {
        let reply = self.client.request("$SRV.STATS.voice", "".into()).await.unwrap();
        let stats: Value = serde_json::from_slice(&reply.payload).unwrap();
        let all = stats["endpoints"].as_array().unwrap();
        all.iter().find(|one| one["name"] == action).unwrap()["num_requests"]
            .as_u64()
            .unwrap()
    }
}

/// The topics of a flow, repeated ones once.
pub(crate) fn topics(events: &[(String, Value)]) -> Vec<&str> {
    let mut topics: Vec<_> = events.iter().map(|(topic, _)| topic.as_str()).collect();
    topics.dedup();
    topics
}

/// The data of the first event of a topic.
pub(crate) fn data<'a>(events: &'a [(String, Value)], topic: &str) -> &'a Value {
    let found = events.iter().find(|(name, _)| name == topic);
    &found
        .unwrap_or_else(|| panic!("no {topic} in {:?}", topics(events)))
        .1
}

/// `{}`.
pub(crate) fn nothing() -> Value {
    json!({})
}
