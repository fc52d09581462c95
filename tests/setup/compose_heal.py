"""Kills the processes of a service's containers from outside, as a crash would, and watches the stack come back by its
restart policies: `nats`, `gateway`, or `replica` for one of several gateways behind the proxy."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import uuid

import nats
import websockets

WAIT = 180
SPACE = f"heal-{uuid.uuid4().hex[:8]}"
EVENTS = f"ws://127.0.0.1:{os.environ['GATEWAY_PORT']}/events/{SPACE}"
BUS = f"nats://127.0.0.1:{os.environ['NATS_PORT']}"
AWAY = (OSError, websockets.WebSocketException, nats.errors.Error, TimeoutError)


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def containers(service: str) -> list[str]:
    """Of this project, whichever compose started them."""
    labels = {"project": os.environ["COMPOSE_PROJECT_NAME"], "service": service}
    filters = [word for key, value in labels.items() for word in ("--filter", f"label=com.docker.compose.{key}={value}")]
    return docker("ps", "-q", *filters).split()


def kill(container: str) -> None:
    """A signal from outside: after `docker kill` no restart policy would act."""
    pid = docker("inspect", "-f", "{{.State.Pid}}", container)
    docker("run", "--rm", "--pid", "host", "--user", "0", "--network", "none", "--entrypoint", "sh",
           "causeway", "-c", f"kill -9 {pid}")  # fmt: skip


async def restarted(container: str) -> None:
    while docker("inspect", "-f", "{{.RestartCount}} {{.State.Running}}", container) in ("0 true", "0 false", "1 false"):
        await asyncio.sleep(0.5)


async def publish(note: str) -> None:
    """Returns when the stream has stored it, however long the broker takes to be there."""
    while True:
        with contextlib.suppress(*AWAY):
            bus = await nats.connect(BUS, allow_reconnect=False, connect_timeout=5)
            try:
                # an id is stored once for the whole stream, not for each space
                headers = {"Nats-Msg-Id": f"{SPACE}-{note}"}
                await bus.jetstream().publish(f"gw.v1.evt.{SPACE}.voice.note", json.dumps(note).encode(), headers=headers)
                return
            finally:
                await bus.close()
        await asyncio.sleep(0.5)


class Listener:
    """A client that keeps what it hears, each note once, and where it was."""

    def __init__(self, socket):
        self.socket, self.notes, self.offset, self.recovered = socket, [], None, None

    async def greeting(self) -> None:
        while self.offset is None:
            self.take(json.loads(await self.socket.recv()))

    def take(self, frame: dict) -> None:
        if frame["type"] == "replay":
            self.notes += [event["data"] for event in frame["events"] if event["type"] == "note"]
        elif frame["type"] == "note":
            self.notes.append(frame["data"])
        elif frame["type"] == "connection_status" and frame["data"]["status"] == "connected":
            self.offset, self.recovered = frame["data"]["offset"], frame["data"]["recovered"]

    async def until(self, note: str) -> None:
        while note not in self.notes:
            self.take(json.loads(await self.socket.recv()))

    async def ended(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                self.take(json.loads(await self.socket.recv()))


async def listen(since: str | None = None) -> Listener:
    """Connects, again and again while nobody is there."""
    while True:
        with contextlib.suppress(*AWAY):
            listener = Listener(await websockets.connect(EVENTS + (f"?since={since}" if since else ""), open_timeout=10))
            await listener.greeting()
            return listener
        await asyncio.sleep(0.5)


async def broker() -> None:
    """The socket stays, everything it asks is answered, what was stored is there, what comes next arrives."""
    [container] = containers("nats")
    listener = await listen()
    await publish("before")
    await listener.until("before")
    kill(container)
    answers = set()
    while "system_info" not in answers:
        await listener.socket.send(json.dumps({"type": "get_system_info"}))
        while (frame := json.loads(await listener.socket.recv()))["type"] not in ("system_info", "error"):
            listener.take(frame)
        answers.add(frame["data"]["code"] if frame["type"] == "error" else "system_info")
        await asyncio.sleep(0.2)
    assert answers <= {"system_info", "bus_down", "no_worker", "timeout"}, answers
    await restarted(container)
    await publish("after")
    await listener.until("after")
    late = await listen()
    await late.until("after")
    assert late.notes == ["before", "after"] and listener.notes == late.notes, (listener.notes, late.notes)
    print(f"compose-test: nats was killed and came back; meanwhile {', '.join(sorted(answers))}")


async def gateway() -> None:
    """Clients end, come back to the restarted gateway and get what they missed, once."""
    [container] = containers("gateway")
    listener = await listen()
    await publish("before")
    await listener.until("before")
    kill(container)
    await publish("meanwhile")
    await listener.ended()
    back = await listen(listener.offset)
    await back.until("meanwhile")
    # the offset is that of the greeting: what came since is repeated, the first time after the restart
    assert back.recovered is True and back.notes == ["before", "meanwhile"], (back.recovered, back.notes)
    await restarted(container)
    print("compose-test: the gateway was killed and came back; its client resumed")


async def replica() -> None:
    """One of several dies: its clients resume at another, those of the others notice nothing."""
    several = containers("gateway")
    assert len(several) > 1, several
    listeners = [await listen() for _ in range(4 * len(several))]
    kill(several[0])
    await publish("meanwhile")
    kept, resumed = 0, 0
    for listener in listeners:
        try:
            await listener.until("meanwhile")
            kept += 1
        except websockets.ConnectionClosed:
            back = await listen(listener.offset)
            await back.until("meanwhile")
            assert back.recovered is True and back.notes == ["meanwhile"], (back.recovered, back.notes)
            resumed += 1
    assert kept and resumed, f"{kept} kept, {resumed} resumed: were they spread?"
    print(f"compose-test: one of {len(several)} gateways was killed: {kept} clients stayed, {resumed} resumed")


async def main() -> None:
    async with asyncio.timeout(WAIT):
        await {"nats": broker, "gateway": gateway, "replica": replica}[sys.argv[1]]()


asyncio.run(main())
