//! NATS killed, paused, cut off, silent: sockets stay, commands are refused at once, nothing stored is lost.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{exact, memory, read};
use crate::crowd::{Crowd, Manner};
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
}

impl Stage {
    async fn set(scale: Scale, url: &str, nats: &Nats) -> Outcome<Self> {
        let gateway = Gateway::start(url, &[]).await?;
        let manner = Manner {
            ports: vec![gateway.port],
            comes_back: true,
            spread: false,
            seed: scale.seed,
        };
        let crowd = Crowd::join(manner, scale.pick(30, 200)).await?;
        let load = Load::start(nats.client().await?, scale.pick(50, 200), 64);
        let talk = Talk::open(gateway.port).await?;
        load.more(20).await?;
        let base = gateway.forget_peak()?;
        Ok(Self {
            gateway,
            crowd,
            load,
            talk,
            base,
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
        let mut slowest = Duration::ZERO;
        for _ in 0..5 {
            let (answer, took) = self.talk.ask("get_system_info").await?;
            slowest = slowest.max(took);
            report.hold(
                answer["data"]["code"] == "bus_down",
                &format!("a command got {answer}, not bus_down"),
            );
        }
        report.figure("bus_down_ms", slowest.as_millis());
        Ok(())
    }

    /// NATS is back: everything arrives, nobody had to leave.
    async fn back(self, report: &mut Report) -> Outcome<()> {
        let begun = Instant::now();
        self.load.more(1).await?;
        let first = self.load.stored();
        self.load.more(30).await?;
        let last = self.load.stop().await?;
        self.crowd.reach(last).await?;
        report.figure("stored_before", first);
        report.figure("back_ms", begun.elapsed().as_millis());
        let ready = self.gateway.status("/readyz").await;
        report.expect("readyz", ready.unwrap_or(0), 200);
        // repeats would come after what they repeat
        sleep(Duration::from_secs(3)).await;
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
    for round in 0..scale.pick(3, 10) {
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
