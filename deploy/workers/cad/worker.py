"""Starts the worker: `python3 worker.py --space main`. It measures what pages of a space select."""

import argparse
import asyncio
import json
import logging
import os
import pathlib
import re
import sys
import uuid

import nats.errors
import nats.js.errors

# NATS side, lease and lane are those of the Blender worker
sys.path.insert(0, os.environ.get("GW_WORKER_BASE") or str(pathlib.Path(__file__).resolve().parents[1] / "blender"))

from causeway_blender import bodies  # noqa: E402 the path comes first
from causeway_blender.headless import run  # noqa: E402
from causeway_blender.job import Job  # noqa: E402
from causeway_blender.lane import Lane  # noqa: E402
from causeway_blender.wire import Failure, Reply, now, to_json  # noqa: E402
from causeway_blender.worker import Worker  # noqa: E402

from measure import SELECTED, TOOL, Measure  # noqa: E402

log = logging.getLogger(__name__)

EXACT, STATUS = "exact", "status"
STATE = "GW_STATE"
MEASURE = "measure"


class Followed(Job):
    """Something that happened in the space, in the same queue as what is asked."""

    def __init__(self, work, body: bytes):
        super().__init__(MEASURE, uuid.uuid4().hex, body, None)
        self.work = work


class Measuring(Worker):
    """Beside commands: follows the exact shapes and the pages' reports of its space, and answers selections."""

    def __init__(self, told, lane: Lane, measure: Measure):
        super().__init__(told, lane, "Measurements by upstream's own backend")
        self.measure = measure

    async def _serve(self):
        serving = await super()._serve()
        # one subscription for all topics: a selection must not overtake its shapes
        live = await self.connection.subscribe(f"gw.v1.live.{self.options.space}.cad.*")
        await self.connection.flush()
        self._following = (live, asyncio.create_task(self._follow(live)))
        return serving

    async def _unserve(self, serving, lease) -> None:
        live, task = getattr(self, "_following", (None, None))
        if task:
            task.cancel()
            await live.unsubscribe()
        await super()._unserve(serving, lease)

    async def _follow(self, live) -> None:
        """First what is, then what comes after it."""
        seen = {}
        for topic in (EXACT, STATUS):
            subject = f"gw.v1.state.{self.options.space}.cad.{topic}"
            try:
                last = await self.connection.jetstream(timeout=5).get_last_msg(STATE, subject)
            except nats.js.errors.NotFoundError:
                continue
            except (nats.errors.Error, asyncio.TimeoutError) as error:
                log.warning("the last %s is not known: %r", topic, error)
                continue
            seen[topic] = last.seq
            await self._take(topic, last.headers or {}, last.data or b"", last=True)
        async for message in live.messages:
            topic, headers = message.subject.rsplit(".", 1)[1], message.headers or {}
            # who publishes there without the stream's headers is not the stream
            if topic in (EXACT, STATUS) and int(headers.get("Nats-Sequence", 0)) > seen.get(topic, 0):
                await self._take(topic, headers, message.data)

    async def _take(self, topic: str, headers: dict, payload: bytes, last: bool = False) -> None:
        """Gives it to the thread that measures, in the order it came."""
        work = self.traces.follow("cad", topic, headers, len(payload))
        try:
            if topic == EXACT:
                job = Followed(self.measure.load, await bodies.incoming(self.connection, headers, payload))
            else:
                told = json.loads(payload or b"{}")
                keys = told.get("merged" if last else "said", {})
                # of what was reported before this worker came only the tool counts: nobody waits for an answer
                keys = {name: keys[name] for name in ([TOOL] if last else [TOOL, SELECTED]) if name in keys}
                if not keys:
                    return work.end()
                job = Followed(self.measure.report, to_json({"who": headers.get("Gw-Session", ""), "keys": keys}))
        except Failure as failure:
            work.end(failure)
            return log.warning("%s is not known: %s", topic, failure.text)
        except (ValueError, AttributeError):
            work.end(Failure("invalid", "no JSON object"))
            return log.warning("%s is nothing this worker knows", topic)
        loop = asyncio.get_running_loop()
        job.answer = lambda reply: loop.call_soon_threadsafe(lambda: self._keep(asyncio.ensure_future(self._told(work, reply))))
        if not self.lane.add(job):
            work.end(Failure("busy", "too much waits"))
            log.warning("too much waits to be measured: a report is left out")

    async def _told(self, work, reply: Reply) -> None:
        try:
            await self._tell(work, reply)
        finally:
            work.end(reply.failure)

    async def _tell(self, work, reply: Reply) -> None:
        """States an answer to the pages of the space."""
        if reply.failure:
            return log.warning("not measured: %s", reply.failure.text)
        if not reply.body:
            return
        subject = f"gw.v1.evt.{self.options.space}.cad.response"
        id = uuid.uuid4().hex
        stated = work.publish("cad", "response", id, len(reply.body))
        headers = {"Nats-Msg-Id": id, "Gw-Time": now(), **stated.carry()}
        try:
            await self.connection.jetstream(timeout=5).publish(subject, reply.body, headers=headers)
        except nats.js.errors.NoStreamResponseError:
            # a bus without history: gateways hear it all the same
            log.debug("no stream holds %s", subject)
        except (nats.errors.Error, asyncio.TimeoutError) as error:
            log.warning("an answer is lost: %r", error)
        finally:
            if stated is not work:
                stated.end()


def actions(measure: Measure) -> dict:
    """What the thread that measures does, by name."""

    def ask(job: Job, params: dict) -> Reply:
        if isinstance(job, Followed):
            answer = job.work(params)
            return Reply(to_json(answer) if answer else b"")
        answer = measure.ask(params.get(TOOL), params.get(SELECTED))
        if answer is None:
            raise Failure("invalid", f"{TOOL} and {SELECTED} name nothing that can be measured")
        return Reply(to_json(answer))

    return {MEASURE: ask, "ping": lambda job, params: Reply.done(result={"pong": True})}


def options(arguments: list[str]) -> argparse.Namespace:
    say = argparse.ArgumentParser(prog="causeway cad worker", description=__doc__)
    env = os.environ.get
    say.add_argument("--nats", default=env("GW_NATS_URL", "nats://127.0.0.1:4222"), help="where NATS is")
    say.add_argument("--user", default=env("GW_NATS_USER", ""), help="NATS user")
    say.add_argument("--password", default=env("GW_NATS_PASSWORD", ""), help=argparse.SUPPRESS)
    say.add_argument("--space", default=env("GW_CAD_SPACE", "main"), help="the space it serves")
    say.set_defaults(service="cad", progress=5.0)
    told = say.parse_args(arguments)
    if not re.fullmatch(r"[A-Za-z0-9_=-]{1,128}", told.space):
        say.error("--space is a name of the characters A-Z a-z 0-9 _ -")
    return told


def main() -> int:
    told = options(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s cad worker: %(message)s")
    measure = Measure()
    lane = Lane(actions(measure))
    return run(Measuring(told, lane, measure), lane)


if __name__ == "__main__":
    sys.exit(main())
