"""Hostile and careless input: its exact answer or close code, and a neighbour who does not notice.

| input | test |
|---|---|
| a voice message that is none: no JSON, no type, no object, unknown type, binary, wrong UTF-8 | `…a_bad_message_is_answered…` |
| a binary message that holds JSON | `…binary_json_counts_as_text` |
| a message above the limit | `…above_one_mebibyte_is_closed_1009` |
| JSON without an end to its nesting | `…nesting_without_end…` |
| a client that does not read | `test_slow.py` |
| lengths with the top bit or of 2^63-1, endless fragments, reserved bits, short, bad and not UTF-8 close frames, unmasked frames, pings of 126 bytes | `…a_broken_frame_is_closed_with_its_code` |
| the same at every door | `…every_door_keeps_the_same_rules` |
| compression: never agreed to, however often it is offered, so nothing can be inflated | `…nothing_is_inflated` |
| handshakes: key, version, `Origin`, `Host`, forwarding headers, extensions | `…a_handshake_gets_its_status` |
| heads too large or broken | `…a_head_that_is_no_head…` |
| an offer of another protocol than WebSocket | `…another_protocol_gets_the_plain_answer` |
| forged forwarding headers | `…a_forged_address_is_not_believed` |
| names that become subjects, header injection | `test_names.py` |
"""

import contextlib
import json
import re
import struct

import pytest
import raw
import websockets
from neighbour import answered, answered_raw, neighbour
from talk import client, eventually

