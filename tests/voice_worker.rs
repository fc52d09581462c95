//! The voice worker as a process of its own, spoken to over NATS and nothing else.

#[path = "support/broker.rs"]
mod broker;
#[path = "voice_worker/errors.rs"]
mod errors;
#[path = "voice_worker/instances.rs"]
mod instances;
#[path = "voice_worker/listening.rs"]
mod listening;
#[path = "voice_worker/programs.rs"]
mod programs;
#[path = "voice_worker/stand.rs"]
mod stand;

use async_nats::HeaderMap;
use causeway::config::Nats;
use serde_json::json;

use broker::eventually;
use stand::{Stand, Worker, data, nothing, topics};

#[tokio::test]
async fn a_demo_tells_every_stage_in_order() {
    let mut stand = Stand::open().await;
    let none = stand.call("get_performance_metrics", nothing()).await;
    assert!(none.body.contains("\"flows\":0"), "{}", none.body);
    let events = stand.demo(nothing()).await;
    assert_eq!(
        topics(&events),
        [
            "stt_start",
            "stt_progress",
            "stt_result",
            "memory_recall",
            "llm_start",
            "tool_call",
            "tool_result",
            "llm_progress",
            "llm_result",
            "memory_store",
            "tts_start",
            "tts_progress",
            "tts_result",
            "latency_trace",
        ]
    );
    assert_eq!(
        data(&events, "stt_start"),
        &json!({"mode": "file", "source": "sample"})
    );
    assert_eq!(data(&events, "stt_result")["text"], "what time is it");
    assert_eq!(data(&events, "tool_call")["tool_name"], "get_time");
    let time = data(&events, "tool_result")["result_preview"].as_str().unwrap();
    let answer = data(&events, "llm_result")["text"].as_str().unwrap();
    assert_eq!(answer, format!("It is {time}."));
    let tokens: Vec<_> = events
        .iter()
        .filter(|(topic, _)| topic == "llm_progress")
        .collect();
    let said: String = tokens
        .iter()
        .map(|(_, data)| data["token"].as_str().unwrap())
        .collect();
    assert_eq!(said, answer);
    assert_eq!(data(&events, "llm_result")["total_tokens"], tokens.len());
    let trace = data(&events, "latency_trace");
    let part = |name: &str| trace[name].as_f64().unwrap();
    assert!(part("total_seconds") >= part("stt_seconds") + part("llm_seconds") + part("tts_seconds"));
    let metrics = stand.call("get_performance_metrics", nothing()).await;
    let metrics: serde_json::Value = serde_json::from_str(&metrics.body).unwrap();
    assert_eq!(
        (&metrics["total_seconds"], &metrics["flows"]),
        (&trace["total_seconds"], &json!(1))
    );
    // Interim answers must not be counted as requests.
    assert_eq!(stand.counted("demo_flow").await, 1);
}

#[tokio::test]
async fn system_info_is_real() {
    let stand = Stand::open().await;
    let answered = stand.call("get_system_info", nothing()).await;
    let info: serde_json::Value = serde_json::from_str(&answered.body).unwrap();
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert!(info["uptime"].is_u64());
    assert!(info["memory"].as_u64().unwrap() > 1_000_000, "{info}");
}

#[tokio::test]
async fn memories_are_kept_in_the_bus() {
    let mut stand = Stand::open().await;
    let events = stand
        .demo(json!({"text": "please remember that I like green tea"}))
        .await;
    assert_eq!(
        data(&events, "memory_store")["content_preview"],
        "i like green tea"
    );
    assert_eq!(data(&events, "memory_store")["memory_type"], "fact");
    stand.worker = Worker::start(&stand.broker.url(), &[]);
    stand.instances(1).await;
    let events = stand.demo(json!({"text": "what do I like"})).await;
    let recalled = data(&events, "memory_recall");
    assert_eq!(recalled["top_result_preview"], "i like green tea", "{recalled}");
    assert_eq!(
        data(&events, "llm_result")["text"],
        "You told me that i like green tea."
    );
    // Another space is another conversation, and no client's dialect carries the memory itself.
    let mut answers = stand
        .send(
            "other",
            "demo_flow",
            json!({"text": "what do I like"}),
            HeaderMap::new(),
        )
        .await;
    stand.answer(&mut answers).await;
    assert_eq!(
        data(&stand.until("latency_trace").await, "memory_recall")["results_count"],
        0
    );
}

#[tokio::test]
async fn flows_of_a_space_never_interleave() {
    let mut stand = Stand::open().await;
    let mut answers = Vec::new();
    for space in ["a", "b"] {
        for _ in 0..4 {
            answers.push(stand.send(space, "demo_flow", nothing(), HeaderMap::new()).await);
        }
    }
    let mut open = std::collections::HashMap::from([("a".to_owned(), 0), ("b".to_owned(), 0)]);
    for _ in 0..8 {
        loop {
            let (space, topic, _) = stand.event().await;
            let talking = open.get_mut(&space).unwrap();
            match topic.as_str() {
                "stt_start" => *talking += 1,
                "latency_trace" => *talking -= 1,
                _ => {}
            }
            assert!((0..=1).contains(talking), "two flows of {space} interleave");
            if topic == "latency_trace" {
                break;
            }
        }
    }
    let mut queued = 0;
    for answer in &mut answers {
        let answered = stand.answer(answer).await;
        assert_eq!(answered.code, 0);
        assert_eq!(answered.interim[0].0, "ack");
        queued += answered
            .interim
            .iter()
            .filter(|(_, body)| body.contains("queued"))
            .count();
    }
    assert!(queued > 0, "whoever waits is told so");
}

#[tokio::test]
async fn a_command_nobody_waits_for_is_dropped() {
    let stand = Stand::open().await;
    let mut head = HeaderMap::new();
    head.insert("Gw-Time", "1000000000000000000");
    head.insert("Gw-Deadline", "30000");
    let mut late = stand.send("main", "get_system_info", nothing(), head).await;
    let mut head = HeaderMap::new();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    head.insert("Gw-Time", now.to_string());
    head.insert("Gw-Deadline", "30000");
    let mut fresh = stand.send("main", "get_system_info", nothing(), head).await;
    assert_eq!(stand.answer(&mut fresh).await.code, 0);
    // Both went to one endpoint in order, so an answer to the first would be here by now.
    let silence = tokio::time::timeout(
        std::time::Duration::from_millis(100),
        futures_util::StreamExt::next(&mut late),
    );
    assert!(silence.await.is_err());
    assert_eq!(stand.counted("get_system_info").await, 1);
}

#[tokio::test]
async fn the_worker_comes_back_with_the_broker() {
    let mut stand = Stand::open().await;
    stand.demo(nothing()).await;
    stand.broker.signal("-KILL");
    eventually("the worker after the broker's restart", || async {
        let asked = stand
            .client
            .request("gw.v1.cmd.main.voice.get_system_info", "{}".into());
        asked.await.is_ok()
    })
    .await;
    // The stream may come back a moment after the server: the worker tries again with the same id.
    let events = stand.demo(nothing()).await;
    assert_eq!(data(&events, "stt_result")["text"], "what time is it");
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_named() {
    let error = causeway::worker::run(&["voicee".to_owned()], &Nats::default())
        .await
        .unwrap_err();
    let known = causeway::worker::NAMES.join(", ");
    assert_eq!(
        error.to_string(),
        format!("there is no worker named \"voicee\"; known are: {known}")
    );
    let error = causeway::worker::Options::read(|_| Some("maybe".to_owned())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "CAUSEWAY_SPEECH: expected `auto` or `off`, found `maybe`"
    );
}
