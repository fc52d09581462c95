//! `stt_start` until `stt_stop`, at one instance and across two; cancellation, queues and the signal to stop.

use async_nats::HeaderMap;
use serde_json::json;

use crate::stand::{Stand, Worker, data, nothing, topics};

#[tokio::test]
async fn push_to_talk_ends_with_the_button_and_is_answered() {
    let mut stand = Stand::open().await;
    let wish = json!({"mode": "push_to_talk", "text": "tell me a short joke", "duration": 600});
    let mut answers = stand.send("main", "stt_start", wish, HeaderMap::new()).await;
    let events = stand.until("stt_start").await;
    assert_eq!(events[0].1, json!({"mode": "push_to_talk", "source": "text"}));
    assert_eq!(stand.call("stt_stop", nothing()).await.code, 0);
    let events = stand.until("latency_trace").await;
    assert_eq!(data(&events, "stt_result")["text"], "tell me a short joke");
    assert!(
        data(&events, "llm_result")["text"]
            .as_str()
            .unwrap()
            .contains("causeway")
    );
    assert_eq!(stand.answer(&mut answers).await.code, 0);
}

#[tokio::test]
async fn a_talk_has_an_end_of_its_own_and_may_stay_unanswered() {
    let mut stand = Stand::open().await;
    let wish = json!({"duration": 0.05, "respond": false});
    assert_eq!(stand.call("stt_start", wish).await.code, 0);
    assert_eq!(
        topics(&stand.until("stt_result").await),
        ["stt_start", "stt_progress", "stt_result"]
    );
    let file = json!({"mode": "file", "text": "open the door"});
    assert_eq!(stand.call("stt_start", file).await.code, 0);
    let events = stand.until("stt_result").await;
    assert_eq!(
        topics(&events),
        ["stt_start", "stt_progress", "stt_result"],
        "nothing came between"
    );
}

#[tokio::test]
async fn continuous_yields_results_until_it_is_stopped() {
    let mut stand = Stand::open().await;
    let answered = stand.call("stt_start", json!({"mode": "continuous"})).await;
    assert_eq!(answered.code, 0, "done when listening has begun");
    let first = stand.until("stt_result").await;
    assert_eq!(
        data(&first, "stt_start"),
        &json!({"mode": "continuous", "source": "sample"})
    );
    assert_eq!(data(&first, "stt_result")["text"], "what time is it");
    let second = stand.until("stt_result").await;
    assert_eq!(data(&second, "stt_result")["text"], "tell me a short joke");
    assert_eq!(stand.call("stt_stop", nothing()).await.code, 0);
    let last = loop {
        let events = stand.until("stt_result").await;
        let result = data(&events, "stt_result").clone();
        if result["final"] == true {
            break result;
        }
    };
    assert!(
        last["text"]
            .as_str()
            .unwrap()
            .starts_with("what time is it tell me a short joke"),
        "{last}"
    );
    // The space is free again.
    stand.demo(nothing()).await;
}

#[tokio::test]
async fn the_older_word_for_continuous_still_counts() {
    let mut stand = Stand::open().await;
    stand
        .call("stt_start", json!({"continuous": true, "duration": 0.01}))
        .await;
    assert_eq!(
        data(&stand.until("stt_result").await, "stt_start")["mode"],
        "continuous"
    );
}

#[tokio::test]
async fn stop_finds_the_instance_that_listens() {
    let mut stand = Stand::open().await;
    assert_eq!(
        stand
            .call("stt_start", json!({"mode": "continuous", "text": "hello"}))
            .await
            .code,
        0
    );
    stand.until("stt_result").await;
    // Either instance may get a start or a stop; in twenty rounds they meet in every way.
    let _other = Worker::start(&stand.broker.url(), &[]);
    stand.instances(2).await;
    for _ in 0..20 {
        assert_eq!(stand.call("stt_stop", nothing()).await.code, 0);
        let (_, topic, event) = stand.event().await;
        if topic == "stt_result" && event["final"] == true {
            stand
                .call("stt_start", json!({"mode": "continuous", "text": "hello"}))
                .await;
            stand.until("stt_result").await;
        } else {
            panic!("the stop missed the listener: {topic} {event}");
        }
    }
}

#[tokio::test]
async fn a_cancelled_command_ends_and_frees_its_space() {
    let mut stand = Stand::open().await;
    let mut head = HeaderMap::new();
    head.insert("Nats-Msg-Id", "one");
    let wish = json!({"duration": 600, "text": "hello"});
    let mut answers = stand.send("main", "stt_start", wish, head).await;
    stand.until("stt_progress").await;
    let body = json!({"id": "one"}).to_string();
    stand
        .client
        .publish("gw.v1.cmd.main.voice.cancel", body.into())
        .await
        .unwrap();
    let answered = stand.answer(&mut answers).await;
    assert_eq!(answered.code, 499, "{answered:?}");
    stand.demo(nothing()).await;
}

#[tokio::test]
async fn the_queue_of_a_space_is_bounded_and_work_shows_signs_of_life() {
    let mut stand = Stand::open().await;
    let wish = json!({"duration": 6, "text": "hello", "respond": false});
    let mut first = stand.send("main", "stt_start", wish, HeaderMap::new()).await;
    stand.until("stt_start").await;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut answers = stand.send("main", "demo_flow", nothing(), HeaderMap::new()).await;
        stand.acknowledged(&mut answers).await;
        waiting.push(answers);
    }
    let refused = stand.call("demo_flow", nothing()).await;
    assert_eq!(refused.code, 429, "{refused:?}");
    let answered = stand.answer(&mut first).await;
    let alive = |(status, body): &&(String, String)| status == "progress" && body.is_empty();
    assert!(answered.interim.iter().find(alive).is_some(), "{answered:?}");
    for answers in &mut waiting {
        let answered = stand.answer(answers).await;
        assert_eq!(answered.code, 0);
        assert!(
            answered.interim.iter().find(alive).is_some(),
            "queued work lives too: {answered:?}"
        );
    }
}

#[tokio::test]
async fn the_signal_to_stop_finishes_what_is_under_way() {
    let mut stand = Stand::open().await;
    assert_eq!(
        stand.call("stt_start", json!({"mode": "continuous"})).await.code,
        0
    );
    stand.until("stt_result").await;
    let talk = json!({"duration": 600, "text": "hello"});
    let mut talking = stand.send("other", "stt_start", talk, HeaderMap::new()).await;
    stand.until("stt_start").await;
    stand.worker.terminate();
    let answered = stand.answer(&mut talking).await;
    assert_eq!(answered.code, 0, "{answered:?}");
    assert!(stand.worker.ended().await, "exit status");
    let mut finals = 0;
    let mut answered = 0;
    while finals < 1 || answered < 1 {
        let (space, topic, data) = stand.event().await;
        finals += u32::from(space == "main" && topic == "stt_result" && data["final"] == true);
        answered += u32::from(space == "other" && topic == "latency_trace");
    }
}
