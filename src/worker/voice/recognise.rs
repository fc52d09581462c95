//! The recogniser: a Python child with pocketsphinx, spoken to in questions and answers.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Carried in the binary, so that it needs no files beside it.
const SCRIPT: &str = include_str!("../../../deploy/workers/voice/recognise.py");
/// Loading the model.
const LOAD: Duration = Duration::from_secs(30);
/// One question.
const ANSWER: Duration = Duration::from_secs(10);
/// Children kept loaded between utterances.
const IDLE: usize = 2;

/// What the recogniser thinks it heard.
#[derive(Debug, Deserialize)]
pub(super) struct Guess {
    pub(super) text: Option<String>,
    pub(super) confidence: f64,
}

/// Loaded recognisers, and where to get more.
pub(super) struct Ears {
    python: PathBuf,
    idle: Mutex<Vec<Recogniser>>,
}

impl Ears {
    /// Starts the first one, which shows whether this Python can.
    pub(super) async fn open(python: &Path) -> Result<Self, String> {
        let first = Recogniser::start(python).await?;
        Ok(Self {
            python: python.to_owned(),
            idle: Mutex::new(vec![first]),
        })
    }

    /// A recogniser for one utterance.
    pub(super) async fn take(&self) -> Result<Recogniser, String> {
        loop {
            let kept = self.idle.lock().pop();
            let Some(mut recogniser) = kept else {
                return Recogniser::start(&self.python).await;
            };
            // One that died while idle is buried here.
            if recogniser.is_alive() {
                return Ok(recogniser);
            }
        }
    }

    /// Keeps one whose utterance ended well. Others are dropped, which ends them.
    pub(super) fn give_back(&self, recogniser: Recogniser) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE {
            idle.push(recogniser);
        }
    }
}

/// One child; ends when dropped.
pub(super) struct Recogniser {
    child: Child,
    ask: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Recogniser {
    async fn start(python: &Path) -> Result<Self, String> {
        let mut child = Command::new(python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", python.display()))?;
        let (Some(ask), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the recogniser has no pipes".to_owned());
        };
        let mut recogniser = Self {
            child,
            ask,
            answers: BufReader::new(stdout).lines(),
        };
        recogniser.answer(LOAD).await?;
        Ok(recogniser)
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// A piece of sound: raw 16-bit mono at 16 kHz, not empty.
    pub(super) async fn piece(&mut self, bytes: &[u8]) -> Result<Guess, String> {
        self.ask(bytes).await
    }

    /// The utterance is over.
    pub(super) async fn end(&mut self) -> Result<Guess, String> {
        self.ask(&[]).await
    }

    async fn ask(&mut self, bytes: &[u8]) -> Result<Guess, String> {
        let length = u32::try_from(bytes.len()).map_err(|error| error.to_string())?;
        let asking = async {
            self.ask.write_all(&length.to_be_bytes()).await?;
            self.ask.write_all(bytes).await?;
            self.ask.flush().await
        };
        match timeout(ANSWER, asking).await {
            Ok(Ok(())) => self.answer(ANSWER).await,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not listen".to_owned()),
        }
    }

    async fn answer(&mut self, within: Duration) -> Result<Guess, String> {
        match timeout(within, self.answers.next_line()).await {
            Ok(Ok(Some(line))) => serde_json::from_str(&line).map_err(|error| error.to_string()),
            Ok(Ok(None)) => Err("it ended".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}
