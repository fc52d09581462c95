//! Parts of the harness that run as processes of their own: a crowd, so that its work is not taken for the gateway's,
//! and neighbours, so that what they measure is not their waiting for the crowd.
//!
//! The crowd runs at the lowest priority: clients are somewhere else and take no processor time from a gateway.

use std::io::{BufRead, Write};
use std::ops::Range;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep_until, timeout};

use crate::crowd::{Crowd, Manner, Tally};
use crate::load::micros;
use crate::models::{Viewer, all, show, shown};
use crate::talk::Talk;
use crate::{Outcome, PATIENCE};

/// Clients that ask beside a storm.
const NEIGHBOURS: u32 = 8;
/// How often each of them asks.
const RHYTHM: Duration = Duration::from_millis(10);

/// What such a process does, and what it is asked meanwhile, a line each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Many clients that come back.
    Crowd(Manner, usize),
    /// Some that ask a gateway, and the NATS server behind it, and measure how long an answer takes.
    Neighbours(u16, String),
    /// Pages on a gateway, and models of so many bytes for them.
    Pages(u16, usize),
}

/// What is asked of pages; the answer is when it began and when it was done.
#[derive(Debug, Serialize, Deserialize)]
enum Page {
    /// To be so many, all of whom have what is shown.
    Come(usize),
    /// To be shown a model.
    Show,
}

/// What is asked of a crowd; the answer is a [`Tally`].
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// When so many connections have ended.
    Ended(u64),
    /// When all but so many are greeted.
    Greeted(usize),
    /// When everybody has the event with this sequence.
    Reach(u64),
}

/// How long one answer took, and when it was asked for: microseconds, as all programs of this machine have them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Took {
    pub(crate) at: u64,
    pub(crate) took: u64,
    /// Asked of NATS, past the gateway: what the machine itself makes of it.
    pub(crate) direct: bool,
}

/// The other end of such a process.
struct Apart {
    child: Child,
    asks: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Apart {
    fn start(role: &Role, nice: u8) -> Outcome<Self> {
        let mut child = Command::new("nice")
            .args(["-n", &nice.to_string()])
            .arg(std::env::current_exe()?)
            .arg(format!("--apart={}", serde_json::to_string(role)?))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let asks = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        Ok(Self { child, asks, answers })
    }

    async fn ask<T: for<'a> Deserialize<'a>>(&mut self, ask: &impl Serialize) -> Outcome<T> {
        let line = format!("{}\n", serde_json::to_string(ask)?);
        let asks = self.asks.as_mut().ok_or("it was told to end")?;
        asks.write_all(line.as_bytes()).await?;
        self.answer().await
    }

    async fn answer<T: for<'a> Deserialize<'a>>(&mut self) -> Outcome<T> {
        let line = timeout(PATIENCE * 2, self.answers.next_line()).await??;
        let line = line.ok_or("a part of the harness ended")?;
        serde_json::from_str::<Result<T, String>>(&line)?.map_err(Into::into)
    }
}

/// A crowd in a process of its own.
pub(crate) struct FarCrowd(Apart);

impl FarCrowd {
    /// Connects `count` clients and returns when every one was greeted.
    pub(crate) async fn join(manner: Manner, count: usize) -> Outcome<Self> {
        let mut crowd = Self(Apart::start(&Role::Crowd(manner, count), 19)?);
        let _joined: Tally = crowd.0.answer().await?;
        Ok(crowd)
    }

    /// Waits until so many connections have ended.
    pub(crate) async fn ended(&mut self, count: u64) -> Outcome<Tally> {
        self.ask(&Ask::Ended(count)).await
    }

    /// Waits until all clients but a few are past their handshake again.
    pub(crate) async fn greeted_but(&mut self, few: usize) -> Outcome<Tally> {
        self.ask(&Ask::Greeted(few)).await
    }

    /// Waits until every client has the event with this sequence.
    pub(crate) async fn reach(&mut self, seq: u64) -> Outcome<Tally> {
        self.ask(&Ask::Reach(seq)).await
    }

    async fn ask(&mut self, ask: &Ask) -> Outcome<Tally> {
        self.0.ask(ask).await
    }
}

/// Pages, and the script that shows them models, in a process of their own.
pub(crate) struct FarPages(Apart);

impl FarPages {
    /// Nobody yet, and models of so many bytes.
    pub(crate) async fn start(port: u16, size: usize) -> Outcome<Self> {
        let mut pages = Self(Apart::start(&Role::Pages(port, size), 19)?);
        let _begun: Range<u64> = pages.0.answer().await?;
        Ok(pages)
    }

    /// Waits until there are so many.
    pub(crate) async fn come(&mut self, count: usize) -> Outcome<Range<u64>> {
        self.0.ask(&Page::Come(count)).await
    }

