"""Hostile and careless input: its exact answer or close code, and a neighbour who does not notice."""

import contextlib
import json
import re
import struct

import pytest
import raw
import websockets
from talk import bus, client, numbers


@contextlib.asynccontextmanager
async def neighbour(broker, gateway, space):
    """A client of the same space that hears and asks as ever, before and after."""

    async def answer(_command, reply):
        await reply({"fine": True})

    async with client(gateway.events(space)) as one, bus(broker) as publisher:
        yield one
        async with publisher.worker(space, answer):
            assert (await one.ask("get_system_info"))["data"] == {"fine": True}
        await publisher.event(space, 99)
        assert numbers([await one.frame()]) == [99]


# what is sent, the error's code, its message
ROWS = [
    ('{"type":', "invalid", "not JSON: EOF while parsing a value at line 1 column 8"),
    ("hello", "invalid", "not JSON: expected value at line 1 column 1"),
    ("", "invalid", "not JSON: EOF while parsing a value at line 1 column 0"),
    ('{"type":"stt_stop"} x', "invalid", "not JSON: trailing characters at line 1 column 21"),
    ('{"data":{}}', "invalid", 'the message has no "type"'),
    ('["type"]', "invalid", 'a message is a JSON object with a "type"'),
    ("42", "invalid", 'a message is a JSON object with a "type"'),
    ("null", "invalid", 'a message is a JSON object with a "type"'),
    ('"type"', "invalid", 'a message is a JSON object with a "type"'),
    ('{"type":7}', "invalid", '"type" must be text'),
    ('{"type":{}}', "invalid", '"type" must be text'),
    ('{"type":""}', "invalid", '"type" is empty'),
    ('{"type":"%s"}' % ("x" * 129), "invalid", '"type" is longer than 128 bytes'),
    ('{"type":"fly"}', "unknown_action", 'no service is routed for the type "fly"'),
    ('{"type":"client_message"}', "unknown_action", 'no service is routed for the type "client_message"'),
    (b"\xff\xfe\x00", "invalid", "a message is JSON text in UTF-8"),
]


@pytest.mark.parametrize(("sent", "code", "message"), ROWS, ids=[str(row[0])[:24] for row in ROWS])
async def test_a_bad_message_is_answered_and_the_connection_stays(broker, gateway, space, sent, code, message):
    async with neighbour(broker, gateway, space), client(gateway.events(space)) as one:
        for _ in range(2):
            await one.send(sent)
            answer = await one.frame()
            timestamp = answer.pop("timestamp")
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", timestamp)
            assert answer == {"type": "error", "data": {"message": message, "code": code}}


async def test_nesting_without_end_is_an_error_not_an_end(broker, gateway, space):
    async with neighbour(broker, gateway, space), client(gateway.events(space)) as one:
        await one.send('{"type":"get_system_info","data":' + "[" * 200_000 + "]" * 200_000 + "}")
        assert (await one.frame())["type"] == "error"
        assert (await one.ask("fly"))["data"]["code"] == "unknown_action"


async def test_binary_json_counts_as_text(broker, gateway, space):
    async with neighbour(broker, gateway, space), client(gateway.events(space)) as one:
        await one.send(b'{"type":"fly"}')
        assert (await one.frame())["data"]["code"] == "unknown_action"


async def test_a_message_above_one_mebibyte_is_closed_1009(broker, gateway, space):
    async with neighbour(broker, gateway, space), client(gateway.events(space)) as one:
        # the last that fits is answered, the first that does not ends the connection
        frame = '{"type":"fly","data":"%s"}'
        await one.send(frame % ("x" * (1_048_576 - len(frame) + 2)))
        assert (await one.frame())["data"]["code"] == "unknown_action"
        with contextlib.suppress(websockets.ConnectionClosed):
            await one.send(frame % ("x" * (1_048_576 - len(frame) + 3)))
        assert await one.ends() == 1009


NAMES = ["stt_*", "stt_>", "stt_.>", "stt_a.b", "stt_a..b", "stt_ x", "stt_\r\nPUB x 1", "stt_\0", "stt_$SYS.x", "stt_é", "stt_="]


async def test_no_type_becomes_more_than_one_token_of_a_subject(broker, gateway, space):
    async def answer(command, reply):
        await reply({"subject": command.subject})

    async with neighbour(broker, gateway, space), bus(broker) as worker, worker.worker(space, answer) as heard:
        async with client(gateway.events(space)) as one:
            for name in NAMES:
                answered = await one.ask(name)
                assert answered["type"] == "command_result", (name, answered)
                assert answered["data"]["command"] == name
        subjects = [command.subject for command in heard]
    # the map is injective and never yields a separator, a wildcard or white space
    assert len(set(subjects)) == len(NAMES)
    for subject in subjects:
        assert re.fullmatch(rf"gw\.v1\.cmd\.{space}\.voice\.stt_([A-Za-z0-9_-]|=[0-9A-F][0-9A-F])*", subject)


