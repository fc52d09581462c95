"""Hostile assistant clients over the real edge: each input's exact answer or end, and a neighbour who does not notice.

| input | test |
|---|---|
| event name no text, an array, reserved | `test_a_breach_of_socket_io_ends_the_session` |
| forged `_placeholder`, attachment count | `test_a_breach_of_socket_io_ends_the_session` |
| binary without attachments | `test_a_breach_of_socket_io_ends_the_session` |
| an event named after what crashes servers | `test_an_event_nobody_knows_is_answered` |
| namespaces without end | `test_namespaces_without_end_end_the_session` |
| bad polling requests | `test_a_bad_polling_request_gets_its_status` |
| two polls at once | `test_a_second_poll_ends_the_session` |
| POSTs while one waits | `test_one_post_may_wait_and_no_more` |
| acks without end | `test_acks_without_end_are_not_read` |
| JSON of every kind | `test_assistant_json.py` |
| more messages than a connection may send | `test_a_flood_is_told_so_and_closed` |
"""

import asyncio
import contextlib
import json
import re
import urllib.request

import pytest
import raw
from engine import TRANSPORTS, Ended, joined, request
from talk import bus, eventually
from test_assistant import plain

EXECUTE = "command_processor.execute_command"
BOTH = pytest.mark.parametrize("transport", TRANSPORTS)
CARRIERS = ["plain", *TRANSPORTS]
NO_METHOD = "method is missing or no text"


@contextlib.asynccontextmanager
async def worker(broker, space: str, hold=False):
    """Answers with the size of what it got; `hold`: only when told to. Yields what was heard."""
    async with bus(broker) as nats:
        heard = []

        async def answer(command):
            heard.append(command)
            if not hold:
                await command.respond(json.dumps({"bytes": len(command.data)}).encode())

        await nats.connection.subscribe(f"gw.v1.cmd.{space}.{EXECUTE}", "command_processor", cb=answer)
        await nats.connection.flush()
        await nats.connection.flush()
        yield heard


@contextlib.asynccontextmanager
async def neighbour(gateway, space: str):
    """A client in the same space: asks before and after."""
    async with plain(gateway, space) as one:
        await one.say("get_status")
        await one.hear("status_update")
        yield
        await one.say("get_status")
        await one.hear("status_update")


HOLE = '{"_placeholder":true,"num":%s}'


def binary(count: str, *holes: str) -> str:
    """A packet that announces attachments."""
    return f'45{count}-/ws,["rpc",{{"method":"x","params":[{",".join(HOLE % hole for hole in holes)}]}}]'


# what is sent, how the end is named
BREACHES = {
    "name is a number": ('42/ws,[5,{"method":"get_status"}]', "bad_event_name"),
    "name is an array": ('42/ws,[["rpc"],{}]', "bad_event_name"),
    "name is an object": ('42/ws,[{"toString":"rpc"},{}]', "bad_event_name"),
    "name is null": ("42/ws,[null]", "bad_event_name"),
    "name is reserved": ('42/ws,["disconnect"]', "bad_event_name"),
    "no name": ("42/ws,[]", "bad_payload"),
    "no array": ('42/ws,{"0":"rpc"}', "bad_payload"),
    "no payload": ("42/ws,", "bad_json"),
    "an array for an ack": ('42/ws,["rpc"', "bad_json"),
    "ack id without end": ("42/ws," + "9" * 400 + '["rpc",{}]', "bad_id"),
    "placeholder out of range": (binary("1", "9"), "bad_placeholder"),
    "placeholder negative": (binary("1", "-1"), "bad_placeholder"),
    "placeholder a text": (binary("1", '"0"'), "bad_placeholder"),
    "placeholder a fraction": (binary("1", "0.5"), "bad_placeholder"),
    "placeholder a method": (binary("1", '"toString"'), "bad_placeholder"),
    "placeholder twice": (binary("2", "0", "0"), "bad_placeholder"),
    "fewer placeholders": (binary("2", "0"), "bad_placeholder"),
    "attachments without end": (binary("9" * 400, "0"), "bad_attachments"),
    "attachments too many": (binary("65", "0"), "bad_attachments"),
    "attachments no number": (binary("x", "0"), "bad_attachments"),
    # none announced, as the reference reads it, and then a namespace nobody joined
    "attachments negative": (binary("-1", "0"), "not_connected"),
    "binary without attachments": (b"\x00\x01", "stray_binary"),
    "before a join": ('42["rpc",{}]', "not_connected"),
    "a second join": ("40/ws,", "connected_twice"),
    "a packet of no kind": ("49", "unknown_packet"),
    "an engine's packet of no kind": ("x", "bad_packet"),
    "a ping of the client": ("2", "client_ping"),
}


