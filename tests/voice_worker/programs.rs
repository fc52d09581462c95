//! The same with real speech: flite speaks, pocketsphinx understands, espeak-ng answers. Skipped loudly without them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use base64::Engine;
use serde_json::json;

use crate::stand::{Stand, data, nothing, topics};

/// A Python with pocketsphinx, if all programs are there.
fn python() -> Option<String> {
    let python = std::env::var("CAUSEWAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let runs = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let missing: Vec<_> = [
        ("flite", runs("flite", &["-lv"])),
        ("espeak-ng", runs("espeak-ng", &["--version"])),
        (
            "pocketsphinx (CAUSEWAY_PYTHON)",
            runs(&python, &["-c", "import pocketsphinx"]),
        ),
    ]
    .into_iter()
    .filter_map(|(name, there)| (!there).then_some(name))
    .collect();
    if missing.is_empty() {
        return Some(python);
    }
    eprintln!("SKIPPED: speech is not tested, missing: {}", missing.join(", "));
    None
}

async fn stand(python: &str) -> Stand {
    Stand::with(&[("CAUSEWAY_SPEECH", "auto"), ("CAUSEWAY_PYTHON", python)]).await
}

fn spoken(text: &str) -> Vec<u8> {
    let output = Command::new("flite")
        .args(["-voice", "rms", "-t", text, "-o", "/dev/stdout"])
        .output();
    output.unwrap().stdout
}

#[tokio::test]
async fn a_demo_is_spoken_understood_and_answered_aloud() {
    let Some(python) = python() else { return };
    let mut stand = stand(&python).await;
    // Twice: the recogniser is used again.
    for _ in 0..2 {
        let events = stand.demo(nothing()).await;
        assert_eq!(data(&events, "stt_result")["text"], "what time is it");
        assert!(
            data(&events, "stt_result")["audio_duration_seconds"]
                .as_f64()
                .unwrap()
                > 0.5
        );
        assert!(topics(&events).contains(&"stt_progress"));
        assert_eq!(data(&events, "tts_start")["provider"], "espeak-ng");
        assert!(
            data(&events, "tts_result")["audio_duration_seconds"]
                .as_f64()
                .unwrap()
                > 0.5
        );
        let percent: Vec<_> = events
            .iter()
            .filter(|(topic, _)| topic == "tts_progress")
            .map(|(_, data)| data["percent_complete"].as_f64().unwrap())
            .collect();
        assert!(
            percent.is_sorted() && percent.last() == Some(&100.0),
            "{percent:?}"
        );
        assert!(data(&events, "latency_trace")["stt_seconds"].as_f64().unwrap() > 0.0);
    }
}

#[tokio::test]
async fn audio_of_the_command_is_understood() {
    let Some(python) = python() else { return };
    let mut stand = stand(&python).await;
    let wav = spoken("tell me a short joke");
    for sound in [&wav[..], &wav[44..]] {
        let audio = base64::engine::general_purpose::STANDARD.encode(sound);
        assert_eq!(
            stand
                .call("stt_start", json!({"mode": "file", "audio": audio}))
                .await
                .code,
            0
        );
        let events = stand.until("stt_result").await;
        assert_eq!(data(&events, "stt_start")["source"], "audio");
        assert_eq!(data(&events, "stt_result")["text"], "tell me a short joke");
    }
    let answered = stand
        .call(
            "stt_start",
            json!({"mode": "continuous", "text": "hello computer"}),
        )
        .await;
    assert_eq!(answered.code, 0);
    let events = stand.until("stt_result").await;
    assert_eq!(data(&events, "stt_result")["text"], "hello computer");
    stand.call("stt_stop", nothing()).await;
    assert_eq!(
        data(&stand.until("stt_result").await, "stt_result")["final"],
        true
    );
}

#[tokio::test]
async fn silence_noise_and_unknown_voices_are_errors() {
    let Some(python) = python() else { return };
    let mut stand = stand(&python).await;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let events = stand.demo(json!({"audio": encode(&[0; 32_000])})).await;
    assert_eq!(data(&events, "stt_error")["details"], "the audio is silent");
    let events = stand.demo(json!({"voice": "nonsense"})).await;
    let details = data(&events, "tts_error")["details"].as_str().unwrap();
    assert!(details.contains("does not exist"), "{details}");
    // What starts like an option is still only text.
    let events = stand.demo(json!({"text": "--help -w /tmp/x"})).await;
    assert_eq!(topics(&events).last(), Some(&"latency_trace"));
}

#[tokio::test]
async fn the_microphone_comes_first() {
    let Some(python) = python() else { return };
    // A recorder that plays a file takes the place of a device no test machine has.
    let folder = std::env::temp_dir().join(format!("causeway-microphone-{}", ulid::Ulid::new()));
    fs::create_dir(&folder).unwrap();
    let sound = folder.join("sound");
    let mut bytes = vec![0; 9600];
    bytes.extend_from_slice(&spoken("tell me a short joke")[44..]);
    bytes.resize(bytes.len() + 64_000, 0);
    fs::write(&sound, bytes).unwrap();
    let recorder = folder.join("arecord");
    let play = format!(
        "#!/bin/sh\ncase \"$1\" in -l) echo 'card 0: test' ;; *) cat {}; exec sleep 600 ;; esac\n",
        sound.display()
    );
    fs::write(&recorder, play).unwrap();
    fs::set_permissions(&recorder, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let settings = [
        ("CAUSEWAY_SPEECH", "auto"),
        ("CAUSEWAY_PYTHON", &python),
        ("PATH", &path),
    ];
    let mut stand = Stand::with(&settings).await;
    let wish = json!({"text": "not this", "respond": false, "duration": 600});
    let mut answers = stand
        .send("main", "stt_start", wish, async_nats::HeaderMap::new())
        .await;
    let events = stand.until("stt_progress").await;
    assert_eq!(data(&events, "stt_start")["source"], "microphone");
    // The utterance ends with the pause after it, the talk with the button.
    loop {
        let (_, topic, data) = stand.event().await;
        if topic == "stt_progress" && data["text"] == "tell me a short joke" {
            break;
        }
    }
    stand.call("stt_stop", nothing()).await;
    let events = stand.until("stt_result").await;
    assert_eq!(data(&events, "stt_result")["text"], "tell me a short joke");
    assert_eq!(stand.answer(&mut answers).await.code, 0);
    fs::remove_dir_all(&folder).unwrap();
}
