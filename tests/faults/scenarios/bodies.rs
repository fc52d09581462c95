//! Models of 60 MiB while others talk: small messages do not wait behind them, viewers share one copy, a killed NATS
//! leaves no half of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::Report;
use crate::talk::Talk;
use crate::{Outcome, PATIENCE, Scale, worker};

const UPGRADE: &str = "GET /cad HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// Bytes that are no model: the answer to the handshake, pings, small states.
const SMALL: u64 = 64 << 10;
/// Clients that ask small things meanwhile.
const TALKERS: usize = 4;

/// A page that counts what it gets and keeps nothing.
struct Viewer {
    got: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Viewer {
    async fn come(port: u16) -> Outcome<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(UPGRADE.as_bytes()).await?;
        stream.write_all(&[0x81, 0x84, 0, 0, 0, 0]).await?;
        stream.write_all(b"L:{}").await?;
        let got = Arc::<AtomicU64>::default();
        let counted = got.clone();
        let task = tokio::spawn(async move {
            let mut bytes = vec![0; 256 << 10];
            while let Ok(n @ 1..) = stream.read(&mut bytes).await {
                counted.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
        Ok(Self {
            got,
            task: task.abort_handle(),
        })
    }

    fn got(&self) -> u64 {
        self.got.load(Ordering::Relaxed)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A model as a script sends it; the time it takes is up to the gateway. `half` is awaited in its middle.
async fn show(port: u16, size: usize, half: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    let (head, tail) = (
        "D:{\"data\":{\"fill\":\"",
        "\"},\"type\":\"data\",\"config\":{},\"count\":1}",
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(UPGRADE.as_bytes()).await?;
    let mut answer = [0; 1024];
    let _ = stream.read(&mut answer).await?;
    let mut frame = vec![0x82, 0xff];
    frame.extend_from_slice(&((head.len() + size + tail.len()) as u64).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(head.as_bytes());
    stream.write_all(&frame).await?;
    let fill = vec![b'x'; size / 2];
    stream.write_all(&fill).await?;
    half.await?;
    stream.write_all(&fill).await?;
    stream.write_all(tail.as_bytes()).await?;
    stream.shutdown().await?;
    // the gateway reads all of it before it notices that nobody listens any more
    while let Ok(1..) = stream.read(&mut answer).await {}
    Ok(())
}

/// Waits until every viewer has got so many bytes more than it had.
async fn shown(viewers: &[Viewer], before: &[u64], more: u64) -> Outcome<()> {
    let begun = Instant::now();
    loop {
        let missing = viewers
            .iter()
            .zip(before)
            .filter(|(viewer, before)| viewer.got() < **before + more);
        let missing = missing.count();
        if missing == 0 {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE * 2 {
            return Err(format!("{missing} of {} viewers did not get a model", viewers.len()).into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn all(viewers: &[Viewer]) -> Vec<u64> {
    viewers.iter().map(Viewer::got).collect()
}

/// What commands took while something went on, in microseconds; and how many were refused.
async fn asking(port: u16, during: impl Future<Output = Outcome<()>>) -> Outcome<(Vec<u64>, u64)> {
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for _ in 0..TALKERS {
        let over = over.clone();
        tasks.spawn(async move {
            let mut talk = Talk::aside(port).await?;
            let (mut times, mut refused) = (Vec::new(), 0);
            while !over.load(Ordering::Relaxed) || times.len() < 20 {
                let (answer, took) = talk.ask("get_system_info").await?;
                refused += u64::from(answer["type"] == "error");
                times.push(u64::try_from(took.as_micros())?);
                sleep(Duration::from_millis(5)).await;
            }
            Outcome::Ok((times, refused))
        });
    }
    let ended = during.await;
    over.store(true, Ordering::Relaxed);
    let (mut times, mut refused) = (Vec::new(), 0);
    while let Some(task) = tasks.join_next().await {
        let (mut own, no) = task??;
        times.append(&mut own);
        refused += no;
    }
    ended.map(|()| (times, refused))
}

pub(super) async fn large(scale: Scale, report: &mut Report) -> Outcome<()> {
    let mut nats = Nats::start().await?;
    worker::quick(nats.client().await?).await?;
    let gateway = Gateway::start(&nats.url(), &[]).await?;
    let (port, size) = (gateway.port, scale.pick(4 << 20, 60 << 20));
    let rounds = scale.pick(1, 3);
    let mut viewers = vec![Viewer::come(port).await?];
    let base = gateway.forget_peak()?;
    let mut times = Vec::new();
    let mut peaks = Vec::new();
    let (mut sent, mut shows) = (0, 0);
    for count in [1, 10] {
        while viewers.len() < count {
            viewers.push(Viewer::come(port).await?);
        }
        for _ in 0..rounds {
            let quiet = async {
                sleep(Duration::from_secs(2)).await;
                Ok(())
            };
            let calm = asking(port, quiet).await?.0;
            let before = all(&viewers);
            let showing = async {
                show(port, size, async { Ok(()) }).await?;
                shown(&viewers, &before, size as u64).await
            };
            times.push((calm, asking(port, showing).await?.0));
            sent += 1;
            shows += count as u64;
        }
        peaks.push((gateway.peak()? - base).round());
        gateway.forget_peak()?;
    }
    let asked: usize = times.iter().map(|(calm, beside)| calm.len() + beside.len()).sum();
    report.figure("asked", asked);
    report.beside(&mut times, "small messages wait for large ones");
    for stage in ["decode", "encode", "write"] {
        let labels = format!("cad {stage}");
        let seconds = gateway.labelled("gw_stage_duration_seconds_sum", &labels).await?;
        report.figure(
            &format!("{stage}_ms_each"),
            (seconds * 1000.0 / sent as f64).round(),
        );
    }
    report.figure("peak_mib_1_viewer", peaks[0]);
    report.figure("peak_mib_10_viewers", peaks[1]);
    // nine more viewers: no more than what one more model takes
    let model = (size >> 20) as f64;
    report.hold(
        peaks[1] - peaks[0] <= model + 32.0,
        "memory grows with the number of viewers",
    );
    report.books.peak = Some(peaks[1].max(peaks[0]));

    // NATS dies in the middle of one
    let before = all(&viewers);
    let (_, refused) = asking(port, async {
        show(port, size, async { nats.kill() }).await?;
        sleep(Duration::from_secs(1)).await;
        nats.restart().await?;
        let begun = Instant::now();
        while gateway.status("/readyz").await != Some(200) {
            if begun.elapsed() > PATIENCE {
                return Err("the gateway does not find NATS again".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    })
    .await?;
    report.figure("refused_meanwhile", refused);
    report.hold(refused > 0, "NATS was not away");
    show(port, size, async { Ok(()) }).await?;
    shown(&viewers, &before, size as u64).await?;
    sleep(Duration::from_secs(2)).await;
    for (viewer, before) in viewers.iter().zip(&before) {
        let rest = (viewer.got() - before) % (size as u64);
        report.hold(
            rest < SMALL,
            &format!("a viewer got {rest} bytes of a model and not the rest"),
        );
    }
    report.books.sent = Some(sent + 1);
    report.books.received = Some(shows + 10);
    Ok(())
}
