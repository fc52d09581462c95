"""Whether the figures are true: totals against what clients counted, under load, while NATS dies, with hostile names."""

import asyncio
import collections
import contextlib
import itertools
import json
import os
import resource
import time
import urllib.error

import pytest
import websockets
from figures import figures
from stack import Broker, free_port
from talk import bus, client, eventually

VOICE = {"dialect": "voice"}
DURATION = "gw_command_duration_seconds_count"
STAGE = "gw_stage_duration_seconds_count"


class Crowd:
    """Clients that ask without end and count every final answer."""

    def __init__(self):
        self.done = self.sent = 0
        self.failed = collections.Counter()
        self.ending = False
        self.ids = itertools.count()

    async def ask(self, url: str) -> None:
        async with client(url) as one:
            while not self.ending:
                me = str(next(self.ids))
                self.sent += 1
                await one.send({"type": "work", "data": {}, "id": me})
                answer = await one.frame()
                while answer["type"] == "command_progress":
                    answer = await one.frame()
                assert answer["id"] == me, "one final answer each, and none twice"
                if answer["type"] == "error":
                    self.failed[answer["data"]["code"]] += 1
                    await asyncio.sleep(0.01)
                else:
                    self.done += 1

    async def until(self, asking, condition) -> None:
        """Waits for a condition; a client that fails fails the test at once."""
        while not condition():
            ended = [task for task in asking if task.done()]
            for task in ended:
                task.result()
            await asyncio.sleep(0.02)


async def test_totals_are_what_clients_counted_while_nats_dies(own_gateway, space, tmp_path):
    arguments = ("-js", "-sd", str(tmp_path / "store"), "-p", str(free_port()))
    broker = Broker(tmp_path / "bus", *arguments)
    gateway = own_gateway(on=broker, GW_VOICE_ROUTES="work=voice", GW_COMMANDS_DEADLINE="5s")

    async def answer(_command, reply):
        await reply(status="progress")
        await reply({"ok": True})

    crowd = Crowd()
    async with bus(broker) as worker, worker.worker(space, answer):
        asking = [asyncio.create_task(crowd.ask(gateway.events(space))) for _ in range(4)]
        await crowd.until(asking, lambda: crowd.done >= 200)
        broker.process.kill()
        broker.process.wait()
        await crowd.until(asking, lambda: crowd.failed["bus_down"] >= 20)
        broker = Broker(tmp_path / "again", *arguments)
        before = crowd.done
        await crowd.until(asking, lambda: crowd.done >= before + 200)
        crowd.ending = True
        await asyncio.gather(*asking)
        now = await figures(gateway)
    try:
        asked = {key: float(value) for key, value in (crowd.failed | {"done": crowd.done}).items() if value}
        assert now.by("outcome", DURATION, **VOICE) == asked
        assert sum(asked.values()) == crowd.sent
        assert now.sum("gw_commands_in_flight", **VOICE) == 0
        # every message was one command, read and decoded
        assert now.sum("gw_messages_received_total", **VOICE) == now.sum(STAGE, stage="decode", **VOICE) == crowd.sent
        # what came back over the bus: results, and the broker's word that nobody serves
        over = crowd.done + crowd.failed["no_worker"] + crowd.failed["unknown_action"]
        assert now.sum(STAGE, stage="bus", **VOICE) == over
        # each histogram's last bucket is its count
        assert now.sum("gw_command_duration_seconds_bucket", le="+Inf", **VOICE) == crowd.sent
        assert now.sum("gw_nats_reconnects_total") >= 1 and now.sum("gw_nats_connected") == 1
    finally:
        gateway.stop()
        broker.stop()


async def test_every_stage_of_a_command_is_counted_once(own_gateway, broker, space):
    gateway = own_gateway(GW_VOICE_ROUTES="work=voice")

    async def answer(command, reply):
        headers = {"Gw-Time": str(time.time_ns())}
        await worker.connection.publish(command.reply, b'{"ok":true}', headers=headers)

    async with bus(broker) as worker, worker.worker(space, answer), client(gateway.events(space)) as one:
        before = await figures(gateway)
        for _ in range(50):
            assert (await one.ask("work"))["type"] == "command_result"
        # a client may have its answer before the gateway has noted how long writing it took
        now = await figures(gateway)
        while now.sum(STAGE, stage="write", **VOICE) - before.sum(STAGE, stage="write", **VOICE) < 50:
            now = await figures(gateway)
    counted = {
        stage: now.sum(STAGE, stage=stage, **VOICE) - before.sum(STAGE, stage=stage, **VOICE)
        for stage in ("decode", "bus", "worker", "encode", "write")
    }
    assert counted == dict.fromkeys(counted, 50)
    whole = now.sum("gw_command_duration_seconds_sum", outcome="done", **VOICE)
    parts = now.sum("gw_stage_duration_seconds_sum", stage="bus", **VOICE)
    assert 0 < now.sum("gw_stage_duration_seconds_sum", stage="worker", **VOICE) <= parts <= whole


