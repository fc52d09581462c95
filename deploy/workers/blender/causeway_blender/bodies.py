"""Large bodies: above what one message may carry, through the object store bucket GW_BODIES."""

import asyncio
import hashlib
import io
import re
import uuid

from nats.js.api import ObjectMeta, ObjectMetaOptions

from .wire import Failure

BUCKET = "GW_BODIES"
HEADER = "Gw-Body"
# what headers of one message may take
ROOM = 4096
# one transfer, whatever its size; a reader would wait for a missing chunk for ever
PATIENCE = 60
MOST = 64 << 20

# bodies of state are kept in a bucket of their own
_FORM = re.compile(r"object:(GW_BODIES|GW_STATE_BODIES)/([A-Za-z0-9_-]{1,64});size=([1-9][0-9]{0,8});sha256=([0-9a-f]{64})")


async def outgoing(connection, body: bytes) -> tuple[bytes, dict[str, str]]:
    """The payload to send, and the header that stands for it when it is too large for a message."""
    most = connection.max_payload
    if len(body) <= most - ROOM:
        return body, {}
    if len(body) > MOST:
        raise Failure("too_large", f"the answer has {len(body)} bytes; at most {MOST} can be passed on")
    name = uuid.uuid4().hex
    meta = ObjectMeta(options=ObjectMetaOptions(max_chunk_size=min(512 << 10, most)))
    try:
        store = await connection.jetstream().object_store(BUCKET)
        await asyncio.wait_for(store.put(name, body, meta), PATIENCE)
    except Exception as error:
        raise Failure("too_large", f"the answer has {len(body)} bytes and could not be stored: {error!r}") from error
    return b"", {HEADER: f"object:{BUCKET}/{name};size={len(body)};sha256={hashlib.sha256(body).hexdigest()}"}


async def incoming(connection, headers: dict[str, str], payload: bytes) -> bytes:
    """The body of a message, fetched and verified when the message only refers to it."""
    reference = headers.get(HEADER)
    if reference is None:
        return payload
    match = _FORM.fullmatch(reference)
    if not match or int(match[3]) > MOST:
        raise Failure("invalid", f"{HEADER} does not refer to a body this worker can take")
    body = io.BytesIO()
    try:
        store = await connection.jetstream().object_store(match[1])
        info = await store.get_info(match[2])
        if info.size == int(match[3]):
            await asyncio.wait_for(store.get(match[2], writeinto=body), PATIENCE)
    except Exception as error:
        raise Failure("worker_error", f"the large body could not be fetched: {error!r}") from error
    data = body.getvalue()
    if hashlib.sha256(data).hexdigest() != match[4]:
        raise Failure("worker_error", "the large body is not what was announced")
    return data
