"""What publishers and workers say that the page of the contract does not foresee: nobody else pays for it."""

import asyncio
import contextlib

import pytest
from stack import Broker
from talk import bus, client, eventually, numbers
from test_state import put


@pytest.fixture
def lonely(tmp_path):
    """A broker for one test, whose gateway may lose it."""
    server = Broker(tmp_path / "nats")
    yield server
    server.stop()


async def shout(broker, subject: str, field: bytes, body: bytes = b"") -> None:
    """Publishes with a header that no client library would send; returns when the server has taken it."""
    host, port = broker.url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"NATS/1.0\r\n" + field + b"\r\n\r\n"
    said = b'CONNECT {"verbose":false,"headers":true}\r\n'
    said += f"HPUB {subject} {len(head)} {len(head) + len(body)}\r\n".encode() + head + body + b"\r\nPING\r\n"
    writer.write(said)
    with contextlib.closing(writer):
        while (line := await reader.readline()) != b"PONG\r\n":
            assert line and not line.startswith(b"-ERR"), line


async def test_a_past_beyond_the_memory_of_a_room_keeps_nobody_out(broker, own_gateway, space):
    gateway = own_gateway(GW_EVENTS_MEMORY="256KiB")
    async with bus(broker) as publisher:
        for number in range(8):
            await publisher.event(space, number, padding="x" * 100_000)
            await put(publisher, space, f"state{number}", "x" * 100_000)
        await publisher.stored(space)
        async with client(gateway.events(space), max_size=None) as one:
            states = [frame["type"] for frame in one.replayed if frame.get("state")]
            assert states == [f"state{number}" for number in range(8)]
            # of events those that fit, the newest
            assert numbers(frame for frame in one.replayed if not frame.get("state")) == [6, 7]
            await publisher.event(space, 8)
            assert (await one.frame())["data"]["n"] == 8
            offset = one.status["offset"]
        async with client(gateway.events(space, f"?since={offset}"), max_size=None) as back:
            assert back.status["recovered"] is True
            assert numbers(back.replayed) == [8]


async def test_an_answer_that_refers_to_nothing_is_the_workers_fault(broker, gateway, space):
    async with bus(broker) as publisher, client(gateway.events(space)) as one:

        async def answer(command, _reply):
            headers = {"Gw-Body": "object:ELSEWHERE/x;size=5;sha256=00"}
            await publisher.connection.publish(command.reply, b"", headers=headers)

        async with publisher.worker(space, answer):
            heard = await one.ask("stt_start")
    assert (heard["type"], heard["data"]["code"]) == ("error", "worker_error")
    assert "GW_BODIES" in heard["data"]["message"]


async def test_an_event_with_broken_headers_reaches_everybody_and_ends_nothing(lonely, own_gateway, space):
    gateway = own_gateway(on=lonely)
    async with (
        bus(lonely) as publisher,
        client(gateway.events(space)) as one,
        client(gateway.events(f"{space}-beside")) as other,
    ):
        await publisher.event(space, 1)
        assert numbers(await one.frames(1)) == [1]
        await shout(lonely, f"gw.v1.evt.{space}.voice.tick", b"No Name: x", b'{"n":2}')
        await publisher.event(space, 3)
        assert numbers(await one.frames(2)) == [2, 3]
        async with client(gateway.events(space)) as late:
            assert numbers(late.replayed) == [1, 2, 3]
        await publisher.event(f"{space}-beside", 4)
        assert numbers(await other.frames(1)) == [4]


async def test_a_connection_that_cannot_be_made_again_ends_the_gateway_and_says_so(lonely, own_gateway, space):
    gateway = own_gateway(on=lonely, GW_GATEWAY_DRAIN_SPREAD="100ms")
    async with client(gateway.events(space)) as one:
        # what the client library does not survive; its task ends with it
        await shout(lonely, f"gw.v1.live.{space}.voice.tick", b"X: one\rtwo")
        assert await one.ends() == 1001
        await eventually(lambda: gateway.process.poll() is not None)
        assert gateway.process.returncode == 1
        assert "ended for good" in gateway.log.read_text().splitlines()[-1]
