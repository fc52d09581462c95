//! A byte proxy between a gateway and NATS: a network that can be cut, swallow everything, or be slow and lossy.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::Outcome;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Bytes pass.
    Fair,
    /// Connections end, and new ones at once.
    Cut,
    /// Connections stay and carry nothing.
    Silent,
    /// Every way takes 50 ms, and one piece in a hundred is lost and sent again, as TCP shows it: the piece and all
    /// behind it come 200 ms later.
    Lossy,
}

/// One way through a slow network.
const DELAY: Duration = Duration::from_millis(50);
/// Until a lost piece is sent again.
const RESENT: Duration = Duration::from_millis(200);
/// Pieces on their way.
const PIECES: usize = 4096;

/// A proxy in front of one port.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    weather: Arc<watch::Sender<Weather>>,
    task: AbortHandle,
}

impl Proxy {
    pub(crate) async fn before(target: u16) -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let weather = Arc::new(watch::Sender::new(Weather::Fair));
        let task = tokio::spawn(accept(listener, target, weather.clone()));
        Ok(Self {
            port,
            weather,
            task: task.abort_handle(),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.weather.send_replace(Weather::Cut);
    }
}

async fn accept(listener: TcpListener, target: u16, weather: Arc<watch::Sender<Weather>>) {
    while let Ok((near, _)) = listener.accept().await {
        let mut here = weather.subscribe();
        if *here.borrow_and_update() == Weather::Cut {
            continue;
        }
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else {
                return;
            };
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            let there = here.clone();
            tokio::select! {
                () = copy(near_read, far_write, here.clone()) => {}
                () = copy(far_read, near_write, there) => {}
                _ = here.wait_for(|now| *now == Weather::Cut) => {}
            }
        });
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let (pieces, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let reading = async {
        let mut bytes = vec![0; 64 << 10];
        let (mut count, mut last) = (0_u32, Instant::now());
        while let Ok(n) = from.read(&mut bytes).await {
            let passes = |now: &Weather| matches!(now, Weather::Fair | Weather::Lossy);
            let Ok(now) = weather.wait_for(passes).await.map(|now| *now) else {
                return;
            };
            count += 1;
            let mut due = Instant::now();
            if now == Weather::Lossy {
                due += if count.is_multiple_of(100) {
                    DELAY + RESENT
                } else {
                    DELAY
                };
            }
            // nothing overtakes what was sent before
            last = last.max(due);
            if n == 0 || pieces.send((last, bytes[..n].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, piece)) = arriving.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