@BOTH
@pytest.mark.parametrize("name", BREACHES)
async def test_a_breach_of_socket_io_ends_the_session(gateway, space, transport, name):
    sent, reason = BREACHES[name]
    async with neighbour(gateway, space), joined(gateway, space, transport) as one:
        if isinstance(sent, bytes):
            await one.line.send_binary(sent)
        else:
            await one.line.send(sent)
        said, code, why = await one.ends()
        assert said == []
        # what ends a session that polls is the refusal of its id
        assert (code, why) == ((1002, reason) if transport == "websocket" else (None, None))


async def test_a_poll_that_waits_hears_the_end(gateway, space):
    async with neighbour(gateway, space), joined(gateway, space, "polling") as one:
        waits = asyncio.create_task(one.line.get())
        # whether it waits already is the server's to know: either way it hears the end, then nothing
        await one.line.post("42/ws,[5]")
        status, text = await waits
        assert (status, text) in [(200, "1"), (400, '{"code":1,"message":"Session ID unknown"}')]
        assert (await one.line.get())[0] == 400


@BOTH
async def test_an_event_nobody_knows_is_answered(gateway, space, transport):
    async with neighbour(gateway, space), joined(gateway, space, transport) as one:
        for name in ("error", "__proto__", "constructor", "toString", "rpc\n", ""):
            await one.line.send("42/ws," + json.dumps([name, {"method": "get_status"}]))
            error = await one.response("error")
            assert error == {"message": f"Unknown event: {name}", "code": "unknown_action"}


@BOTH
async def test_namespaces_without_end_end_the_session(gateway, space, transport):
    async with neighbour(gateway, space), joined(gateway, space, transport) as one:
        await one.line.send(*[f"40/n{n}," for n in range(40)])
        said, code, why = await one.ends()
        assert said == [f'44/n{n},{{"message":"Invalid namespace"}}' for n in range(16)]
        assert (code, why) == ((1008, "namespace_flood") if transport == "websocket" else (None, None))


