//! `causeway screenshots`: writes pictures on the machine of the scripts that asked for them, or takes one now.
//!
//! A script looks for its file on its own machine. Where the gateway is elsewhere, this hears the same pictures on the
//! bus and writes them there, in the same directories and by the same rules.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};
use ulid::Ulid;

use super::{WorkerError, connect, large, outlet, until_told};
use crate::bus::contract::{self, headers};
use crate::config::Config;
use crate::message::{Class, Space};
use crate::picture::{Files, Picture};

/// A broker that is there, or just starts, answers sooner.
const CONNECT: Duration = Duration::from_secs(10);
/// What a page may take.
const PATIENCE: Duration = Duration::from_secs(35);

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum NoPicture {
    /// NATS, or the signals.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The space's name, or what NATS says.
    #[error("{0}")]
    Bus(String),
    /// NATS is not there.
    #[error("no NATS at {0}; --nats-url says where it is")]
    Away(String),
    /// Nobody could take it.
    #[error("no page took a picture: {0}")]
    Page(String),
    /// It came.
    #[error("{}: {why}", file.display())]
    Unwritten {
        /// Where it should be.
        file: PathBuf,
        /// Why it is not.
        why: String,
    },
}

/// Writes every picture that scripts of a space ask for, until SIGTERM or SIGINT; `told` hears of each.
///
/// # Errors
/// [`NoPicture`] when NATS cannot be used.
pub async fn follow(config: &Config, space: &str, told: impl Fn(&str)) -> Result<(), NoPicture> {
    let space = parse(space)?;
    let stop = until_told()?;
    let connecting = connect::open(&config.nats, "screenshots", &stop);
    tokio::pin!(connecting);
    let connected = match timeout(CONNECT, &mut connecting).await {
        Ok(connected) => connected?,
        Err(_) => {
            told(&format!(
                "waiting for NATS at {}; --nats-url says where it is",
                config.nats.shown()
            ));
            connecting.await?
        }
    };
    let Some(connected) = connected else {
        return Ok(());
    };
    let mut pictures = subscribe(&connected.client, config, &space).await?;
    let files = Files::new(config.cad.screenshots.clone());
    told(&format!("waiting for pictures of the space {space}"));
    loop {
        let message = tokio::select! {
            message = pictures.next() => message,
            () = stop.cancelled() => break,
        };
        let Some(message) = message else { break };
        let Some(picture) = read(&connected.client, &message).await else {
            continue;
        };
        match files.write(&picture) {
            Ok(file) => told(&format!("written: {}", file.display())),
            Err(why) => told(&format!("not written: {:?}: {why}", picture.filename)),
        }
    }
    connected.close().await;
    Ok(())
}

/// Takes a picture of what a space shows, and writes it to `file`.
///
/// # Errors
/// [`NoPicture`].
pub async fn take(config: &Config, space: &str, file: &Path) -> Result<(), NoPicture> {
    let unwritten = |why: String| NoPicture::Unwritten {
        file: file.to_owned(),
        why,
    };
    let space = parse(space)?;
    let wanted = std::path::absolute(file).map_err(|error| unwritten(error.to_string()))?;
    let folder = wanted.parent().map(Path::to_owned).unwrap_or_default();
    let stop = until_told()?;
    let connecting = timeout(CONNECT, connect::open(&config.nats, "screenshots", &stop)).await;
    let away = |_| NoPicture::Away(config.nats.shown());
    let Some(connected) = connecting.map_err(away)?? else {
        return Ok(());
    };
    let client = &connected.client;
    let mut pictures = subscribe(client, config, &space).await?;
    // a name nobody else asks for, so that no other writes it and this is the one that comes
    let name = format!("{}-{}", wanted.display(), Ulid::new());
    let mut answers = ask(client, &space, &name).await?;
    let end = Instant::now() + PATIENCE;
    let picture = loop {
        let message = tokio::select! {
            message = timeout_at(end, pictures.next()) => message.ok().flatten(),
            answer = answers.next() => match answer.as_ref().and_then(refusal) {
                Some(refused) => return Err(NoPicture::Page(refused)),
                None => continue,
            },
            () = stop.cancelled() => return Ok(()),
        };
        let Some(message) = message else {
            return Err(NoPicture::Page("no answer in time".to_owned()));
        };
        if let Some(picture) = read(client, &message).await
            && picture.filename == name
        {
            break Picture {
                filename: wanted.display().to_string(),
                ..picture
            };
        }
    };
    // whoever types a path may write there
    let written = Files::new(vec![folder]).write(&picture).map_err(unwritten);
    connected.close().await;
    written.map(|_| ())
}

fn parse(space: &str) -> Result<Space, NoPicture> {
    Space::parse(space).map_err(|fault| NoPicture::Bus(fault.text))
}

/// Pictures as they come; without streams nobody republishes them.
async fn subscribe(client: &Client, config: &Config, space: &Space) -> Result<Subscriber, NoPicture> {
    let subject = if config.events.history {
        contract::live(space.as_str(), "cad").map(|all| all.replace(".>", ".screenshot"))
    } else {
        contract::fact(Class::Event, space.as_str(), "cad", "screenshot")
    };
    let subject = subject.map_err(|fault| NoPicture::Bus(fault.text))?;
    let subscriber = client
        .subscribe(subject)
        .await
        .map_err(|error| NoPicture::Bus(error.to_string()))?;
    client
        .flush()
        .await
        .map_err(|error| NoPicture::Bus(error.to_string()))?;
    Ok(subscriber)
}

async fn ask(client: &Client, space: &Space, name: &str) -> Result<Subscriber, NoPicture> {
    let subject = contract::command(space.as_str(), "viewer", "screenshot");
    let subject = subject.map_err(|fault| NoPicture::Bus(fault.text))?;
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await;
    let answers = answers.map_err(|error| NoPicture::Bus(error.to_string()))?;
    let mut head = HeaderMap::new();
    head.insert(headers::MSG_ID, Ulid::new().to_string());
    head.insert(headers::TIME, outlet::unix_now().to_string());
    let body = json!({"type": "screenshot", "filename": name}).to_string();
    client
        .publish_with_reply_and_headers(subject, inbox, head, body.into())
        .await
        .map_err(|error| NoPicture::Bus(error.to_string()))?;
    Ok(answers)
}

/// Why an answer is none.
fn refusal(answer: &Message) -> Option<String> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Some("no page of this space is open at any gateway; open /viewer".to_owned());
    }
    let text = answer.headers.as_ref()?.get(headers::ERROR)?;
    Some(text.to_string())
}

/// The picture of an event, fetched where it is large; `None` when it is none.
async fn read(client: &Client, message: &Message) -> Option<Picture> {
    let reference = message
        .headers
        .as_ref()
        .and_then(|head| head.get(headers::BODY))
        .map(ToString::to_string);
    let body = match reference {
        Some(reference) => large::fetch(client, &reference)
            .await
            .inspect_err(|fault| tracing::warn!(%fault, "a picture is lost"))
            .ok()?,
        None => message.payload.clone(),
    };
    Picture::read(&body)
}
