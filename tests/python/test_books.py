"""Whether delivered and dropped are what was published, exactly, for every policy towards clients that do not read."""

import contextlib
import json

import pytest
import websockets
from figures import figures
from stack import Broker, free_port
from talk import bus

VOICE = {"dialect": "voice"}
SENT, DROPPED, SLOW = "gw_messages_sent_total", "gw_messages_dropped_total", "gw_slow_consumer_total"
# large enough that few of them fill what the kernel holds for a connection
PADDING = "x" * 60_000
SETTINGS = {"GW_SLOW_QUEUE_BYTES": "512KiB", "GW_SLOW_WRITE_TIMEOUT": "10m"}


class Killable:
    """A broker that comes back on its port with what it had stored."""

    def __init__(self, folder):
        self.arguments = ("-js", "-sd", str(folder / "store"), "-p", str(free_port()))
        self.folder, self.lives = folder, 0
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.broker = Broker(self.folder / f"life{self.lives}", *self.arguments)
        self.url = self.broker.url

    def kill(self) -> None:
        self.broker.process.kill()
        self.broker.process.wait()


@pytest.fixture
def killable(tmp_path):
    running = Killable(tmp_path)
    yield running
    running.broker.stop()


class Listener:
    """A voice client that knows every message it was given: events by number, gaps, news of the connection."""

    def __init__(self, socket):
        self.socket = socket
        self.events, self.missed, self.news = [], 0, []

    @property
    def heard(self) -> int:
        return len(self.events) + len(self.news)

    async def hear(self) -> None:
        frame = json.loads(await self.socket.recv())
        if frame["type"] != "connection_status":
            return self.events.append(frame["data"]["n"])
        self.news.append(frame["data"]["status"])
        self.missed += frame["data"].get("missed", 0)

    async def until(self, condition) -> None:
        while not condition():
            await self.hear()


@contextlib.asynccontextmanager
async def listener(gateway, space: str):
    """Greeted, and then it reads only when it is told to."""
    url = gateway.events(space)
    async with websockets.connect(url, max_queue=1, max_size=None, ping_interval=None, open_timeout=30) as socket:
        assert json.loads(await socket.recv())["data"]["status"] == "connected"
        yield Listener(socket)


class Stage:
    """A client that does not read, and after it one that does: an event the second one has was given to both."""

    def __init__(self, gateway, broker, space, stalled, healthy):
        self.gateway, self.broker, self.space = gateway, broker, space
        self.stalled, self.healthy = stalled, healthy
        self.count = 0

    async def publish(self, condition, kind: str = "evt", dies_at: int = 0) -> None:
        """States one event after the other until a condition holds of the figures; at one of them NATS dies."""
        while True:
            async with bus(self.broker) as publisher:
                while not condition(now := await self.figures()):
                    body = json.dumps({"n": self.count, "padding": PADDING}).encode()
                    headers = {"Nats-Msg-Id": next(publisher.ids)}
                    subject = f"gw.v1.{kind}.{self.space}.voice.tick"
                    await publisher.connection.jetstream(timeout=60).publish(subject, body, headers=headers)
                    self.count += 1
                    await self.healthy.until(lambda: len(self.healthy.events) == self.count)
                    if self.count == dies_at:
                        break
                else:
                    return
            self.broker.kill()
            await self.healthy.until(lambda: "degraded" in self.healthy.news)
            self.broker.start()
            await self.healthy.until(lambda: "ok" in self.healthy.news)

    async def figures(self):
        return Grown(self.before, await figures(self.gateway))

    async def books(self, connections: int):
        """The figures once so many clients are left, and all that was heard is counted."""
        while True:
            now = await self.figures()
            left = now.now.sum("gw_connections", **VOICE)
            # a client may hear of a message a moment before it is counted
            if left == connections and now(SENT) >= self.stalled.heard + self.healthy.heard:
                return now


class Grown:
    """What has been counted since the clients were greeted."""

    def __init__(self, before, now):
        self.before, self.now = before, now

    def __call__(self, name, **labels) -> float:
        return self.now.sum(name, **VOICE, **labels) - self.before.sum(name, **VOICE, **labels)


@contextlib.asynccontextmanager
async def stage(own_gateway, broker, space, policy: str):
    gateway = own_gateway(on=broker, GW_SLOW_POLICY=policy, **SETTINGS)
    # who came last is served last
    async with listener(gateway, space) as stalled, listener(gateway, space) as healthy:
        made = Stage(gateway, broker, space, stalled, healthy)
        while (before := await figures(gateway)).sum(SENT, **VOICE) < 2:
            pass
        made.before = before
        yield made


NATS = pytest.mark.parametrize("dies_at", [0, 5], ids=["", "nats-dies"])


@NATS
async def test_a_client_that_does_not_read_is_closed(own_gateway, killable, space, dies_at):
    async with stage(own_gateway, killable, space, "close") as on:
        # the event that is too much for it is the last one published
        await on.publish(lambda now: now(DROPPED) > 0, dies_at=dies_at)
        with contextlib.suppress(websockets.ConnectionClosed):
            await on.stalled.until(lambda: False)
        assert on.stalled.socket.close_code == 1013
        now = await on.books(1)
    got = on.stalled.events
    assert got == list(range(len(got))) and len(got) < on.count
    assert on.healthy.events == list(range(on.count))
    assert now(SENT) == on.stalled.heard + on.healthy.heard
    assert now(DROPPED) == now(DROPPED, reason="closed")
    # both were told the same about NATS, and everything meant for them is in the books once
    meant = on.count + len(on.healthy.news)
    assert now(SENT) + now(DROPPED) == 2 * meant
    assert now(SLOW, action="close") == 1


@NATS
async def test_the_oldest_events_are_dropped(own_gateway, killable, space, dies_at):
    async with stage(own_gateway, killable, space, "drop-oldest") as on:
        await on.publish(lambda now: now(DROPPED) >= 20, dies_at=dies_at)
        await on.stalled.until(lambda: len(on.stalled.events) + on.stalled.missed == on.count)
        now = await on.books(2)
    got = on.stalled.events
    assert got == sorted(set(got)) and on.stalled.missed > 0
    assert now(DROPPED) == now(DROPPED, reason="slow") == on.stalled.missed
    assert now(SENT) == on.stalled.heard + on.healthy.heard
    assert len(on.healthy.events) + len(got) + now(DROPPED) == 2 * on.count
    # what the client took nothing of was waited for
    assert now("gw_stage_duration_seconds_count", stage="queue") >= 1
    assert now("gw_delivery_lag_seconds_count") == on.count


@NATS
async def test_newer_state_takes_the_place_of_older(own_gateway, killable, space, dies_at):
    async with stage(own_gateway, killable, space, "close") as on:
        await on.publish(lambda now: now(DROPPED) >= 20, "state", dies_at=dies_at)
        await on.stalled.until(lambda: on.stalled.events[-1:] == [on.count - 1])
        now = await on.books(2)
    got = on.stalled.events
    assert got == sorted(set(got))
    assert now(DROPPED) == now(DROPPED, reason="conflated") == on.count - len(got)
    assert now(SENT) == on.stalled.heard + on.healthy.heard
    assert now(SLOW, action="conflate") > 0 and now(SLOW, action="close") == 0
