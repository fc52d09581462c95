//! The object store as JetStream keeps it: chunks and a description per object, written and read on 2.9 and newer.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::object_store::{GetErrorKind, ObjectStore};
use async_nats::jetstream::stream::{self, DiscardPolicy, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::{Bytes, BytesMut};
use futures_util::stream::FuturesOrdered;
use futures_util::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::task::{JoinHandle, spawn_blocking, yield_now};
use tokio::time::sleep;
use ulid::Ulid;

use super::reference::{Bucket, Reference};
use super::sweep;

/// Bytes of one chunk; larger ones are no faster.
const CHUNK: usize = 512 << 10;
/// Chunks on their way to the server at once.
const AHEAD: usize = 4;
/// A body beyond this keeps the server and us busy for so long that others would notice: it goes in small chunks, each
/// hashed in its turn, with a rest after each.
const LONG: usize = 16 << 20;
/// Bytes of one chunk of such a body.
const STEP: usize = 128 << 10;
/// How long others have the processors to themselves after each.
const REST: Duration = Duration::from_millis(1);

/// What went wrong, before it is put into a client's words.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no such object any more.
    Gone,
    /// The object is not what the reference promises.
    Damaged(&'static str),
    /// The bucket takes no more.
    Full,
    /// The broker's words.
    Bus(String),
}

impl Trouble {
    pub(super) fn bus(error: impl std::error::Error) -> Self {
        use std::fmt::Write as _;
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        if text.contains("maximum bytes exceeded") || text.contains("resource limits exceeded") {
            Self::Full
        } else {
            Self::Bus(text)
        }
    }
}

/// One bucket, both as store and as the stream it is.
#[derive(Clone)]
struct Place {
    store: ObjectStore,
    stream: Stream,
}

/// Both buckets.
#[derive(Clone)]
pub(super) struct Objects {
    context: Context,
    bodies: Place,
    state: Place,
}

impl Objects {
    /// Finds or creates the buckets, and gives existing ones the configured limits.
    pub(super) async fn open(
        client: Client,
        max_bytes: u64,
        max_age: Duration,
        replicas: usize,
    ) -> Result<Self, (Bucket, String)> {
        let context = jetstream::new(client);
        let limit = i64::try_from(max_bytes).unwrap_or(i64::MAX);
        let open = async |bucket, max_age| {
            place(&context, bucket, limit, max_age, replicas)
                .await
                .map_err(|cause| (bucket, cause))
        };
        Ok(Self {
            bodies: open(Bucket::Bodies, max_age).await?,
            state: open(Bucket::StateBodies, Duration::ZERO).await?,
            context: context.clone(),
        })
    }

    pub(super) fn client(&self) -> Client {
        self.context.client()
    }

    fn place(&self, bucket: Bucket) -> &Place {
        match bucket {
            Bucket::Bodies => &self.bodies,
            Bucket::StateBodies => &self.state,
        }
    }

    /// Stores the bytes under a fresh name. Chunks are slices of the body: nothing is copied.
    pub(super) async fn put(&self, bucket: Bucket, body: Bytes) -> Result<Reference, Trouble> {
        let name = Ulid::new().to_string();
        let place = self.place(bucket);
        let subjects = [chunks(bucket, &name), description_of(bucket, &name)];
        let unfinished = Unfinished::new(place.stream.clone(), subjects);
        let most = self.client().max_payload();
        let long = body.len() > LONG;
        let chunk = if long { STEP } else { CHUNK };
        let chunk = if most == 0 { chunk } else { chunk.min(most) };
        let count = body.len().div_ceil(chunk);

        // sent one after the other, since their order is the body; confirmed a few behind
        let mut waiting = FuturesOrdered::new();
        let (mut hashing, mut hasher) = (None, Sha256::new());
        for index in 0..count {
            let end = body.len().min((index + 1) * chunk);
            let slice = body.slice(index * chunk..end);
            let sent = self.context.publish(chunks(bucket, &name), slice.clone()).await;
            waiting.push_back(sent.map_err(Trouble::bus)?.into_future());
            if long {
                hasher.update(&slice);
                sleep(REST).await;
            }
            if waiting.len() >= AHEAD {
                if !long && hashing.is_none() {
                    hashing = Some(hash(&body).await);
                }
                if let Some(stored) = waiting.next().await {
                    stored.map_err(Trouble::bus)?;
                }
            }
        }
        let sha256 = match hashing {
            _ if long => hasher.finalize().into(),
            Some(hashing) => hashing.await.map_err(Trouble::bus)?,
            None => hash(&body).await.await.map_err(Trouble::bus)?,
        };
        let description = serde_json::json!({
            "name": name,
            "bucket": bucket.name(),
            "nuid": name,
            "size": body.len(),
            "mtime": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            "chunks": count,
            "digest": format!("SHA-256={}", URL_SAFE.encode(sha256)),
            "options": { "max_chunk_size": chunk },
        });
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        let payload = Bytes::from(description.to_string());
        // right behind the last chunks: nobody knows the name before all of it is confirmed
        let subject = description_of(bucket, &name);
        let sent = self.context.publish_with_headers(subject, headers, payload).await;
        waiting.push_back(sent.map_err(Trouble::bus)?.into_future());
        while let Some(stored) = waiting.next().await {
            stored.map_err(Trouble::bus)?;
        }
        unfinished.finished();
        Ok(Reference {
            bucket,
            name,
            size: body.len() as u64,
            sha256,
        })
    }

    /// Reads an object whole and verifies it against its reference.
    pub(super) async fn get(&self, reference: &Reference) -> Result<Bytes, Trouble> {
        let place = self.place(reference.bucket);
        let mut object = match place.store.get(&reference.name).await {
            Ok(object) => object,
            Err(error) if error.kind() == GetErrorKind::NotFound => return Err(Trouble::Gone),
            Err(error) => return Err(Trouble::bus(error)),
        };
        let info = object.info();
        if info.size as u64 != reference.size {
            return Err(Trouble::Damaged("its size is not the one announced"));
        }
        // the reader verifies the content against the digest, so that one pass is enough
        let digest = format!("SHA-256={}", URL_SAFE.encode(reference.sha256));
        if info.digest.as_deref() != Some(digest.as_str()) {
            return Err(Trouble::Damaged("its hash is not the one announced"));
        }
        place.complete(reference, &info.nuid, info.chunks).await?;

        let size = info.size;
        let mut body = BytesMut::with_capacity(size);
        while body.len() < size {
            match object.read_buf(&mut body).await {
                Ok(0) => return Err(Trouble::Damaged("it ends early")),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(Trouble::Damaged("its content does not match its hash"));
                }
                Err(error) => return Err(Trouble::bus(error)),
            }
        }
        Ok(body.freeze())
    }

    /// Removes an object with everything that reminds of it.
    pub(super) async fn delete(&self, bucket: Bucket, name: &str) -> Result<(), Trouble> {
        let place = self.place(bucket);
        match place.store.info(name).await {
            // put by somebody else: its chunks have a name of their own
            Ok(info) if info.nuid != name => {
                place.purge(chunks(bucket, &info.nuid)).await?;
            }
            _ => {}
        }
        place.purge(chunks(bucket, name)).await?;
        place.purge(description_of(bucket, name)).await
    }

    /// Removes what no state names and is older than `grace`.
    pub(super) async fn sweep(&self, bucket: Bucket, grace: Duration) -> Result<usize, Trouble> {
        let place = self.place(bucket);
        let filter = format!("$O.{}.>", bucket.name());
        let subjects: Vec<String> = place
            .stream
            .info_with_subjects(filter)
            .await
            .map_err(Trouble::bus)?
            .map_ok(|(subject, _)| subject)
            .try_collect()
            .await
            .map_err(Trouble::bus)?;
        // the candidates first: usually there are none, and what is named meanwhile is seen below
        let mut stale = sweep::stale(&subjects, bucket, SystemTime::now(), grace);
        if stale.is_empty() {
            return Ok(0);
        }
        for name in sweep::named(&self.context).await? {
            stale.remove(&name);
        }
        for name in &stale {
            self.delete(bucket, name).await?;
        }
        Ok(stale.len())
    }
}

