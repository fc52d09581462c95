"""The example clients of deploy/clients, run as their pages say, against a gateway and the workers of the binary."""

import asyncio
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import nats
import pytest
from stack import BIN
from talk import client, settle

CLIENTS = pathlib.Path(__file__).parents[2] / "deploy" / "clients"
# where tests/setup/node puts packages, unless told otherwise
NODE_MODULES = os.environ.get("CAUSEWAY_NODE_MODULES") or os.path.expanduser("~/.cache/causeway/node/node_modules")


@pytest.fixture(scope="module")
def workers(broker):
    """The reference workers, without what depends on the machine's speech programs."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GW_")}
    environment |= {"GW_NATS_URL": broker.url, "CAUSEWAY_SPEECH": "off"}
    command = [BIN, "worker", "voice", "command_processor"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield process
    process.terminate()
    assert process.wait(30) == 0


async def serving(broker, service: str) -> None:
    """Returns when an instance of the service answers."""
    bus = await nats.connect(broker.url)
    try:
        while True:
            try:
                await bus.request(f"$SRV.PING.{service}", timeout=1)
                return
            except nats.errors.Error:
                await asyncio.sleep(0.1)
    finally:
        await bus.close()


async def run(*command: str, **options) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, **options
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def python(name: str, *arguments: str) -> str:
    return await run(sys.executable, str(CLIENTS / name), *arguments)


async def test_the_voice_client_sees_a_whole_flow(broker, gateway, workers, space):
    await serving(broker, "voice")
    said = await python("voice.py", gateway.events(space))
    kinds = [line.split()[0] for line in said.splitlines()]
    assert kinds[0] == "stt_start" and kinds[-1] == "latency_trace", said
    assert {"stt_result", "memory_recall", "llm_result", "tts_result"} <= set(kinds), said


async def test_the_assistant_client_gets_its_result(broker, gateway, workers, space):
    await serving(broker, "command_processor")
    said = await python("assistant.py", f"ws://127.0.0.1:{gateway.port}/ws/{space}")
    assert said.startswith("status_update") and "42" in said.splitlines()[-1], said


missing = not (shutil.which("node") and (pathlib.Path(NODE_MODULES) / "socket.io-client").is_dir())


@pytest.mark.skipif(missing, reason="there is no node with the package socket.io-client; CAUSEWAY_NODE_MODULES says where packages are")
async def test_the_socket_io_client_gets_its_result(broker, gateway, workers, tmp_path):
    await serving(broker, "command_processor")
    # modules are looked up beside the program
    copy = tmp_path / "assistant.mjs"
    copy.write_text((CLIENTS / "assistant.mjs").read_text())
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    said = await run("node", str(copy), f"http://127.0.0.1:{gateway.port}/ws")
    assert "connected over" in said and "command_response" in said and "42" in said, said


needs_node = pytest.mark.skipif(not shutil.which("node"), reason="there is no node")


@pytest.mark.parametrize("client", ["scripting.py", pytest.param("scripting.mjs", marks=needs_node)])
async def test_the_scripting_client_gets_what_was_printed(broker, gateway, client):
    bus = await nats.connect(broker.url)

    async def execute(command):
        await command.respond(b'{"output":"hello from Blender\\n"}')

    await bus.subscribe("gw.v1.cmd.main.blender.execute_code", "blender", cb=execute)
    await settle(bus)
    try:
        program = "node" if client.endswith(".mjs") else sys.executable
        said = await run(program, str(CLIENTS / client), "127.0.0.1", str(gateway.port))
    finally:
        await bus.close()
    first, last = said.splitlines()
    assert '"processing"' in first and "hello from Blender" in last, said


async def test_the_cad_client_shows_a_model(gateway, space):
    said = await python("cad.py", f"ws://127.0.0.1:{gateway.port}/cad/{space}")
    assert "the page is given data" in said and "settings" in said, said


NODE = CLIENTS.parents[1] / "tests" / "node"
no_browser = pytest.mark.skipif(
    not (shutil.which("node") and all((pathlib.Path(NODE_MODULES) / name).is_dir() for name in ("jsdom", "react-dom", "typescript"))),
    reason="there is no node with jsdom, react-dom and typescript; CAUSEWAY_NODE_MODULES says where packages are",
)


@no_browser
async def test_the_react_component_compiles_and_shows_what_a_user_looks_for(broker, gateway, workers, tmp_path):
    await serving(broker, "command_processor")
    for file in (CLIENTS / "react" / "Assistant.tsx", NODE / "component.mjs"):
        shutil.copy(file, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    compiler = pathlib.Path(NODE_MODULES) / "typescript" / "bin" / "tsc"
    options = ["--strict", "--jsx", "react-jsx", "--module", "nodenext", "--target", "es2022", "--skipLibCheck"]
    await run("node", str(compiler), *options, "Assistant.tsx", cwd=tmp_path)
    said = await run("node", "component.mjs", f"http://127.0.0.1:{gateway.port}/ws", cwd=tmp_path)
    services, answer, error = said.splitlines()
    assert "command: running" in services.split(", ") and "vision: stopped" in services, said
    assert '"value": 42' in answer and error, said


@no_browser
async def test_the_page_runs_a_flow_and_comes_back_to_what_it_missed(broker, own_gateway, workers, space):
    await serving(broker, "voice")
    gateway = own_gateway()
    command = ["node", str(NODE / "page.mjs"), str(CLIENTS / "voice.html"), gateway.events(space)]
    env = {**os.environ, "CAUSEWAY_NODE": str(pathlib.Path(NODE_MODULES).parent)}
    page = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=env)
    bus = await nats.connect(broker.url)
    try:
        before = json.loads(await page.stdout.readline())
        assert before[0] == "stt_start" and before[-1] == "latency_trace", before
        assert await asyncio.to_thread(gateway.stop) == 0
        await bus.jetstream().publish(f"gw.v1.evt.{space}.voice.meanwhile", b"{}")
        await asyncio.to_thread(gateway.start)
        # nothing twice
        assert json.loads(await page.stdout.readline()) == [*before, "meanwhile"]
        assert await page.wait() == 0
    finally:
        await bus.close()
        if page.returncode is None:
            page.kill()
            await page.wait()


@no_browser
async def test_the_landing_page_lists_spaces_whatever_their_names(own_gateway):
    gateway = own_gateway()
    # what every object of JavaScript has already
    names = ["constructor", "__proto__", "toString", "x" * 64]
    command = ["node", str(NODE / "landing.mjs"), f"http://127.0.0.1:{gateway.port}/", *names]
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            await stack.enter_async_context(client(gateway.events(name)))
        said = await run(*command, env={**os.environ, "CAUSEWAY_NODE": str(pathlib.Path(NODE_MODULES).parent)})
    health, listed = json.loads(said.splitlines()[-1])
    # the page itself is in main
    assert health == "ready" and set(names) <= set(listed) <= {*names, "main"}, said
