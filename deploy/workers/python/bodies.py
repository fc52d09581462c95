"""Bodies too large for one message, for a worker to copy: they go through the object store, and a header says where."""

import asyncio
import hashlib
import uuid

import nats

BUCKET = "GW_BODIES"
# what the headers beside a body may take of a message
HEADERS = 4096
PATIENCE = 60


class Trouble(Exception):
    """A failure told to the client: a number of the contract and a sentence that says what to do."""

    def __init__(self, code: int, text: str):
        super().__init__(text)
        self.code = code


async def pack(client, body: bytes) -> tuple[bytes, dict[str, str]]:
    """A body as it travels: itself, or nothing and the header that refers to it."""
    if len(body) <= client.max_payload - HEADERS:
        return body, {}
    name = uuid.uuid4().hex
    try:
        async with asyncio.timeout(PATIENCE):
            store = await client.jetstream().object_store(BUCKET)
            await store.put(name, body)
    except (nats.errors.Error, TimeoutError) as error:
        raise Trouble(413, f"{len(body)} bytes need the object store, which does not take them: {error}") from error
    return b"", {"Gw-Body": f"object:{BUCKET}/{name};size={len(body)};sha256={hashlib.sha256(body).hexdigest()}"}


async def unpack(client, data: bytes, headers: dict) -> bytes:
    """The body of a message, from wherever it is."""
    reference = headers.get("Gw-Body")
    if not reference:
        return data
    place, _, told = reference.partition(";")
    bucket, _, name = place.removeprefix("object:").partition("/")
    if bucket != BUCKET:
        raise Trouble(400, f"large bodies are in {BUCKET}, not in {bucket}")
    try:
        async with asyncio.timeout(PATIENCE):
            store = await client.jetstream().object_store(bucket)
            body = (await store.get(name)).data
    except (nats.errors.Error, TimeoutError) as error:
        raise Trouble(500, f"the parameters cannot be fetched: {error}") from error
    if told != f"size={len(body)};sha256={hashlib.sha256(body).hexdigest()}":
        raise Trouble(500, "the parameters are damaged")
    return body
