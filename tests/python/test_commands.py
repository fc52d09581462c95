"""Commands: always exactly one final answer, the worker's or a typed error; never silence."""

import asyncio
import json

import nats.micro
from talk import bus, client, eventually


async def echo(command, reply):
    await reply({"heard": json.loads(command.data)})


async def test_the_reply_is_typed_and_for_the_sender_alone(broker, gateway, space):
    async with bus(broker) as worker, worker.worker(space, echo) as heard:
        async with client(gateway.events(space)) as one, client(gateway.events(space)) as other:
            answer = await one.ask("get_system_info", {"a": [1, "é"]})
            assert (answer["type"], answer["data"]) == ("system_info", {"heard": {"a": [1, "é"]}})
            answer = await one.ask("get_performance_metrics")
            assert (answer["type"], answer["data"]) == ("latency_trace", {"heard": {}})
            answer = await one.ask("stt_custom", {"x": 1})
            assert answer["type"] == "command_result"
            assert answer["data"] == {"command": "stt_custom", "result": {"heard": {"x": 1}}}
            await worker.event(space, 1)
            # an answer meant for another would have come before the event
            assert (await other.frame())["type"] == "tick"
        command = heard[0]
        assert command.subject == f"gw.v1.cmd.{space}.voice.get_system_info"
        assert command.headers["Gw-Session"] == f"voice/{one.status['session']}"
        assert len(command.headers["Nats-Msg-Id"]) == 26
        assert int(command.headers["Gw-Deadline"]) > 0
        assert int(command.headers["Gw-Time"]) > 0
        async with client(gateway.events(space)) as late:
            assert [event["type"] for event in late.replayed] == ["tick"]


async def test_without_a_worker_the_answer_says_so(gateway, space):
    async with client(gateway.events(space)) as one:
        answer = await one.ask("get_system_info")
        # a worker of an earlier test stays in the directory for some seconds after its end
        while answer["data"]["code"] == "unknown_action":
            await asyncio.sleep(0.1)
            answer = await one.ask("get_system_info")
        assert answer["type"] == "error"
        assert answer["data"]["code"] == "no_worker"
        assert answer["data"]["command"] == "get_system_info"
        assert "start one (`causeway worker voice`)" in answer["data"]["message"]


async def test_a_service_that_runs_but_does_not_know_the_action(broker, own_gateway, space):
    gateway = own_gateway()
    async with bus(broker) as worker, client(gateway.events(space)) as one:
        service = await nats.micro.add_service(worker.connection, name="voice", version="1.0.0")
        codes = set()
        # the directory is at most two seconds old
        while "unknown_action" not in codes:
            codes.add((await one.ask("stt_nothing"))["data"]["code"])
            await asyncio.sleep(0.05)
        assert codes <= {"no_worker", "unknown_action"}
        await service.stop()


async def test_a_silent_worker_is_a_timeout_and_progress_restarts_it(broker, own_gateway, space):
    gateway = own_gateway(GW_COMMANDS_DEADLINE="2s")
    late = []

    async def answer(command, reply):
        if command.subject.endswith(".stt_slow"):
            # longer in all than the deadline, never as long without a sign
            for _ in range(8):
                await asyncio.sleep(0.5)
                await reply(status="progress")
            await reply({"finished": True})
        elif command.subject.endswith(".stt_silent"):
            late.append(reply)

    async with bus(broker) as worker, worker.worker(space, answer), client(gateway.events(space)) as one:
        answer = await one.ask("stt_silent")
        assert answer["type"] == "error"
        assert answer["data"]["code"] == "timeout"
        # a final answer after the end is dropped
        await late[0]({"too": "late"})
        answer = await one.ask("stt_slow")
        assert answer["data"] == {"command": "stt_slow", "result": {"finished": True}}


async def test_a_workers_error_reaches_the_client_with_its_details(broker, gateway, space):
    async def fail(_command, reply):
        await reply({"traceback": "line 1"}, error="the microphone is gone", code=500)

    async with bus(broker) as worker, worker.worker(space, fail), client(gateway.events(space)) as one:
        answer = await one.ask("stt_start")
        assert answer["type"] == "error"
        assert answer["data"]["code"] == "worker_error"
        assert answer["data"]["message"] == "the microphone is gone"
        assert answer["data"]["command"] == "stt_start"
        assert answer["data"]["details"] == {"traceback": "line 1"}


