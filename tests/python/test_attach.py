"""The workers to copy, run as the guide says: a client asks them, hears progress and events, and cancels."""

import asyncio
import json
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.request

import pytest
from figures import figures
from stack import Workers
from talk import bus, client
from test_assistant import plain

WORKERS = pathlib.Path(__file__).parents[2] / "deploy" / "workers"
# where tests/setup/node puts packages, unless told otherwise
NODE_MODULES = os.environ.get("CAUSEWAY_NODE_MODULES") or os.path.expanduser("~/.cache/causeway/node/node_modules")


def commands():
    yield pytest.param([sys.executable, str(WORKERS / "python" / "worker.py")], id="python")
    # modules are looked up beside the program, so the JavaScript one runs as a copy beside them
    missing = not (shutil.which("node") and (pathlib.Path(NODE_MODULES) / "nats").is_dir())
    reason = "there is no node with the package nats; CAUSEWAY_NODE_MODULES says where packages are"
    yield pytest.param("javascript", id="javascript", marks=pytest.mark.skipif(missing, reason=reason))


# Debian's Go and its nats.go; neither is needed for anything else
GOCODE = pathlib.Path("/usr/share/gocode")
NO_GO = not (shutil.which("go") and (GOCODE / "src" / "github.com" / "nats-io" / "nats.go").is_dir())
GO = pytest.param("go", id="go", marks=pytest.mark.skipif(NO_GO, reason="there is no Go with nats.go"))


@pytest.fixture(scope="session")
def in_go(tmp_path_factory):
    """The Go worker, built once as the guide says."""

    def build():
        if not built:
            folder = tmp_path_factory.mktemp("go")
            environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GOCODE), "GOCACHE": str(folder / "cache")}
            command = ["go", "build", "-o", str(folder / "greeter"), "."]
            subprocess.run(command, cwd=WORKERS / "go", env=environment, check=True)
            built.append(str(folder / "greeter"))
        return built[0]

    built = []
    return build


@pytest.fixture(params=[*commands(), GO])
def greeter(request, broker, in_go, tmp_path):
    """A worker as a process; ends with the code of a clean end."""
    command = request.param
    if command == "go":
        command = [in_go()]
    if command == "javascript":
        for file in ("worker.mjs", "bodies.mjs", "traces.mjs"):
            shutil.copy(WORKERS / "javascript" / file, tmp_path)
        copy = tmp_path / "worker.mjs"
        (tmp_path / "node_modules").symlink_to(NODE_MODULES)
        command = ["node", str(copy)]
    environment = {**os.environ, "NATS_URL": broker.url}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    line = process.stdout.readline()
    assert "greeter serves greet, count" in line
    yield process
    process.terminate()
    assert process.wait(30) == 0


@pytest.fixture
def routed(own_gateway):
    return own_gateway(GW_VOICE_ROUTES="greet=greeter,count=greeter")


async def is_listed(gateway, service: str) -> None:
    """Returns when the gateway's own list of services shows it."""
    url = f"http://127.0.0.1:{gateway.port}/status.json"
    while True:
        answer = await asyncio.to_thread(urllib.request.urlopen, url, None, 5)
        if service in [one["name"] for one in json.load(answer)["services"]]:
            return
        await asyncio.sleep(0.1)


async def test_a_new_service_answers_a_client(greeter, routed, space):
    await is_listed(routed, "greeter")
    async with client(routed.events(space)) as one, client(routed.events(space)) as other:
        answer = await one.ask("greet", {"name": "Ada"})
        assert answer["data"] == {"command": "greet", "result": {"greeting": "Hello, Ada!"}}

        answer = await one.ask("greet", {})
        assert (answer["type"], answer["data"]["code"]) == ("error", "invalid")
        assert "'name' is missing" in answer["data"]["message"]

        # progress and result for the sender, the event for everybody
        await one.send({"type": "count", "data": {"to": 2}})
        frames = await one.frames(4)
        said = [(frame["type"], frame["data"]) for frame in frames if frame["type"] != "counted"]
        assert said == [
            ("command_progress", {"command": "count", "progress": {"number": 1}}),
            ("command_progress", {"command": "count", "progress": {"number": 2}}),
            ("command_result", {"command": "count", "result": {"counted": 2}}),
        ]
        heard = await other.frame()
        assert (heard["type"], heard["data"]) == ("counted", {"to": 2})