impl Place {
    /// Counts the chunks before reading: a reader waits for a missing one until its deadline.
    async fn complete(&self, reference: &Reference, nuid: &str, expected: usize) -> Result<(), Trouble> {
        let subject = chunks(reference.bucket, nuid);
        let mut info = self
            .stream
            .info_with_subjects(&subject)
            .await
            .map_err(Trouble::bus)?;
        let counted = info.try_next().await.map_err(Trouble::bus)?;
        let Some((_, found)) = counted else {
            return Err(Trouble::Gone);
        };
        if found == expected {
            return Ok(());
        }
        // age and size limits take the oldest messages of the whole bucket: then nothing older than our first is left
        let first = self
            .stream
            .direct_get_first_for_subject(subject)
            .await
            .map_err(Trouble::bus)?;
        let oldest = info.info.state.first_sequence;
        if oldest > 1 && first.sequence <= oldest {
            return Err(Trouble::Gone);
        }
        Err(Trouble::Damaged("parts of it are missing"))
    }

    async fn purge(&self, subject: String) -> Result<(), Trouble> {
        let purged = self.stream.purge().filter(subject).await;
        purged.map(|_| ()).map_err(Trouble::bus)
    }
}

/// Takes back what was stored by a put that did not come to its end.
struct Unfinished(Option<(Stream, [String; 2])>);

