//! NATS killed, paused, cut off, silent: sockets stay, commands are refused at once, nothing stored is lost.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{exact, memory, read};
use crate::crowd::Crowd;
use crate::load::Load;
use crate::nats::Nats;
use crate::process::Gateway;
use crate::proxy::{Proxy, Weather};
use crate::report::Report;
use crate::talk::Talk;
use crate::{Outcome, PATIENCE, Scale};

/// One gateway, a crowd on it, a producer, and one who asks.
struct Stage {
    gateway: Gateway,
    crowd: Crowd,
    load: Load,
    talk: Talk,
    base: f64,
    /// What a refusal takes while NATS is there.
    usual: Duration,
    /// How long repeats are waited for.
    settle: Duration,
}

/// Commands refused in a row.
const ASKS: usize = 9;

impl Stage {
    async fn set(scale: Scale, url: &str, nats: &Nats) -> Outcome<Self> {
        let gateway = Gateway::start(url, &[]).await?;
        let crowd = Crowd::on(&gateway, scale, scale.pick(30, 200)).await?;
        let load = Load::start(nats.client().await?, scale.pick(50, 200), 64);
        let mut talk = Talk::open(gateway.port).await?;
        load.more(20).await?;
        let mut times = Vec::new();
        for _ in 0..ASKS {
            // nobody serves it
            times.push(talk.ask("get_system_info").await?.1);
        }
        times.sort_unstable();
        let usual = times.get(ASKS / 2).copied().unwrap_or_default();
        let base = gateway.forget_peak()?;
        Ok(Self {
            gateway,
            crowd,
            load,
            talk,
            base,
            usual,
            settle: Duration::from_secs(scale.pick(1, 3)),
        })
    }

    /// Once it is known that NATS is away: `bus_down` at once, not ready, alive.
    async fn away(&mut self, report: &mut Report) -> Outcome<()> {
        let begun = Instant::now();
        while self.gateway.status("/readyz").await != Some(503) {
            if begun.elapsed() > PATIENCE {
                return Err("/readyz does not notice that NATS is away".into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        report.figure("noticed_ms", begun.elapsed().as_millis());
        report.expect("livez", self.gateway.status("/livez").await.unwrap_or(0), 200);
        let mut times = Vec::new();
        for _ in 0..ASKS {
            let (answer, took) = self.talk.ask("get_system_info").await?;
            times.push(took);
            report.hold(
                answer["data"]["code"] == "bus_down",
                &format!("a command got {answer}, not bus_down"),
            );
        }
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        report.figure("bus_down_ms", median.as_millis());
        // promised are 100 ms; on a machine on which even a refusal that needs no waiting takes long, as many of those
        let bound = Duration::from_millis(100).max(self.usual * 4);
        report.hold(median <= bound, "half of the refusals took longer than promised");
        Ok(())
    }

    /// NATS is back: everything arrives, nobody had to leave.
    async fn back(self, report: &mut Report) -> Outcome<()> {
        let begun = Instant::now();
        self.load.more(1).await?;
        let first = self.load.stored();
        self.load.more(30).await?;
        let last = self.load.stop().await?;
        report.books.sent = Some(last);
        self.crowd.reach(last).await?;
        report.figure("stored_before", first);
        report.figure("back_ms", begun.elapsed().as_millis());
        let ready = self.gateway.status("/readyz").await;
        report.expect("readyz", ready.unwrap_or(0), 200);
        // repeats would come after what they repeat
        sleep(self.settle).await;
        report.expect("closed", read(&self.crowd.seen.ended), 0);
        exact(report, &self.crowd.seen);
        report.expect("unrecovered", read(&self.crowd.seen.unrecovered), 0);
        memory(report, &self.gateway, self.base, 48.0)?;
        self.crowd.leave().await;
        Ok(())
    }
}

/// Killed and started again with the same store.
pub(super) async fn killed(scale: Scale, report: &mut Report, away: Duration) -> Outcome<()> {
    let mut nats = Nats::start().await?;
    let mut stage = Stage::set(scale, &nats.url(), &nats).await?;
    nats.kill()?;
    let begun = Instant::now();
    stage.away(report).await?;
    sleep(away.saturating_sub(begun.elapsed())).await;
    nats.restart().await?;
    stage.back(report).await
}

/// It stands still for ten seconds and goes on as if nothing had happened.
pub(super) async fn paused(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let mut stage = Stage::set(scale, &nats.url(), &nats).await?;
    nats.pause()?;
    let begun = Instant::now();
    let away = stage.away(report).await;
    sleep(Duration::from_secs(10).saturating_sub(begun.elapsed())).await;
    nats.resume()?;
    away?;
    stage.back(report).await
}

/// Only the gateway is cut off: others go on storing what it must catch up with.
pub(super) async fn cut(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let proxy = Proxy::before(nats.port).await?;
    let mut stage = Stage::set(scale, &proxy.url(), &nats).await?;
    for round in 0..scale.pick(2, 10) {
        proxy.turn(Weather::Cut);
        if round == 0 {
            stage.away(report).await?;
        }
        stage.load.more(40).await?;
        proxy.turn(Weather::Fair);
        stage.load.more(40).await?;
    }
    stage.back(report).await
}

/// The network swallows everything while the connections look open.
pub(super) async fn silent(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let proxy = Proxy::before(nats.port).await?;
    let mut stage = Stage::set(scale, &proxy.url(), &nats).await?;
    proxy.turn(Weather::Silent);
    stage.away(report).await?;
    stage.load.more(100).await?;
    // what was swallowed is lost with its connections
    proxy.turn(Weather::Cut);
    proxy.turn(Weather::Fair);
    stage.load.more(100).await?;
    stage.back(report).await
}

/// Everything takes its time and one piece in a hundred comes late; at half time the connections are reset as well.
pub(super) async fn lossy(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let proxy = Proxy::before(nats.port).await?;
    let mut stage = Stage::set(scale, &proxy.url(), &nats).await?;
    proxy.turn(Weather::Lossy);
    let (mut asked, mut answered) = (0_u64, 0_u64);
    for half in 0..2 {
        for _ in 0..scale.pick(3, 20) {
            stage.load.more(scale.pick(10, 100)).await?;
            let (answer, _) = stage.talk.ask("get_system_info").await?;
            asked += 1;
            // nobody serves it; while a lost connection is made anew it is `bus_down`
            let code = answer["data"]["code"].as_str().unwrap_or_default();
            answered += u64::from(matches!(code, "no_worker" | "bus_down"));
        }
        report.expect("livez", stage.gateway.status("/livez").await.unwrap_or(0), 200);
        if half == 0 {
            proxy.turn(Weather::Cut);
            proxy.turn(Weather::Lossy);
        }
    }
    let first = stage.gateway.metric("gw_live_gaps_total").await?;
    report.figure("holes_filled", first);
    proxy.turn(Weather::Fair);
    stage.back(report).await?;
    report.hold(
        asked == answered,
        "a command did not get the answer it should have",
    );
    report.figure("answers", answered);
    Ok(())
}
