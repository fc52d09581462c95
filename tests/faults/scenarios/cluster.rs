//! Three nats-servers with replicated streams: one is killed, then the leader.

use std::time::Duration;

use tokio::time::sleep;

use super::{caught_up, exact, memory, read};
use crate::crowd::Crowd;
use crate::load::Load;
use crate::nats::{Nats, info};
use crate::process::Gateway;
use crate::report::Report;
use crate::{Outcome, Scale};

/// A follower, then the leader of the events, each twice in `make faults`.
pub(super) async fn killed(scale: Scale, report: &mut Report) -> Outcome<()> {
    let mut nodes = Nats::cluster().await?;
    let urls: Vec<String> = nodes.iter().map(Nats::url).collect();
    let urls = urls.join(",");
    let gateway = Gateway::start(&urls, &[("EVENTS_REPLICAS", "3")]).await?;
    let crowd = Crowd::on(&gateway, scale, scale.pick(30, 200)).await?;
    let client = async_nats::connect(urls.split(',').collect::<Vec<_>>()).await?;
    let load = Load::start(client.clone(), scale.pick(50, 200), 64);
    load.more(50).await?;
    let base = gateway.forget_peak()?;
    for round in 0..scale.pick(1, 2) {
        for leads in [false, true] {
            let cluster = info(&client, "GW_EVENTS").await?.cluster;
            let leader = cluster.and_then(|cluster| cluster.leader).unwrap_or_default();
            let victim = nodes.iter_mut().find(|node| (node.name == leader) == leads);
            let victim = victim.ok_or("the stream has no leader")?;
            victim.kill()?;
            load.more(100).await?;
            victim.restart().await?;
            load.more(100).await?;
            // the replica must be current before the next one goes, or the quorum goes with it
            current(&client, round).await?;
        }
    }
    caught_up(report, load, &crowd).await?;
    sleep(Duration::from_secs(3)).await;
    report.expect("closed", read(&crowd.seen.ended), 0);
    report.expect("unrecovered", read(&crowd.seen.unrecovered), 0);
    exact(report, &crowd.seen);
    memory(report, &gateway, base, 48.0)?;
    crowd.leave().await;
    Ok(())
}

async fn current(client: &async_nats::Client, round: u32) -> Outcome<()> {
    for _ in 0..600 {
        let cluster = info(client, "GW_EVENTS").await?.cluster;
        let replicas = cluster.map(|cluster| cluster.replicas).unwrap_or_default();
        if replicas.len() == 2 && replicas.iter().all(|replica| replica.current && !replica.offline) {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(format!("the cluster does not recover in round {round}").into())
}
