//! The grammar of transcripts, one line each:
//!
//! ```text
//! # comment                                   kept
//! % space blue | target /cad?x=1 | route fly drone | encoding 1 | cut no     before the first beat
//! < text          the client says text (over TCP: these bytes)
//! <x 00ff         the client says a binary frame (over TCP: these bytes)
//! <end            the client will send no more
//! v ack|progress|done|failed #1 …             the bus answers; failed: code, text, then details after a tab or "|"
//! v event|state <topic> [key=value …] body    the bus says; keys: seq, type, hex, gone
//! v history event|state …                     said before the client came
//! v replay        the newcomer is given that history
//! v welcome [recovered=true|false] [history=false]
//! v notice degraded|restored|gap|unconfirmed …
//! v newcomer      a newcomer is given the states that `v state` left
//! v running cad   these services run, for sessions that look
//! v gone <id>     this session is no longer connected; `v left`: this one
//! v close 1001    the gateway is about to close: farewell
//! @ +25s          time passes
//! ^ …             expected: the bus hears
//! > …   >x …      expected: the client hears
//! ! …             expected: an offence, or a close
//! ```

use causeway::dialect::Frame;

/// What happens to a session.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The client says a frame.
    Said(Frame),
    /// The client will send no more.
    End,
    /// The bus says something: the words after `v`.
    Bus(String),
    /// Time passes, in nanoseconds.
    Pass(u64),
}

/// One input and what is expected of it.
#[derive(Debug)]
pub(crate) struct Beat {
    pub(crate) line: usize,
    pub(crate) input: Input,
    /// Comments before it and the line as written.
    source: Vec<String>,
    pub(crate) expected: Vec<String>,
}

/// A whole file.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    pub(crate) settings: Vec<String>,
    pub(crate) beats: Vec<Beat>,
    trailer: Vec<String>,
}

impl Transcript {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut transcript = Self::default();
        let mut before = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            if line.is_empty() || line.starts_with('#') {
                before.push(line.to_owned());
            } else if let Some(setting) = line.strip_prefix("% ") {
                if !transcript.beats.is_empty() {
                    return Err(format!("line {number}: a setting stands before the first beat"));
                }
                transcript.settings.push(setting.to_owned());
                before.push(line.to_owned());
            } else if line.starts_with(['>', '^', '!']) {
                let Some(beat) = transcript.beats.last_mut() else {
                    return Err(format!("line {number}: nothing happened yet"));
                };
                beat.expected.push(line.to_owned());
            } else {
                let input = input(line).ok_or_else(|| format!("line {number}: what is `{line}`?"))?;
                let mut source = std::mem::take(&mut before);
                source.push(line.to_owned());
                transcript.beats.push(Beat {
                    line: number,
                    input,
                    source,
                    expected: Vec::new(),
                });
            }
        }
        transcript.trailer = before;
        Ok(transcript)
    }

    /// The file with what really happened.
    pub(crate) fn rewritten(&self, heard: &[Vec<String>]) -> String {
        let mut lines = Vec::new();
        for (beat, heard) in self.beats.iter().zip(heard) {
            lines.extend(beat.source.iter().cloned());
            lines.extend(heard.iter().cloned());
        }
        lines.extend(self.trailer.iter().cloned());
        lines.join("\n") + "\n"
    }

    /// All the client ever says.
    pub(crate) fn said(&self) -> Vec<Vec<u8>> {
        let said = |beat: &Beat| match &beat.input {
            Input::Said(frame) => Some(frame.bytes().to_vec()),
            _ => None,
        };
        self.beats.iter().filter_map(said).collect()
    }
}

fn input(line: &str) -> Option<Input> {
    if line == "<end" {
        return Some(Input::End);
    }
    if line == "<" {
        return Some(Input::Said(Frame::text("")));
    }
    if let Some(hex) = line.strip_prefix("<x") {
        return Some(Input::Said(Frame::Binary(unhex(hex.trim())?.into())));
    }
    if let Some(text) = line.strip_prefix("< ") {
        return Some(Input::Said(Frame::text(text)));
    }
    if let Some(words) = line.strip_prefix("v ") {
        return Some(Input::Bus(words.to_owned()));
    }
    let time = humantime::parse_duration(line.strip_prefix("@ +")?).ok()?;
    Some(Input::Pass(u64::try_from(time.as_nanos()).ok()?))
}

pub(crate) fn unhex(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<_> = hex.chars().filter(|c| *c != ' ').collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok();
    if digits.len() % 2 != 0 {
        return None;
    }
    digits.chunks(2).map(byte).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