# what is sent, the error's code, its message
ROWS = [
    ('{"type":', "invalid", "not JSON: EOF while parsing a value at line 1 column 8"),
    ("hello", "invalid", "not JSON: expected value at line 1 column 1"),
    ("", "invalid", "not JSON: EOF while parsing a value at line 1 column 0"),
    ('{"type":"stt_stop"} x', "invalid", "not JSON: trailing characters at line 1 column 21"),
    ('{"type":"stt_stop"}{"type":"stt_stop"}', "invalid", "not JSON: trailing characters at line 1 column 20"),
    ('{"type":"fly","data":NaN}', "invalid", "not JSON: expected value at line 1 column 22"),
    ('\ufeff{"type":"fly"}', "invalid", "not JSON: expected value at line 1 column 1"),
    ('{"data":{}}', "invalid", 'the message has no "type"'),
    ('["type"]', "invalid", 'a message is a JSON object with a "type"'),
    ("42", "invalid", 'a message is a JSON object with a "type"'),
    ("null", "invalid", 'a message is a JSON object with a "type"'),
    ('"type"', "invalid", 'a message is a JSON object with a "type"'),
    ('{"type":7}', "invalid", '"type" must be text'),
    ('{"type":{}}', "invalid", '"type" must be text'),
    ('{"type":null}', "invalid", 'the message has no "type"'),
    ('{"type":"\\ud800"}', "invalid", '"type" must be text'),
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
            answer = await answered(one)
            timestamp = answer.pop("timestamp")
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", timestamp)
            assert answer == {"type": "error", "data": {"message": message, "code": code}}


async def test_nesting_without_end_is_an_error_not_an_end(broker, gateway, space):
    async with neighbour(broker, gateway, space), client(gateway.events(space)) as one:
        await one.send('{"type":"get_system_info","data":' + "[" * 200_000 + "]" * 200_000 + "}")
        assert (await answered(one))["type"] == "error"
        await one.send({"type": "fly"})
        assert (await answered(one))["data"]["code"] == "unknown_action"


async def test_binary_json_counts_as_text(broker, gateway, space):
    async with neighbour(broker, gateway, space), client(gateway.events(space)) as one:
        await one.send(b'{"type":"fly"}')
        assert (await answered(one))["data"]["code"] == "unknown_action"


async def test_a_message_above_one_mebibyte_is_closed_1009(broker, gateway, space):
    async with neighbour(broker, gateway, space), client(gateway.events(space)) as one:
        # the last that fits is answered, the first that does not ends the connection
        frame = '{"type":"fly","data":"%s"}'
        await one.send(frame % ("x" * (1_048_576 - len(frame) + 2)))
        assert (await answered(one))["data"]["code"] == "unknown_action"
        with contextlib.suppress(websockets.ConnectionClosed):
            await one.send(frame % ("x" * (1_048_576 - len(frame) + 3)))
        assert await one.ends() == 1009


# unfinished text messages that grow past the limit, never one frame above it
ENDLESS = raw.frame(1, b"x" * 65_000, fin=False) + raw.frame(0, b"x" * 65_000, fin=False) * 17
CRUMBS = raw.frame(1, b"x", fin=False) + raw.frame(0, b"x" * 100, fin=False) * 11_000


def length(said: int) -> bytes:
    """The head of a masked text frame of that length, and no more."""
    return b"\x81\xff" + struct.pack(">Q", said) + raw.MASK


FRAMES = {
    "unmasked": (b"\x81\x02hi", 1002),
    "unmasked ping": (b"\x89\x00", 1002),
    "first reserved bit": (raw.frame(1, b"hi", rsv=0x40), 1002),
    "second reserved bit": (raw.frame(1, b"hi", rsv=0x20), 1002),
    "third reserved bit": (raw.frame(2, b"hi", rsv=0x10), 1002),
    "reserved bit of a ping": (raw.frame(9, b"", rsv=0x40), 1002),
    "reserved opcode": (raw.frame(3, b"hi"), 1002),
    "reserved control opcode": (raw.frame(11, b""), 1002),
    "close of one byte": (raw.frame(8, b"\x03"), 1002),
    "close with 0": (raw.frame(8, struct.pack(">H", 0)), 1002),
    "close with 999": (raw.frame(8, struct.pack(">H", 999)), 1002),
    "close with 1004": (raw.frame(8, struct.pack(">H", 1004)), 1002),
    "close with 1005": (raw.frame(8, struct.pack(">H", 1005)), 1002),
    "close with 1006": (raw.frame(8, struct.pack(">H", 1006)), 1002),
    "close with 2999": (raw.frame(8, struct.pack(">H", 2999)), 1002),
    "close with 65535": (raw.frame(8, struct.pack(">H", 65535)), 1002),
    "close, reason not UTF-8": (raw.frame(8, struct.pack(">H", 1000) + b"\xff"), 1007),
    "close of 126 bytes": (raw.frame(8, struct.pack(">H", 1000) + b"x" * 124), 1002),
    "ping of 126 bytes": (raw.frame(9, b"x" * 126), 1002),
    "pong of 126 bytes": (raw.frame(10, b"x" * 126), 1002),
    "fragmented ping": (raw.frame(9, b"x", fin=False), 1002),
    "continuation of nothing": (raw.frame(0, b"x"), 1002),
    "a message within a message": (raw.frame(1, b"x", fin=False) + raw.frame(1, b"y"), 1002),
    "text not UTF-8": (raw.frame(1, b"\xc3\x28"), 1007),
    "text not UTF-8 in its first fragment": (raw.frame(1, b"\xc3\x28", fin=False), 1007),
    "text that ends within a character": (raw.frame(1, b"\xc3"), 1007),
    "text with a surrogate": (raw.frame(1, b"\xed\xa0\x80"), 1007),
    "length with the top bit": (length(1 << 63), 1002),
    "length of all ones": (length((1 << 64) - 1), 1002),
    "length of nearly everything": (length((1 << 63) - 1), 1009),
    "length one above the limit": (length(1_048_577), 1009),
    "fragments without end": (ENDLESS, 1009),
    "small fragments without end": (CRUMBS, 1009),
}


@pytest.mark.parametrize("name", FRAMES)
async def test_a_broken_frame_is_closed_with_its_code(broker, gateway, space, name):
    sent, code = FRAMES[name]
    async with neighbour(broker, gateway, space):
        async with raw.upgraded(gateway.port, f"/events/{space}") as peer:
            await peer.send(sent)
            assert await peer.close_code() == code


# every door with a WebSocket behind it: which port, which path
DOORS = {
    "voice": ("port", "/events/{}"),
    "voice, own port": ("voice", "/s/{}"),
    "assistant": ("port", "/ws/{}"),
    "assistant, Socket.IO": ("port", "/socket.io/?EIO=4&transport=websocket&space={}"),
    "cad": ("port", "/cad/s/{}"),
    "cad, own port": ("cad", "/s/{}"),
}
# what breaks the protocol whatever the limits of a dialect are
ANYWHERE = ["unmasked", "first reserved bit", "close of one byte", "text not UTF-8", "length with the top bit"]


@pytest.mark.parametrize("door", DOORS)
async def test_every_door_keeps_the_same_rules(broker, gateway, space, door):
    port, path = getattr(gateway, DOORS[door][0]), DOORS[door][1].format(space)
    async with neighbour(broker, gateway, space):
        for name in ANYWHERE:
            sent, code = FRAMES[name]
            async with raw.upgraded(port, path) as peer:
                await peer.send(sent)
                assert await peer.close_code() == code, name
        for name in ("origin null", "foreign origin", "origin twice", "rebound name", "version 12", "no key"):
            changes, status = HANDSHAKES[name]
            head = await raw.handshake(port, path, changes)
            assert head.split(" ")[1] == str(status), (name, head)


async def test_nothing_is_inflated(broker, gateway, space):
    """Compression is not agreed to, so what claims to be compressed is a broken frame, however small it is."""
    offers = ["permessage-deflate; client_max_window_bits", "permessage-deflate", "x-webkit-deflate-frame"]
    async with neighbour(broker, gateway, space):
        changes = {"Sec-WebSocket-Extensions": offers}
        async with raw.upgraded(gateway.port, f"/events/{space}", changes=changes) as peer:
            assert "sec-websocket-extensions" not in peer.head.lower()
            await peer.send(raw.frame(1, b"\x00" * 20, rsv=0x40))
            assert await peer.close_code() == 1002


async def test_a_frame_in_single_bytes_is_a_frame(broker, gateway, space):
    async with neighbour(broker, gateway, space), raw.upgraded(gateway.port, f"/events/{space}") as peer:
        for byte in raw.frame(1, b'{"type":"fly"}'):
            await peer.send(bytes([byte]))
        assert (await answered_raw(peer))["data"]["code"] == "unknown_action"


async def test_a_message_in_many_empty_fragments_is_a_message(broker, gateway, space):
    async with neighbour(broker, gateway, space), raw.upgraded(gateway.port, f"/events/{space}") as peer:
        empty = raw.frame(0, b"", fin=False) * 10_000
        await peer.send(raw.frame(1, b'{"type":', fin=False) + empty + raw.frame(0, b'"fly"}'))
        assert (await answered_raw(peer))["data"]["code"] == "unknown_action"


# an address of nobody, for rules about addresses that are not this machine's
THERE = "203.0.113.7:8080"
HANDSHAKES = {
    "no key": ({"Sec-WebSocket-Key": None}, 400),
    "short key": ({"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
    "two keys": ({"Sec-WebSocket-Key": ["dGhlIHNhbXBsZSBub25jZQ=="] * 2}, 400),
    "version 12": ({"Sec-WebSocket-Version": "12"}, 426),
    "no version": ({"Sec-WebSocket-Version": None}, 426),
    "no connection": ({"Connection": "keep-alive"}, 400),
    "origin null": ({"Origin": "null"}, 403),
    "origin empty": ({"Origin": ""}, 403),
    "foreign origin": ({"Origin": "https://evil.example"}, 403),
    "foreign origin with our name in it": ({"Origin": "http://localhost.evil.example"}, 403),
    "foreign origin with our name as user": ({"Origin": "http://localhost@evil.example"}, 403),
    "origin twice": ({"Origin": ["http://localhost", "http://localhost"]}, 403),
    "origin twice, one foreign": ({"Origin": ["http://localhost", "https://evil.example"]}, 403),
    "two origins in one": ({"Origin": "http://localhost, https://evil.example"}, 403),
    "rebound name": ({"Origin": "http://evil.example", "Host": "evil.example"}, 403),
    "rebound name, forwarded": (
        {"Origin": "http://evil.example", "Host": "evil.example", "X-Forwarded-Host": "localhost"},
        403,
    ),
    "right address": ({"Origin": f"http://{THERE}", "Host": THERE}, 101),
    "right address, wrong scheme": ({"Origin": f"https://{THERE}", "Host": THERE}, 403),
    "right address, wrong port": ({"Origin": "http://203.0.113.7", "Host": THERE}, 403),
    "right address, forwarded scheme": (
        {"Origin": f"https://{THERE}", "Host": THERE, "X-Forwarded-Proto": "https"},
        403,
    ),
    "two hosts": ({"Origin": f"http://{THERE}", "Host": [THERE, THERE]}, 403),
    "no origin": ({}, 101),
    "origin of this machine": ({"Origin": "http://localhost:5173"}, 101),
    "empty forwarding": ({"X-Forwarded-For": "", "Forwarded": ""}, 101),
    "forged forwarding": ({"X-Forwarded-For": "127.0.0.1, 1.2.3.4", "Forwarded": "for=1.2.3.4"}, 101),
    "forged forwarding saves no foreign origin": (
        {"Origin": "https://evil.example", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "evil.example"},
        403,
    ),
    "compression twice": ({"Sec-WebSocket-Extensions": ["permessage-deflate", "permessage-deflate"]}, 101),
    "compression twice in one": ({"Sec-WebSocket-Extensions": "permessage-deflate, permessage-deflate"}, 101),
    "an extension that is none": ({"Sec-WebSocket-Extensions": ";;,=\t"}, 101),
    "a subprotocol": ({"Sec-WebSocket-Protocol": "mqtt, cloudevents.json"}, 101),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_handshake_gets_its_status(broker, gateway, space, name):
    changes, status = HANDSHAKES[name]
    async with neighbour(broker, gateway, space):
        head = await raw.handshake(gateway.port, f"/events/{space}", changes)
    assert head.split(" ")[1] == str(status), head
    if status == 426:
        assert "sec-websocket-version: 13" in head.lower()
    # nothing is compressed that was not agreed on, and no other protocol promised
    assert "sec-websocket-extensions" not in head.lower()
    assert "sec-websocket-protocol" not in head.lower()


# Just as much as is read, so that nothing is left unread: a reset would eat the answer.
FIELD = b"GET /events HTTP/1.1\r\nHost: x\r\nX: ".ljust(16 * 1024, b"y")
HEADS = {
    "a field without end": (FIELD, 431),
    "101 fields": (b"GET /events HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
    "a field name with a space": (b"GET /events HTTP/1.1\r\nHo st: x\r\n\r\n", 400),
    "a NUL in a field": (b"GET /events HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "a version of its own": (b"GET /events HTTP/9.9\r\nHost: x\r\n\r\n", 400),
    "not HTTP at all": (b"SSH-2.0-client\r\n\r\n", 400),
    # ended without a word: its own alert would be the only one it could read
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", None),
}


@pytest.mark.parametrize("name", HEADS)
async def test_a_head_that_is_no_head_is_refused(broker, gateway, space, name):
    sent, status = HEADS[name]
    async with neighbour(broker, gateway, space):
        head = await raw.said(gateway.port, sent)
    assert (head.split(" ")[1] if status else head) == str(status or ""), head


OFFER = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
PLAIN = {
    b"GET /health HTTP/1.1\r\n%s\r\n": 200,
    b"GET /status.json HTTP/1.1\r\n%s\r\n": 200,
    b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n%s\r\n": 200,
    b"POST /api/execute_command HTTP/1.1\r\n%sContent-Length: 2\r\n\r\n{}": 400,
    b"GET /events HTTP/1.1\r\n%s\r\n": 404,
}


async def test_who_offers_another_protocol_gets_the_plain_answer(gateway):
    """Clients that would rather speak HTTP/2 say so with every request, and go on without it."""
    for request, status in PLAIN.items():
        head = await raw.said(gateway.port, request % OFFER)
        assert head.split(" ")[1] == str(status), (request, head)


async def test_a_method_that_is_not_served_is_told_those_that_are(gateway):
    for path, served in (("/", "GET, HEAD"), ("/events", "GET, HEAD"), ("/health", "GET, HEAD, OPTIONS")):
        head = await raw.said(gateway.port, f"DELETE {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert head.split(" ")[1] == "405" and f"allow: {served}\r\n" in head, (path, head)


async def test_a_forged_address_is_not_believed(broker, gateway, space):
    async with neighbour(broker, gateway, space):
        changes = {"X-Forwarded-For": "198.51.100.77", "Forwarded": "for=198.51.100.77", "X-Real-IP": "198.51.100.77"}
        async with raw.upgraded(gateway.port, f"/events/{space}", changes=changes) as peer:
            await peer.send(b"\x81\x02hi")
            assert await peer.close_code() == 1002
    peer = re.compile(rf"space\W+{space}\W.*127\.0\.0\.1.*1002")
    await eventually(lambda: peer.search(gateway.log.read_text()))
    assert "198.51.100.77" not in gateway.log.read_text()


async def test_an_unknown_path_names_the_paths(gateway):
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/nowhere"):
            pass
    assert refused.value.response.status_code == 404
    assert b"/events" in refused.value.response.body
