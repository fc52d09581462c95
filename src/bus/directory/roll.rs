//! A roll call: everybody who serves is asked once who he is and what he has done.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use thiserror::Error;
use tokio::time::timeout;

use super::answers::{Answer, plain};
use super::roster::{Key, instance};
use super::{Instance, Stats};
use crate::bus::login;
use crate::config;

/// A broker that is there answers sooner.
const CONNECT: Duration = Duration::from_secs(5);
/// Asking, and leaving.
const SEND: Duration = Duration::from_secs(2);
/// Who answers later than this after the last one is not waited for.
const QUIET: Duration = Duration::from_millis(750);
/// More than this many answers are not read.
const MOST: usize = 8192;

/// Why nobody was asked.
#[derive(Debug, Error)]
pub enum NoRoll {
    /// A setting that cannot be used.
    #[error("{key}: {cause}")]
    Setting {
        /// Which.
        key: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// Nobody can have this name.
    #[error("no service can be called {0:?}: letters, digits, _ and - are allowed")]
    Name(String),
    /// NATS is not there, or does not let us in.
    #[error(
        "NATS at {place} cannot be asked: {cause}; --nats-url says where it is, nats.user and its like who asks"
    )]
    Away {
        /// Where it should be.
        place: String,
        /// What is known.
        cause: String,
    },
}

/// Who answers at this NATS, by service and id, each with what he has done as far as he says it; of one service where it
/// is named.
///
/// # Errors
/// [`NoRoll`].
pub async fn roll(
    nats: &config::Nats,
    service: Option<&str>,
) -> Result<Vec<(Instance, Option<Stats>)>, NoRoll> {
    if let Some(name) = service.filter(|name| !plain(name)) {
        return Err(NoRoll::Name(name.to_owned()));
    }
    let (host, port) = nats.server();
    // never the whole address: it may hold a password
    let away = |cause| NoRoll::Away {
        place: format!("{host}:{port}"),
        cause,
    };
    let silent = |_| away("no answer".to_owned());
    let options = ConnectOptions::new().name("causeway services");
    let options = login::with(options, nats).await;
    let options = options.map_err(|login::Unusable { key, cause }| NoRoll::Setting { key, cause })?;
    let urls = match nats.url.as_slice() {
        [] => vec![format!("nats://127.0.0.1:{}", nats.port)],
        urls => urls.to_vec(),
    };
    let client = timeout(CONNECT, options.connect(urls)).await.map_err(silent)?;
    let client = client.map_err(|error| away(error.to_string()))?;
    let answers = timeout(SEND, ask(&client, service)).await.map_err(silent)?;
    let found = hear(answers.map_err(|error| away(error.to_string()))?).await;
    // the answer is there, whatever becomes of the connection
    let _ = timeout(SEND, client.drain()).await;
    Ok(found)
}

/// Both questions, and where they are answered.
async fn ask(client: &Client, service: Option<&str>) -> Result<Subscriber, async_nats::Error> {
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await?;
    for verb in ["INFO", "STATS"] {
        let subject = match service {
            Some(name) => format!("$SRV.{verb}.{name}"),
            None => format!("$SRV.{verb}"),
        };
        client
            .publish_with_reply(subject, inbox.clone(), Bytes::new())
            .await?;
    }
    client.flush().await?;
    Ok(answers)
}

/// Puts together what comes until it is quiet.
async fn hear(mut answers: Subscriber) -> Vec<(Instance, Option<Stats>)> {
    let mut instances: BTreeMap<Key, Instance> = BTreeMap::new();
    let mut done: BTreeMap<Key, Stats> = BTreeMap::new();
    // nobody listens: said once for each question
    let mut refused = 0;
    while refused < 2 && instances.len() + done.len() < MOST {
        let Ok(Some(message)) = timeout(QUIET, answers.next()).await else {
            break;
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            refused += 1;
        } else if let Some(answer) = Answer::parse(&message.payload).filter(Answer::is_info) {
            let key = (answer.name.clone(), answer.id.clone());
            instances.insert(key, instance(answer, Instant::now()));
        } else if let Some(stats) = Stats::parse(&message.payload) {
            done.insert((stats.name.clone(), stats.id.clone()), stats);
        }
    }
    let with_stats = |(key, instance)| (instance, done.remove(&key));
    instances.into_iter().map(with_stats).collect()
}
