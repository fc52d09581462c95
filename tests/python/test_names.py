"""Names that clients choose and that become subjects or headers: none reaches more than its own place.

| name | as | test |
|---|---|---|
| `.`, `a..b`, `*`, `>`, spaces, CR/LF, NUL, 300 bytes, `$SYS.x`, `_INBOX.x`, UTF-8 | space, in path and query | `…_is_no_space` |
| the same | voice command, assistant method, scripting action | `…_is_one_token_of_its_own_subject` |
| the same | event | `…_is_an_event_of_its_own_space` |
| CR/LF and `Nats-` names in ids, trace context, messages and handshakes | header | `…_no_header_is_forged` |

That the map of names to tokens is injective for all names is a property test: `tests/contract.rs`.
"""

import contextlib
import json
import re
import urllib.parse

import pytest
import raw
import websockets
from documents import talk as documents
from neighbour import neighbour
from stack import free_port
from talk import bus, client, settle

LONG = "x" * 300
NAMES = [
    ".", "a.b", "a..b", ".a", "a.", "*", "a.*", ">", "a.>", " ", "a b", "\t", "\r\n", "a\r\nPUB gw.v1.evt.x.y.z 1\r\nx",
    "\0", "a\0b", LONG, "$SYS.x", "$JS.API.STREAM.DELETE.GW_EVENTS", "$SRV.x", "_INBOX.x", "_GW.x", "é", "日本", "=", "=2E",
    "%2E", "../main", "gw.v1.sys.drain",
]  # fmt: skip


def token(name: str) -> str:
    """As the contract has it: what is not plain is escaped byte by byte."""
    plain = re.compile(rb"[A-Za-z0-9_-]")
    return "".join(chr(b) if plain.match(bytes([b])) else f"={b:02X}" for b in name.encode()) or "="


class Spy:
    """Hears all that crosses the bus, and answers the commands of one space."""

    def __init__(self, publisher, space: str):
        self.publisher, self.space, self.heard = publisher, space, []

    async def on_message(self, message):
        self.heard.append(message)
        if message.reply and message.subject.startswith(f"gw.v1.cmd.{self.space}."):
            await self.publisher.connection.publish(message.reply, b'{"status":"done"}')

    def subjects(self) -> set[str]:
        """Where clients' words went, of all spaces but the neighbour's."""
        own = re.compile(r"gw\.v1\.(?!sys\.)[^.]+\.(?!neighbour\b)")
        return {message.subject for message in self.heard if own.match(message.subject)}

    def roots(self) -> set[str]:
        """First tokens of all subjects."""
        return {message.subject.split(".")[0] for message in self.heard}


@contextlib.asynccontextmanager
async def spy(broker, space: str):
    async with bus(broker) as publisher:
        one = Spy(publisher, space)
        subscription = await publisher.connection.subscribe(">", cb=one.on_message)
        await settle(publisher.connection)
        yield one
        await settle(publisher.connection)
        await subscription.unsubscribe()


def checked(seen: Spy) -> None:
    """Nothing went where no contract sends it."""
    assert seen.roots() <= {"gw", "$JS", "$SRV", "_GW", "_INBOX"}, seen.roots()
    for message in seen.heard:
        assert message.subject not in NAMES
        # whole tokens: an inbox of the gateway's own has a random name, which may begin with x as well
        forbidden = ("$SYS.", "_INBOX.x.", "_GW.x.", "$JS.API.STREAM.DELETE.", "gw.v1.sys.drain.")
        assert not f"{message.subject}.".startswith(forbidden), message.subject


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_a_hostile_name_is_no_space(broker, gateway, name):
    quoted = urllib.parse.quote(name, safe="")
    paths = [f"/events/{name}", f"/events/{quoted}", f"/events?space={name}", f"/events?space={quoted}"]
    paths += [f"/events/s/{quoted}", f"/ws/{quoted}", f"/ws?space={quoted}", f"/socket.io/?EIO=4&space={quoted}"]
    async with neighbour(broker, gateway, "neighbour"), spy(broker, "nobody") as seen:
        for path in paths:
            head = await raw.said(gateway.port, request(path))
            assert head.split(" ")[1] == "400", (path, head)
        for port in (gateway.voice, gateway.cad):
            head = await raw.said(port, request(f"/?space={quoted}"))
            assert head.split(" ")[1] == "400", head
    assert seen.subjects() == set()
    checked(seen)


