"""What deploy/ promises about NATS: who may publish what, and its figures for Prometheus. Needs no gateway."""

import asyncio
import contextlib
import json
import pathlib
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import nats
import pytest
from stack import Broker, free_port, wait
from talk import settle

CONF = pathlib.Path(__file__).parents[2] / "deploy" / "nats" / "nats.conf"


@pytest.fixture
def deployed(tmp_path):
    # ports and addresses of the file give way to the command line, its store does not
    text = CONF.read_text()
    assert "store_dir: /data" in text
    conf = tmp_path / "nats.conf"
    conf.write_text(text.replace("store_dir: /data", f'store_dir: "{tmp_path / "store"}"'))
    env = {"GATEWAY_PASSWORD": "gate", "WORKER_PASSWORD": "work"}
    broker = Broker(tmp_path / "nats", "-c", str(conf), "-m", "-1", env=env)
    yield broker
    broker.stop()


async def refusal(url: str, subject: str, **login) -> str | None:
    """What the server objects to when this user publishes there; None when it takes it."""
    said = asyncio.Queue(maxsize=8)

    async def on_error(error):
        said.put_nowait(str(error))

    connection = await nats.connect(url, error_cb=on_error, **login)
    try:
        await connection.publish(subject, b"{}")
        # the objection comes before the answer to the ping that this waits for
        await settle(connection)
        await asyncio.sleep(0)
        return None if said.empty() else said.get_nowait()
    finally:
        await connection.close()


GATEWAY = {"user": "gateway", "password": "gate"}
WORKER = {"user": "worker", "password": "work"}
NOBODY = {}


@pytest.mark.parametrize(
    ("login", "subject", "allowed"),
    [
        (GATEWAY, "gw.v1.evt.main.voice.tick", True),
        (GATEWAY, "gw.v1.sys.gateway.alive", True),
        (GATEWAY, "gw.v1.live.main.voice.tick", False),
        (WORKER, "gw.v1.evt.main.voice.tick", True),
        (WORKER, "gw.v1.live.main.voice.tick", False),
        (WORKER, "gw.v1.sys.gateway.alive", False),
        (NOBODY, "gw.v1.evt.main.voice.tick", True),
        (NOBODY, "gw.v1.live.main.voice.tick", False),
        (NOBODY, "gw.v1.sys.gateway.alive", False),
    ],
)
async def test_who_may_publish_what(deployed, login, subject, allowed):
    objection = await refusal(deployed.url, subject, **login)
    if allowed:
        assert objection is None
    else:
        assert "permissions violation" in objection.lower()


async def test_the_server_republishes_what_nobody_may_publish(deployed):
    gateway = await nats.connect(deployed.url, **GATEWAY)
    worker = await nats.connect(deployed.url)
    try:
        republish = nats.js.api.RePublish(src="gw.v1.evt.>", dest="gw.v1.live.>")
        await gateway.jetstream().add_stream(name="GW_EVENTS", subjects=["gw.v1.evt.>"], republish=republish)
        live = await gateway.subscribe("gw.v1.live.main.voice.>")
        await settle(gateway)
        await worker.publish("gw.v1.evt.main.voice.tick", b'{"n":1}')
        message = await live.next_msg(timeout=30)
        assert message.data == b'{"n":1}'
        assert message.headers["Nats-Stream"] == "GW_EVENTS"
    finally:
        await gateway.close()
        await worker.close()


def scrape(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


@contextlib.contextmanager
def exporter(broker: Broker, folder: pathlib.Path):
    """Serves the broker's figures on the port that is handed out."""
    # one line for each of the machine's addresses, the port is the same
    monitoring = urllib.parse.urlsplit(json.loads(broker.ports.read_text())["monitoring"][0]).port
    port, log = free_port(), folder / "exporter.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, str(CONF.with_name("exporter.py")), f"http://127.0.0.1:{monitoring}"],
            env={"EXPORTER_PORT": str(port)}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return scrape(port)[0] > 0
        return False

    try:
        wait(process, "the exporter", log, answers)
        yield port
    finally:
        process.terminate()
        code = process.wait(30)
    assert code == 0, log.read_text()


def figures(text: str) -> dict[str, float]:
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name.split("{")[0]: float(value) for name, value in rows}


async def test_the_brokers_figures_are_exported_and_its_absence_is_told(deployed, tmp_path):
    with exporter(deployed, tmp_path) as port:
        code, text = await asyncio.to_thread(scrape, port)
        before = figures(text)
        assert code == 200 and before["nats_varz_connections"] == 0 and before["nats_varz_slow_consumers"] == 0
        worker = await nats.connect(deployed.url)
        try:
            for _ in range(5):
                await worker.publish("gw.v1.evt.main.voice.tick", b"12")
            await settle(worker)
            _, text = await asyncio.to_thread(scrape, port)
        finally:
            await worker.close()
        now = figures(text)
        assert now["nats_varz_connections"] == 1
        assert now["nats_varz_in_msgs"] - before["nats_varz_in_msgs"] >= 5
        # a broker that is gone makes the target down: Prometheus shows that by itself
        deployed.stop()
        code, text = await asyncio.to_thread(scrape, port)
        assert code == 503 and "127.0.0.1" in text
