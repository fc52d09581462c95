"""What deploy/ promises about NATS: who may publish what. Needs no gateway."""

import asyncio
import pathlib

import nats
import pytest
from stack import Broker
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
