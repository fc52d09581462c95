//! Sound as numbers: WAV in, the rate a recogniser wants out. Pure.

/// Samples a second everything is brought to.
pub(super) const RATE: u32 = 16_000;

/// Quieter than this on average is silence (of 32,767).
const SILENT: f64 = 60.0;

/// Longest sound taken, in seconds: a minute, as long as a push-to-talk may last.
const LONGEST: usize = 60;

/// 16-bit mono at [`RATE`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sound(pub(super) Vec<i16>);

impl Sound {
    /// Reads a WAV file (16-bit PCM, any rate, mono or stereo), or raw 16-bit mono samples at 16 kHz.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let sound = match bytes.strip_prefix(b"RIFF") {
            Some(rest) => wav(rest)?,
            None if !bytes.len().is_multiple_of(2) => {
                return Err("raw audio has two bytes a sample".to_owned());
            }
            None => Self(samples(bytes).collect()),
        };
        if sound.0.len() > LONGEST * RATE as usize {
            return Err(format!("audio is longer than {LONGEST} seconds"));
        }
        Ok(sound)
    }

    /// Length in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.0.len() as f64 / f64::from(RATE)
    }

    /// Whether nobody can have spoken.
    pub(super) fn is_silent(&self) -> bool {
        let power: f64 = self.0.iter().map(|&s| f64::from(s) * f64::from(s)).sum();
        self.0.is_empty() || (power / self.0.len() as f64).sqrt() < SILENT
    }

    /// A fifth of a second of silence on both ends: recognisers lose words at a hard edge.
    pub(super) fn padded(mut self) -> Self {
        let edge = RATE as usize / 5;
        self.0.splice(0..0, std::iter::repeat_n(0, edge));
        self.0.resize(self.0.len() + edge, 0);
        self
    }

    /// Little-endian bytes in pieces of a tenth of a second.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let piece = |part: &[i16]| part.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        self.0.chunks(RATE as usize / 10).map(piece)
    }
}

fn samples(bytes: &[u8]) -> impl Iterator<Item = i16> + '_ {
    bytes
        .chunks_exact(2)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
}

/// What follows `RIFF`. Streams announce absurd lengths, so a chunk ends at the latest where the bytes do.
fn wav(rest: &[u8]) -> Result<Sound, String> {
    let mut chunks = rest.get(8..).ok_or("the WAV file ends in its head")?;
    if rest.get(4..8) != Some(b"WAVE") {
        return Err("a RIFF file that is not WAVE".to_owned());
    }
    let mut format = None;
    while let (Some(name), Some(length)) = (chunks.get(..4), chunks.get(4..8)) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let body = &chunks[8..];
        let body = &body[..length.min(body.len())];
        match name {
            b"fmt " => format = Some(self::format(body)?),
            b"data" => {
                let (channels, rate) = format.ok_or("the WAV file has no format")?;
                return Ok(resampled(&mono(body, channels), rate));
            }
            _ => {}
        }
        chunks = chunks.get(8 + length + length % 2..).unwrap_or_default();
    }
    Err("the WAV file has no sound".to_owned())
}

fn format(body: &[u8]) -> Result<(usize, u32), String> {
    let number = |at: usize| Some(u16::from_le_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let (Some(1), Some(channels @ 1..=2), Some(low), Some(high), Some(16)) =
        (number(0), number(2), number(4), number(6), number(14))
    else {
        return Err("only 16-bit PCM, mono or stereo, is understood".to_owned());
    };
    let rate = u32::from(high) << 16 | u32::from(low);
    if !(4_000..=192_000).contains(&rate) {
        return Err(format!("{rate} samples a second make no speech"));
    }
    Ok((channels.into(), rate))
}

fn mono(body: &[u8], channels: usize) -> Vec<i16> {
    let all: Vec<i16> = samples(body).collect();
    if channels == 1 {
        return all;
    }
    let middle = |pair: &[i16]| i16::midpoint(pair[0], pair[1]);
    all.chunks_exact(2).map(middle).collect()
}

/// Straight lines between samples: enough for speech, and no dependency.
fn resampled(from: &[i16], rate: u32) -> Sound {
    if rate == RATE || from.is_empty() {
        return Sound(from.to_vec());
    }
    let count = (from.len() as u64 * u64::from(RATE) / u64::from(rate)) as usize;
    let at = |index: usize| {
        let place = index as f64 * f64::from(rate) / f64::from(RATE);
        let left = (place as usize).min(from.len() - 1);
        let right = (left + 1).min(from.len() - 1);
        let share = place - left as f64;
        (f64::from(from[left]) * (1.0 - share) + f64::from(from[right]) * share) as i16
    };
    Sound((0..count).map(at).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(channels: u16, rate: u32, bits: u16, sound: &[i16]) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0\x01\0".to_vec();
        bytes.extend(channels.to_le_bytes());
        bytes.extend(rate.to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend(bits.to_le_bytes());
        bytes.extend(b"data\xff\xff\xff\x7f");
        bytes.extend(sound.iter().flat_map(|sample| sample.to_le_bytes()));
        bytes
    }

    #[test]
    fn wav_becomes_mono_at_the_right_rate() {
        let stereo: Vec<i16> = std::iter::repeat_n([100, 300], 8_000).flatten().collect();
        let sound = Sound::read(&file(2, 8_000, 16, &stereo)).unwrap();
        assert_eq!(sound.0.len(), 16_000);
        assert!(sound.0.iter().all(|&sample| sample == 200));
        assert!(!sound.is_silent());
    }

    #[test]
    fn what_is_no_speech_is_refused_by_name() {
        for (bytes, word) in [
            (b"abc".to_vec(), "two bytes"),
            (b"RIFF".to_vec(), "head"),
            (b"RIFF\0\0\0\0AVI LIST".to_vec(), "not WAVE"),
            (b"RIFF\0\0\0\0WAVE".to_vec(), "no sound"),
            (b"RIFF\0\0\0\0WAVEdata\0\0\0\0".to_vec(), "no format"),
            (file(1, 16_000, 8, &[1, 2]), "16-bit"),
            (file(3, 16_000, 16, &[1, 2]), "16-bit"),
            (file(1, 10, 16, &[1, 2]), "make no speech"),
            (vec![0; 61 * 32_000], "longer than"),
        ] {
            let error = Sound::read(&bytes).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(Sound::read(&[0; 3200]).unwrap().is_silent());
    }
}