async def test_what_is_no_json_is_refused_in_one_line(greeter, routed, broker, space):
    await is_listed(routed, "greeter")
    async with bus(broker) as asker:
        # what is wrong is quoted by some, and a header has no end of line
        answer = await asker.connection.request(f"gw.v1.cmd.{space}.greeter.greet", b'{"name":\n oops', timeout=30)
    assert answer.headers["Nats-Service-Error-Code"] == "400"
    assert "no JSON" in answer.headers["Nats-Service-Error"]


async def is_counted(gateway, service: str, requests: int):
    """Returns the gateway's figures when they show what the one instance of a service says it took."""
    while True:
        now = await figures(gateway)
        # one series an instance, by the id the service gave itself
        if list(now.by("worker", "gw_service_requests_total", service=service).values()) == [requests]:
            break
        await asyncio.sleep(0.2)
    assert now.sum("gw_service_instances", service=service) == 1
    shown = {name for name, labels in now.series if ("service", service) in labels}
    assert {"gw_service_errors_total", "gw_service_processing_seconds_total"} <= shown
    return now


async def test_a_new_service_is_on_the_dashboards_without_code(greeter, routed, space):
    await is_listed(routed, "greeter")
    async with client(routed.events(space)) as one:
        for _ in range(3):
            await one.ask("greet", {"name": "Ada"})
    await is_counted(routed, "greeter", 3)


async def test_a_service_in_rust_is_on_the_dashboards_without_code(own_gateway, broker, space, tmp_path):
    gateway = own_gateway(GW_VOICE_ROUTES="analyse_text=language")
    workers = Workers(broker, tmp_path / "log", "language")
    try:
        await is_listed(gateway, "language")
        async with client(gateway.events(space)) as one:
            for _ in range(3):
                assert (await one.ask("analyse_text", {"text": "a fine day"}))["type"] == "command_result"
            assert (await one.ask("analyse_text", {}))["type"] == "error"
        now = await is_counted(gateway, "language", 4)
        assert now.sum("gw_service_errors_total", service="language") == 1
        assert now.sum("gw_service_processing_seconds_total", service="language") > 0
    finally:
        workers.stop()


@pytest.mark.parametrize("greeter", commands(), indirect=True)
async def test_what_is_too_large_for_a_message_goes_through_the_store(greeter, own_gateway, space):
    gateway = own_gateway(GW_ASSISTANT_ROUTES="greet=greeter")
    await is_listed(gateway, "greeter")
    async with plain(gateway, space) as talk:
        name = "Ada" * 1_000_000
        answer = await talk.ask("greet", name=name)
        assert answer["type"] == "command_response", str(answer)[:300]
        assert answer["data"] == {"greeting": f"Hello, {name}!"}


async def test_a_client_that_leaves_stops_the_work(greeter, routed, broker, space):
    import nats

    bus = await nats.connect(broker.url)
    cancels = await bus.subscribe(f"gw.v1.cmd.{space}.greeter.cancel")
    await bus.flush()
    async with client(routed.events(space)) as one, client(routed.events(space)) as other:
        await one.send({"type": "count", "data": {"to": 1000}})
        assert (await one.frame())["type"] == "command_progress"
        await one.socket.close()
        await cancels.next_msg(timeout=30)
        # nothing was counted to the end, and the worker has room for the next
        answer = await other.ask("greet", {"name": "Bo"})
        assert answer["data"]["result"] == {"greeting": "Hello, Bo!"}
    await bus.close()
