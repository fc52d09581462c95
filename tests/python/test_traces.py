"""One trace from a client's frame over NATS and a worker back to the client, for every dialect."""

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.request

import nats
import pytest
import websockets
from collector import Collector
from figures import figures
from documents import Worker, talk
from stack import Broker, Gateway, Workers
from talk import client
from test_attach import NODE_MODULES, WORKERS, is_listed
from viewer import Scripts, joined, model, page, picture

COMMAND = "gw.v1.cmd.{space}.{service}.{action}"
# short, so that no test waits for a batch
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
ROUTES = "greet=greeter,count=greeter,execute_command=command_processor"


@pytest.fixture(scope="module")
def collector():
    running = Collector()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def exported(collector):
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **SOON}


@pytest.fixture(scope="module")
def gateway(broker, exported, tmp_path_factory):
    """Begins no trace itself: what is traced is what the clients ask for."""
    routes = {f"GW_{dialect}_ROUTES": ROUTES for dialect in ("VOICE", "ASSISTANT", "SCRIPTING")}
    settings = {"GW_TRACE_RATIO": "0", "OTEL_SERVICE_NAME": "gateway", **routes, **exported}
    server = Gateway(broker, tmp_path_factory.mktemp("traced") / "gateway", **settings)
    yield server
    assert server.stop() == 0, server.log.read_text()


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


class Client:
    """Where a client's own span stands: the header it sends, and the trace that must come of it."""

    def __init__(self):
        self.trace, self.span = secrets.token_hex(16), secrets.token_hex(8)
        self.header = f"00-{self.trace}-{self.span}-01"


def is_one_command(spans, me: Client, dialect: str, service: str, worker: str, clock=True) -> dict:
    """The four spans of a command, one below the other and one after the other."""
    assert {span.trace for span in spans} == {me.trace}
    named = {(span.service, span.kind, span.name): span for span in spans}
    frame = named["gateway", "server", "receive command"]
    request = named["gateway", "client", f"request {COMMAND}"]
    work = named[worker, "consumer", f"process {COMMAND}"]
    reply = named["gateway", "consumer", "process reply"]
    parents = [frame.parent, request.parent, work.parent, reply.parent]
    assert parents == [me.span, frame.id, request.id, work.id]
    # this machine's clock in all of them, but for a worker that keeps a clock of its own
    began = [frame.start, request.start, *([work.start] if clock else []), reply.start]
    assert began == sorted(began)
    assert request.end <= reply.start and reply.end <= frame.end
    for span in (frame, request, work, reply):
        assert span.said["messaging.system"] == "nats"
        assert span.said["messaging.destination.template"] == COMMAND
        assert span.said["messaging.consumer.group.name"] == service
    assert frame.said["gw.dialect"] == dialect
    assert request.said["messaging.message.id"] == work.said["messaging.message.id"] != ""
    for span in (request, work, reply):
        assert span.said["server.address"] in ("127.0.0.1", "localhost") and span.said["server.port"] > 0
    assert request.said["messaging.operation.type"] == "send"
    assert work.said["messaging.operation.name"] == "process"
    return {"frame": frame, "request": request, "work": work, "reply": reply}


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
    done = {"dialect": "assistant", "outcome": "done"}
    now = await figures(gateway)
    name = "gw_command_duration_seconds_count"
    assert now.sum(name, **done) == before.sum(name, **done) + 1


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


async def test_cad(gateway, collector, space):
    """What a script shows is a statement: its frame is the producer, every gateway with pages a consumer."""
    me = Client()
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as viewer:
        await joined(scripts, viewer)
        async with traced(scripts, me) as script:
            await script.send(b"D:" + model("box"))
            assert await viewer.text() == model("box").decode()
            published, delivered = await collector.whole(me.trace, 2)
    assert (published.kind, published.parent) == ("producer", me.span)
    assert published.name == "publish gw.v1.state.{space}.{dialect}.{topic}"
    assert (delivered.kind, delivered.parent) == ("consumer", published.id)
    assert delivered.links == ((me.trace, published.id),)
    assert published.said["gw.topic"] == delivered.said["gw.topic"] == "model"
    assert published.said["messaging.message.id"] == delivered.said["messaging.message.id"] != ""


def traced(scripts: Scripts, me: Client):
    """A script's connection that belongs to a trace."""
    return websockets.connect(scripts.url, additional_headers={"traceparent": me.header}, ping_interval=None)


