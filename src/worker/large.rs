//! Bodies above the broker's payload limit: put into the object store, fetched from it, size and hash verified.

use std::time::Duration;

use async_nats::{Client, jetstream};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use ulid::Ulid;

use crate::bus::contract::HEADER_ROOM;
use crate::message::{Code, Fault};

/// One transfer; a missing chunk would otherwise hang.
const TRANSFER: Duration = Duration::from_secs(60);
/// Where bodies of commands, answers and events are.
const BUCKET: &str = "GW_BODIES";
/// Nothing larger is put or fetched, whoever asks.
const MAX_SIZE: u64 = 512 << 20;

/// `object:<bucket>/<name>;size=<bytes>;sha256=<hex>`, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    name: &'a str,
    size: u64,
    sha256: &'a str,
}

fn parse(text: &str) -> Option<Reference<'_>> {
    let (place, rest) = text.strip_prefix("object:")?.split_once(";size=")?;
    let (size, sha256) = rest.split_once(";sha256=")?;
    let (bucket, name) = place.split_once('/')?;
    let size = size.parse().ok().filter(|size| *size <= MAX_SIZE)?;
    (bucket == BUCKET && !name.is_empty()).then_some(Reference { name, size, sha256 })
}

/// What a body travels as: itself, or nothing and the reference to where it was put.
pub(super) async fn outgoing(client: &Client, body: Bytes) -> Result<(Bytes, Option<String>), Fault> {
    let limit = client.max_payload().saturating_sub(HEADER_ROOM);
    if body.len() <= limit {
        return Ok((body, None));
    }
    let size = body.len() as u64;
    if size > MAX_SIZE {
        let text = format!("{size} bytes are more than a body may have ({MAX_SIZE})");
        return Err(Fault::new(Code::TooLarge, text));
    }
    let lost = |cause: String| {
        let text = format!("{size} bytes need the object store, which does not take them: {cause}");
        Fault::new(Code::TooLarge, text)
    };
    let name = Ulid::new().to_string();
    let putting = async {
        let store = jetstream::new(client.clone()).get_object_store(BUCKET).await;
        let store = store.map_err(|error| lost(error.to_string()))?;
        let put = store.put(name.as_str(), &mut &body[..]).await;
        put.map_err(|error| lost(error.to_string()))
    };
    timeout(TRANSFER, putting)
        .await
        .unwrap_or_else(|_| Err(lost("no answer in time".to_owned())))?;
    let sha256 = hex(&Sha256::digest(&body));
    let reference = format!("object:{BUCKET}/{name};size={size};sha256={sha256}");
    Ok((Bytes::new(), Some(reference)))
}

/// The body a `Gw-Body` header refers to.
pub(super) async fn fetch(client: &Client, reference: &str) -> Result<Bytes, Fault> {
    let Some(reference) = parse(reference) else {
        return Err(Fault::new(
            Code::Invalid,
            "the reference to the large body is not understood",
        ));
    };
    let lost = |cause: String| {
        Fault::new(
            Code::WorkerError,
            format!("the large body cannot be fetched: {cause}"),
        )
    };
    let fetching = async {
        let store = jetstream::new(client.clone()).get_object_store(BUCKET).await;
        let store = store.map_err(|error| lost(error.to_string()))?;
        let object = store.get(reference.name).await;
        let mut body = Vec::new();
        // one byte more than told shows a wrong size
        let mut object = object
            .map_err(|error| lost(error.to_string()))?
            .take(reference.size + 1);
        object
            .read_to_end(&mut body)
            .await
            .map_err(|error| lost(error.to_string()))?;
        Ok(body)
    };
    let body = timeout(TRANSFER, fetching)
        .await
        .unwrap_or_else(|_| Err(lost("no answer in time".to_owned())))?;
    if body.len() as u64 != reference.size || hex(&Sha256::digest(&body)) != reference.sha256 {
        return Err(lost("it is damaged".to_owned()));
    }
    Ok(body.into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let found = parse("object:GW_BODIES/abc;size=12;sha256=00ff").map(|it| (it.name, it.size, it.sha256));
        assert_eq!(found, Some(("abc", 12, "00ff")));
        for other in [
            "",
            "object:OTHER/abc;size=12;sha256=00",
            "object:GW_BODIES/;size=12;sha256=00",
            "object:GW_BODIES/abc;size=x;sha256=00",
            "object:GW_BODIES/abc;size=99999999999;sha256=00",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
