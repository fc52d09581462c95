//! Two gateways on one NATS and one of them killed; everybody dropping the connection at once, again and again.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{caught_up, exact, memory, read};
use crate::crowd::{Crowd, Manner};
use crate::load::Load;
use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::Report;
use crate::{Outcome, PATIENCE, Scale};

/// Sessions that the list names, by gateway.
async fn sessions(client: &async_nats::Client) -> Outcome<std::collections::BTreeMap<String, usize>> {
    let subject = "gw.v1.cmd.main.gateway.sessions";
    let answer = client.request(subject, "{}".into()).await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    let mut counts = std::collections::BTreeMap::new();
    for session in answer["sessions"].as_array().ok_or("no list of sessions")? {
        let gateway = session["gateway"].as_str().unwrap_or_default();
        *counts.entry(gateway.to_owned()).or_default() += 1;
    }
    Ok(counts)
}

/// Its clients resume on the other, its sessions leave the list.
pub(super) async fn killed(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let mut first = Gateway::start(&nats.url(), &[]).await?;
    let second = Gateway::start(&nats.url(), &[]).await?;
    let clients = scale.pick(40, 200);
    let manner = Manner {
        spread: true,
        ..Manner::on(&[first.port, second.port], scale)
    };
    let crowd = Crowd::join(manner, clients).await?;
    let load = Load::start(client.clone(), scale.pick(100, 500), 64);
    load.more(100).await?;
    let begun = Instant::now();
    let mut complete = 0;
    // either of them answers, and one may not have heard of the other's yet: so many in a row are not all of one
    while complete < 20 {
        let list = sessions(&client).await?;
        let whole = list.len() == 2 && list.values().sum::<usize>() == clients;
        complete = if whole { complete + 1 } else { 0 };
        if begun.elapsed() > PATIENCE {
            return Err(format!("the list names {list:?}").into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let base = second.forget_peak()?;
    first.kill()?;
    let begun = Instant::now();
    crowd.ended(clients as u64 / 2).await?;
    crowd.greeted().await?;
    report.figure("all_back_ms", begun.elapsed().as_millis());
    let gone = loop {
        let now = sessions(&client).await?;
        if now.len() == 1 && now.values().sum::<usize>() == clients {
            break begun.elapsed();
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("the list still names {now:?}").into());
        }
        sleep(Duration::from_millis(100)).await;
    };
    if scale.full {
        report.at_most("presence_gone_s", gone.as_secs(), 15);
    } else {
        // a machine that stands still would be judged here, not the gateways
        report.figure("presence_gone_s", gone.as_secs());
    }
    load.more(50).await?;
    caught_up(report, load, &crowd).await?;
    sleep(Duration::from_secs(2)).await;
    report.expect("closed", read(&crowd.seen.ended), clients as u64 / 2);
    report.expect("unrecovered", read(&crowd.seen.unrecovered), 0);
    exact(report, &crowd.seen);
    memory(report, &second, base, 64.0)?;
    crowd.leave().await;
    Ok(())
}

/// Everybody drops the connection at once and resumes, round after round, under load.
pub(super) async fn rounds(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let gateway = Gateway::start(&nats.url(), &[]).await?;
    let crowd = Crowd::on(&gateway, scale, scale.pick(100, 500)).await?;
    let load = Load::start(nats.client().await?, scale.pick(50, 100), 64);
    load.more(20).await?;
    crowd.shake().await?;
    let base = gateway.forget_peak()?;
    let rounds = scale.pick(3, 20);
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds {
        let begun = Instant::now();
        crowd.shake().await?;
        slowest = slowest.max(begun.elapsed());
        load.more(10).await?;
    }
    caught_up(report, load, &crowd).await?;
    report.figure("rounds", rounds);
    report.figure("slowest_ms", slowest.as_millis());
    report.expect("closed", read(&crowd.seen.ended), 0);
    report.expect("unrecovered", read(&crowd.seen.unrecovered), 0);
    exact(report, &crowd.seen);
    memory(report, &gateway, base, 64.0)?;
    crowd.leave().await;
    Ok(())
}
