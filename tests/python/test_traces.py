"""One trace from a client's frame over NATS and a worker back to the client, for every dialect."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import urllib.request

import pytest
import websockets
from figures import figures
from documents import Worker, talk
from stack import Broker, Gateway, Workers
from talk import client
from test_attach import NODE_MODULES, WORKERS, is_listed
from traced import COMMAND, ROUTES, Client, collector, exported, gateway, is_one_command  # noqa: F401 fixtures


@pytest.fixture(scope="module")
def workers(broker, exported, tmp_path_factory):
    log = tmp_path_factory.mktemp("workers") / "log"
    running = Workers(broker, log, "command_processor", "language", OTEL_SERVICE_NAME="rust", **exported)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def python(broker, exported, tmp_path_factory):
    yield from greeter([sys.executable, str(WORKERS / "python" / "worker.py")], broker, exported)


def greeter(command, broker, exported):
    environment = {**os.environ, "NATS_URL": broker.url, "OTEL_SERVICE_NAME": "greeter", **exported}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    assert "greeter serves greet, count" in process.stdout.readline()
    yield process
    process.terminate()
    assert process.wait(30) == 0


@pytest.fixture
def javascript(exported, tmp_path):
    """The JavaScript worker behind a broker and a gateway of its own: two greeters would share the commands."""
    if not os.path.isdir(os.path.join(NODE_MODULES, "@opentelemetry/sdk-trace-node")):
        pytest.skip("there is no node with OpenTelemetry's packages; CAUSEWAY_NODE_MODULES says where packages are")
    for file in ("worker.mjs", "bodies.mjs", "traces.mjs"):
        shutil.copy(WORKERS / "javascript" / file, tmp_path)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    broker = Broker(tmp_path / "bus")
    settings = {"GW_TRACE_RATIO": "0", "GW_VOICE_ROUTES": ROUTES, "OTEL_SERVICE_NAME": "gateway"}
    server = Gateway(broker, tmp_path / "gateway", **settings, **exported)
    yield from (server for _ in greeter(["node", str(tmp_path / "worker.mjs")], broker, exported))
    assert server.stop() == 0, server.log.read_text()
    broker.stop()


async def test_voice(gateway, python, collector, space):
    await is_listed(gateway, "greeter")
    me = Client()
    async with client(gateway.events(space)) as one:
        await one.send({"type": "greet", "data": {"name": "Ada"}, "id": "mine", "traceparent": me.header})
        assert (await one.frame())["type"] == "command_result"
    spans = is_one_command(await collector.whole(me.trace, 4), me, "voice", "greeter", "greeter")
    assert spans["work"].said["messaging.message.conversation_id"] == "mine"
    assert not any(span.failed for span in spans.values())


async def test_an_event_hangs_on_its_publisher_and_links_to_it(gateway, python, collector, space):
    await is_listed(gateway, "greeter")
    me = Client()
    async with client(gateway.events(space)) as one, client(gateway.events(space)) as other:
        await one.send({"type": "count", "data": {"to": 1}, "traceparent": me.header})
        assert (await other.frame())["type"] == "counted"
        spans = await collector.whole(me.trace, 6)
    spans = {(span.service, span.kind, span.name.split()[0]): span for span in spans}
    work = spans["greeter", "consumer", "process"]
    published = spans["greeter", "producer", "publish"]
    delivered = next(span for span in collector.trace(me.trace) if span.name.startswith("process gw.v1.evt."))
    assert (published.parent, delivered.parent) == (work.id, published.id)
    assert delivered.links == ((me.trace, published.id),)
    assert (delivered.service, delivered.kind, delivered.said["gw.clients"]) == ("gateway", "consumer", 2)
    assert published.said["messaging.message.id"] == delivered.said["messaging.message.id"] != ""
    assert published.said["server.port"] == delivered.said["server.port"] > 0


async def test_assistant_on_plain_websocket_and_from_worker_to_worker(gateway, workers, collector, space):
    for service in ("command_processor", "language"):
        await is_listed(gateway, service)
    me = Client()
    url = f"ws://127.0.0.1:{gateway.port}/ws/{space}"
    headers = {"traceparent": me.header}

    async def ask(socket, command: str, *ends: str) -> None:
        await socket.send(json.dumps({"method": "execute_command", "params": {"command": command}}))
        left = set(ends)
        while left:
            frame = json.loads(await socket.recv())
            left -= {frame["type"], frame["data"].get("status")}

    async with websockets.connect(url) as company, websockets.connect(url, additional_headers=headers) as socket:
        # who has heard the last status is in the room, so that what follows is delivered and not replayed
        await ask(company, "time", "command_response", "completed")
        await ask(socket, "analyse a fine day", "command_response")
        # four of the command, two of the question to the other worker, three statuses published and delivered
        spans = await collector.whole(me.trace, 12)
    first = [span for span in spans if span.said.get("gw.service") != "language" and "evt" not in span.name]
    one = is_one_command(first, me, "assistant", "command_processor", "rust")
    asked, answered = (span for span in spans if span.said.get("gw.service") == "language")
    assert (asked.kind, asked.name) == ("client", f"request {COMMAND}")
    assert (answered.kind, answered.name) == ("consumer", f"process {COMMAND}")
    assert (asked.parent, answered.parent) == (one["work"].id, asked.id)
    told = [span for span in spans if span.kind == "producer"]
    heard = [span for span in spans if span.name.startswith("process gw.v1.evt.")]
    assert [span.parent for span in told] == [one["work"].id] * 3
    assert [span.parent for span in heard] == [span.id for span in told]
    assert [span.links for span in heard] == [((me.trace, span.id),) for span in told]


async def test_assistant_on_socket_io(gateway, python, collector, space):
    if not os.path.isdir(os.path.join(NODE_MODULES, "socket.io-client")):
        pytest.skip("there is no socket.io-client; CAUSEWAY_NODE_MODULES says where packages are")
    await is_listed(gateway, "greeter")
    me = Client()
    program = """
        const { io } = require("socket.io-client");
        const [url, space, traceparent] = process.argv.slice(1);
        const socket = io(`${url}/ws`, { query: { space }, extraHeaders: { traceparent }, transports: ["websocket"] });
        socket.emitWithAck("rpc", { method: "greet", params: { name: "Ada" } })
          .then((answer) => { console.log(JSON.stringify(answer)); socket.disconnect(); });
    """
    process = await asyncio.create_subprocess_exec(
        "node", "-e", program, f"http://127.0.0.1:{gateway.port}", space, me.header,
        env={**os.environ, "NODE_PATH": NODE_MODULES}, stdout=subprocess.PIPE,
    )
    try:
        told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert json.loads(told)["data"]["greeting"] == "Hello, Ada!"
    is_one_command(await collector.whole(me.trace, 4), me, "assistant", "greeter", "greeter")


async def test_assistant_over_rest(gateway, workers, collector, space):
    await is_listed(gateway, "command_processor")
    me = Client()
    before = await figures(gateway)
    url = f"http://127.0.0.1:{gateway.port}/api/execute_command?space={space}"
    headers = {"traceparent": me.header, "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps({"text": "time"}).encode(), headers)
    answer = await asyncio.to_thread(urllib.request.urlopen, request, None, 10)
    assert answer.status == 200
    # the client does not wait; its command ends when the space was told, and counts like any other
    # beside the four spans of a command: two statuses of the worker, and what the gateway tells of the outcome
    spans = await collector.whole(me.trace, 7)
    command = [span for span in spans if "evt" not in span.name]
    reply = is_one_command(command, me, "assistant", "command_processor", "rust")["reply"]
    told = next(span for span in spans if span.said.get("gw.topic") == "command_response")
    assert (told.service, told.kind, told.parent) == ("gateway", "producer", reply.id)
    # and one that asks for the status is answered by the gateway
    me = Client()
    url = f"http://127.0.0.1:{gateway.port}/api/status?space={space}"
    request = urllib.request.Request(url, headers={"traceparent": me.header})
    assert (await asyncio.to_thread(urllib.request.urlopen, request, None, 10)).status == 200
    (frame,) = await collector.whole(me.trace, 1)
    assert (frame.kind, frame.parent, frame.said["gw.service"]) == ("server", me.span, "gateway")
    now = await figures(gateway)
    name = "gw_command_duration_seconds_count"
    for outcome in ("done", "local"):
        labels = {"dialect": "assistant", "outcome": outcome}
        assert now.sum(name, **labels) == before.sum(name, **labels) + 1


async def test_scripting(gateway, python, collector):
    await is_listed(gateway, "greeter")
    me = Client()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    asked = {"action": "greet", "id": "7", "params": {"name": "Ada"}, "traceparent": me.header}
    writer.write(json.dumps(asked).encode())
    answer, read = {}, b""
    while answer.get("status") != "success":
        read += await reader.read(4096)
        answer, end = json.JSONDecoder().raw_decode(read.decode())
        read = read[end:] if answer.get("status") != "success" else read
    assert answer["result"] == {"greeting": "Hello, Ada!"}
    writer.close()
    spans = is_one_command(await collector.whole(me.trace, 4), me, "scripting", "greeter", "greeter")
    assert spans["work"].said["messaging.message.conversation_id"] == "7"


async def test_the_blender_worker(gateway, broker, exported, collector, tmp_path):
    worker = Worker(broker, tmp_path / "worker", "--allow-code", env={"OTEL_SERVICE_NAME": "blender", **exported})
    try:
        async with talk(gateway.port) as one:
            while (await one.action("ping")).get("success") is not True:
                await asyncio.sleep(0.1)
            for code, failed in (("print(1)", False), ("1/0", True)):
                me = Client()
                asked = {"action": "execute_code", "params": {"code": code}, "id": "7", "traceparent": me.header}
                # the worker asks every gateway first whether it is on loopback alone
                while True:
                    await one.send(asked)
                    if (await one.answer()).get("code") != "busy":
                        break
                    me = Client()
                    asked["traceparent"] = me.header
                spans = is_one_command(await collector.whole(me.trace, 4), me, "scripting", "blender", "blender")
                assert spans["work"].said["messaging.message.conversation_id"] == "7"
                assert spans["work"].said.get("error.type") == ("500" if failed else None)
                assert spans["work"].failed is failed
    finally:
        assert worker.stop() == 0, worker.log.read_text()


async def test_a_client_without_spans_of_its_own_begins_the_trace(gateway, python, collector, space):
    """As the landing page does: its trace is found by the id it chose, and no parent is missing in it."""
    await is_listed(gateway, "greeter")
    me = Client()
    me.header = f"00-{me.trace}-0000000000000001-01"
    async with client(gateway.events(space)) as one:
        await one.send({"type": "greet", "data": {"name": "Ada"}, "traceparent": me.header})
        assert (await one.frame())["type"] == "command_result"
    me.span = ""
    is_one_command(await collector.whole(me.trace, 4), me, "voice", "greeter", "greeter")


async def test_the_javascript_worker(javascript, collector, space):
    await is_listed(javascript, "greeter")
    me = Client()
    async with client(javascript.events(space)) as one:
        await one.send({"type": "count", "data": {"to": 1}, "traceparent": me.header})
        heard = {(await one.frame())["type"] for _ in range(3)}
        assert heard == {"command_progress", "counted", "command_result"}
        spans = await collector.whole(me.trace, 6)
    command = [span for span in spans if "evt" not in span.name]
    work = is_one_command(command, me, "voice", "greeter", "greeter", clock=False)["work"]
    published = next(span for span in spans if span.kind == "producer")
    delivered = next(span for span in spans if span.name.startswith("process gw.v1.evt."))
    assert (published.parent, delivered.parent) == (work.id, published.id)
    assert delivered.links == ((me.trace, published.id),)


async def test_a_failed_command_says_so_in_every_span(gateway, python, collector, space):
    await is_listed(gateway, "greeter")
    me = Client()
    async with client(gateway.events(space)) as one:
        await one.send({"type": "greet", "data": {}, "traceparent": me.header})
        assert (await one.frame())["type"] == "error"
    spans = is_one_command(await collector.whole(me.trace, 4), me, "voice", "greeter", "greeter")
    assert [spans[name].said.get("error.type") for name in ("frame", "request", "work")] == ["invalid", "invalid", "400"]
    assert spans["frame"].failed and spans["work"].failed


async def test_what_nobody_asked_to_trace_leaves_no_span(gateway, python, collector, space):
    await is_listed(gateway, "greeter")
    me = Client()
    before = {span.id for span in collector.spans}
    async with client(gateway.events(space)) as one:
        await one.ask("greet", {"name": "Ada"})
        await one.send({"type": "greet", "data": {"name": "Bo"}, "traceparent": me.header[:-1] + "0"})
        await one.frame()
        # spans leave in order: once this one is there, earlier ones would be
        last = Client()
        await one.send({"type": "greet", "data": {"name": "Cy"}, "traceparent": last.header})
        await one.frame()
        await collector.whole(last.trace, 4)
    assert {span.trace for span in collector.spans if span.id not in before} == {last.trace}
