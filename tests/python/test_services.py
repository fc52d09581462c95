"""What services say on $SRV, ours and those of the guide, is what NATS's own tools read: every field, each of its type.

`nats micro ls` and its like are written in Go and take no other type for a field than the one they know. nats.js has a
client for services too, which is nobody's of ours: it must see the same.
"""

import asyncio
import json
import os
import re
import subprocess

import nats
import pytest
from documents import Worker
from stack import BIN, Workers, free_port
from test_attach import NODE_MODULES, greeter, in_go  # noqa: F401 fixtures
from viewer import Scripts, joined, page

IDENTITY = {"type": str, "name": str, "id": str, "version": str, "metadata": dict}
ENDPOINT = {"name": str, "subject": str, "queue_group": str}
COUNTED = {
    "num_requests": int,
    "num_errors": int,
    "last_error": str,
    "processing_time": int,
    "average_processing_time": int,
}
# what services and endpoints may be called
NAME = re.compile(r"[A-Za-z0-9_-]+")
# as Go reads a time
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
# what may be left out, or be null
OPTIONAL = {"metadata", "queue_group", "last_error", "average_processing_time", "data"}
SAID = {
    "PING": IDENTITY,
    "INFO": IDENTITY | {"description": str, "endpoints": list},
    "STATS": IDENTITY | {"started": str, "endpoints": list},
}


def is_shaped(said: dict, shape: dict, loosely: set[str]) -> None:
    for name, kind in shape.items():
        value = said.get(name)
        if value is None:
            assert name in OPTIONAL, f"{name} is missing in {said}"
            continue
        assert type(value) is kind, f"{name} is {value!r}"
    assert set(said) <= set(shape) | loosely, f"unknown: {set(said) - set(shape)}"


