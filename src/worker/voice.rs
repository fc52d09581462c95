//! The reference voice worker: listens, answers by rules, speaks. Real programs where installed, text elsewhere.
//!
//! | part | program | without it |
//! |---|---|---|
//! | microphone | `arecord` and a capture device | the command's `audio` or `text`, else a sample phrase |
//! | test voice | `flite` | the text itself is "heard" |
//! | recognition | `pocketsphinx` in Python | the text itself is "heard"; `audio` is an `stt_error` |
//! | answers' voice | `espeak-ng`, else `flite` | no sound, the same events |
//!
//! Every `*_error` can be provoked by `data.fail` = `stt`, `memory`, `tool`, `llm` or `tts`, and happens by itself:
//!
//! | event | by itself |
//! |---|---|
//! | `stt_error` | silence, audio that is no speech file, `stt_stop` while nothing listens, mode `file` without input |
//! | `memory_error` | no stream keeps state |
//! | `tool_error` | a question for a tool that is not there, such as the weather |
//! | `llm_error` | more than 200 words |
//! | `tts_error` | a `data.voice` that does not exist |

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Job, Options, Outlet, Worker};
use crate::message::{Body, Code, Fault};

mod audio;
mod flow;
mod hear;
mod lane;
mod listen;
mod memory;
mod recognise;
mod rules;
mod speech;

use flow::Trace;

/// The dialect whose clients hear the events.
const DIALECT: &str = "voice";

/// The voice worker.
pub(super) struct Voice {
    room: Arc<Room>,
}

/// What all commands share.
struct Room {
    outlet: Outlet,
    parts: speech::Parts,
    lanes: lane::Lanes,
    floor: lane::Floor,
    listening: listen::Listening,
    /// The last flow, and how many there were.
    last: Mutex<(Trace, u64)>,
    started: Instant,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What a command may ask for; everything else in `data` is ignored, as it always was.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Wish {
    /// `push_to_talk`, `continuous` or `file`.
    mode: Option<String>,
    /// The older way to ask for mode `continuous`.
    continuous: bool,
    /// Seconds to listen.
    duration: Option<f64>,
    /// What is to be heard, as text.
    text: Option<String>,
    /// What is to be heard: base64 of a WAV file or of raw 16-bit mono samples at 16 kHz.
    audio: Option<String>,
    /// Voice of the answer.
    voice: Option<String>,
    /// `false`: only recognise, do not answer.
    respond: Option<bool>,
    /// A stage that shall fail.
    fail: Option<String>,
}

impl Wish {
    fn read(body: &[u8]) -> Result<Self, Fault> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice::<Option<Self>>(body)
            .map(Option::unwrap_or_default)
            .map_err(|error| Fault::new(Code::Invalid, format!("the data of the command: {error}")))
    }

    fn fails(&self, stage: &str) -> bool {
        self.fail.as_deref() == Some(stage)
    }
}

impl Voice {
    /// Finds out what is installed.
    pub(super) async fn start(options: &Options, outlet: Outlet, stop: CancellationToken) -> Self {
        let parts = speech::Parts::find(options).await;
        tracing::info!(%parts, "voice worker");
        Self {
            room: Arc::new(Room {
                floor: lane::Floor::new(outlet.client().clone()),
                outlet,
                parts,
                lanes: lane::Lanes::default(),
                listening: listen::Listening::default(),
                last: Mutex::default(),
                started: Instant::now(),
                stop,
                tasks: TaskTracker::new(),
            }),
        }
    }

    async fn perform(&self, job: &Job) -> Result<Body, Fault> {
        let room = &self.room;
        match job.work.action.as_str() {
            "get_system_info" => return room.system_info(),
            "get_performance_metrics" => return room.performance(),
            "stt_stop" => room.stop_listening(&job.work.space).await?,
            action => {
                let wish = Wish::read(&job.work.body)?;
                let turn = room.turn(job).await?;
                match action {
                    "stt_start" => room.clone().listen(job, wish, turn).await?,
                    "demo_flow" => turn.speaks(room.demo(&job.work.space, &wish)).await?,
                    _ => {
                        return Err(Fault::new(
                            Code::UnknownAction,
                            "the voice worker does not know that",
                        ));
                    }
                }
            }
        }
        // The events have told it all.
        Ok(Body::default())
    }
}

impl Worker for Voice {
    fn name(&self) -> &'static str {
        "voice"
    }

    fn description(&self) -> &'static str {
        "Reference voice worker: listens, answers by rules, speaks"
    }

    fn actions(&self) -> &'static [&'static str] {
        &[
            "stt_start",
            "stt_stop",
            "demo_flow",
            "get_system_info",
            "get_performance_metrics",
        ]
    }

    fn handle<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Body, Fault>> {
        self.perform(job).boxed()
    }

    fn finish(&self) -> BoxFuture<'_, ()> {
        // Whoever listens without end has heard the same signal to stop.
        self.room.tasks.close();
        self.room.tasks.wait().boxed()
    }
}

impl Room {
    /// Says an event to the clients of a space.
    async fn say(&self, space: &str, topic: &str, data: Value) -> Result<(), Fault> {
        self.outlet
            .event(space, DIALECT, topic, Bytes::from(data.to_string()))
            .await
    }

    /// Says that a stage failed.
    async fn say_error(
        &self,
        space: &str,
        topic: &str,
        message: &str,
        details: Option<&str>,
    ) -> Result<(), Fault> {
        self.say(space, topic, json!({"message": message, "details": details}))
            .await
    }

    /// Waits until nothing else is said in the space, telling the sender that it waits.
    async fn turn(&self, job: &Job) -> Result<lane::Turn, Fault> {
        // First the place in the queue: commands that come one after the other keep their order.
        let waiting = self.lanes.enter(&job.work.space)?;
        job.ack().await;
        if waiting.ahead > 0 {
            job.progress(Bytes::from(json!({"queued": waiting.ahead}).to_string()))
                .await;
        }
        waiting.turn(&self.floor, &job.work.space).await
    }

    fn system_info(&self) -> Result<Body, Fault> {
        Ok(Body::json(
            json!({
                "version": env!("CARGO_PKG_VERSION"),
                "uptime": self.started.elapsed().as_secs(),
                "memory": resident_bytes()?,
                "speech": self.parts.to_string(),
            })
            .to_string(),
        ))
    }

    fn performance(&self) -> Result<Body, Fault> {
        let (trace, flows) = self.last.lock().clone();
        let mut data = trace.json();
        data["flows"] = flows.into();
        Ok(Body::json(data.to_string()))
    }
}

/// Memory this process really holds, in bytes.
fn resident_bytes() -> Result<u64, Fault> {
    let unreadable = |cause: String| Fault::new(Code::WorkerError, format!("/proc/self/status: {cause}"));
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(|error| unreadable(error.to_string()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| unreadable("no VmRSS".to_owned()))
}

/// Seconds for the clients, to the tenth of a millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10_000.0
}
