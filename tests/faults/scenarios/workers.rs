//! Workers that die, hang or cannot keep up: every command has exactly one final answer, in time and in kind.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::memory;
use crate::nats::Nats;
use crate::process::Gateway;
use crate::report::Report;
use crate::talk::Talk;
use crate::worker::{self, Worker};
use crate::{Outcome, PATIENCE, Scale};

const SERVICE: &str = "command_processor";

/// Deadline of commands in these scenarios: far beyond what one takes on a machine that has other things to do.
const DEADLINE: &str = "4s";

/// What an assistant's frame says to a command that only the n-th command can have: `done`, or the error's code.
fn verdict(frame: &Value, n: u64) -> Option<String> {
    match frame["type"].as_str()? {
        "command_response" => {
            let own = frame["data"]["user-command"] == format!("calculate {n}+0");
            Some(if own { "done" } else { "another's answer" }.to_owned())
        }
        "error" => Some(frame["data"]["code"].as_str().unwrap_or("no code").to_owned()),
        _ => None,
    }
}

/// Asks and returns what became of it.
async fn ask(talk: &mut Talk, n: u64) -> Outcome<String> {
    let command = format!("calculate {n}+0");
    talk.say(&json!({"method": "execute_command", "params": {"command": command}}))
        .await?;
    let frame = talk.wait(|frame| verdict(frame, n).is_some()).await?;
    Ok(verdict(&frame, n).unwrap_or_default())
}

/// Several clients, each asking one command after the other; what became of them, and how long those that were done
/// took, in order.
async fn asking(port: u16, clients: u64, each: u64) -> Outcome<(BTreeMap<String, u64>, Vec<Duration>)> {
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        tasks.spawn(async move {
            let mut talk = Talk::at(port, "/ws").await?;
            let mut ends = Vec::new();
            for n in 0..each {
                let begun = Instant::now();
                let end = ask(&mut talk, client * each + n).await?;
                ends.push((end, begun.elapsed()));
            }
            Outcome::Ok(ends)
        });
    }
    let (mut counts, mut times) = (BTreeMap::new(), Vec::new());
    while let Some(ends) = tasks.join_next().await {
        for (end, took) in ends?? {
            if end == "done" {
                times.push(took);
            }
            *counts.entry(end).or_default() += 1;
        }
    }
    times.sort_unstable();
    Ok((counts, times))
}

fn count(counts: &BTreeMap<String, u64>, end: &str) -> u64 {
    counts.get(end).copied().unwrap_or(0)
}

/// Killed with commands in hand: they time out at their deadline, nobody sends them again, and another instance serves.
pub(super) async fn killed(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let gateway = Gateway::start(&nats.url(), &[("COMMANDS_DEADLINE", DEADLINE)]).await?;
    let mut first = Worker::start(SERVICE, &nats.url())?;
    worker::instances(&client, SERVICE, 1).await?;
    let base = gateway.forget_peak()?;
    let clients = scale.pick(5, 50);
    let (counts, _) = asking(gateway.port, clients, 1).await?;
    report.expect("done_before", count(&counts, "done"), clients);
    first.pause()?;
    let port = gateway.port;
    let waiting = tokio::spawn(asking(port, clients, 1));
    under_way(&gateway, clients).await?;
    // what it was sent is in its hands; it dies without having looked at it
    first.kill()?;
    let (counts, _) = waiting.await??;
    report.expect("timeout", count(&counts, "timeout"), clients);
    let mut second = Worker::start(SERVICE, &nats.url())?;
    worker::instances(&client, SERVICE, 1).await?;
    let (counts, _) = asking(gateway.port, clients, 1).await?;
    report.expect("done_after", count(&counts, "done"), clients);
    report.answers(3 * clients, 3 * clients);
    second.kill()?;
    memory(report, &gateway, base, 32.0)
}

