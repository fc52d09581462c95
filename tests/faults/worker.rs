//! Reference workers as processes, killed and paused by their own handle, and one worker of the harness that is slow.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt;
use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use crate::process::{program, signal};
use crate::{Outcome, PATIENCE};

/// One process that serves one service.
pub(crate) struct Worker(Child);

impl Worker {
    /// Starts one; [`instances`] tells when it serves.
    pub(crate) fn start(service: &str, nats: &str) -> Outcome<Self> {
        let child = Command::new(program())
            .args(["worker", service, "--nats-url", nats])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }

    /// It stands still, and what is sent to it waits in its connection.
    pub(crate) fn pause(&self) -> Outcome<()> {
        signal(&self.0, Signal::STOP)
    }

    pub(crate) fn resume(&self) -> Outcome<()> {
        signal(&self.0, Signal::CONT)
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _gone = self.kill();
    }
}

/// Waits until so many instances of a service answer.
pub(crate) async fn instances(client: &Client, service: &str, count: usize) -> Outcome<()> {
    let begun = Instant::now();
    loop {
        let inbox = client.new_inbox();
        let mut pongs = client.subscribe(inbox.clone()).await?;
        client
            .publish_with_reply(format!("$SRV.PING.{service}"), inbox, "".into())
            .await?;
        let mut seen = 0;
        while let Ok(Some(pong)) = timeout(Duration::from_millis(500), pongs.next()).await {
            // nobody at all is told by a status
            seen += usize::from(pong.status.is_none());
        }
        if seen == count {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("{seen} instances of {service} answer, not {count}").into());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Answers voice commands a second after they come, as many at once as there are.
pub(crate) async fn slow(client: Client) -> Outcome<()> {
    answering(client, Duration::from_secs(1)).await
}

/// Answers voice commands as they come.
pub(crate) async fn quick(client: Client) -> Outcome<()> {
    answering(client, Duration::ZERO).await
}

async fn answering(client: Client, after: Duration) -> Outcome<()> {
    let mut commands = client
        .queue_subscribe("gw.v1.cmd.*.voice.*", "voice".to_owned())
        .await?;
    client.flush().await?;
    tokio::spawn(async move {
        while let Some(command) = commands.next().await {
            let client = client.clone();
            tokio::spawn(async move {
                sleep(after).await;
                if let Some(reply) = command.reply {
                    let _away = client.publish(reply, "{\"late\":true}".into()).await;
                }
            });
        }
    });
    Ok(())
}
