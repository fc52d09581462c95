"""A worker to copy: service `greeter` with two actions. Needs nats-py; NATS_URL says where (default localhost:4222).

greet {"name": "Ada"}  ->  {"greeting": "Hello, Ada!"}
count {"to": 3}        ->  a progress for each number, an event `counted` to everybody, then {"counted": 3}
"""

import asyncio
import json
import os
import signal
import time
import uuid

import bodies
import nats
import traces
from nats.micro import add_service

SERVICE = "greeter"
running: dict[str, asyncio.Task] = {}


class Refused(bodies.Trouble):
    """A failure told to the client: a number of the contract and a sentence that says what to do."""


class Job:
    """One command: what was asked, and what can be said before the final answer."""

    def __init__(self, client, request):
        self.client, self.request = client, request
        self.headers = request.headers or {}
        # gw.v1.cmd.<space>.<service>.<action>
        self.space = request.subject.split(".")[3]
        self.id = self.headers.get("Nats-Msg-Id", "")
        self.params = {}

    async def read(self) -> None:
        """The parameters, from wherever they are."""
        data = await bodies.unpack(self.client, self.request.data, self.headers)
        try:
            self.params = json.loads(data or b"{}")
        except ValueError as error:
            raise Refused(400, f"the parameters are no JSON: {error}") from error
        if not isinstance(self.params, dict):
            raise Refused(400, "the parameters are a JSON object")

    @property
    def late(self) -> bool:
        """Whether nobody waits any more."""
        time_ns, deadline = self.headers.get("Gw-Time"), self.headers.get("Gw-Deadline")
        return bool(time_ns and deadline) and time.time_ns() > int(time_ns) + int(deadline) * 1_000_000

    async def progress(self, body=None) -> None:
        """Tells the sender how it goes; without a body it only keeps the deadline away."""
        data, large = await bodies.pack(self.client, b"" if body is None else json.dumps(body).encode())
        # a plain publish: respond() is for the final answer
        headers = {"Gw-Status": "progress", **now(), **large}
        await self.client.publish(self.request._msg.reply, data, headers=headers)

    async def event(self, dialect: str, topic: str, body) -> None:
        """States a fact to everybody in the space who speaks the dialect; returns when it is stored."""
        subject = f"gw.v1.evt.{self.space}.{dialect}.{topic}"
        data = json.dumps(body).encode()
        id = uuid.uuid4().hex
        with traces.publish(dialect, topic, len(data), id):
            data, large = await bodies.pack(self.client, data)
            headers = {"Nats-Msg-Id": id, **now(), **large, **traces.carry(self.headers)}
            await self.client.jetstream().publish(subject, data, headers=headers)


def line(text) -> str:
    """A text as a header carries it: without an end of line."""
    return " ".join(str(text).split())


def now() -> dict[str, str]:
    return {"Gw-Time": str(time.time_ns())}


async def greet(job: Job):
    name = job.params.get("name")
    if not isinstance(name, str) or not name:
        raise Refused(400, "'name' is missing: {\"name\": \"Ada\"}")
    return {"greeting": f"Hello, {name}!"}


async def count(job: Job):
    to = job.params.get("to", 3)
    if not isinstance(to, int) or not 0 <= to <= 1000:
        raise Refused(400, "'to' is a number from 0 to 1000")
    for number in range(1, to + 1):
        await job.progress({"number": number})
        await asyncio.sleep(0.1)
    await job.event("voice", "counted", {"to": to})
    return {"counted": to}


ACTIONS = {"greet": greet, "count": count}


async def alive(job: Job) -> None:
    """A sign of life every five seconds, whatever the work does."""
    while True:
        await asyncio.sleep(5)
        await job.progress()


async def answer(client, request, action) -> None:
    """Runs an action and gives its one final answer."""
    headers = request.headers or {}
    with traces.process(SERVICE, action.__name__, headers, len(request.data)) as span:
        failure = await respond(client, request, action, traces.carry(headers))
        if span and failure:
            traces.failed(span, failure)


async def respond(client, request, action, trace) -> int | None:
    """The answer itself; gives the number of a failure."""
    beat = None
    job = None
    try:
        job = Job(client, request)
        if job.late:
            return None
        beat = asyncio.create_task(alive(job))
        await job.read()
        work = running[job.id] = asyncio.create_task(action(job))
        result = await work
        data, large = await bodies.pack(client, json.dumps(result).encode())
        await request.respond(data, headers=now() | large | trace)
        return None
    except bodies.Trouble as refused:
        await request.respond_error(str(refused.code), line(refused), headers=now() | trace)
        return refused.code
    except asyncio.CancelledError:
        await request.respond_error("499", "the command was cancelled", headers=now() | trace)
        return 499
    except Exception as error:
        await request.respond_error("500", line(f"{type(error).__name__}: {error}"), headers=now() | trace)
        return 500
    finally:
        if beat:
            beat.cancel()
        if job:
            running.pop(job.id, None)


async def cancel(message) -> None:
    """Nobody waits for a command any more; every instance hears it, the one that has it stops."""
    try:
        work = running.get(json.loads(message.data)["id"])
    except (ValueError, KeyError, TypeError):
        return
    if work:
        work.cancel()


async def main() -> None:
    url = os.environ.get("NATS_URL", "nats://localhost:4222")
    traces.start(SERVICE, url)
    client = await nats.connect(url, name=SERVICE, max_reconnect_attempts=-1)
    service = await add_service(
        client, name=SERVICE, version="1.0.0", description="Greets and counts: a worker to copy", queue_group=SERVICE
    )
    await client.subscribe(f"gw.v1.cmd.*.{SERVICE}.cancel", cb=cancel)
    tasks = set()
    for name, action in ACTIONS.items():

        async def handle(request, action=action):
            # not awaited: a command that takes long keeps no other one waiting
            task = asyncio.create_task(answer(client, request, action))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await service.add_endpoint(name=name, subject=f"gw.v1.cmd.*.{SERVICE}.{name}", handler=handle)
    print(f"{SERVICE} serves {', '.join(ACTIONS)} at {url}; Ctrl-C ends it", flush=True)

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await service.stop()
    if tasks:
        await asyncio.wait(tasks, timeout=10)
    await client.drain()
    traces.stop()


if __name__ == "__main__":
    asyncio.run(main())
