//! Parameters above the broker's payload limit: fetched from the object store, size and hash verified.

use std::time::Duration;

use async_nats::{Client, jetstream};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::message::{Code, Fault};

/// One fetch; a missing chunk would otherwise hang.
const FETCH: Duration = Duration::from_secs(60);
/// Where bodies of commands are.
const BUCKET: &str = "GW_BODIES";
/// Nothing larger is fetched, whoever refers to it.
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

/// The body a `Gw-Body` header refers to.
pub(super) async fn fetch(client: &Client, reference: &str) -> Result<Bytes, Fault> {
    let Some(reference) = parse(reference) else {
        return Err(Fault::new(
            Code::Invalid,
            "the reference to the parameters is not understood",
        ));
    };
    let lost = |cause: String| {
        Fault::new(
            Code::WorkerError,
            format!("the parameters cannot be fetched: {cause}"),
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
    let body = timeout(FETCH, fetching)
        .await
        .unwrap_or_else(|_| Err(lost("no answer in time".to_owned())))?;
    if body.len() as u64 != reference.size || hex(&Sha256::digest(&body)) != reference.sha256 {
        return Err(lost("they are damaged".to_owned()));
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
