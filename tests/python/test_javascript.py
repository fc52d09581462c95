"""The assistant's JavaScript clients: each file of tests/node runs against a gateway with the reference workers."""

import asyncio
import os
import pathlib
import subprocess

import pytest
from stack import BIN, PATH, Gateway, wait

NODE = pathlib.Path(__file__).parent.parent / "node"
HOME = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "causeway" / "node"
WORKERS = ("command_processor", "language", "vision")


class Workers:
    """The assistant's reference workers in one process."""

    def __init__(self, broker, log: pathlib.Path, *names: str):
        self.log = log
        env = {key: value for key, value in os.environ.items() if not key.startswith("GW_")}
        env |= {"GW_NATS_URL": broker.url, "GW_LOG_LEVEL": "info", "CAUSEWAY_SPEECH": "off"}
        with log.open("w") as out:
            command = [BIN, "worker", *(names or WORKERS)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
        names = names or WORKERS
        wait(self.process, "the workers", log, lambda: log.read_text().count("worker ready") == len(names))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def workers(broker, tmp_path_factory):
    running = Workers(broker, tmp_path_factory.mktemp("workers") / "log")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def assistant(broker, workers, tmp_path_factory):
    server = Gateway(broker, tmp_path_factory.mktemp("assistant") / "gateway", GW_GATEWAY_TEST_ECHO="true")
    yield server
    assert server.stop() == 0, server.log.read_text()


@pytest.mark.parametrize("file", sorted(path.name for path in NODE.glob("*.test.mjs")))
async def test_javascript(assistant, space, file):
    env = {**os.environ, "PATH": PATH, "CAUSEWAY_NODE": str(HOME), "CAUSEWAY_SPACE": space}
    env["CAUSEWAY_URL"] = f"http://127.0.0.1:{assistant.port}"
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
