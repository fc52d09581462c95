//! The programs that speak and record, where they are installed. Every child has a deadline and ends when dropped.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout, timeout_at};

use super::audio::Sound;
use super::recognise::Ears;
use crate::worker::Options;

/// One sentence spoken, or one list of devices.
const SPEAK: Duration = Duration::from_secs(30);
/// A second of silence from the recorder means that it hangs; it always sends samples.
const RECORD: Duration = Duration::from_secs(5);
/// Head of a WAV file as these programs write it.
const HEAD: usize = 44;
/// Seconds of speech a character takes, about: only for the percentage on the way.
const A_CHARACTER: f64 = 0.075;
/// Voices of the text pipeline.
const SILENT_VOICES: &[&str] = &["en", "en-us", "en-gb"];
/// Bytes of a tenth of a second at 16 kHz.
const PIECE: usize = 3200;

/// What is installed.
#[derive(Default)]
pub(super) struct Parts {
    flite: Option<PathBuf>,
    espeak: Option<PathBuf>,
    microphone: Option<Microphone>,
    ears: Option<Ears>,
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stt = if self.ears.is_some() {
            "pocketsphinx"
        } else {
            "text"
        };
        let voice = if self.flite.is_some() { "flite" } else { "text" };
        let microphone = if self.microphone.is_some() { "yes" } else { "no" };
        write!(
            f,
            "stt={stt} tts={} input={voice} microphone={microphone}",
            self.provider()
        )
    }
}

impl Parts {
    /// Looks for the programs, unless they shall be left alone.
    pub(super) async fn find(options: &Options) -> Self {
        if options.speech_off {
            return Self::default();
        }
        let python = options.python.clone().or_else(|| in_path("python3"));
        let ears = match &python {
            None => Err("no python3 in PATH".to_owned()),
            Some(python) => Ears::open(python).await,
        };
        let ears = match ears {
            Ok(ears) => Some(ears),
            Err(why) => {
                tracing::info!(
                    why,
                    "no speech recognition; set CAUSEWAY_PYTHON to a Python with pocketsphinx"
                );
                None
            }
        };
        // A microphone nobody understands is of no use.
        let microphone = if ears.is_some() {
            Microphone::find().await
        } else {
            None
        };
        Self {
            flite: in_path("flite"),
            espeak: in_path("espeak-ng"),
            microphone,
            ears,
        }
    }

    pub(super) const fn ears(&self) -> Option<&Ears> {
        self.ears.as_ref()
    }

    pub(super) const fn microphone(&self) -> Option<&Microphone> {
        self.microphone.as_ref()
    }

    pub(super) const fn can_speak_and_hear(&self) -> bool {
        self.flite.is_some() && self.ears.is_some()
    }

    /// Who speaks the answers.
    pub(super) const fn provider(&self) -> &'static str {
        match (&self.espeak, &self.flite) {
            (Some(_), _) => "espeak-ng",
            (None, Some(_)) => "flite",
            (None, None) => "text",
        }
    }

    /// Test input, in the voice the recogniser understands best.
    pub(super) async fn test_speech(&self, text: &str) -> Result<Sound, String> {
        let Some(flite) = &self.flite else {
            return Err("flite is not installed".to_owned());
        };
        let text = printable(text);
        let running = command(flite)
            .args(["-voice", "rms", "-t", &text, "-o", "/dev/stdout"])
            .stderr(Stdio::null())
            .output();
        match timeout(SPEAK, running).await {
            Ok(Ok(output)) => Sound::read(&output.stdout),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no sound in time".to_owned()),
        }
    }

    /// Begins to speak an answer.
    pub(super) fn speak(&self, text: &str, voice: &str) -> Result<Speaking, String> {
        let name = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
        if !(1..=40).contains(&voice.len()) || !voice.bytes().all(name) || voice.starts_with('-') {
            return Err("a voice is named by letters, digits, _ + -".to_owned());
        }
        let mut command = match (&self.espeak, &self.flite) {
            (Some(espeak), _) => {
                let mut command = command(espeak);
                command.args(["--stdin", "--stdout", "-v", voice]);
                command
            }
            _ if !SILENT_VOICES.contains(&voice) => {
                return Err(format!("the voice {voice} does not exist"));
            }
            (None, Some(flite)) => {
                let mut command = command(flite);
                command.args(["-voice", "slt", "-f", "/dev/stdin", "-o", "/dev/stdout"]);
                command
            }
            (None, None) => return Ok(Speaking::silent()),
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the program has no pipes".to_owned());
        };
        let text = printable(text);
        let expected = text.chars().count() as f64 * A_CHARACTER;
        // Written beside the reading, or a long text and a full pipe would wait for each other.
        tokio::spawn(async move { timeout(SPEAK, stdin.write_all(text.as_bytes())).await.is_ok() });
        Ok(Speaking {
            program: Some((child, stdout)),
            until: Instant::now() + SPEAK,
            expected,
            head: Vec::with_capacity(HEAD),
            bytes: 0,
            told: 0.0,
        })
    }
}