async def test_each_error_code_keeps_its_name(broker, gateway, space):
    names = {400: "invalid", 401: "unauthorized", 404: "unknown_action", 408: "timeout", 413: "too_large"}
    names |= {429: "busy", 499: "cancelled", 500: "worker_error", 503: "no_worker", 777: "worker_error"}

    async def fail(command, reply):
        await reply(error="no", code=json.loads(command.data)["code"])

    async with bus(broker) as worker, worker.worker(space, fail), client(gateway.events(space)) as one:
        for number, name in names.items():
            answer = await one.ask("stt_start", {"code": number})
            assert (number, answer["data"]["code"]) == (number, name)


async def test_interim_answers_come_before_the_final_one_and_nothing_after(broker, gateway, space):
    async def answer(command, reply):
        if command.subject.endswith(".stt_start"):
            await reply(status="ack")
            await reply({"percent": 10}, status="progress")
            await reply(status="progress")
            await reply({"percent": 90}, status="progress")
            await reply({"text": "done"}, status="done")
            await reply({"text": "again"}, status="done")
        else:
            await reply({"after": True})

    async with bus(broker) as worker, worker.worker(space, answer), client(gateway.events(space)) as one:
        await one.send({"type": "stt_start", "data": {}})
        first, second, final = await one.frames(3)
        assert first["type"] == second["type"] == "command_progress"
        assert first["data"] == {"command": "stt_start", "progress": {"percent": 10}}
        assert second["data"] == {"command": "stt_start", "progress": {"percent": 90}}
        assert final["data"] == {"command": "stt_start", "result": {"text": "done"}}
        assert (await one.ask("get_system_info"))["data"] == {"after": True}


async def test_an_empty_done_is_silent(broker, gateway, space):
    async def answer(command, reply):
        await reply() if command.subject.endswith(".stt_stop") else await reply({"after": True})

    async with bus(broker) as worker, worker.worker(space, answer), client(gateway.events(space)) as one:
        await one.send({"type": "stt_stop"})
        assert (await one.ask("get_system_info"))["data"] == {"after": True}


async def test_the_clients_id_comes_back(broker, gateway, space):
    async with bus(broker) as worker, worker.worker(space, echo) as heard, client(gateway.events(space)) as one:
        await one.send({"type": "get_system_info", "id": "my-17"})
        assert (await one.frame())["id"] == "my-17"
        assert heard[0].headers["Gw-Correlation"] == "my-17"


async def test_a_client_that_leaves_cancels_what_it_asked(broker, gateway, space):
    async with bus(broker) as worker, worker.worker(space, None) as heard:
        async with client(gateway.events(space)) as one:
            await one.send({"type": "stt_start"})
            await eventually(lambda: len(heard) == 1)
        await eventually(lambda: len(heard) == 2)
        assert heard[1].subject == f"gw.v1.cmd.{space}.voice.cancel"
        assert json.loads(heard[1].data) == {"id": heard[0].headers["Nats-Msg-Id"]}


async def test_a_hundred_commands_at_once_are_each_answered_once(broker, gateway, space):
    async def answer(command, reply):
        number = json.loads(command.data)["n"]
        # out of order on purpose
        await asyncio.sleep((number * 37 % 100) / 1000)
        await reply({"n": number})

    async with bus(broker) as worker, worker.worker(space, answer), client(gateway.events(space)) as one:
        for number in range(100):
            await one.send({"type": "get_system_info", "data": {"n": number}})
        answers = await one.frames(100)
        assert sorted(answer["data"]["n"] for answer in answers) == list(range(100))


async def test_while_nats_is_away_commands_fail_typed_and_sockets_stay(tmp_path, own_gateway, space):
    from stack import Broker

    broker = Broker(tmp_path / "nats")
    gateway = own_gateway(on=broker)
    try:
        async with client(gateway.events(space)) as one:
            await asyncio.to_thread(broker.stop)
            await eventually(lambda: not gateway.ready())
            answer = await one.ask("get_system_info")
            assert answer["data"]["code"] == "bus_down"
            assert (await one.socket.ping()) is not None
    finally:
        if broker.process.poll() is None:
            broker.stop()