/// Waits until so many commands are with their worker.
async fn under_way(gateway: &Gateway, count: u64) -> Outcome<()> {
    let begun = Instant::now();
    while gateway.metric("gw_commands_in_flight").await? < count as f64 {
        if begun.elapsed() > PATIENCE {
            return Err("the commands do not get under way".into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// One of two stands still: commands that fall to it time out, the others do not notice; its late answers reach nobody.
pub(super) async fn hung(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let gateway = Gateway::start(&nats.url(), &[("COMMANDS_DEADLINE", DEADLINE)]).await?;
    let _well = Worker::start(SERVICE, &nats.url())?;
    let hung = Worker::start(SERVICE, &nats.url())?;
    worker::instances(&client, SERVICE, 2).await?;
    let base = gateway.forget_peak()?;
    let (clients, each) = scale.pick((8, 5), (20, 20));
    let (counts, times) = asking(gateway.port, clients, each).await?;
    report.expect("done_both", count(&counts, "done"), clients * each);
    let p99 = |times: &[Duration]| times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    report.figure("p99_both_ms", p99(&times).as_millis());
    hung.pause()?;
    let (counts, times) = asking(gateway.port, clients, each).await?;
    let (done, late) = (count(&counts, "done"), count(&counts, "timeout"));
    report.figure("done", done);
    report.figure("timeout", late);
    report.figure("p99_done_ms", p99(&times).as_millis());
    report.hold(done > 0 && late > 0, "the commands did not fall to both");
    // it wakes up and finds commands nobody waits for
    hung.resume()?;
    worker::instances(&client, SERVICE, 2).await?;
    let (counts, _) = asking(gateway.port, clients, each).await?;
    let again = count(&counts, "done");
    report.answers(3 * clients * each, clients * each + done + late + again);
    memory(report, &gateway, base, 32.0)
}

/// More commands than a service may have under way: those beyond are told `busy` at once, memory stays flat.
pub(super) async fn crowded(scale: Scale, report: &mut Report) -> Outcome<()> {
    let nats = Nats::start().await?;
    worker::slow(nats.client().await?).await?;
    let most: u64 = 40;
    let gateway = Gateway::start(&nats.url(), &[("COMMANDS_PER_SERVICE", "40")]).await?;
    let (clients, each) = (4_u64, 100_u64);
    let mut talks = Vec::new();
    for _ in 0..clients {
        talks.push(Talk::open(gateway.port).await?);
    }
    let (mut busy, mut done, mut slowest) = (0, 0, Duration::ZERO);
    let mut base = gateway.forget_peak()?;
    let rounds = scale.pick(2, 30);
    for round in 0..rounds {
        let mut tasks = JoinSet::new();
        for mut talk in talks.drain(..) {
            tasks.spawn(async move {
                let begun = Instant::now();
                let mut open = std::collections::BTreeSet::new();
                for _ in 0..each {
                    open.insert(talk.send("get_system_info").await?);
                }
                let (mut busy, mut done, mut last) = (0, 0, Duration::ZERO);
                while !open.is_empty() {
                    let frame = talk.wait(|frame| frame["id"].is_string()).await?;
                    let id = frame["id"].as_str().unwrap_or_default();
                    if !open.remove(id) {
                        return Err(format!("answered twice: {frame}").into());
                    }
                    if frame["data"]["code"] == "busy" {
                        busy += 1;
                        last = begun.elapsed();
                    } else if frame["type"] != "error" {
                        done += 1;
                    }
                }
                Outcome::Ok((talk, busy, done, last))
            });
        }
        while let Some(ended) = tasks.join_next().await {
            let (talk, told, served, last) = ended??;
            talks.push(talk);
            busy += told;
            done += served;
            slowest = slowest.max(last);
        }
        if round == 0 {
            // from here on nothing is new to it
            base = gateway.forget_peak()?;
        }
    }
    report.answers(rounds * clients * each, busy + done);
    report.figure("busy", busy);
    report.figure("done", done);
    report.figure("last_busy_ms", slowest.as_millis());
    report.hold(busy > 0, "nobody was told busy");
    report.hold(
        done >= rounds * most,
        "fewer were served than the service may have under way",
    );
    memory(report, &gateway, base, 16.0)
}
