//! `stt_start` and `stt_stop`: when listening begins, what ends it, and which instance hears the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::flow::Trace;
use super::hear::{Deaf, Heard};
use super::{Room, Wish, lane, seconds};
use crate::bus::contract;
use crate::message::{Code, Fault};
use crate::worker::{Job, trace};

/// A push-to-talk without `stt_stop` or `duration` ends after this, as it always did.
const TALK: Duration = Duration::from_secs(5);
/// Continuous listening without `stt_stop` or `duration` ends after this.
const CONTINUOUS: Duration = Duration::from_secs(300);
/// Nobody listens longer than this.
const LONGEST: Duration = Duration::from_secs(3600);
/// What an instance without the session asks the one with it.
const FORWARD: &str = "stt_stop_listening";
/// For the answer to that.
const ASK: Duration = Duration::from_secs(2);
/// Between two samples of continuous listening.
const PAUSE: Duration = Duration::from_secs(1);

/// How a client listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    PushToTalk,
    Continuous,
    File,
}

impl Mode {
    fn of(wish: &Wish) -> Result<Self, Fault> {
        match wish.mode.as_deref() {
            Some("continuous") => Ok(Self::Continuous),
            None | Some("push_to_talk") if wish.continuous => Ok(Self::Continuous),
            None | Some("push_to_talk") => Ok(Self::PushToTalk),
            Some("file") => Ok(Self::File),
            Some(_) => Err(Fault::new(
                Code::Invalid,
                "mode is one of push_to_talk, continuous, file",
            )),
        }
    }

    /// The client's word for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PushToTalk => "push_to_talk",
            Self::Continuous => "continuous",
            Self::File => "file",
        }
    }
}

/// Spaces somebody listens in, with the way to end it.
#[derive(Default)]
pub(super) struct Listening(Mutex<HashMap<String, CancellationToken>>);

/// One who listens; leaves the table when dropped.
struct Listener {
    room: Arc<Room>,
    space: String,
    stop: CancellationToken,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.cancel();
        self.room.listening.0.lock().remove(&self.space);
    }
}

impl Room {
    /// `stt_stop`, at whichever instance it arrives.
    pub(super) async fn stop_listening(&self, space: &str) -> Result<(), Fault> {
        let here = self.listening.0.lock().get(space).cloned();
        if let Some(stop) = here {
            stop.cancel();
            return Ok(());
        }
        // Instances share the load, so the one that listens may be another. None answers at once when none does.
        let subject = contract::command(space, super::DIALECT, FORWARD)?;
        let asked = self.outlet.client().request(subject, Bytes::new());
        match timeout(ASK, asked).await {
            Ok(Ok(_)) => Ok(()),
            _ => {
                let details = Some("stt_stop came without stt_start, or after its end");
                self.say_error(space, "stt_error", "nothing is listening", details)
                    .await
            }
        }
    }

    /// `stt_start`. Continuous listening outlives its command, which is done when listening has begun.
    pub(super) async fn listen(
        self: Arc<Self>,
        job: &Job,
        wish: Wish,
        turn: lane::Turn,
    ) -> Result<(), Fault> {
        let space = job.work.space.clone();
        let mode = Mode::of(&wish)?;
        let default = if mode == Mode::Continuous {
            CONTINUOUS
        } else {
            TALK
        };
        let until = match wish.duration {
            None => default,
            Some(wanted) => Duration::try_from_secs_f64(wanted)
                .ok()
                .filter(|wanted| *wanted <= LONGEST)
                .ok_or_else(|| Fault::new(Code::Invalid, "duration is a number of seconds up to 3600"))?,
        };
        let stop = self.stop.child_token();
        self.listening.0.lock().insert(space.clone(), stop.clone());
        let listener = Listener {
            room: self.clone(),
            space: space.clone(),
            stop,
        };
        let until = Instant::now() + until;
        let subject = contract::command(&space, super::DIALECT, FORWARD)?;
        let mut forwarded = self
            .outlet
            .client()
            .subscribe(subject)
            .await
            .map_err(|error| Fault::new(Code::BusDown, error.to_string()))?;
        let (stop, client) = (listener.stop.clone(), self.outlet.client().clone());
        self.tasks.spawn(async move {
            if let Some(Some(message)) = stop.run_until_cancelled(forwarded.next()).await {
                stop.cancel();
                if let Some(reply) = message.reply {
                    let _ = timeout(ASK, client.publish(reply, Bytes::new())).await;
                }
            }
        });
        if mode == Mode::Continuous {
            let tasks = self.tasks.clone();
            let listening = async move {
                let listening = async {
                    let heard = self.continuous(&space, &wish, &listener.stop, until).await;
                    // before the turn ends: whoever comes next must not find, nor lose its entry to, this listener
                    drop(listener);
                    heard
                };
                if let Err(fault) = turn.speaks(listening).await {
                    tracing::warn!(%space, %fault, "continuous listening ended");
                }
            };
            tasks.spawn(listening.instrument(trace::outliving()));
            return Ok(());
        }
        turn.speaks(async {
            let began = Instant::now();
            let mut trace = Trace::default();
            let words = self
                .talk(&space, &wish, mode, &listener.stop, until, &mut trace)
                .await?;
            drop(listener);
            // As upstream: what was said by push-to-talk is answered.
            if let Some(text) = words.filter(|_| mode == Mode::PushToTalk && wish.respond != Some(false)) {
                self.answer(&space, &wish, &text, &mut trace).await?;
                self.finish(&space, began, trace).await?;
            }
            Ok(())
        })
        .await
    }