/// An answer being spoken.
pub(super) struct Speaking {
    program: Option<(Child, ChildStdout)>,
    until: Instant,
    expected: f64,
    head: Vec<u8>,
    bytes: usize,
    told: f64,
}

impl Speaking {
    fn silent() -> Self {
        Self {
            program: None,
            until: Instant::now(),
            expected: 0.0,
            head: Vec::new(),
            bytes: 0,
            told: 0.0,
        }
    }

    /// The next percentage worth telling, 100 last; then `None`.
    pub(super) async fn next(&mut self) -> Result<Option<f64>, String> {
        let mut buffer = vec![0; 8192];
        while let Some((child, stdout)) = &mut self.program {
            let read = timeout_at(self.until, stdout.read(&mut buffer)).await;
            let count = read
                .map_err(|_| "no sound in time")?
                .map_err(|error| error.to_string())?;
            if count == 0 {
                ended(child, self.until).await?;
                self.program = None;
                if self.bytes == 0 {
                    return Err("the program made no sound".to_owned());
                }
                break;
            }
            let missing = (HEAD - self.head.len()).min(count);
            self.head.extend_from_slice(&buffer[..missing]);
            self.bytes += count - missing;
            let percent = (self.seconds() / self.expected.max(0.1) * 100.0)
                .round()
                .min(99.0);
            if percent - self.told >= 10.0 {
                self.told = percent;
                return Ok(Some(percent));
            }
        }
        if self.told < 100.0 {
            self.told = 100.0;
            return Ok(Some(100.0));
        }
        Ok(None)
    }

    /// Length of the sound so far.
    pub(super) fn seconds(&self) -> f64 {
        let rate = match self.head.get(24..28) {
            Some(rate) => u32::from_le_bytes([rate[0], rate[1], rate[2], rate[3]]),
            None => return 0.0,
        };
        (self.bytes as f64 / 2.0 / f64::from(rate.max(1)) * 1000.0).round() / 1000.0
    }
}

async fn ended(child: &mut Child, until: Instant) -> Result<(), String> {
    let status = timeout_at(until, child.wait())
        .await
        .map_err(|_| "the program does not end")?;
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = timeout_at(until, stderr.take(500).read_to_string(&mut said)).await;
    }
    Err(if said.trim().is_empty() {
        "the program failed".to_owned()
    } else {
        said.trim().to_owned()
    })
}

/// A recorder with a device to record from.
pub(super) struct Microphone {
    arecord: PathBuf,
}

impl Microphone {
    async fn find() -> Option<Self> {
        let arecord = in_path("arecord")?;
        let list = command(&arecord).arg("-l").stderr(Stdio::null()).output();
        let output = timeout(SPEAK, list).await.ok()?.ok()?;
        String::from_utf8_lossy(&output.stdout)
            .contains("card ")
            .then_some(Self { arecord })
    }

    /// Begins to record.
    pub(super) fn record(&self) -> Result<Recording, String> {
        let mut child = command(&self.arecord)
            .args(["-q", "-t", "raw", "-f", "S16_LE", "-r", "16000", "-c", "1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let Some(stdout) = child.stdout.take() else {
            return Err("the recorder has no pipe".to_owned());
        };
        Ok(Recording {
            _child: child,
            stdout,
            piece: Vec::with_capacity(PIECE),
        })
    }
}

/// A running recorder.
pub(super) struct Recording {
    _child: Child,
    stdout: ChildStdout,
    piece: Vec<u8>,
}

impl Recording {
    /// The next tenth of a second; `None` at the end. A piece begun survives being cancelled.
    pub(super) async fn piece(&mut self) -> Result<Option<Vec<u8>>, String> {
        while self.piece.len() < PIECE {
            let missing = (PIECE - self.piece.len()) as u64;
            let mut rest = (&mut self.stdout).take(missing);
            match timeout(RECORD, rest.read_buf(&mut self.piece)).await {
                Ok(Ok(0)) => break,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("no sound from the recorder".to_owned()),
            }
        }
        self.piece.truncate(self.piece.len() & !1);
        Ok(Some(std::mem::take(&mut self.piece)).filter(|piece| !piece.is_empty()))
    }
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Control characters steer some of these programs, and NUL cannot be passed at all.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
