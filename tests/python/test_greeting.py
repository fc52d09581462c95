"""What a client says before it was greeted: heard, answered, and never told back to it as the past."""

import asyncio
import contextlib
import json

import pytest
import raw
from stack import Broker
from talk import bus, client

PAST = 100


async def greeting(peer):
    """The frames up to the greeting, and the greeting itself."""
    before = []
    while True:
        opcode, payload = await peer.frame()
        assert opcode == 1, (opcode, payload)
        frame = json.loads(payload)
        if frame["type"] == "connection_status" and frame["data"]["status"] == "connected":
            return before, frame
        before.append(frame)


async def spoken(peer, kind):
    """The next frame of a type."""
    while True:
        _, payload = await peer.frame()
        frame = json.loads(payload)
        if frame["type"] == kind:
            return frame


@pytest.mark.parametrize("round_", range(5))
async def test_what_follows_from_a_first_command_comes_after_the_greeting(broker, gateway, space, round_):
    async with bus(broker) as worker:
        # a past that takes its time to be read
        for number in range(PAST):
            await worker.event(space, number, filler="x" * 20_000)
        # the last is stored, and so are those before it
        await worker.stored(space)

        async def answer(command, reply):
            await worker.event(space, 1000, topic="consequence")
            await reply({"heard": json.loads(command.data)})

        async with worker.worker(space, answer) as heard:
            asked = raw.frame(1, b'{"type":"demo_flow","data":{"n":7},"id":"first"}')
            # in one piece with the handshake: nothing can be earlier
            async with raw.upgraded(gateway.port, f"/events/{space}", asked) as peer:
                before, _ = await greeting(peer)
                told = [event for frame in before for event in frame.get("events", [frame])]
                assert [event["type"] for event in told] == ["tick"] * PAST
                after = sorted([json.loads((await peer.frame())[1])["type"] for _ in range(2)])
                assert after == ["command_result", "consequence"]
            assert len(heard) == 1


async def test_commands_before_the_greeting_keep_their_order(broker, gateway, space):
    async def answer(command, reply):
        await reply(json.loads(command.data))

    said = [json.dumps({"type": "demo_flow", "data": {"n": number}}).encode() for number in range(40)]
    early = b"".join(raw.frame(1, one) for one in said)
    async with bus(broker) as worker:
        async with worker.worker(space, answer):
            async with raw.upgraded(gateway.port, f"/events/{space}", early) as peer:
                before, _ = await greeting(peer)
                assert before == []
                answers = [json.loads((await peer.frame())[1]) for _ in said]
                assert [one["data"]["result"]["n"] for one in answers] == list(range(40))


async def test_while_the_bus_is_away_a_first_command_is_told_so_at_once(own_gateway, tmp_path, space):
    server = Broker(tmp_path / "nats")
    gateway = own_gateway(on=server)
    async with client(gateway.events(space)) as witness:
        server.stop()
        while (json.loads(await witness.socket.recv()))["data"].get("status") != "degraded":
            pass
        asked = raw.frame(1, b'{"type":"demo_flow","data":{}}')
        async with raw.upgraded(gateway.port, f"/events/{space}", asked) as peer:
            # nobody can be greeted now, but everybody is answered
            told = await spoken(peer, "error")
            assert told["data"]["code"] == "bus_down"


async def test_who_waits_for_its_greeting_when_the_bus_goes_is_told_so(own_gateway, tmp_path, space):
    """The broker stops while the client is on its way in: an answer all the same, whichever side of the cut it is on."""
    server = Broker(tmp_path / "nats")
    gateway = own_gateway(on=server)
    asked = raw.frame(1, b'{"type":"demo_flow","data":{}}')
    async with contextlib.AsyncExitStack() as stack:
        server.process.terminate()
        peers = [
            await stack.enter_async_context(raw.upgraded(gateway.port, f"/events/{space}-{number}", asked))
            for number in range(20)
        ]
        told = await asyncio.gather(*(spoken(peer, "error") for peer in peers))
        assert {one["data"]["code"] for one in told} <= {"bus_down", "no_worker"}
    server.stop()