def is_answer(verb: str, said: dict) -> None:
    assert said["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
    is_shaped(said, SAID[verb], set())
    assert all(type(value) is str for value in (said.get("metadata") or {}).values())
    called = [said["name"], *(endpoint["name"] for endpoint in said.get("endpoints", []))]
    assert all(NAME.fullmatch(name) for name in called), called
    major, minor, patch = said["version"].split("-")[0].split(".")
    assert all(number.isdigit() for number in (major, minor, patch))
    if verb == "STATS":
        assert TIME.fullmatch(said["started"]), said["started"]
    for endpoint in said.get("endpoints", []):
        is_shaped(endpoint, ENDPOINT | (COUNTED if verb == "STATS" else {}), {"metadata", "data"})


async def asked(connection, verb: str, name: str, id: str = "") -> dict:
    """What a service says, the first of its instances or the one with an id; waits until there is one."""
    subject = ".".join(part for part in ("$SRV", verb, name, id) if part)
    while True:
        try:
            return json.loads((await connection.request(subject, b"", timeout=10)).data)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
            await asyncio.sleep(0.1)


async def is_among_all(connection, ping: dict) -> None:
    """Returns when a service has answered where nobody is asked by name."""
    inbox = connection.new_inbox()
    heard = await connection.subscribe(inbox)
    await connection.publish("$SRV.PING", b"", reply=inbox)
    while json.loads((await heard.next_msg(timeout=60)).data) != ping:
        pass
    await heard.unsubscribe()


async def is_a_service(broker, name: str, *endpoints: str) -> None:
    """Everything there is to ask of a service, by name, by id, and among all."""
    connection = await nats.connect(broker.url)
    try:
        ping = await asked(connection, "PING", name)
        await is_among_all(connection, ping)
        for verb in SAID:
            for id in ("", ping["id"]):
                said = await asked(connection, verb, name, id)
                is_answer(verb, said)
                assert said["name"] == name and (not id or said["id"] == id)
                if verb != "PING":
                    served = {endpoint["name"] for endpoint in said["endpoints"]}
                    assert set(endpoints) <= served, served
                    subjects = [endpoint["subject"] for endpoint in said["endpoints"]]
                    assert all(subject.startswith("gw.v1.cmd.") for subject in subjects)
    finally:
        await connection.close()
    listed = await asyncio.to_thread(discovered, broker, name, ping["id"])
    assert [(one["name"], one["id"]) for verb in listed for one in listed[verb]] == [(name, ping["id"])] * 3
    for verb in ("info", "stats"):
        assert {endpoint["name"] for endpoint in listed[verb][0]["endpoints"]} == served


DISCOVER = """
    const { connect } = require("nats");
    const [servers, name, id] = process.argv.slice(1);
    connect({ servers }).then(async (connection) => {
      const client = connection.services.client({ strategy: "count", maxMessages: 1, maxWait: 30000 });
      const said = {};
      for (const verb of ["ping", "info", "stats"]) {
        said[verb] = [];
        for await (const one of await client[verb](name, id)) said[verb].push(one);
      }
      console.log(JSON.stringify(said));
      await connection.close();
    });
"""


def discovered(broker, name: str, id: str) -> dict:
    if not os.path.isdir(os.path.join(NODE_MODULES, "nats")):
        pytest.skip("there is no node with the package nats; CAUSEWAY_NODE_MODULES says where packages are")
    environment = {**os.environ, "NODE_PATH": NODE_MODULES}
    command = ["node", "-e", DISCOVER, broker.url, name, id]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


async def test_the_gateway(gateway, broker):
    await is_a_service(broker, "gateway", "get_status", "services", "sessions", "cad_status", "cad_config")


async def test_a_cad_page(gateway, broker, space):
    async with page(gateway.cad, space) as viewer:
        await joined(Scripts(gateway.cad, space), viewer)
        await is_a_service(broker, "viewer", "screenshot")


@pytest.mark.parametrize("name", ["command_processor", "language", "vision", "voice"])
async def test_a_reference_worker_in_rust(broker, tmp_path, name):
    workers = Workers(broker, tmp_path / "log", name)
    try:
        await is_a_service(broker, name)
    finally:
        workers.stop()


async def test_the_blender_worker(broker, tmp_path):
    worker = Worker(broker, tmp_path / "worker", "--allow-code")
    try:
        await is_a_service(broker, "blender", "execute_code", "ping")
    finally:
        assert worker.stop() == 0, worker.log.read_text()


async def test_a_worker_to_copy(greeter, broker):  # noqa: F811 the fixture
    await is_a_service(broker, "greeter", "greet", "count")


def listed(*arguments: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GW_")}
    return subprocess.run([BIN, "services", *arguments], env=environment, capture_output=True, text=True, timeout=60)


def rows(table: str) -> list[list[str]]:
    """The cells of every line but the first, which names the columns, and the last, which adds up."""
    head, *lines, _total = table.splitlines()
    assert head.split() == ["SERVICE", "VERSION", "ID", "REQUESTS", "ERRORS", "MEAN", "WHAT"]
    return [line.split() for line in lines]


async def test_causeway_lists_them_itself(greeter, gateway, broker):  # noqa: F811 the fixture
    """`causeway services`, for machines without the NATS project's own tool."""
    connection = await nats.connect(broker.url)
    ping = await asked(connection, "PING", "greeter")
    for _ in range(3):
        answer = await connection.request("gw.v1.cmd.main.greeter.greet", b'{"name": "Ada"}', timeout=30)
        assert json.loads(answer.data) == {"greeting": "Hello, Ada!"}
    await connection.close()

    everybody = await asyncio.to_thread(listed, "--nats-url", broker.url)
    assert everybody.returncode == 0, everybody.stderr
    identities = [row[:3] for row in rows(everybody.stdout)]
    assert ["greeter", ping["version"], ping["id"]] in identities
    assert "gateway" in [name for name, *_ in identities]

    one = await asyncio.to_thread(listed, "greeter", "--nats-url", broker.url)
    assert one.returncode == 0, one.stderr
    instance, *endpoints = rows(one.stdout)
    assert instance[:5] == ["greeter", ping["version"], ping["id"], "3", "0"]
    taken = {row[0]: (row[1], row[-1]) for row in endpoints}
    assert taken["greet"] == ("3", "gw.v1.cmd.*.greeter.greet")
    assert taken["count"] == ("0", "gw.v1.cmd.*.greeter.count")
    assert one.stdout.endswith("\n1 instance of 1 service\n")


async def test_causeway_says_why_it_lists_nobody(broker):
    nobody = await asyncio.to_thread(listed, "nobody", "--nats-url", broker.url)
    assert (nobody.returncode, nobody.stdout) == (0, "no instance of nobody answers\n")
    wrong = await asyncio.to_thread(listed, "a.b", "--nats-url", broker.url)
    assert wrong.returncode == 1 and "no service can be called" in wrong.stderr
    away = await asyncio.to_thread(listed, "--nats-url", f"nats://ada:secret@127.0.0.1:{free_port()}")
    assert away.returncode == 1 and "--nats-url says where it is" in away.stderr
    assert "secret" not in away.stderr
