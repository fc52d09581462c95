//! Pages of the CAD viewer that count what they get, and models for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::{Outcome, PATIENCE};

const UPGRADE: &str = "GET /cad HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A page that counts what it gets and keeps nothing.
pub(crate) struct Viewer {
    got: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Viewer {
    /// Comes to the gateway on this port.
    pub(crate) async fn come(port: u16) -> Outcome<Self> {
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

    /// Bytes so far.
    pub(crate) fn got(&self) -> u64 {
        self.got.load(Ordering::Relaxed)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A model as a script sends it; the time it takes is up to the gateway. `half` is awaited in its middle.
pub(crate) async fn show(port: u16, size: usize, half: impl Future<Output = Outcome<()>>) -> Outcome<()> {
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
pub(crate) async fn shown(viewers: &[Viewer], before: &[u64], more: u64) -> Outcome<()> {
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

/// What each has got so far.
pub(crate) fn all(viewers: &[Viewer]) -> Vec<u64> {
    viewers.iter().map(Viewer::got).collect()
}