    /// One utterance, its events included; `None` when there was none and the clients were told.
    pub(super) async fn hear_once(
        &self,
        space: &str,
        wish: &Wish,
        mode: Mode,
        trace: &mut Trace,
    ) -> Result<Option<String>, Fault> {
        let never = CancellationToken::new();
        self.utterance(
            space,
            wish,
            mode,
            false,
            &never,
            Instant::now() + CONTINUOUS,
            trace,
        )
        .await
    }

    async fn talk(
        &self,
        space: &str,
        wish: &Wish,
        mode: Mode,
        stop: &CancellationToken,
        until: Instant,
        trace: &mut Trace,
    ) -> Result<Option<String>, Fault> {
        if mode == Mode::File && wish.text.is_none() && wish.audio.is_none() {
            self.say(space, "stt_start", json!({"mode": "file", "source": null}))
                .await?;
            let message = "mode file needs data.audio or data.text";
            self.say_error(space, "stt_error", message, None).await?;
            return Ok(None);
        }
        self.utterance(space, wish, mode, mode == Mode::PushToTalk, stop, until, trace)
            .await
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call site each for the demo and for talking"
    )]
    async fn utterance(
        &self,
        space: &str,
        wish: &Wish,
        mode: Mode,
        hold: bool,
        stop: &CancellationToken,
        until: Instant,
        trace: &mut Trace,
    ) -> Result<Option<String>, Fault> {
        let source = match self.source(wish, mode) {
            Ok(source) => source,
            Err(deaf) => {
                self.say(
                    space,
                    "stt_start",
                    json!({"mode": mode.name(), "source": "audio"}),
                )
                .await?;
                self.deaf(space, deaf).await?;
                return Ok(None);
            }
        };
        self.say(
            space,
            "stt_start",
            json!({"mode": mode.name(), "source": source.name()}),
        )
        .await?;
        if wish.fails("stt") {
            self.say_error(space, "stt_error", "the recogniser failed, as asked", None)
                .await?;
            return Ok(None);
        }
        let began = Instant::now();
        let heard = self.hear(space, &source, stop, until).await;
        trace.stt = began.elapsed();
        if hold && heard.is_ok() {
            // The button is still pressed: the result belongs to its release.
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep_until(until) => {}
            }
        }
        match heard {
            Ok(heard) => {
                self.say(space, "stt_result", result(&heard, trace.stt)).await?;
                Ok(Some(heard.text))
            }
            Err(deaf) => {
                self.deaf(space, deaf).await?;
                Ok(None)
            }
        }
    }

    async fn deaf(&self, space: &str, deaf: Deaf) -> Result<(), Fault> {
        match deaf {
            Deaf::Because { message, details } => {
                self.say_error(space, "stt_error", message, details.as_deref())
                    .await
            }
            Deaf::Bus(fault) => Err(fault),
        }
    }

    /// Results until told to stop; then one that says all that was heard, marked `final`.
    async fn continuous(
        &self,
        space: &str,
        wish: &Wish,
        stop: &CancellationToken,
        until: Instant,
    ) -> Result<(), Fault> {
        let mut all: Vec<String> = Vec::new();
        let mut told = false;
        for round in 0.. {
            let source = self.source_of_round(wish, round);
            let name = source.as_ref().map_or("audio", |source| source.name());
            if !std::mem::replace(&mut told, true) {
                self.say(space, "stt_start", json!({"mode": "continuous", "source": name}))
                    .await?;
            }
            if wish.fails("stt") {
                return self
                    .say_error(space, "stt_error", "the recogniser failed, as asked", None)
                    .await;
            }
            let began = Instant::now();
            let heard = match &source {
                Ok(source) => self.hear(space, source, stop, until).await,
                Err(deaf) => Err(deaf.clone()),
            };
            match heard {
                Ok(heard) => {
                    self.say(space, "stt_result", result(&heard, began.elapsed()))
                        .await?;
                    all.push(heard.text);
                }
                // Silence between words is no error while somebody listens on.
                Err(Deaf::Because { .. }) if name == "microphone" => {}
                Err(deaf) => return self.deaf(space, deaf).await,
            }
            // What the command brought is heard once; then there is only the wait for the end.
            let next = match name {
                "microphone" => Instant::now(),
                "sample" => Instant::now() + PAUSE,
                _ => until,
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(next.min(until)) => {}
            }
            if Instant::now() >= until {
                break;
            }
        }
        if all.is_empty() {
            return self.say_error(space, "stt_error", "no speech", None).await;
        }
        let data = json!({
            "text": all.join(" "), "confidence": 1.0, "duration_seconds": 0.0, "language": "en",
            "results": all.len(), "final": true,
        });
        self.say(space, "stt_result", data).await
    }
}

fn result(heard: &Heard, took: Duration) -> serde_json::Value {
    json!({
        "text": heard.text, "confidence": heard.confidence, "duration_seconds": seconds(took),
        "language": "en", "audio_duration_seconds": seconds(Duration::from_secs_f64(heard.seconds)),
    })
}