async def test_cad_questions_are_answered_here(gateway, broker, collector, space):
    scripts = Scripts(gateway.cad, space)
    before = await figures(gateway)
    for question in ("status", "config"):
        me = Client()
        async with traced(scripts, me) as script:
            await script.send(f'C:"{question}"')
            answer = json.loads(await script.recv())
        (frame,) = await collector.whole(me.trace, 1)
        assert (frame.service, frame.kind, frame.name, frame.parent) == ("gateway", "server", "receive command", me.span)
        assert (frame.said["gw.service"], frame.said["gw.action"]) == ("gateway", f"cad_{question}")
        # the same is asked by anybody on the bus, as a service of the gateway that continues the trace
        me = Client()
        connection = await nats.connect(broker.url)
        subject = f"gw.v1.cmd.{space}.gateway.cad_{question}"
        said = []
        # any gateway of this broker may answer, and others record nothing
        while not collector.trace(me.trace):
            asked = await connection.request(subject, b"", timeout=30, headers={"traceparent": me.header})
            assert json.loads(asked.data) == answer
            said.append(asked.headers["traceparent"])
            await asyncio.sleep(0.2)
        await connection.close()
        work = collector.trace(me.trace)[0]
        assert (work.service, work.kind, work.name, work.parent) == ("gateway", "consumer", f"process {COMMAND}", me.span)
        assert f"00-{work.trace}-{work.id}-01" in said
    now = await figures(gateway)
    name = "gw_command_duration_seconds_count"
    local = {"dialect": "cad", "outcome": "local"}
    assert now.sum(name, **local) == before.sum(name, **local) + 2


async def test_a_cad_script_asks_a_page_for_a_picture(gateway, collector, space, tmp_path):
    """A command to the service `viewer`, which is a gateway with a page: its work is below the script's request."""
    me = Client()
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as viewer:
        await joined(scripts, viewer)
        async with traced(scripts, me) as script:
            asked = {"type": "screenshot", "filename": str(tmp_path / "box.png")}
            await script.send("C:" + json.dumps(asked))
            await picture(viewer)
            spans = await collector.whole(me.trace, 3)
    named = {span.kind: span for span in spans}
    frame, request, work = named["server"], named["client"], named["consumer"]
    assert [frame.parent, request.parent, work.parent] == [me.span, frame.id, request.id]
    assert frame.start <= request.start <= work.start
    assert {span.said["gw.service"] for span in spans} == {"viewer"} and not any(span.failed for span in spans)
    assert request.said["messaging.message.id"] == work.said["messaging.message.id"] != ""


MEASURES = """
TOOL, SELECTED = "activeTool", "selectedShapeIDs"


class Measure:
    # what upstream's package would measure

    def load(self, params):
        return None

    def report(self, params):
        keys = params["keys"]
        if SELECTED not in keys:
            return None
        return {"type": "backend_response", "subtype": "tool_response", "result": keys[SELECTED]}

    ask = report
"""


@pytest.fixture
def measuring(broker, exported, space, tmp_path):
    """The measurement worker as it is shipped, but for what it asks of the upstream package."""
    shutil.copy(WORKERS / "cad" / "worker.py", tmp_path)
    (tmp_path / "measure.py").write_text(MEASURES)
    environment = {**os.environ, "GW_WORKER_BASE": str(WORKERS / "blender"), "OTEL_SERVICE_NAME": "cad", **exported}
    command = [sys.executable, str(tmp_path / "worker.py"), "--nats", broker.url, "--space", space]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, env=environment)
    yield process
    process.terminate()
    assert process.wait(30) == 0, (tmp_path / "log").read_text()


def longest(spans) -> list:
    """The longest way from a span down to one that came of it."""
    known, ways = {span.id: span for span in spans}, [[]]
    for span in spans:
        way = [span]
        while way[0].parent in known:
            way.insert(0, known[way[0].parent])
        ways.append(way)
    return max(ways, key=len)


async def test_a_cad_selection_is_measured_by_the_python_worker(gateway, measuring, collector, space):
    """From a page's report over the worker to the page: one trace, every step below the one before."""
    me = Client()
    scripts = Scripts(gateway.cad, space)
    while not (await scripts.exact({"model": {}}))["ok"]:
        await asyncio.sleep(0.1)
    async with page(gateway.cad, space, additional_headers={"traceparent": me.header}) as viewer:
        await viewer.report("status", {"activeTool": "DistanceMeasurement", "selectedShapeIDs": ["/box", False]})
        assert (await viewer.json())["result"] == ["/box", False]
        # said by the page, worked on, stated by the worker, delivered
        while len(way := longest(collector.trace(me.trace))) < 4:
            await asyncio.sleep(0.05)
    said, work, stated, delivered = way
    assert [span.service for span in (said, work, stated, delivered)] == ["gateway", "cad", "cad", "gateway"]
    assert [span.kind for span in (said, work, stated, delivered)] == ["producer", "consumer", "producer", "consumer"]
    assert (said.parent, said.said["gw.topic"], work.said["gw.topic"]) == (me.span, "status", "status")
    assert delivered.parent == stated.id and delivered.links == ((me.trace, stated.id),)
    assert stated.said["messaging.message.id"] == delivered.said["messaging.message.id"] != ""


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