    /// Waits until all of them got a model; returns from when to when that was.
    pub(crate) async fn show(&mut self) -> Outcome<Range<u64>> {
        self.0.ask(&Page::Show).await
    }
}

/// Clients in a space of their own who ask all the time, and as many who ask the same of NATS.
pub(crate) struct Neighbours(Apart);

impl Neighbours {
    /// Returns when they ask.
    pub(crate) async fn start(port: u16, nats: String) -> Outcome<Self> {
        let mut neighbours = Self(Apart::start(&Role::Neighbours(port, nats), 0)?);
        let _begun: Vec<Took> = neighbours.0.answer().await?;
        Ok(neighbours)
    }

    /// Ends them; returns what everything took.
    pub(crate) async fn end(mut self) -> Outcome<Vec<Took>> {
        drop(self.0.asks.take());
        let took = self.0.answer().await?;
        timeout(PATIENCE, self.0.child.wait()).await??;
        Ok(took)
    }
}

/// The process itself.
pub(crate) fn main(role: &str) -> Outcome<()> {
    let role: Role = serde_json::from_str(role)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (tell, mut asked) = tokio::sync::mpsc::channel(8);
    // not the runtime's: it would wait for this thread at its end
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if tell.blocking_send(line).is_err() {
                return;
            }
        }
    });
    runtime.block_on(async {
        match role {
            Role::Crowd(manner, count) => {
                let crowd = Crowd::join(manner, count).await?;
                say(Ok(crowd.seen.tally()))?;
                while let Some(line) = asked.recv().await {
                    let done = match serde_json::from_str(&line)? {
                        Ask::Ended(count) => crowd.ended(count).await,
                        Ask::Greeted(few) => crowd.greeted_but(few).await,
                        Ask::Reach(seq) => crowd.reach(seq).await,
                    };
                    say(done.map(|()| crowd.seen.tally()))?;
                }
            }
            Role::Neighbours(port, nats) => {
                let times = Arc::<Mutex<Vec<Took>>>::default();
                let mut tasks = tokio::task::JoinSet::new();
                let client = async_nats::connect(nats).await?;
                for number in 0..NEIGHBOURS {
                    let talk = Talk::aside(port).await?;
                    tasks.spawn(asking(Some(talk), client.clone(), number, times.clone()));
                    tasks.spawn(asking(None, client.clone(), number, times.clone()));
                }
                say(Ok(Vec::<Took>::new()))?;
                tokio::select! {
                    _ = asked.recv() => say(Ok(times.lock().clone()))?,
                    ended = tasks.join_next() => {
                        let why = ended.map_or_else(String::new, |ended| format!("{ended:?}"));
                        say::<Vec<Took>>(Err(format!("a neighbour stopped: {why}").into()))?;
                    }
                }
            }
            Role::Pages(port, size) => {
                let mut viewers: Vec<Viewer> = Vec::new();
                // bytes of what newcomers are shown
                let mut current = 0;
                say(Ok(0..0))?;
                while let Some(line) = asked.recv().await {
                    let begun = micros();
                    let (before, more) = match serde_json::from_str(&line)? {
                        Page::Come(count) => {
                            while viewers.len() < count {
                                viewers.push(Viewer::come(port).await?);
                            }
                            (vec![0; count], current)
                        }
                        Page::Show => {
                            let before = all(&viewers);
                            show(port, size, async { Ok(()) }).await?;
                            current = size as u64;
                            (before, current)
                        }
                    };
                    let done = shown(&viewers, &before, more).await;
                    say(done.map(|()| begun..micros()))?;
                }
            }
        }
        Ok(())
    })
}

/// Asks at a steady rhythm, where nobody serves. What is asked late because the answer before was late has waited
/// since its turn.
async fn asking(
    mut talk: Option<Talk>,
    client: async_nats::Client,
    number: u32,
    times: Arc<Mutex<Vec<Took>>>,
) -> Outcome<()> {
    let direct = talk.is_none();
    let mut next = Instant::now() + RHYTHM * number / NEIGHBOURS;
    loop {
        let late = next.elapsed();
        if late.is_zero() {
            sleep_until(next).await;
        }
        next += RHYTHM;
        let (at, begun) = (micros(), Instant::now());
        match &mut talk {
            Some(talk) => drop(talk.ask("get_system_info").await?),
            None => {
                let asked = client.request("gw.v1.cmd.aside.voice.get_system_info", "{}".into());
                let _nobody_serves = timeout(PATIENCE, asked).await?;
            }
        }
        let took = u64::try_from((late + begun.elapsed()).as_micros())?;
        times.lock().push(Took { at, took, direct });
    }
}

fn say<T: Serialize>(said: Outcome<T>) -> Outcome<()> {
    let said = said.map_err(|error| error.to_string());
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&said)?)?;
    Ok(out.flush()?)
}