impl Unfinished {
    fn new(stream: Stream, subjects: [String; 2]) -> Self {
        Self(Some((stream, subjects)))
    }

    fn finished(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (Some((stream, subjects)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        // best effort; what stays ages out or is swept
        runtime.spawn(async move {
            for subject in subjects {
                let purging = stream.purge().filter(subject).into_future();
                let _ = tokio::time::timeout(Duration::from_secs(10), purging).await;
            }
        });
    }
}

/// Hashes what is on its way: a few hundredths of a second, so on no thread that serves connections, and not
/// before the first chunks were written, whose processor it would take.
async fn hash(body: &Bytes) -> JoinHandle<[u8; 32]> {
    let body = body.clone();
    yield_now().await;
    spawn_blocking(move || Sha256::digest(&body).into())
}

/// Subject of an object's chunks.
pub(super) fn chunks(bucket: Bucket, nuid: &str) -> String {
    format!("$O.{}.C.{nuid}", bucket.name())
}

/// Subject of an object's description.
pub(super) fn description_of(bucket: Bucket, name: &str) -> String {
    format!("$O.{}.M.{}", bucket.name(), URL_SAFE.encode(name))
}

/// Finds or creates one bucket.
async fn place(
    context: &Context,
    bucket: Bucket,
    max_bytes: i64,
    max_age: Duration,
    replicas: usize,
) -> Result<Place, String> {
    let name = bucket.name();
    let wanted = stream::Config {
        name: format!("OBJ_{name}"),
        description: Some("large bodies, see Gw-Body".to_owned()),
        subjects: vec![format!("$O.{name}.C.>"), format!("$O.{name}.M.>")],
        max_age,
        max_bytes,
        // an event may be replayed without its body; state must be refused while it is not safe
        discard: match bucket {
            Bucket::Bodies => DiscardPolicy::Old,
            Bucket::StateBodies => DiscardPolicy::New,
        },
        storage: stream::StorageType::File,
        num_replicas: replicas,
        allow_rollup: true,
        allow_direct: true,
        ..Default::default()
    };
    let stream = match context.get_stream(&wanted.name).await {
        Ok(found) => {
            let mut config = found.cached_info().config.clone();
            if (config.max_age, config.max_bytes, config.num_replicas) != (max_age, max_bytes, replicas) {
                (config.max_age, config.max_bytes, config.num_replicas) = (max_age, max_bytes, replicas);
                let updated = context.update_stream(&config).await;
                updated.map_err(|error| error.to_string())?;
            }
            found
        }
        Err(error) => match error.kind() {
            // 404: not there yet; two gateways that start together create the same
            GetStreamErrorKind::JetStream(answer) if answer.code() == 404 => context
                .create_stream(wanted)
                .await
                .map_err(|error| error.to_string())?,
            _ => return Err(error.to_string()),
        },
    };
    let store = context
        .get_object_store(name)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Place { store, stream })
}
