//! Every error event: provoked, and as it happens by itself.

use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::stand::{Stand, nothing, topics};

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn errors(events: &[(String, Value)]) -> Vec<&str> {
    let mut topics = topics(events);
    topics.retain(|topic| topic.ends_with("_error"));
    topics
}

#[tokio::test]
async fn every_error_of_a_flow_has_its_trigger() {
    let mut stand = Stand::open().await;
    let long = "word ".repeat(201);
    for (wish, error, text) in [
        (json!({"fail": "stt"}), "stt_error", "as asked"),
        (json!({"fail": "memory"}), "memory_error", "as asked"),
        (json!({"fail": "tool"}), "tool_error", "as asked"),
        (json!({"fail": "llm"}), "llm_error", "as asked"),
        (json!({"fail": "tts"}), "tts_error", "as asked"),
        (json!({"text": "  "}), "stt_error", "no speech"),
        (json!({"audio": "no base64!"}), "stt_error", "not base64"),
        (
            json!({"audio": base64(b"RIFF....AVI ")}),
            "stt_error",
            "cannot be read",
        ),
        (json!({"audio": base64(&[0; 6400])}), "stt_error", "no speech"),
        (
            json!({"audio": base64(&[100; 6400])}),
            "stt_error",
            "no speech recogniser",
        ),
        (
            json!({"text": "what is the weather"}),
            "tool_error",
            "no such tool",
        ),
        (json!({"text": long}), "llm_error", "too long"),
        (json!({"voice": "nonsense"}), "tts_error", "voice failed"),
        (json!({"voice": "../../etc"}), "tts_error", "voice failed"),
    ] {
        let events = stand.demo(wish.clone()).await;
        assert_eq!(errors(&events), [error], "{wish}: {:?}", topics(&events));
        let (_, data) = events.iter().find(|(topic, _)| topic == error).unwrap();
        let message = data["message"].as_str().unwrap();
        assert!(message.contains(text), "{wish}: {data}");
        assert!(data.get("details").is_some(), "{data}");
        if error == "tool_error" {
            assert!(data["tool_name"].is_string(), "{data}");
        }
        // A memory or a tool that fails does not end the conversation.
        let goes_on = matches!(error, "memory_error" | "tool_error");
        assert_eq!(topics(&events).contains(&"tts_result"), goes_on, "{wish}");
    }
}

#[tokio::test]
async fn a_memory_without_a_stream_is_an_error_and_the_flow_goes_on() {
    let mut stand = Stand::open().await;
    let gone = stand
        .client
        .request("$JS.API.STREAM.DELETE.GW_STATE", "".into())
        .await
        .unwrap();
    assert!(gone.payload.windows(14).any(|part| part == b"\"success\":true"));
    let events = stand.demo(nothing()).await;
    assert_eq!(errors(&events), ["memory_error"]);
    assert!(topics(&events).contains(&"tts_result"));
}

#[tokio::test]
async fn data_that_makes_no_sense_is_refused() {
    let stand = Stand::open().await;
    for (action, data, text) in [
        ("demo_flow", json!([1]), "data of the command"),
        ("demo_flow", json!({"text": 5}), "data of the command"),
        ("stt_start", json!({"mode": "telepathy"}), "mode is one of"),
        ("stt_start", json!({"duration": -1}), "duration"),
        ("stt_start", json!({"duration": 1e300}), "duration"),
    ] {
        let answered = stand.call(action, data).await;
        assert_eq!(answered.code, 400, "{answered:?}");
        assert!(answered.text.contains(text), "{answered:?}");
    }
    // Nothing of that is left behind.
    assert_eq!(stand.call("demo_flow", Value::Null).await.code, 0);
}

#[tokio::test]
async fn listening_errors() {
    let mut stand = Stand::open().await;
    assert_eq!(stand.call("stt_stop", nothing()).await.code, 0);
    let events = stand.until("stt_error").await;
    assert_eq!(events[0].1["message"], "nothing is listening");
    assert_eq!(stand.call("stt_start", json!({"mode": "file"})).await.code, 0);
    let events = stand.until("stt_error").await;
    assert_eq!(topics(&events), ["stt_start", "stt_error"]);
    let silence = json!({"mode": "continuous", "text": " ", "duration": 0.1});
    assert_eq!(stand.call("stt_start", silence).await.code, 0);
    let events = stand.until("stt_error").await;
    assert_eq!(events.last().unwrap().1["message"], "no speech");
    let failing = json!({"mode": "continuous", "fail": "stt"});
    assert_eq!(stand.call("stt_start", failing).await.code, 0);
    assert_eq!(
        topics(&stand.until("stt_error").await),
        ["stt_start", "stt_error"]
    );
    // After its own end there is nothing to stop. The end comes a moment after the last word.
    for _ in 0..30 {
        assert_eq!(stand.call("stt_stop", nothing()).await.code, 0);
        if timeout(Duration::from_secs(1), stand.until("stt_error"))
            .await
            .is_ok()
        {
            return;
        }
    }
    panic!("somebody still listens");
}
