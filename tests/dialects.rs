//! Every transcript of every dialect, as written, cut and glued; and noise, which must never panic.
//!
//! A transcript is a dialect's documentation and its test. `UPDATE=1 cargo test --test dialects` rewrites the expected
//! lines. The grammar stands in `tests/dialects/transcript.rs`.

#[path = "dialects/noise.rs"]
mod noise;
#[path = "dialects/stage.rs"]
mod stage;
#[path = "dialects/transcript.rs"]
mod transcript;

use std::fs;
use std::path::{Path, PathBuf};

use causeway::dialect::{ALL, Dialect, Transport};

use stage::Stage;
use transcript::{Input, Transcript};

/// The peer of conformance suites speaks no protocol of its own.
const WITHOUT_VECTORS: &[&str] = &["echo"];

fn transcripts(dialect: &dyn Dialect) -> Vec<(PathBuf, Transcript)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(dialect.name());
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let transcript =
            Transcript::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, transcript)
    };
    paths.into_iter().map(read).collect()
}

fn tested() -> impl Iterator<Item = &'static dyn Dialect> {
    ALL.iter()
        .copied()
        .filter(|dialect| !WITHOUT_VECTORS.contains(&dialect.name()))
}

#[test]
fn every_dialect_has_vectors() {
    for dialect in tested() {
        let transcripts = transcripts(dialect);
        assert!(!transcripts.is_empty(), "{} has no vectors", dialect.name());
        for (path, transcript) in transcripts {
            let silent = transcript.beats.iter().all(|beat| beat.expected.is_empty());
            assert!(
                !silent || std::env::var_os("UPDATE").is_some(),
                "{} expects nothing",
                path.display()
            );
        }
    }
}

#[test]
fn transcripts_hold_as_written() {
    for dialect in tested() {
        for (path, transcript) in transcripts(dialect) {
            let mut stage = Stage::open(dialect, &transcript);
            let heard: Vec<_> = transcript
                .beats
                .iter()
                .map(|beat| {
                    stage
                        .play(&beat.input)
                        .unwrap_or_else(|e| panic!("{}:{}: {e}", path.display(), beat.line))
                })
                .collect();
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&path, transcript.rewritten(&heard)).unwrap();
                continue;
            }
            for (beat, heard) in transcript.beats.iter().zip(&heard) {
                assert_eq!(
                    heard.join("\n"),
                    beat.expected.join("\n"),
                    "{}:{}: left is what happened, right what is written",
                    path.display(),
                    beat.line
                );
            }
        }
    }
}

#[test]
fn streams_may_be_cut_anywhere() {
    for dialect in tested().filter(|dialect| dialect.transport() == Transport::Tcp) {
        for (path, transcript) in transcripts(dialect) {
            for size in [1, 2, 3, 7] {
                let mut stage = Stage::open(dialect, &transcript);
                for beat in &transcript.beats {
                    let heard = match &beat.input {
                        Input::Said(frame) => {
                            let pieces = frame.bytes().chunks(size);
                            pieces.flat_map(|piece| stage.feed(piece)).collect()
                        }
                        input => stage.play(input).unwrap(),
                    };
                    let at = format!("{}:{} cut at {size}", path.display(), beat.line);
                    assert_eq!(heard.join("\n"), beat.expected.join("\n"), "{at}");
                }
            }
        }
    }
}

#[test]
fn streams_may_be_glued() {
    for dialect in tested().filter(|dialect| dialect.transport() == Transport::Tcp) {
        for (path, transcript) in transcripts(dialect) {
            let mut stage = Stage::open(dialect, &transcript);
            let mut beats = transcript.beats.iter().peekable();
            while let Some(beat) = beats.next() {
                let mut expected = beat.expected.clone();
                let heard = match &beat.input {
                    Input::Said(frame) => {
                        let mut bytes = frame.bytes().to_vec();
                        while let Some(next) = beats.next_if(|next| matches!(next.input, Input::Said(_))) {
                            let Input::Said(frame) = &next.input else {
                                unreachable!()
                            };
                            bytes.extend_from_slice(frame.bytes());
                            expected.extend(next.expected.iter().cloned());
                        }
                        stage.feed(&bytes)
                    }
                    input => stage.play(input).unwrap(),
                };
                assert_eq!(
                    heard.join("\n"),
                    expected.join("\n"),
                    "{}:{} glued",
                    path.display(),
                    beat.line
                );
            }
        }
    }
}

#[test]
fn a_hundred_in_one_piece_are_a_hundred() {
    for dialect in tested().filter(|dialect| dialect.transport() == Transport::Tcp) {
        for (path, transcript) in transcripts(dialect) {
            let hundred: Vec<_> = std::iter::repeat_n(transcript.said(), 100).flatten().collect();
            let mut stage = Stage::open(dialect, &transcript);
            let each: Vec<_> = hundred.iter().flat_map(|said| stage.feed(said)).collect();
            let mut stage = Stage::open(dialect, &transcript);
            let glued = stage.feed(&hundred.concat());
            // an offence is told once for each piece
            let steps = |lines: Vec<String>| -> Vec<String> {
                lines.into_iter().filter(|line| !line.starts_with('!')).collect()
            };
            assert_eq!(
                steps(glued),
                steps(each),
                "{} glued a hundred times",
                path.display()
            );
        }
    }
}

#[test]
fn noise_never_panics() {
    for &dialect in ALL {
        let seeds: Vec<_> = transcripts(dialect)
            .iter()
            .flat_map(|(_, transcript)| transcript.said())
            .collect();
        for seed in 1..=400 {
            let mut noise = noise::Noise::new(seed);
            let mut stage = Stage::open(dialect, &Transcript::default());
            for _ in 0..25 {
                stage.receive(noise.frame(dialect.transport(), &seeds));
                stage.answer_something(noise.number());
            }
        }
    }
}
