//! Two worker processes in one queue group: each takes commands of every space, but one at a time speaks in each.

use std::collections::BTreeMap;

use async_nats::{HeaderMap, Subscriber};
use causeway::bus::lease::Leases;
use causeway::message::Space;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::broker::eventually;
use crate::stand::{Stand, Worker, nothing, topics};

/// Commands of the action `demo_flow` that each instance has been given.
async fn shares(stand: &Stand) -> Vec<u64> {
    let inbox = stand.client.new_inbox();
    let mut answers = stand.client.subscribe(inbox.clone()).await.unwrap();
    let asked = stand
        .client
        .publish_with_reply("$SRV.STATS.voice", inbox, "".into());
    asked.await.unwrap();
    let mut shares = Vec::new();
    while shares.len() < 2 {
        let answer = timeout(crate::broker::PATIENCE, answers.next()).await;
        let stats: Value = serde_json::from_slice(&answer.unwrap().unwrap().payload).unwrap();
        let all = stats["endpoints"].as_array().unwrap();
        let demo = all.iter().find(|one| one["name"] == "demo_flow").unwrap();
        shares.push(demo["num_requests"].as_u64().unwrap());
    }
    shares
}

/// What one space hears of so many flows, cut where a flow ends.
async fn flows(stand: &mut Stand, wanted: usize) -> BTreeMap<String, Vec<Vec<(String, Value)>>> {
    let mut open: BTreeMap<String, Vec<(String, Value)>> = BTreeMap::new();
    let mut whole: BTreeMap<String, Vec<Vec<(String, Value)>>> = BTreeMap::new();
    let mut ended = 0;
    while ended < wanted {
        let (space, topic, data) = stand.event().await;
        let last = topic == "latency_trace";
        let flow = open.entry(space.clone()).or_default();
        flow.push((topic, data));
        if last {
            ended += 1;
            whole.entry(space).or_default().push(std::mem::take(flow));
        }
    }
    assert!(open.values().all(Vec::is_empty), "{open:?}");
    whole
}

#[tokio::test]
async fn flows_of_one_space_never_interleave() {
    let mut stand = Stand::open().await;
    let _other = Worker::start(&stand.broker.url(), &[]);
    stand.instances(2).await;
    let alone = stand.demo(json!({"text": "tell me a joke"})).await;
    let shape = topics(&alone);
    // which instance gets a command is the broker's choice: until both have had some
    let mut rounds = 0;
    loop {
        rounds += 1;
        let mut waiting: Vec<Subscriber> = Vec::new();
        for (number, space) in ["main", "lab"].iter().cycle().take(8).enumerate() {
            let wish = json!({"text": format!("tell me a joke {}", rounds * 100 + number)});
            let sent = stand.send(space, "demo_flow", wish, HeaderMap::new());
            waiting.push(sent.await);
        }
        for (space, flows) in flows(&mut stand, waiting.len()).await {
            assert_eq!(flows.len(), 4, "{space}");
            for flow in flows {
                assert_eq!(topics(&flow), shape, "in {space}");
                let heard: Vec<&str> = flow
                    .iter()
                    .filter(|(topic, _)| topic == "stt_start")
                    .map(|(topic, _)| topic.as_str())
                    .collect();
                assert_eq!(heard.len(), 1, "two flows in one: {flow:?}");
            }
        }
        for answers in &mut waiting {
            assert_eq!(stand.answer(answers).await.code, 0);
        }
        if shares(&stand).await.iter().all(|share| *share >= 2) {
            break;
        }
        assert!(rounds < 20, "one instance gets nothing");
    }
}

#[tokio::test]
async fn who_dies_while_it_speaks_keeps_the_space_for_a_while_only() {
    let mut stand = Stand::open().await;
    let main = Space::default();
    let leases = Leases::open(stand.broker.client().await).await.unwrap();
    let began = stand
        .call("stt_start", json!({"mode": "continuous", "text": "hello"}))
        .await;
    assert_eq!(began.code, 0, "{began:?}");
    stand.until("stt_result").await;
    let claim = leases.holder(&main, "voice").await.unwrap();
    assert_eq!(claim.unwrap().holder, format!("voice {}", stand.worker.id()));

    let _other = Worker::start(&stand.broker.url(), &[]);
    stand.instances(2).await;
    stand.worker.kill();
    stand.instances(1).await;
    // nobody could say that it ended, so the other waits for the lease to run out, and shows that it lives
    let answered = stand.call("demo_flow", nothing()).await;
    assert_eq!(answered.code, 0, "{answered:?}");
    let flow = stand.until("latency_trace").await;
    assert_eq!(topics(&flow).first(), Some(&"stt_start"));
    eventually("the lease given back", || async {
        leases.holder(&main, "voice").await.unwrap().is_none()
    })
    .await;
}
