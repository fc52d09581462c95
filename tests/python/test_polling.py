"""Long polling where it differs from a socket: a drain that spreads, a client that does not fetch."""

import asyncio
import json
import re
import urllib.request

import pytest
from engine import Ended, Polling, joined, request
from talk import bus, eventually


async def figures(gateway, name: str) -> dict[str, float]:
    """Every series of a metric, by its labels."""
    url = f"http://127.0.0.1:{gateway.ops}/metrics"
    answer = await asyncio.to_thread(urllib.request.urlopen, url, None, 10)
    rows = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", answer.read().decode(), re.MULTILINE)
    return {labels: float(value) for labels, value in rows}


async def publish(nats, space: str, count: int, reader) -> None:
    """Stores numbered events of 10 KB, each when a client that reads has heard the one before."""
    stream = nats.connection.jetstream()
    for number in range(count):
        body = json.dumps({"n": number, "padding": "x" * 10_000}).encode()
        headers = {"Nats-Msg-Id": next(nats.ids)}
        await stream.publish(f"gw.v1.evt.{space}.assistant.tick", body, headers=headers)
        assert (await reader.response("tick"))["n"] == number


async def test_a_drain_leaves_those_who_poll_their_time(own_gateway, space):
    # far longer than the test may take: nobody's turn comes while it looks
    gateway = own_gateway(GW_GATEWAY_DRAIN_SPREAD="10m", GW_GATEWAY_DRAIN_GRACE="10m")
    count = 20
    sessions = []
    for _ in range(count):
        session = await Polling.connect(gateway.port, space)
        await session.send("40/ws,")
        assert (await session.packet()).startswith("40/ws,")
        sessions.append(session)
    gateway.terminate()
    while await asyncio.to_thread(gateway.ready):
        await asyncio.sleep(0.05)
    # nobody new, by either transport
    at = "/socket.io/?EIO=4&transport=polling"
    status, text = await request(gateway.port, "GET", at)
    assert (status, json.loads(text)["error"]) == (503, "busy")
    # one of them is the first to leave, soon or at once; the others ask and hear as ever, each on new connections
    served = 0
    for session in sessions:
        try:
            await session.send('42/ws,7["rpc",{"method":"get_status"}]')
            while not (await session.packet()).startswith("43/ws,7["):
                pass
            served += 1
        except (Ended, AssertionError):
            pass
    assert served >= count - 3
    for session in sessions:
        await session.leave()
    # the last of them was what kept it
    assert await asyncio.to_thread(gateway.process.wait, 60) == 0


async def test_each_of_them_is_told_to_come_back(own_gateway, space):
    gateway = own_gateway(GW_GATEWAY_DRAIN_SPREAD="2s")
    sessions = []
    for _ in range(20):
        session = await Polling.connect(gateway.port, space)
        await session.send("40/ws,")
        assert (await session.packet()).startswith("40/ws,")
        sessions.append(session)

    async def stays(session) -> list[str]:
        said = []
        try:
            while True:
                said.append(await session.packet())
        except Ended:
            return said

    waits = [asyncio.create_task(stays(session)) for session in sessions]
    gateway.terminate()
    # the transport closes; packet 41 would mean: stay away
    for said in await asyncio.gather(*waits):
        assert not [packet for packet in said if packet.startswith("41")]
    assert await asyncio.to_thread(gateway.process.wait, 60) == 0


async def test_who_does_not_fetch_is_closed_at_the_bound(broker, own_gateway, space):
    gateway = own_gateway(GW_SLOW_QUEUE_BYTES="200KiB")
    async with bus(broker) as nats, joined(gateway, space, "polling") as slow, joined(gateway, space, "websocket") as other:
        told = []

        async def on_slow(message):
            told.append(json.loads(message.data))

        await nats.connection.subscribe("gw.v1.sys.slow", cb=on_slow)
        await nats.connection.flush()
        # who is answered has joined the room
        assert (await slow.ask("get_status"))["type"] == "status_update"
        assert (await other.ask("get_status"))["type"] == "status_update"
        await publish(nats, space, 100, other)
        while not any('action="close"' in labels for labels in await slow_closes(gateway)):
            await asyncio.sleep(0.05)
        with pytest.raises(Ended):
            await slow.line.packet()
        await eventually(lambda: bool(told))


async def slow_closes(gateway) -> list[str]:
    found = await figures(gateway, "gw_slow_consumer_total")
    return [labels for labels, value in found.items() if value and "assistant" in labels]


async def test_who_does_not_fetch_loses_the_oldest_where_the_policy_says_so(broker, own_gateway, space):
    gateway = own_gateway(GW_SLOW_QUEUE_BYTES="200KiB", GW_SLOW_POLICY="drop-oldest")
    count = 100
    async with bus(broker) as nats, joined(gateway, space, "polling") as slow, joined(gateway, space, "websocket") as other:
        assert (await slow.ask("get_status"))["type"] == "status_update"
        assert (await other.ask("get_status"))["type"] == "status_update"
        await publish(nats, space, count, other)
        status, text = await slow.line.get()
        assert status == 200 and len(text) < 300 * 1024
        said = [json.loads(packet[6:])[1] for packet in text.split("\x1e") if packet.startswith("42/ws,")]
        kept = [message["data"]["n"] for message in said if message["type"] == "tick"]
        gaps = [message["data"] for message in said if message["type"] == "connection_status"]
        # the newest, in order, and how many are not among them
        assert kept == list(range(count - len(kept), count)) and 0 < len(kept) < count
        assert {gap["status"] for gap in gaps} == {"gap"}
        assert sum(gap["missed"] for gap in gaps) == count - len(kept)
        assert (await slow.ask("get_status"))["type"] == "status_update"
