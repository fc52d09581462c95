"""What clients, publishers and workers say, in the fewest words."""

import asyncio
import contextlib
import itertools
import json
import time
import uuid

import nats
import websockets

HEADERS = {"status": "Gw-Status", "error": "Nats-Service-Error", "code": "Nats-Service-Error-Code"}


class Client:
    """A voice client: the real library, and the greeting taken apart."""

    def __init__(self, socket, replayed, status):
        self.socket = socket
        self.replayed = replayed
        self.status = status

    async def send(self, message) -> None:
        await self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def frame(self) -> dict:
        """The next frame that is no news about the bus or a service."""
        while True:
            frame = json.loads(await self.socket.recv())
            if frame["type"] != "connection_status":
                return frame

    async def frames(self, count: int) -> list[dict]:
        return [await self.frame() for _ in range(count)]

    async def ask(self, kind: str, data=None) -> dict:
        await self.send({"type": kind, "data": data if data is not None else {}})
        return await self.frame()

    async def ends(self) -> int:
        """Reads until the end and returns the close code."""
        try:
            while True:
                await self.socket.recv()
        except websockets.ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006


@contextlib.asynccontextmanager
async def client(url: str, **options):
    """Connects and reads the greeting: replay first, then the status; nothing else before it."""
    async with websockets.connect(url, **{"open_timeout": 30, **options}) as socket:
        replayed = []
        while True:
            frame = json.loads(await socket.recv())
            if frame["type"] == "replay":
                assert frame["events"] == frame["data"]["events"]
                assert frame["data"]["count"] == len(frame["events"])
                replayed += frame["events"]
                continue
            # an element too large to be doubled in a replay frame comes alone
            if frame["type"] != "connection_status":
                replayed.append(frame)
                continue
            if frame["data"]["status"] == "connected":
                break
        yield Client(socket, replayed, frame["data"])


class Bus:
    """A NATS client that is not ours: publisher and worker."""

    def __init__(self, connection):
        self.connection = connection
        # message ids must never repeat: the stream drops what it has seen within two minutes
        self.ids = (f"{uuid.uuid4().hex}-{number}" for number in itertools.count())

    async def event(self, space: str, number: int, topic: str = "tick", **extra) -> None:
        """Publishes an event that carries a number."""
        body = json.dumps({"n": number, **extra}).encode()
        headers = {"Nats-Msg-Id": next(self.ids), "Gw-Time": str(time.time_ns())}
        await self.connection.publish(f"gw.v1.evt.{space}.voice.{topic}", body, headers=headers)

    async def stored(self, space: str) -> None:
        """Returns when the stream has what this client published before: it takes messages in their order.

        What is asked for here is kept under a name of the assistant's, so that no client of the space is told of it.
        """
        await self.connection.jetstream().publish(f"gw.v1.evt.{space}.assistant.mark", b"{}")

    @contextlib.asynccontextmanager
    async def worker(self, space: str, answer):
        """Serves `voice` in one space; `answer(command, reply)` decides. Yields the commands heard."""
        heard = []

        async def on_command(command):
            heard.append(command)

            async def reply(body=b"", **said):
                headers = {HEADERS[name]: str(value) for name, value in said.items()}
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                await self.connection.publish(command.reply, data, headers=headers or None)

            if answer:
                await answer(command, reply)

        # the queue of the contract; a cancel has no reply subject and goes to everybody
        subscription = await self.connection.subscribe(f"gw.v1.cmd.{space}.voice.*", "voice", cb=on_command)
        await settle(self.connection)
        try:
            yield heard
        finally:
            await subscription.unsubscribe()


async def settle(connection) -> None:
    """Returns when the server has taken all that was said before.

    One flush is not enough with this library: its ping may overtake what still waits to be written.
    """
    await connection.flush()
    await connection.flush()


@contextlib.asynccontextmanager
async def bus(broker):
    connection = await nats.connect(broker.url)
    try:
        yield Bus(connection)
    finally:
        await connection.close()


def numbers(events: list[dict]) -> list[int]:
    """What the numbered events carry, in order."""
    return [event["data"]["n"] for event in events]


async def eventually(condition) -> None:
    """Waits for a condition; the deadline is the test's own."""
    while not condition():
        await asyncio.sleep(0.02)