@pytest.mark.parametrize(
    "name", ["a.b", "*", ">", "%20", "a%2eb", "%24SYS", "x" * 65, "a%0d%0a", "%C3%A9", "a%00"], ids=repr
)
async def test_a_space_that_is_no_name_is_refused(gateway, name):
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websockets.connect(gateway.events(name)):
            pass
    assert refused.value.response.status_code == 400


# an unfinished text message that grows past the limit, never one frame above it
ENDLESS = raw.frame(1, b"x" * 65_000, fin=False) + raw.frame(0, b"x" * 65_000, fin=False) * 17
FRAMES = {
    "unmasked": (b"\x81\x02hi", 1002),
    "reserved bit": (raw.frame(1, b"hi", rsv=0x40), 1002),
    "reserved opcode": (raw.frame(3, b"hi"), 1002),
    "close of one byte": (raw.frame(8, b"\x03"), 1002),
    "close with 1005": (raw.frame(8, struct.pack(">H", 1005)), 1002),
    "close with 999": (raw.frame(8, struct.pack(">H", 999)), 1002),
    "close, reason not UTF-8": (raw.frame(8, struct.pack(">H", 1000) + b"\xff"), 1007),
    "ping of 126 bytes": (raw.frame(9, b"x" * 126), 1002),
    "fragmented ping": (raw.frame(9, b"x", fin=False), 1002),
    "continuation of nothing": (raw.frame(0, b"x"), 1002),
    "a message within a message": (raw.frame(1, b"x", fin=False) + raw.frame(1, b"y"), 1002),
    "text not UTF-8": (raw.frame(1, b"\xc3\x28"), 1007),
    "length with the top bit": (b"\x81\xff" + struct.pack(">Q", 1 << 63) + b"\0\0\0\0", 1002),
    "length of nearly everything": (b"\x81\xff" + struct.pack(">Q", (1 << 63) - 1) + b"\0\0\0\0", 1009),
    "fragments without end": (ENDLESS, 1009),
}


@pytest.mark.parametrize("name", FRAMES)
async def test_a_broken_frame_is_closed_with_its_code(broker, gateway, space, name):
    sent, code = FRAMES[name]
    async with neighbour(broker, gateway, space):
        async with raw.upgraded(gateway.port, f"/events/{space}") as peer:
            await peer.send(sent)
            assert await peer.close_code() == code


async def test_a_frame_in_single_bytes_is_a_frame(broker, gateway, space):
    async with neighbour(broker, gateway, space), raw.upgraded(gateway.port, f"/events/{space}") as peer:
        for byte in raw.frame(1, b'{"type":"fly"}'):
            await peer.send(bytes([byte]))
        while True:
            opcode, payload = await peer.frame()
            assert opcode == 1
            if json.loads(payload)["type"] == "error":
                break


HANDSHAKES = {
    "no key": ({"Sec-WebSocket-Key": None}, 400),
    "short key": ({"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
    "version 12": ({"Sec-WebSocket-Version": "12"}, 426),
    "no version": ({"Sec-WebSocket-Version": None}, 426),
    "no connection": ({"Connection": "keep-alive"}, 400),
    "origin null": ({"Origin": "null"}, 403),
    "foreign origin": ({"Origin": "https://evil.example"}, 403),
    "origin twice": ({"Origin": ["http://localhost", "http://localhost"]}, 403),
    "rebound name": ({"Origin": "http://evil.example", "Host": "evil.example"}, 403),
    "no origin": ({}, 101),
    "origin of this machine": ({"Origin": "http://localhost:5173"}, 101),
    "forged forwarding": ({"X-Forwarded-For": "", "Forwarded": "for=1.2.3.4"}, 101),
    "compression twice": ({"Sec-WebSocket-Extensions": ["permessage-deflate", "permessage-deflate"]}, 101),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_handshake_gets_its_status(broker, gateway, space, name):
    changes, status = HANDSHAKES[name]
    async with neighbour(broker, gateway, space):
        head = await raw.handshake(gateway.port, f"/events/{space}", changes)
    assert head.split(" ")[1] == str(status), head
    if status == 426:
        assert "sec-websocket-version: 13" in head.lower()
    if status == 101:
        # nothing is compressed that was not agreed on
        assert "extensions" not in head.lower()


async def test_an_unknown_path_names_the_paths(gateway):
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/nowhere"):
            pass
    assert refused.value.response.status_code == 404
    assert b"/events" in refused.value.response.body
