"""Whether clients may run code: only when the worker's owner said so, and not for a gateway that strangers reach."""

import asyncio
import json
import logging

from .wire import Failure

log = logging.getLogger(__name__)

EVERY = 3
LISTEN = 0.5


class Gate:
    """Closed until it has heard what the gateways say of themselves."""

    def __init__(self, allow_code: bool, allow_exposed: bool):
        self.allow_code, self.allow_exposed = allow_code, allow_exposed
        self.exposed: bool | None = None

    def check(self) -> None:
        """Raises where code must not run."""
        if not self.allow_code:
            raise Failure("unauthorized", "running code is switched off; the worker's owner allows it with --allow-code")
        if self.allow_exposed:
            return
        if self.exposed is None:
            raise Failure("busy", "the worker has only just started; try again")
        if self.exposed:
            text = "running code is refused because the gateway can be reached from other machines without a password;"
            raise Failure("unauthorized", f"{text} the worker's owner allows it with --allow-exposed")

    async def watch(self, connection) -> None:
        """Asks the gateways again and again: one may be started with other settings."""
        if not self.allow_code or self.allow_exposed:
            return
        while True:
            try:
                answers = await _ask(connection)
                exposed = any(answer.get("metadata", {}).get("exposed") == "true" for answer in answers)
                if exposed and not self.exposed:
                    log.warning("the gateway is exposed: code is refused until --allow-exposed is given")
                self.exposed = exposed
            except Exception as error:
                log.debug("the gateways were not asked: %r", error)
            await asyncio.sleep(EVERY)


async def _ask(connection) -> list[dict]:
    inbox = connection.new_inbox()
    answers = []

    async def hear(message):
        # no answer at all is said with an empty message
        if message.data:
            answers.append(json.loads(message.data))

    subscription = await connection.subscribe(inbox, cb=hear)
    await connection.publish("$SRV.INFO.gateway", b"", reply=inbox)
    await asyncio.sleep(LISTEN)
    await subscription.unsubscribe()
    return answers
