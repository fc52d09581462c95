"""The assistant's JavaScript clients: each file of tests/node runs against a gateway with the reference workers."""

import asyncio
import os
import pathlib
import re
import subprocess

import pytest
from stack import PATH, Gateway, Workers

NODE = pathlib.Path(__file__).parent.parent / "node"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "causeway"
MODULES = pathlib.Path(os.environ.get("CAUSEWAY_NODE_MODULES") or CACHE / "node" / "node_modules")
@pytest.fixture(scope="module")
def workers(broker, tmp_path_factory):
    running = Workers(broker, tmp_path_factory.mktemp("workers") / "log", "command_processor", "language", "vision")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def assistant(broker, workers, tmp_path_factory):
    server = Gateway(broker, tmp_path_factory.mktemp("assistant") / "gateway", GW_GATEWAY_TEST_ECHO="true")
    yield server
    assert server.stop() == 0, server.log.read_text()


def environment(gateway, space: str) -> dict:
    """What the JavaScript side is told."""
    env = {**os.environ, "PATH": PATH, "CAUSEWAY_NODE": str(MODULES.parent), "CAUSEWAY_SPACE": space}
    env["CAUSEWAY_URL"] = f"http://127.0.0.1:{gateway.port}"
    return env


# the protocols' own suites: their name and the number of their cases
SUITES = {"engineio.test.mjs": ("Engine.IO", 25), "socketio.test.mjs": ("Socket.IO", 32)}


@pytest.mark.parametrize("file", sorted(path.name for path in NODE.glob("*.test.mjs")))
async def test_javascript(assistant, space, file, capsys):
    env = environment(assistant, space)
    process = await asyncio.create_subprocess_exec(
        "node", "--test", "--test-reporter=spec", str(NODE / file), env=env,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    print(said.decode())
    assert process.returncode == 0, said.decode()
    if file in SUITES:
        name, cases = SUITES[file]
        counted = dict(re.findall(r"^\S+ (tests|pass) (\d+)$", said.decode(), re.MULTILINE))
        # also where everything passes: the count is what the suite is for
        with capsys.disabled():
            print(f"\n{name} protocol suite: {counted['pass']}/{cases}")
        assert counted == {"tests": str(cases), "pass": str(cases)}


async def test_all_come_back_after_a_restart(own_gateway, space):
    """A thousand clients of all transports; the gateway restarts under them."""
    gateway = own_gateway(GW_GATEWAY_DRAIN_SPREAD="1s")
    process = await asyncio.create_subprocess_exec(
        "node", str(NODE / "storm.mjs"), "1000", env=environment(gateway, space),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    try:
        assert await process.stdout.readline() == b"up\n"
        assert await asyncio.to_thread(gateway.stop) == 0
        await asyncio.to_thread(gateway.start)
        said = await process.stdout.read()
        assert await process.wait() == 0, said.decode()
        # packet 41 would be "io server disconnect", after which a client stays away
        assert said.startswith(b"back 1000 after transport") and b"io server" not in said, said.decode()
    finally:
        if process.returncode is None:
            process.kill()
