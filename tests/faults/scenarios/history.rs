//! The stream changed by an operator while clients listen: purged, deleted and made again.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{caught_up, exact, memory, read};
use crate::crowd::Crowd;
use crate::load::{self, Load};
use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::Report;
use crate::talk::Talk;
use crate::{Outcome, PATIENCE, Scale};

async fn api(client: &async_nats::Client, operation: &str, body: &Value) -> Outcome<Value> {
    let payload = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = client
        .request(format!("$JS.API.{operation}"), payload.into())
        .await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    match &answer["error"] {
        Value::Null => Ok(answer),
        error => Err(format!("{operation}: {error}").into()),
    }
}

async fn crowd(scale: Scale, gateway: &Gateway) -> Outcome<Crowd> {
    Crowd::on(gateway, scale, scale.pick(30, 200)).await
}

/// Who listens notices nothing; who comes back from before the purge is told.
pub(super) async fn purged(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let gateway = Gateway::start(&nats.url(), &[]).await?;
    let crowd = crowd(scale, &gateway).await?;
    let mut old = Talk::open(gateway.port).await?;
    let load = Load::start(client.clone(), scale.pick(50, 200), 64);
    let frame = old.wait(|frame| frame["offset"].is_string()).await?;
    let offset = frame["offset"].as_str().ok_or("no offset")?.to_owned();
    let base = gateway.forget_peak()?;
    load.more(50).await?;
    api(&client, "STREAM.PURGE.GW_EVENTS", &Value::Null).await?;
    load.more(50).await?;
    // a resumer from before is told, once the gateway has looked at the stream again
    let begun = Instant::now();
    let recovered = loop {
        let (_, recovered) = Talk::resume(gateway.port, &offset).await?;
        if !recovered || begun.elapsed() > PATIENCE {
            break recovered;
        }
        sleep(Duration::from_millis(500)).await;
    };
    report.expect("resumed_over_purge", recovered, false);
    report.figure("told_after_ms", begun.elapsed().as_millis());
    caught_up(report, load, &crowd).await?;
    report.expect("closed", read(&crowd.seen.ended), 0);
    report.expect("unrecovered", read(&crowd.seen.unrecovered), 0);
    exact(report, &crowd.seen);
    memory(report, &gateway, base, 32.0)?;
    crowd.leave().await;
    Ok(())
}

/// Everybody is told once that the history is another one, then follows the new one.
pub(super) async fn recreated(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let gateway = Gateway::start(&nats.url(), &[]).await?;
    let crowd = crowd(scale, &gateway).await?;
    let clients = scale.pick(30, 200);
    let mut last = 0;
    for n in 0..50 {
        last = load::store(&client, n, 64).await;
    }
    crowd.reach(last).await?;
    let base = gateway.forget_peak()?;
    let info = api(&client, "STREAM.INFO.GW_EVENTS", &Value::Null).await?;
    api(&client, "STREAM.DELETE.GW_EVENTS", &Value::Null).await?;
    api(&client, "STREAM.CREATE.GW_EVENTS", &info["config"]).await?;
    // fewer than a newcomer is given, so that nothing may be missing afterwards
    for n in 0..20 {
        last = load::store(&client, n, 64).await;
    }
    let begun = Instant::now();
    while read(&crowd.seen.unrecovered) < clients && begun.elapsed() < PATIENCE {
        sleep(Duration::from_millis(50)).await;
    }
    report.figure("told_after_ms", begun.elapsed().as_millis());
    for n in 20..40 {
        last = load::store(&client, n, 64).await;
    }
    crowd.reach(last).await?;
    sleep(Duration::from_secs(12)).await;
    report.expect("told", read(&crowd.seen.unrecovered), clients);
    report.expect("closed", read(&crowd.seen.ended), 0);
    // deleted for good: the gateway makes it again
    api(&client, "STREAM.DELETE.GW_EVENTS", &json!(null)).await?;
    let last = load::store(&client, 100, 64).await;
    crowd.reach(last).await?;
    report.expect("closed_again", read(&crowd.seen.ended), 0);
    exact(report, &crowd.seen);
    memory(report, &gateway, base, 32.0)?;
    crowd.leave().await;
    Ok(())
}