def request(path: str) -> bytes:
    lines = ["Host: localhost", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


@pytest.fixture
def open_gateway(own_gateway, space):
    """Every action of every dialect is routed: the least careful configuration there is."""
    port = str(free_port())
    gateway = own_gateway(
        GW_VOICE_ROUTES="*=voice",
        GW_ASSISTANT_ROUTES="*=helper",
        GW_SCRIPTING_ROUTES="*=blender",
        GW_SCRIPTING_PORT=port,
        GW_SCRIPTING_SPACE=space,
    )
    gateway.scripting = int(port)
    return gateway


async def test_a_hostile_name_is_one_token_of_its_own_subject(broker, open_gateway, space):
    gateway = open_gateway
    names = [*NAMES, "", "cancel"]
    expected = set()
    async with neighbour(broker, gateway, "neighbour"), spy(broker, space) as seen:
        async with client(gateway.events(space)) as one:
            for name in names:
                answer = await one.ask(name)
                if answer["type"] == "error":
                    assert name in ("", LONG, "cancel"), answer
                    assert answer["data"]["code"] == ("unknown_action" if name == "cancel" else "invalid")
                else:
                    assert answer["data"]["command"] == name
                    expected.add(f"gw.v1.cmd.{space}.voice.{token(name)}")
        async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/ws/{space}") as socket:
            for name in names:
                await socket.send(json.dumps({"method": name, "params": {}}))
                while (answer := json.loads(await socket.recv()))["type"] not in ("command_response", "error"):
                    pass
                if answer["type"] == "error":
                    assert name in ("", LONG, "cancel"), (name, answer)
                else:
                    expected.add(f"gw.v1.cmd.{space}.helper.{token(name)}")
        async with documents(gateway.scripting) as one:
            for name in names:
                for shape in ("action", "type"):
                    await one.send({shape: name, "params": {}, "id": "1"})
                    answer = await one.answer()
                    assert answer is not None, name
                    if answer.get("status") == "error" or answer.get("success") is False:
                        assert name in ("", LONG, "cancel"), (name, answer)
                    else:
                        expected.add(f"gw.v1.cmd.{space}.blender.{token(name)}")
        assert seen.subjects() == expected
        checked(seen)


async def test_a_hostile_name_is_an_event_of_its_own_space(broker, gateway, space):
    names = [name for name in [*NAMES, ""] if name != LONG]
    async with neighbour(broker, gateway, "neighbour"), client(gateway.events(space)) as one, bus(broker) as publisher:
        for number, name in enumerate(names):
            await publisher.event(space, number, topic=token(name))
            # an escape that is none: no name, so nobody's event
            await publisher.event(space, -1, topic="a=2e")
            await publisher.event(space, -1, topic="=FF")
        heard = await one.frames(len(names))
        assert [(frame["type"], frame["data"]["n"]) for frame in heard] == [(name, n) for n, name in enumerate(names)]
        async with client(gateway.events(space)) as late:
            assert [event["type"] for event in late.replayed] == names


IDS = ["a\r\nNats-Msg-Id: forged", "a\nGw-Session: voice/somebody", "\r\n\r\nbody", "\0", "é", "%0D%0A", " ", "i" * 256]
TRACES = ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nNats-Msg-Id: forged", "x\r\n\r\n", "\0", "é" * 55]
OURS = {"Nats-Msg-Id", "Gw-Time", "Gw-Session", "Gw-Deadline", "Gw-Correlation"}


async def test_no_header_is_forged(broker, gateway, space):
    forged = {"Nats-Msg-Id": "forged", "Gw-Session": "voice/somebody", "Gw-Time": "1", "Gw-Deadline": "0"}

    async def answer(command, reply):
        await reply({"headers": dict(command.headers), "data": command.data.decode()})

    options = {"additional_headers": {**forged, "Nats-Expected-Last-Subject-Sequence": "7"}}
    async with neighbour(broker, gateway, "neighbour"), bus(broker) as worker:
        async with worker.worker(space, answer) as heard, client(gateway.events(space), **options) as one:
            for ident in IDS:
                said = {"type": "demo_flow", "id": ident, "data": {"headers": forged}, "headers": forged, **forged}
                await one.send(said)
                told = await one.frame()
                # the client gets back its own, whatever it is
                assert told["id"] == ident
                headers = told["data"]["result"]["headers"]
                assert set(headers) <= OURS
                assert headers["Gw-Session"] == f"voice/{one.status['session']}"
                assert headers["Nats-Msg-Id"] != "forged"
                assert headers["Gw-Time"] != "1" and headers["Gw-Deadline"] != "0"
                printable = all(" " <= char <= "~" for char in ident)
                assert headers.get("Gw-Correlation", "").strip() == (ident.strip() if printable else "")
                assert json.loads(told["data"]["result"]["data"]) == {"headers": forged}
            for trace in TRACES:
                await one.send({"type": "demo_flow", "traceparent": trace})
                headers = (await one.frame())["data"]["result"]["headers"]
                assert set(headers) <= OURS
            assert len({command.headers["Nats-Msg-Id"] for command in heard}) == len(IDS) + len(TRACES)
            # too long to be kept: refused, without an echo
            await one.send({"type": "demo_flow", "id": "i" * 257})
            told = await one.frame()
            assert told["data"] == {"message": '"id" is longer than 256 bytes', "code": "invalid"}


async def test_an_offset_that_is_none_is_a_newcomers(broker, gateway, space):
    hostile = ["", "x", "1.2.3", "-1.0.0.0", "1.2.3.4.5", "9" * 400, "1.99999999999999999999.1.1", "1.2.3.4 ", "\u0661.1.1.1"]
    async with neighbour(broker, gateway, "neighbour"):
        for offset in hostile:
            query = urllib.parse.urlencode({"since": offset})
            async with client(gateway.events(space, f"?{query}")) as one:
                assert one.status["recovered"] is False, offset
