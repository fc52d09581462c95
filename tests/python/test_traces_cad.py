"""Traces of CAD clients: what scripts show and ask, what pages report and the measurement worker makes of it."""

import asyncio
import json
import os
import shutil
import subprocess
import sys

import nats
import pytest
import websockets
from figures import figures
from test_attach import WORKERS
from traced import COMMAND, Client, collector, exported, gateway  # noqa: F401 fixtures
from viewer import Scripts, joined, model, page, picture


async def stated(gateway, collector, space, said, heard) -> tuple:
    """What a script says in a trace of its own while a page looks on: trace, statement, delivery."""
    me = Client()
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as viewer:
        await joined(scripts, viewer)
        async with traced(scripts, me) as script:
            await script.send(said)
            heard(await viewer.text())
            published, delivered = await collector.whole(me.trace, 2)
    assert (published.parent, delivered.parent) == (me.span, published.id)
    assert published.said["messaging.message.id"] == delivered.said["messaging.message.id"] != ""
    return me, published, delivered


async def test_cad(gateway, collector, space):
    """What a script shows is a statement: its frame is the producer, every gateway with pages a consumer."""

    def heard(text):
        assert text == model("box").decode()

    me, published, delivered = await stated(gateway, collector, space, b"D:" + model("box"), heard)
    assert (published.kind, delivered.kind) == ("producer", "consumer")
    assert published.name == "publish gw.v1.state.{space}.{dialect}.{topic}"
    assert delivered.links == ((me.trace, published.id),)
    assert published.said["gw.topic"] == delivered.said["gw.topic"] == "model"


async def test_cad_settings_that_are_merged(gateway, collector, space):
    def heard(text):
        assert json.loads(text)["config"] == {"axes": True}

    await stated(gateway, collector, space, 'S:{"type":"ui","config":{"axes":true}}', heard)


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