def hostile():
    """Names as an enemy of label values would choose them."""
    for number in itertools.count():
        yield f'evil{number}"}} 1\n{{x="{number}", \\ é\u202e\x00'


async def test_ten_thousand_hostile_names_add_no_label_value(gateway, broker, space):
    names, batch = hostile(), 250
    before = await figures(gateway)

    async def flood(url, count, frame, wanted=lambda _: True):
        """Sends in batches and hears an answer to each."""
        async with websockets.connect(url, max_size=None) as socket:
            for _ in range(count // batch):
                for _ in range(batch):
                    await socket.send(json.dumps(frame(next(names))))
                heard = 0
                while heard < batch:
                    heard += wanted(json.loads(await socket.recv()))

    port = gateway.port
    error = lambda frame: frame["type"] == "error"  # noqa: E731
    await flood(gateway.events(space), 4000, lambda name: {"type": name, "data": {}, "id": name[:60]}, error)
    # those that are routed reach the bus: as an action that nobody serves
    await flood(gateway.events(space), 1000, lambda name: {"type": f"stt_{name}", "data": {}}, error)
    await flood(f"ws://127.0.0.1:{port}/ws/{space}", 2000, lambda name: {"method": name, "params": {}}, error)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(1000 // batch):
        for _ in range(batch):
            writer.write(json.dumps({"type": next(names), "params": {}}).encode())
        answers, text = 0, ""
        while answers < batch:
            text += (await reader.read(65536)).decode()
            with contextlib.suppress(ValueError):
                while text:
                    _, end = json.JSONDecoder().raw_decode(text)
                    text, answers = text[end:].lstrip(), answers + 1
    writer.close()
    # topics, from anybody who can publish
    async with bus(broker) as publisher, client(gateway.events(space)) as one:
        for number in range(2000):
            await publisher.event(space, number, topic=f"evil{number}=0A=22")
            if number % batch == batch - 1:
                await one.frames(batch)
    now = await figures(gateway)
    new = {key for key in now.series if key not in before.series}
    # codes of mistakes are constants of the program, shown when they first happen
    grown = {(name, dict(labels).get("code")) for name, labels in new}
    # services come and go by themselves, and their names have a bound of their own
    grown = {(name, code) for name, code in grown if not name.startswith("gw_service_")}
    assert {name for name, _ in grown} <= {"gw_offences_total"}
    assert all(code.replace("_", "").isalpha() for _, code in grown), grown
    assert not [key for key in now.series if "evil" in str(key)]


async def test_a_gateway_without_room_for_large_bodies_says_so(gateway, own_gateway, tmp_path, space):
    assert (await figures(gateway)).sum("gw_object_store_refused") == 0
    broker = Broker(tmp_path / "bus")
    try:
        without = own_gateway(on=broker, GW_BODIES_MAX_BYTES="900000GiB", GW_VOICE_MAX_MESSAGE="4MiB", GW_VOICE_ROUTES="work=voice")
        assert (await figures(without)).sum("gw_object_store_refused") == 1

        async def answer(_command, reply):
            await reply({"ok": True})

        async with bus(broker) as worker, worker.worker(space, answer), client(without.events(space)) as one:
            assert (await one.ask("work", {"x": "y" * 2_000_000}))["data"]["code"] == "too_large"
            assert (await one.ask("work"))["type"] == "command_result"
    finally:
        broker.stop()


async def test_a_gateway_that_counts_nothing_serves_all_the_same(own_gateway, broker, space):
    gateway = own_gateway(GW_OPS_METRICS="false", GW_VOICE_ROUTES="work=voice")

    async def answer(_command, reply):
        await reply({"ok": True})

    async with bus(broker) as worker, worker.worker(space, answer), client(gateway.events(space)) as one:
        assert (await one.ask("work"))["type"] == "command_result"
        await worker.event(space, 1)
        assert (await one.frame())["data"] == {"n": 1}
    with pytest.raises(urllib.error.HTTPError) as refused:
        await figures(gateway)
    assert refused.value.code == 404 and "ops.metrics" in refused.value.read().decode()


async def test_connections_that_cannot_be_accepted_are_counted_and_told_once(own_gateway):
    # those who say nothing stay for as long as the test takes
    gateway = own_gateway(GW_GATEWAY_HEADER_TIMEOUT="10m")
    pid = gateway.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 3, before[1]))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.voice)
            stack.callback(writer.close)
        await eventually(lambda: "cannot accept" in gateway.log.read_text())
        # time for many more attempts
        await asyncio.sleep(1)
        told = gateway.log.read_text().count("cannot accept")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        failed = (await figures(gateway)).sum("gw_accept_errors_total")
    assert told == 1 <= failed
