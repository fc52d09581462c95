"""Who is connected, asked where the answer does not fit a message of the broker."""

import asyncio
import contextlib
import hashlib
import json
import re
import urllib.request

import pytest
import raw
import websockets
from stack import Broker
from talk import bus, settle

# a message takes what is left of it beside 4 KiB for headers: about 180 sessions
MOST = 32 * 1024
MANY = 400


@pytest.fixture
def narrow(tmp_path):
    """A broker that takes small messages only."""
    conf = tmp_path / "nats.conf"
    store = json.dumps(str(tmp_path / "store"))
    # room for the reserved sizes of all streams, whatever the disk has: little of it is used
    conf.write_text(f"max_payload: {MOST}\njetstream {{ store_dir: {store}, max_file_store: 64GB }}\n")
    server = Broker(tmp_path / "nats", "-c", str(conf))
    yield server
    server.stop()


@contextlib.asynccontextmanager
async def crowd(gateway, space: str, count: int):
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(raw.upgraded(gateway.port, f"/events/{space}"))
        yield


async def body(connection, answer) -> bytes:
    """The body of a reply, wherever it lies."""
    reference = (answer.headers or {}).get("Gw-Body")
    if reference is None:
        return answer.data
    assert answer.data == b""
    form = r"object:(\w+)/([\w-]+);size=(\d+);sha256=([0-9a-f]{64})"
    bucket, name, size, digest = re.fullmatch(form, reference).groups()
    assert bucket == "GW_BODIES"
    store = await connection.jetstream().object_store(bucket)
    data = (await store.get(name)).data
    assert len(data) == int(size) and hashlib.sha256(data).hexdigest() == digest
    return data


async def test_a_list_above_the_payload_limit_lies_in_the_object_store(narrow, own_gateway):
    gateway = own_gateway(on=narrow)
    async with crowd(gateway, "crowd", MANY), crowd(gateway, "few", 2), bus(narrow) as asker:
        # the same seats are listed again and again, and the answers never wait for one another
        for space, count in [("crowd", MANY), ("few", 2), ("nobody", 0)]:
            asked = (asker.connection.request(f"gw.v1.cmd.{space}.gateway.sessions", timeout=30) for _ in range(5))
            for answer in await asyncio.gather(*asked):
                assert "Nats-Service-Error" not in answer.headers, answer.headers
                assert ("Gw-Body" in answer.headers) == (space == "crowd")
                listed = json.loads(await body(asker.connection, answer))
                assert listed["space"] == space
                sessions = listed["sessions"]
                assert len({seat["session"] for seat in sessions}) == len(sessions) == count


async def test_a_gateway_that_comes_later_learns_of_all_of_them(narrow, own_gateway):
    first = own_gateway(on=narrow)
    async with crowd(first, "crowd", MANY):
        second = own_gateway(on=narrow, GW_ASSISTANT_ROUTES="sessions=gateway")
        # its own clients are answered by itself, from what it has learnt
        async with websockets.connect(f"ws://127.0.0.1:{second.port}/ws/crowd", max_size=None) as socket:
            known = 0
            while known < MANY + 1:
                await asyncio.sleep(0.1)
                await socket.send(json.dumps({"method": "sessions", "params": {}}))
                while (answer := json.loads(await socket.recv()))["type"] != "command_response":
                    pass
                known = len(answer["data"]["sessions"])
            assert known == MANY + 1


async def test_without_an_object_store_the_asker_is_told(narrow, own_gateway):
    gateway = own_gateway(on=narrow, GW_EVENTS_HISTORY="false")
    async with crowd(gateway, "crowd", MANY), bus(narrow) as asker:
        answer = await asker.connection.request("gw.v1.cmd.crowd.gateway.sessions", timeout=30)
        assert answer.headers["Nats-Service-Error-Code"] == "413"


async def test_sessions_whose_end_was_not_heard_go_when_their_gateway_has_none(narrow, own_gateway, space):
    gateway, ghost = own_gateway(on=narrow), f"ghost-{space}"
    status = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{gateway.port}/status.json", None, 30)
    own = json.load(status)["gateway"].encode()
    seat = {"session": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "dialect": "voice", "space": space, "opened": 1, "gateway": ghost}
    async with bus(narrow) as other:
        connection = other.connection

        async def listed() -> list[str]:
            known = await connection.request(f"gw.v1.cmd.{space}.gateway.sessions", b"", timeout=30)
            return [one["gateway"] for one in json.loads(known.data)["sessions"]]

        async def answer(question):
            if question.data.decode() == ghost:
                await question.respond(b"[]")

        async def live():
            while True:
                await connection.publish("gw.v1.sys.gateway.alive", json.dumps({"gateway": ghost, "sessions": 0}).encode())
                await asyncio.sleep(1)

        await connection.subscribe("gw.v1.sys.sessions", cb=answer)
        await settle(connection)
        # one of its own gateways answers in the same way when it has none
        assert (await connection.request("gw.v1.sys.sessions", own, timeout=30)).data == b"[]"
        while ghost not in await listed():
            await connection.publish("gw.v1.sys.session.opened", json.dumps(seat).encode())
            await asyncio.sleep(0.1)
        # it is alive, so nobody buries it, and it counts none: whoever counts otherwise asks
        beating = asyncio.create_task(live())
        while ghost in await listed():
            await asyncio.sleep(0.1)
        beating.cancel()
