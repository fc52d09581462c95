"""The permissions that the contract's page lists are enough: a broker that grants no others, and everything works."""

import asyncio
import json
import os
import pathlib
import re
import subprocess
import sys

import nats
import pytest
from stack import Broker, Workers
from talk import client, settle
from test_attach import WORKERS, is_listed
from viewer import Scripts, joined, model, page

PAGE = pathlib.Path(__file__).parents[2] / "deploy" / "docs" / "contract.md"


def user(name: str) -> str:
    """A user as the page has it, in the server's words."""
    (row,) = re.findall(rf"^\| {name} \| (.*) \| (.*) \|$", PAGE.read_text(), re.M)
    publish, subscribe = (json.dumps(re.findall(r"`([^`]+)`", cell)) for cell in row)
    return f"{{user: {name}, password: p, permissions: {{publish: {publish}, subscribe: {subscribe}}}}}"


@pytest.fixture
def strict(tmp_path):
    conf = tmp_path / "nats.conf"
    store = json.dumps(str(tmp_path / "store"))
    users = ", ".join(map(user, ["gateway", "worker"]))
    conf.write_text(f"jetstream {{store_dir: {store}}}\nauthorization {{users: [{users}]}}\n")
    broker = Broker(tmp_path / "nats", "-a", "127.0.0.1", "-p", "-1", "-c", str(conf))
    yield broker
    broker.stop()


@pytest.fixture
def greeter(strict):
    """The Python worker, which logs in by its URL."""
    environment = {**os.environ, "NATS_URL": strict.url.replace("//", "//worker:p@")}
    command = [sys.executable, str(WORKERS / "python" / "worker.py")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    assert "greeter serves" in process.stdout.readline()
    yield process
    process.terminate()
    assert process.wait(30) == 0


async def test_nobody_needs_more_than_the_page_says(strict, greeter, own_gateway, tmp_path):
    login = {"GW_NATS_USER": "gateway", "GW_NATS_PASSWORD": "p"}
    gateway = own_gateway(on=strict, GW_VOICE_ROUTES="greet=greeter,count=greeter,big=big", **login)
    login = {"GW_NATS_USER": "worker", "GW_NATS_PASSWORD": "p"}
    workers = Workers(strict, tmp_path / "workers.log", "voice", "language", **login)
    connection = await nats.connect(strict.url, user="worker", password="p")
    try:
        await is_listed(gateway, "greeter")
        await is_listed(gateway, "voice")
        async with client(gateway.events("main"), max_size=None) as one:
            # commands, progress, events; flows that hold a lease; states
            assert (await one.ask("greet", {"name": "Ada"}))["type"] == "command_result"
            await one.send({"type": "count", "data": {"to": 1}})
            assert {frame["type"] for frame in await one.frames(3)} == {
                "command_progress",
                "counted",
                "command_result",
            }
            await one.send({"type": "demo_flow"})
            while (await one.frame())["type"] != "latency_trace":
                pass
            await connection.jetstream().publish("gw.v1.state.main.voice.mode", b"1")
            while (frame := await one.frame())["type"] != "mode":
                pass
            # newcomers, and who comes back
            async with client(gateway.events("main", f"?since={frame['offset']}")) as back:
                assert back.status["recovered"] is True

            # large bodies, both ways
            async def big(command):
                assert command.data == b"" and "Gw-Body" in command.headers
                store = await connection.jetstream().object_store("GW_BODIES")
                reference = command.headers["Gw-Body"]
                got = await store.get(reference.split("/")[1].split(";")[0])
                assert len(got.data) > 1_044_480
                await connection.publish(command.reply, b"", headers={"Gw-Body": reference})

            await connection.subscribe("gw.v1.cmd.*.big.big", "big", cb=big)
            await settle(connection)
            answer = await one.ask("big", "x" * 1_046_000)
            assert answer["type"] == "command_result" and len(answer["data"]["result"]) == 1_046_000
        # pages, models above the payload limit, what the gateway answers itself
        async with page(gateway.cad, "main") as viewer:
            script = Scripts(gateway.cad, "main")
            await joined(script, viewer)
            await script.tell("D", model("large", padding=2_000_000))
            assert (await viewer.json())["type"] == "data"
        answer = await connection.request("gw.v1.cmd.main.gateway.get_status", timeout=30)
        assert json.loads(answer.data)["language"] == "running"
    finally:
        await connection.close()
        await asyncio.to_thread(workers.stop)
        gateway.stop()
    violations = [line for line in strict.log.read_text().splitlines() if "iolation" in line]
    assert violations == []