AT = "/socket.io/?EIO=4&transport=polling"
UNKNOWN = (400, '{"code":1,"message":"Session ID unknown"}')
# method, target, status and text
REQUESTS = {
    "no version": ("GET", "/socket.io/?transport=polling", 400, '{"code":5,"message":"Unsupported protocol version"}'),
    "old version": ("GET", "/socket.io/?EIO=3&transport=polling", 400, '{"code":5,"message":"Unsupported protocol version"}'),
    "no transport": ("GET", "/socket.io/?EIO=4", 400, '{"code":0,"message":"Transport unknown"}'),
    "transport of a prototype": ("GET", "/socket.io/?EIO=4&transport=constructor", 400, '{"code":0,"message":"Transport unknown"}'),
    "a handshake by POST": ("POST", AT, 400, '{"code":2,"message":"Bad handshake method"}'),
    "a handshake by DELETE": ("DELETE", AT, 400, '{"code":2,"message":"Bad handshake method"}'),
    "sid of a prototype": ("GET", f"{AT}&sid=__proto__", *UNKNOWN),
    "sid empty, by POST": ("POST", f"{AT}&sid=", 400, '{"code":2,"message":"Bad handshake method"}'),
    "sid with line ends": ("GET", f"{AT}&sid=%0d%0aX", *UNKNOWN),
    "sid without end": ("GET", f"{AT}&sid=" + "x" * 4000, *UNKNOWN),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_bad_polling_request_gets_its_status(gateway, space, name):
    method, target, status, text = REQUESTS[name]
    async with neighbour(gateway, space):
        assert await request(gateway.port, method, target) == (status, text)


async def test_a_method_that_does_not_poll_leaves_the_session_alone(gateway, space):
    async with neighbour(gateway, space), joined(gateway, space, "polling") as one:
        assert await request(gateway.port, "PUT", one.line.at) == (400, '{"code":2,"message":"Bad handshake method"}')
        assert (await one.ask("get_status"))["type"] == "status_update"


async def test_a_second_poll_ends_the_session(gateway, space):
    async with neighbour(gateway, space), joined(gateway, space, "polling") as one:
        first, second = await asyncio.gather(one.line.get(), one.line.get())
        # which of them is the first is the server's to know
        assert sorted([first, second]) == [(200, "1"), (400, "")]
        with pytest.raises(Ended):
            await one.line.packet()


async def test_one_post_may_wait_and_no_more(broker, own_gateway, space):
    gateway = own_gateway(GW_COMMANDS_PER_CONNECTION="2")
    call = '["rpc",{"method":"execute_command","params":{}}]'
    async with worker(broker, space, hold=True) as heard, neighbour(gateway, space):
        async with joined(gateway, space, "polling") as one:
            # taken at once; of its four commands two are under way
            await one.line.send(*[f"42/ws,{n}{call}" for n in range(4)])
            await eventually(lambda: len(heard) == 2)
            waits = asyncio.create_task(one.line.post(f"42/ws,4{call}"))
            for command in heard[:2]:
                await command.respond(b"{}")
            await eventually(lambda: len(heard) == 4)
            for command in heard[2:4]:
                await command.respond(b"{}")
            # it had its turn, and nothing was lost
            assert await waits == (200, "ok")
            await eventually(lambda: len(heard) == 5)
            await heard[4].respond(b"{}")
            for n in range(5):
                assert (await one.heard(f"43/ws,{n}"))[0] == {"type": "command_response", "data": {}}
        async with joined(gateway, space, "polling") as one:
            await one.line.send(*[f"42/ws,{n}{call}" for n in range(4)])
            await eventually(lambda: len(heard) == 7)
            both = await asyncio.gather(one.line.post("3"), one.line.post("3"))
            # one of them came second and waited, the other third; both end with the session
            assert sorted(both) == sorted([UNKNOWN, (400, "")])
            with pytest.raises(Ended):
                await one.line.packet()


def resident(pid: int) -> int:
    """Resident memory of a process in bytes."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


async def test_acks_without_end_are_not_read(broker, own_gateway, space):
    """A million events that all want an ack, and a worker that gives none: the gateway stops reading, not growing."""
    gateway = own_gateway()
    count = 1_000_000
    call = '["rpc",{"method":"execute_command","params":{}}]'
    async with worker(broker, space, hold=True) as heard, neighbour(gateway, space):
        path = f"/socket.io/?EIO=4&transport=websocket&space={space}"
        async with raw.upgraded(gateway.port, path) as peer:
            await peer.send(raw.frame(1, b"40/ws,"))
            while not (await peer.frame())[1].startswith(b"40/ws,"):
                pass
            before = await asyncio.to_thread(resident, gateway.process.pid)
            flood = b"".join(raw.frame(1, f"42/ws,{n}{call}".encode()) for n in range(1000))
            sent = 0
            # full buffers on both sides: nobody reads any more
            while sent < count and peer.writer.transport.get_write_buffer_size() < 1 << 20:
                peer.writer.write(flood)
                sent += 1000
                await asyncio.sleep(0)
            await eventually(lambda: len(heard) == 256)
            # whoever is served now comes after all of that
            async with joined(gateway, space, "websocket") as other:
                assert (await other.ask("get_status"))["type"] == "status_update"
            assert len(heard) == 256
            assert peer.writer.transport.get_write_buffer_size() > 0, "the gateway took everything"
            assert sent < count
            grown = await asyncio.to_thread(resident, gateway.process.pid) - before
            assert grown < 16 << 20, f"{grown} bytes for {sent} events"
            # released, it reads on, and each ack comes once
            for command in heard[:256]:
                await command.respond(b"{}")
            acks = []
            while len(acks) < 256:
                _, said = await peer.frame()
                if said.startswith(b"43/ws,"):
                    acks.append(int(re.match(rb"43/ws,(\d+)\[", said)[1]))
            assert acks == list(range(256))


FLOOD = "too many messages a second, come back and send fewer"


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_a_flood_is_told_so_and_closed(own_gateway, space, carrier):
    gateway = own_gateway(GW_GATEWAY_MESSAGE_RATE="20")
    count = 1000
    refused = {"message": NO_METHOD, "code": "invalid"}
    async with neighbour(gateway, space):
        if carrier == "plain":
            async with raw.upgraded(gateway.port, f"/ws/{space}") as peer:
                await peer.send(raw.frame(1, b"{}") * count)
                errors = []
                while (said := await peer.frame())[0] == 1:
                    errors.append(json.loads(said[1])["data"])
                assert said == (8, b"\x03\xf0" + FLOOD.encode())
        else:
            async with joined(gateway, space, carrier) as one:
                await one.line.send(*['42/ws,["rpc",{}]'] * count)
                said, code, why = await one.ends()
                assert (code, why) == ((1008, FLOOD) if carrier == "websocket" else (None, None))
                errors = [json.loads(packet.removeprefix("42/ws,"))[1]["data"] for packet in said]
        # two seconds' worth at least, each answered; then the reason
        assert errors.pop() == {"message": FLOOD, "code": "busy"}
        assert errors == [refused] * len(errors) and 38 <= len(errors) < count - 1
    metrics = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{gateway.ops}/metrics", None, 10)
    assert re.search(r'gw_\w+\{[^}]*"flood"[^}]*\} 1\n', metrics.read().decode())
