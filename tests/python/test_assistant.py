"""The assistant's clients on plain WebSocket beside services that come, share, hang and die."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys

import pytest
import websockets
from engine import TRANSPORTS, joined
from stack import Workers
from talk import bus, settle

# a red pixel, as PNG
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"

# a worker that takes its time: says ack, then nothing until it is killed
HANGS = """
import asyncio, os, nats
async def main():
    bus = await nats.connect(os.environ["NATS_URL"])
    async def hang(command):
        await bus.publish(command.reply, b"", headers={"Gw-Status": "ack"})
        await bus.flush()
        print("taken", flush=True)
    await bus.subscribe("gw.v1.cmd.*.sleeper.hang", "sleeper", cb=hang)
    await bus.flush()
    print("serves", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


class Talk:
    """A plain client: requests, and whatever comes back."""

    def __init__(self, socket):
        self.socket = socket

    async def say(self, method, **params) -> None:
        await self.socket.send(json.dumps({"method": method, "params": params}))

    async def news(self) -> dict:
        """The next frame that is not about services which other tests start and stop."""
        while True:
            frame = json.loads(await self.socket.recv())
            data = frame["data"]
            service = frame["type"] == "connection_status" and "service" in data.get("reason", "")
            if not service and not (frame["type"] == "status_update" and is_services(data)):
                return frame

    async def hear(self, kind: str, wanted=lambda data: True) -> dict:
        while True:
            frame = json.loads(await self.socket.recv())
            if frame["type"] == kind and wanted(frame["data"]):
                return frame["data"]

    async def ask(self, method, **params) -> dict:
        """The answer alone: news of the space may come before it."""
        await self.say(method, **params)
        while True:
            frame = json.loads(await self.socket.recv())
            if frame["type"] in ("command_response", "error"):
                return frame


@contextlib.asynccontextmanager
async def plain(gateway, space: str):
    async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/ws/{space}", max_size=None) as socket:
        yield Talk(socket)


def is_services(data: dict) -> bool:
    return set(data) == {"vision", "language", "command"}


@pytest.fixture
def start(broker, tmp_path):
    """Starts reference workers that end with the test: `start("vision")`."""
    started = []

    def make(*names: str) -> Workers:
        started.append(Workers(broker, tmp_path / f"workers{len(started)}", *names))
        return started[-1]

    yield make
    for workers in started:
        workers.stop()


async def test_services_come_and_go_and_everybody_hears(gateway, space, start):
    async with plain(gateway, space) as one, plain(gateway, space) as other:
        # whoever asks has joined: what follows is heard
        for talk in (one, other):
            await talk.say("get_status")
            assert (await talk.hear("status_update", is_services))["vision"] == "stopped"
        vision = await asyncio.to_thread(start, "vision")
        for talk in (one, other):
            await talk.hear("status_update", lambda data: is_services(data) and data["vision"] == "running")
        # without a goodbye
        vision.process.kill()
        for talk in (one, other):
            await talk.hear("status_update", lambda data: is_services(data) and data["vision"] == "stopped")


async def test_two_workers_share_the_load(broker, gateway, space, start):
    first = await asyncio.to_thread(start, "command_processor")
    await asyncio.to_thread(start, "command_processor")
    async with plain(gateway, space) as talk, bus(broker) as nats:
        for number in range(60):
            answer = await talk.ask("execute_command", command=f"calculate {number}*2")
            assert float(answer["data"]["result"]["value"]) == number * 2
        inbox = nats.connection.new_inbox()
        stats = await nats.connection.subscribe(inbox)
        await nats.connection.publish("$SRV.STATS.command_processor", reply=inbox)
        served = [
            json.loads((await stats.next_msg(10)).data)["endpoints"][0]["num_requests"] for _ in range(2)
        ]
        assert sum(served) >= 60 and min(served) > 0, served
        # one goes away in peace: the other serves on, nothing is lost
        asked = [asyncio.create_task(talk.ask("execute_command", command="time"))]
        await asyncio.gather(*asked)
        await asyncio.to_thread(first.stop)
        assert (await talk.ask("execute_command", command="time"))["type"] == "command_response"


async def test_a_worker_killed_in_the_middle_gives_a_timeout(broker, own_gateway, space):
    gateway = own_gateway(GW_ASSISTANT_ROUTES="hang=sleeper", GW_COMMANDS_DEADLINE="2s")
    worker = subprocess.Popen(
        [sys.executable, "-c", HANGS], stdout=subprocess.PIPE, text=True, env={**os.environ, "NATS_URL": broker.url}
    )
    try:
        assert await asyncio.to_thread(worker.stdout.readline) == "serves\n"
        async with plain(gateway, space) as talk:
            asked = asyncio.create_task(talk.ask("hang"))
            assert await asyncio.to_thread(worker.stdout.readline) == "taken\n"
            worker.kill()
            answer = await asked
            assert answer["type"] == "error" and answer["data"]["code"] == "timeout", answer
            # and the connection lives
            assert (await talk.ask("hang"))["data"]["code"] in ("no_worker", "unknown_action")
    finally:
        worker.kill()
        worker.wait()


async def test_one_worker_asks_another_in_the_same_trace(broker, gateway, space, start):
    await asyncio.to_thread(start, "command_processor", "language", "vision")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with bus(broker) as nats:
        heard = asyncio.get_running_loop().create_future()

        async def overhear(command):
            if not heard.done():
                heard.set_result(command.headers)

        await nats.connection.subscribe(f"gw.v1.cmd.{space}.language.analyse_text", cb=overhear)
        await settle(nats.connection)
        inbox = nats.connection.new_inbox()
        answers = await nats.connection.subscribe(inbox)
        subject = f"gw.v1.cmd.{space}.command_processor.execute_command"
        body = json.dumps({"command": "analyse the cat sat on the mat and the cat is happy"}).encode()
        await nats.connection.publish(subject, body, reply=inbox, headers={"traceparent": trace})
        while (answer := await answers.next_msg(20)).headers.get("Gw-Status") != "done":
            pass
        assert json.loads(answer.data)["result"]["language"] == "en"
        assert (await heard)["traceparent"] == trace
    async with plain(gateway, space) as talk:
        answer = await talk.ask("execute_command", command="analyse this", image=PIXEL)
        assert answer["data"]["result"]["width"] == 1, answer
        broken = await talk.ask("execute_command", command="analyse this", image="AAAA")
        assert broken["type"] == "error" and broken["data"]["code"] == "invalid"


async def test_an_answer_of_three_megabytes_comes_whole(gateway, space, start):
    await asyncio.to_thread(start, "command_processor")
    async with plain(gateway, space) as talk, plain(gateway, space) as other:
        await other.say("get_status")
        await other.hear("status_update")
        said = "tell " + "x" * 3_000_000
        answer = await talk.ask("execute_command", command=said)
        assert answer["type"] == "command_response", str(answer)[:300]
        assert answer["data"]["user-command"] == said
        # the space is told that it ran, not the whole of it
        told = await other.hear("status_update", lambda data: data.get("status") == "completed")
        assert told["message"] == said[:200]


async def test_a_picture_beyond_a_message_goes_from_worker_to_worker(gateway, space, start):
    await asyncio.to_thread(start, "command_processor", "vision")
    # one red pixel in 3 MB of file: what follows the picture's end is nobody's
    image = base64.b64encode(base64.b64decode(PIXEL) + bytes(3_000_000)).decode()
    async with plain(gateway, space) as talk:
        answer = await talk.ask("execute_command", command="analyse this", image=image)
        assert answer["type"] == "command_response", str(answer)[:300]
        assert answer["data"]["result"]["width"] == 1


@pytest.mark.parametrize("carrier", ["plain", *TRANSPORTS])
async def test_an_event_of_ten_megabytes_reaches_everybody(broker, gateway, space, carrier):
    body = json.dumps({"text": "x" * 10_000_000}).encode()
    async with contextlib.AsyncExitStack() as stack:
        nats = await stack.enter_async_context(bus(broker))
        if carrier == "plain":
            talk = await stack.enter_async_context(plain(gateway, space))
            await talk.say("get_status")
            await talk.hear("status_update")
            heard = talk.hear("picture")
        else:
            one = await stack.enter_async_context(joined(gateway, space, carrier))
            await one.ask("get_status")
            heard = one.response("picture")
        stream = nats.connection.jetstream()
        name = next(nats.ids)
        await (await stream.object_store("GW_BODIES")).put(name, body)
        reference = f"object:GW_BODIES/{name};size={len(body)};sha256={hashlib.sha256(body).hexdigest()}"
        headers = {"Nats-Msg-Id": name, "Gw-Body": reference}
        await stream.publish(f"gw.v1.evt.{space}.assistant.picture", b"", headers=headers)
        assert await heard == json.loads(body)


async def test_a_newcomer_is_not_told_of_commands_long_done(broker, gateway, space):
    async with bus(broker) as nats:
        stream = nats.connection.jetstream()

        async def publish(topic: str, number: int):
            subject = f"gw.v1.evt.{space}.assistant.{topic}"
            headers = {"Nats-Msg-Id": next(nats.ids)}
            await stream.publish(subject, json.dumps({"n": number}).encode(), headers=headers)

        async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/ws/{space}?since=") as socket:
            first = Talk(socket)
            # only who says `since` is greeted
            greeting = (await first.news())["data"]
            assert greeting["status"] == "connected" and greeting["recovered"] is False
            for topic in ("status", "notification", "command_response"):
                await publish(topic, 1)
            there = [await first.news() for _ in range(3)]
            assert [said["type"] for said in there] == ["status_update", "notification", "command_response"]
        async with plain(gateway, space) as newcomer:
            assert await newcomer.news() == there[1]
            await publish("status", 2)
            # the next is live: of the past nothing else came
            live = await newcomer.news()
            assert (live["type"], live["data"]) == ("status_update", {"n": 2})
        # who comes back gets all it missed, whatever it is
        since = there[0]["offset"]
        async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/ws/{space}?since={since}") as socket:
            again = Talk(socket)
            assert [await again.news() for _ in range(3)] == [*there[1:], live]
            greeting = (await again.news())["data"]
            assert greeting["status"] == "connected" and greeting["recovered"] is True


async def test_plain_clients_are_told_what_is_wrong(gateway, space):
    async with plain(gateway, space) as talk:
        for said in ("nonsense", "[]", '"text"', "{}", '{"method":1}', '{"method":"fly"}', b"\x00"):
            await talk.socket.send(said)
            error = await talk.hear("error")
            assert error["message"] and error["code"], said
        # a worker that has just ended is listed for another moment
        while (code := (await talk.ask("execute_command", command="help"))["data"]["code"]) == "unknown_action":
            await asyncio.sleep(0.1)
        assert code == "no_worker"
        await talk.say("get_status")
        assert is_services(await talk.hear("status_update"))
