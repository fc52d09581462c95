"""The worker as a NATS micro service: found by PING and INFO, counted in STATS.

By hand, because a library would count a request from its receipt to the return of its handler: here a request ends
with its final reply, long after.
"""

import json
import time
import uuid
from datetime import datetime, timezone

VERSION = "0.1.0"
_TYPE = "io.nats.micro.v1.{}_response"


class Endpoint:
    """One action and what became of its requests."""

    def __init__(self, name: str, subject: str):
        self.name, self.subject = name, subject
        self.requests = self.errors = self.nanoseconds = 0
        self.last_error = ""

    def count(self, started: float, error: str | None) -> None:
        """A request has had its final reply."""
        self.requests += 1
        self.nanoseconds += int((time.monotonic() - started) * 1e9)
        if error is not None:
            self.errors += 1
            self.last_error = error


class Service:
    """Answers `$SRV.*` for one instance."""

    def __init__(self, name: str, description: str, metadata: dict[str, str], subjects: dict[str, str]):
        self.name, self.description, self.metadata = name, description, metadata
        self.id = uuid.uuid4().hex
        self.started = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
        self.endpoints = {action: Endpoint(action, subject) for action, subject in subjects.items()}
        self._heard = []

    async def open(self, connection) -> None:
        for verb, told in (("PING", self._ping), ("INFO", self._info), ("STATS", self._stats)):

            async def answer(message, told=told):
                await message.respond(json.dumps(told()).encode())

            for subject in (verb, f"{verb}.{self.name}", f"{verb}.{self.name}.{self.id}"):
                self._heard.append(await connection.subscribe(f"$SRV.{subject}", cb=answer))

    async def close(self) -> None:
        for subscription in self._heard:
            await subscription.unsubscribe()
        self._heard.clear()

    def _identity(self, kind: str) -> dict:
        return {
            "type": _TYPE.format(kind),
            "name": self.name,
            "id": self.id,
            "version": VERSION,
            "metadata": self.metadata,
        }

    def _ping(self) -> dict:
        return self._identity("ping")

    def _info(self) -> dict:
        endpoints = [
            {"name": one.name, "subject": one.subject, "queue_group": self.name, "metadata": {}}
            for one in self.endpoints.values()
        ]
        return {**self._identity("info"), "description": self.description, "endpoints": endpoints}

    def _stats(self) -> dict:
        endpoints = [
            {
                "name": one.name,
                "subject": one.subject,
                "queue_group": self.name,
                "num_requests": one.requests,
                "num_errors": one.errors,
                "last_error": one.last_error,
                "processing_time": one.nanoseconds,
                "average_processing_time": one.nanoseconds // max(1, one.requests),
            }
            for one in self.endpoints.values()
        ]
        return {**self._identity("stats"), "started": self.started, "endpoints": endpoints}
