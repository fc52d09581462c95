//! Where the words come from, and how they become text.

use base64::Engine;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::audio::{RATE, Sound};
use super::listen::Mode;
use super::recognise::{Guess, Recogniser};
use super::{Room, Wish};
use crate::message::Fault;

/// What is heard when nobody speaks. The first asks for the tool, so that a demonstration shows it.
const SAMPLES: &[&str] = &[
    "what time is it",
    "tell me a short joke",
    "what is the weather today",
    "open the door",
    "hello computer",
];
/// Longer texts are taken as they are: to speak and to recognise them would take minutes.
const SPOKEN_WORDS: usize = 40;
/// Silence that ends an utterance at the microphone, in tenths of a second.
const PAUSE: u32 = 8;

/// Where the words come from.
pub(super) enum Source {
    Microphone,
    Audio(Sound),
    Text(String),
    Sample(&'static str),
}

impl Source {
    /// As `stt_start` names it.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Microphone => "microphone",
            Self::Audio(_) => "audio",
            Self::Text(_) => "text",
            Self::Sample(_) => "sample",
        }
    }
}

/// What was understood.
pub(super) struct Heard {
    pub(super) text: String,
    pub(super) confidence: f64,
    /// Length of the sound; 0 where there was none.
    pub(super) seconds: f64,
}

/// Why nothing was understood.
#[derive(Clone, Debug)]
pub(super) enum Deaf {
    /// What the clients are told.
    Because {
        message: &'static str,
        details: Option<String>,
    },
    /// Nobody could be told anything.
    Bus(Fault),
}

impl Deaf {
    fn new(message: &'static str, details: impl Into<Option<String>>) -> Self {
        Self::Because {
            message,
            details: details.into(),
        }
    }
}

impl Room {
    /// The microphone, what the command brought, a sample: in this order.
    pub(super) fn source(&self, wish: &Wish, mode: Mode) -> Result<Source, Deaf> {
        if mode != Mode::File && self.parts.microphone().is_some() {
            return Ok(Source::Microphone);
        }
        if let Some(audio) = &wish.audio {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(audio)
                .map_err(|error| Deaf::new("data.audio is not base64", error.to_string()))?;
            let sound = Sound::read(&bytes).map_err(|why| Deaf::new("data.audio cannot be read", why))?;
            return Ok(Source::Audio(sound));
        }
        Ok(match &wish.text {
            Some(text) => Source::Text(text.trim().to_owned()),
            None => Source::Sample(SAMPLES[0]),
        })
    }

    /// The same while listening without end: the samples take turns.
    pub(super) fn source_of_round(&self, wish: &Wish, round: usize) -> Result<Source, Deaf> {
        match self.source(wish, Mode::Continuous)? {
            Source::Sample(_) => Ok(Source::Sample(SAMPLES[round % SAMPLES.len()])),
            source => Ok(source),
        }
    }

    /// Hears one utterance and says what it sounds like on the way. `stop` cuts it short: what was heard counts.
    pub(super) async fn hear(
        &self,
        space: &str,
        source: &Source,
        stop: &CancellationToken,
        until: Instant,
    ) -> Result<Heard, Deaf> {
        let text = match source {
            Source::Microphone => return self.hear_microphone(space, stop, until).await,
            Source::Audio(sound) => return self.hear_sound(space, sound.clone(), stop).await,
            Source::Text(text) => text.as_str(),
            Source::Sample(text) => text,
        };
        if text.is_empty() {
            return Err(Deaf::new("no speech", "data.text is empty".to_owned()));
        }
        if self.parts.can_speak_and_hear() && text.split_whitespace().count() <= SPOKEN_WORDS {
            let spoken = self.parts.test_speech(text).await;
            let sound = spoken.map_err(|why| Deaf::new("the test voice failed", why))?;
            return self.hear_sound(space, sound, stop).await;
        }
        // Without programs the text is heard word by word, as fast as it can be told.
        let mut end = 0;
        for word in text.split_inclusive(' ').take(SPOKEN_WORDS) {
            end += word.len();
            self.tell(space, text[..end].trim_end(), 0.5).await?;
        }
        Ok(Heard {
            text: text.to_owned(),
            confidence: 1.0,
            seconds: 0.0,
        })
    }

    async fn hear_sound(&self, space: &str, sound: Sound, stop: &CancellationToken) -> Result<Heard, Deaf> {
        if sound.is_silent() {
            return Err(Deaf::new("no speech", "the audio is silent".to_owned()));
        }
        let Some(ears) = self.parts.ears() else {
            let details = "install the Python package pocketsphinx beside the worker".to_owned();
            return Err(Deaf::new("no speech recogniser is installed", details));
        };
        let length = sound.seconds();
        let mut recogniser = ears.take().await.map_err(failed)?;
        let mut known = None;
        for piece in sound.padded().pieces() {
            if stop.is_cancelled() {
                break;
            }
            self.piece(space, &mut recogniser, &piece, &mut known).await?;
        }
        let guess = recogniser.end().await.map_err(failed)?;
        ears.give_back(recogniser);
        understood(guess, length)
    }

    async fn hear_microphone(
        &self,
        space: &str,
        stop: &CancellationToken,
        until: Instant,
    ) -> Result<Heard, Deaf> {
        let (Some(microphone), Some(ears)) = (self.parts.microphone(), self.parts.ears()) else {
            return Err(Deaf::new("there is no microphone", None));
        };
        let mut recogniser = ears.take().await.map_err(failed)?;
        let mut recording = microphone
            .record()
            .map_err(|why| Deaf::new("the microphone failed", why))?;
        let (mut known, mut spoken, mut quiet, mut samples) = (None, false, 0, 0);
        loop {
            let piece = tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(until) => break,
                piece = recording.piece() => piece.map_err(|why| Deaf::new("the microphone failed", why))?,
            };
            let Some(piece) = piece else { break };
            samples += piece.len() / 2;
            let silent = Sound::read(&piece).is_ok_and(|sound| sound.is_silent());
            quiet = if silent { quiet + 1 } else { 0 };
            spoken |= !silent;
            self.piece(space, &mut recogniser, &piece, &mut known).await?;
            if spoken && quiet >= PAUSE {
                break;
            }
        }
        let guess = recogniser.end().await.map_err(failed)?;
        ears.give_back(recogniser);
        understood(guess, samples as f64 / f64::from(RATE))
    }

    async fn piece(
        &self,
        space: &str,
        recogniser: &mut Recogniser,
        piece: &[u8],
        known: &mut Option<String>,
    ) -> Result<(), Deaf> {
        let guess = recogniser.piece(piece).await.map_err(failed)?;
        if guess.text.is_some() && guess.text != *known {
            known.clone_from(&guess.text);
            self.tell(space, known.as_deref().unwrap_or_default(), guess.confidence)
                .await?;
        }
        Ok(())
    }

    async fn tell(&self, space: &str, text: &str, confidence: f64) -> Result<(), Deaf> {
        let data = json!({"text": text, "confidence": confidence});
        self.say(space, "stt_progress", data).await.map_err(Deaf::Bus)
    }
}

fn failed(why: String) -> Deaf {
    Deaf::new("the recogniser failed", why)
}

fn understood(guess: Guess, seconds: f64) -> Result<Heard, Deaf> {
    match guess.text {
        Some(text) => Ok(Heard {
            text,
            confidence: guess.confidence,
            seconds,
        }),
        None => Err(Deaf::new("no speech", "nothing was understood".to_owned())),
    }
}
