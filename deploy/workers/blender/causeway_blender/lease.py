"""The lease: of several workers for one space only the holder serves, the others stand by."""

import asyncio
import json
import logging
import os
import socket
import time
import uuid

import nats.errors
import nats.js.errors
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

log = logging.getLogger(__name__)

STREAM = "GW_LEASES"
AGE = 10.0
RENEW = 3.0
# given up before anybody else can have it
GIVE_UP = 8.0
EXCHANGE = 2.0
_TAKEN = 10071


class Lease:
    """`gw.v1.lease.<space>.<service>`: taken by compare and set, renewed while held."""

    def __init__(self, connection, space: str, service: str):
        self._stream = connection.jetstream(timeout=EXCHANGE)
        self._subject = f"gw.v1.lease.{space}.{service}"
        self._id = uuid.uuid4().hex
        holder = f"{socket.gethostname()}/{os.getpid()}"
        self._claim = json.dumps({"holder": holder, "id": self._id}).encode()
        self._sequence = 0
        self._since = 0.0

    async def open(self) -> None:
        """Creates the stream for a worker that is here before any gateway."""
        try:
            await self._stream.stream_info(STREAM)
        except nats.js.errors.NotFoundError:
            await self._stream.add_stream(
                StreamConfig(
                    name=STREAM,
                    subjects=["gw.v1.lease.>"],
                    retention=RetentionPolicy.LIMITS,
                    storage=StorageType.MEMORY,
                    max_msgs_per_subject=1,
                    max_age=AGE,
                    duplicate_window=AGE,
                    allow_direct=True,
                )
            )

    async def take(self) -> None:
        """Returns when it is ours."""
        standing_by = False
        while True:
            try:
                if await self._claimed(0) or await self._ours_already():
                    return
                if not standing_by:
                    standing_by = True
                    log.info("another worker serves this space; standing by")
            except (nats.errors.Error, asyncio.TimeoutError) as error:
                log.debug("standing by: %r", error)
            await asyncio.sleep(1)

    async def keep(self) -> None:
        """Renews; returns when the lease is lost."""
        pause = RENEW
        while True:
            await asyncio.sleep(max(0.0, pause))
            try:
                if not await self._claimed(self._sequence) and not await self._ours_already():
                    return log.warning("the lease was taken by another worker")
                pause = RENEW
            except (nats.errors.Error, asyncio.TimeoutError) as error:
                if time.monotonic() - self._since > GIVE_UP - EXCHANGE:
                    return log.warning("the lease ran out: %r", error)
                pause = 0.5

    async def release(self) -> None:
        """Gives it up, so that who stands by need not wait for its end."""
        try:
            await self._stream.delete_msg(STREAM, self._sequence)
        except (nats.errors.Error, asyncio.TimeoutError) as error:
            log.debug("the lease is left to run out: %r", error)

    async def _claimed(self, expected: int) -> bool:
        sent = time.monotonic()
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        try:
            stored = await self._stream.publish(self._subject, self._claim, headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code == _TAKEN:
                return False
            raise
        self._sequence, self._since = stored.seq, sent
        return True

    async def _ours_already(self) -> bool:
        """An unconfirmed claim of our own, or a broker that restarted and forgot."""
        try:
            last = await self._stream.get_last_msg(STREAM, self._subject)
        except nats.js.errors.NotFoundError:
            return await self._claimed(0)
        try:
            ours = json.loads(last.data or b"{}").get("id") == self._id
        except ValueError:
            ours = False
        return ours and await self._claimed(last.seq)
