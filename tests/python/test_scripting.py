"""Scripting clients on raw TCP, answered by the project's worker in plain Python."""

import asyncio
import json
import os
import pathlib
import socket
import sys
import time

import pytest
from documents import Worker, talk
from stack import Broker, Gateway, free_port
from talk import bus, eventually

HERE = pathlib.Path(__file__).parent
# a gateway that loses patience soon, and a worker whose signs of life come sooner
DEADLINE, PROGRESS = "3s", "0.5"


@pytest.fixture(scope="module")
def stage(broker, tmp_path_factory):
    """A gateway with the legacy port, and a worker that serves its clients' space."""
    folder = tmp_path_factory.mktemp("scripting")
    port = str(free_port())
    settings = {"GW_SCRIPTING_PORT": port, "GW_SCRIPTING_SPACE": "script", "GW_COMMANDS_DEADLINE": DEADLINE}
    gateway = Gateway(broker, folder / "gateway", **settings)
    gateway.scripting = int(port)
    worker = start(broker, folder / "worker", "script")
    yield gateway
    assert worker.stop() == 0, worker.log.read_text()
    assert gateway.stop() == 0, gateway.log.read_text()


def start(broker, log, space, *arguments, wait=True):
    arguments = arguments or ("--allow-code",)
    worker = Worker(broker, log, "--space", space, "--progress", PROGRESS, *arguments)
    end = time.monotonic() + 30
    while wait and not worker.serves():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return worker


async def ready(client):
    """The directory knows the worker, and the worker knows that the gateway is on loopback alone."""
    while (await client.run("pass")).get("success") is not True:
        await asyncio.sleep(0.1)


@pytest.fixture
def client(stage):
    """A connection to the port these clients know, with a worker behind it that answers."""

    class Ready:
        async def __aenter__(self):
            self.talk = talk(stage.scripting)
            one = await self.talk.__aenter__()
            await ready(one)
            return one

        async def __aexit__(self, *error):
            await self.talk.__aexit__(*error)

    return Ready()


async def test_code_is_acknowledged_without_its_id_then_answered_with_it(client):
    async with client as one:
        await one.send({"action": "execute_code", "params": {"code": "print('hi ü 😀')"}, "id": "a"})
        assert await one.document() == {"status": "processing", "message": "Code execution started"}
        answer = await one.document()
        assert (answer["id"], answer["type"], answer["success"]) == ("a", "code_executed", True)
        assert answer["output"] == "hi ü 😀\n"


async def test_an_error_in_the_code_is_told_with_what_was_printed_before(client):
    async with client as one:
        answer = await one.run("print('before')\n1/0")
        assert answer["success"] is False and answer["status"] == "error"
        assert (answer["error_type"], answer["error"]) == ("ZeroDivisionError", "division by zero")
        assert answer["output"] == "before\n"
        assert 'File "<code>", line 2' in answer["traceback"]
        assert "execute.py" not in answer["traceback"], "the worker's own lines say nothing to the client"
        assert (await one.run("raise ValueError('ü\\n😀')"))["error"] == "ü\n😀"
        assert (await one.run("1 +"))["error_type"] == "SyntaxError"
        assert (await one.run("import sys; sys.exit(3)"))["error_type"] == "SystemExit"
        assert (await one.run("print('still here')"))["output"] == "still here\n"


async def test_the_other_shape_gets_one_answer_each_in_order(client):
    async with client as one:
        asked = [{"type": "execute_code", "params": {"code": f"print({n})"}} for n in range(20)]
        await one.send(*asked, {"type": "ping", "params": {}}, {"type": "fly"})
        for n in range(20):
            answer = await one.document()
            assert answer == {"status": "success", "result": {"executed": True, "result": f"{n}\n"}}
        assert await one.document() == {"status": "success", "result": {"pong": True}}
        assert (await one.document())["message"] == "Unknown command type: fly"
        answer = await one.ask("execute_code", code="1/0")
        assert answer["message"] == "Code execution error: division by zero"


async def test_both_shapes_in_one_segment_are_both_answered(client):
    async with client as one:
        await one.send({"action": "ping", "id": 7}, {"type": "ping"})
        answers = [await one.document(), await one.document()]
        assert {"status": "success", "result": {"pong": True}} in answers
        (mine,) = [answer for answer in answers if "id" in answer]
        assert (mine["id"], mine["type"], mine["result"]) == (7, "ping_result", {"pong": True})


async def test_fifty_commands_at_once_are_matched_by_id(client):
    async with client as one:
        code = "import time; time.sleep(0.001); print('}}{{', %d)"
        await one.send(*[{"action": "execute_code", "params": {"code": code % n}, "id": f"id{n}"} for n in range(50)])
        got = [await one.answer() for _ in range(50)]
        assert {answer["id"]: answer["output"] for answer in got} == {f"id{n}": f"}}}}{{{{ {n}\n" for n in range(50)}


async def test_characters_cut_at_every_byte(client):
    async with client as one:
        document = json.dumps({"action": "execute_code", "params": {"code": "print('ü€😀')"}, "id": "é"}, ensure_ascii=False)
        for byte in document.encode():
            await one.raw(bytes([byte]))
            await asyncio.sleep(0)
        answer = await one.answer()
        assert (answer["id"], answer["output"]) == ("é", "ü€😀\n")


async def test_the_answer_comes_after_a_half_close(client):
    async with client as one:
        await one.send({"action": "execute_code", "params": {"code": "import time; time.sleep(0.3); print(1)"}, "id": "h"})
        one.writer.write_eof()
        assert (await one.answer())["output"] == "1\n"
        assert await one.document() is None


async def test_the_gateway_port_speaks_it_too(stage, client):
    async with client, talk(stage.port) as one:
        assert (await one.run("print(2)"))["output"] == "2\n"


async def test_twenty_megabytes_of_code_and_of_result(client):
    async with client as one:
        text = "é" * 10_000_000
        answer = await one.run(f"text = '{text}'\nprint(len(text))")
        assert answer["output"] == "10000000\n"
        answer = await one.run("print('x' * 20_000_000)")
        assert len(answer["output"]) == 20_000_001
        assert (await one.ask("ping"))["result"] == {"pong": True}


async def test_a_silent_job_and_those_behind_it_outlive_the_deadline(client):
    async with client as one:
        code = "import time; time.sleep(4); print('slow')"
        await one.send(
            {"action": "execute_code", "params": {"code": code}, "id": "slow"},
            {"action": "execute_code", "params": {"code": "print('next')"}, "id": "next"},
        )
        assert [(await one.answer())["output"] for _ in range(2)] == ["slow\n", "next\n"]


async def test_output_is_shown_live_to_those_who_ask(client):
    async with client as one:
        code = "import time\nfor n in range(3):\n print(n)\n time.sleep(0.5)"
        await one.send({"action": "execute_code", "params": {"code": code}, "id": "p", "progress": True})
        shown = ""
        while (answer := await one.answer())["type"] == "progress":
            assert answer["id"] == "p"
            shown += answer["output"]
        assert answer["output"] == "0\n1\n2\n"
        assert shown and answer["output"].startswith(shown)


async def test_a_long_line_is_shown_whole_and_the_next_program_too(client):
    """As JSON each of these characters takes twelve bytes, and all of them more than a message may have."""
    async with client as one:
        for text, count in (("😀", 300_000), ("x", 10)):
            code = f"import time\nprint({text!r} * {count}, end='')\nwhile True: time.sleep(0.01)"
            await one.send({"action": "execute_code", "params": {"code": code}, "id": "p", "progress": True})
            shown = ""
            while len(shown) < count:
                answer = await one.answer()
                assert answer["type"] == "progress", answer
                shown += answer["output"]
            assert shown == text * count
            await one.send({"action": "cancel", "params": {"id": "p"}, "id": "c"})
            assert {(await one.answer())["id"], (await one.answer())["id"]} == {"p", "c"}


async def test_cancel_ends_a_running_loop_even_a_stubborn_one(client):
    async with client as one:
        for code in ("while True: pass", "while True:\n try:\n  while True: pass\n except: pass\n if 0: break\n import sys\n"):
            stubborn = "except" in code
            if stubborn:
                # swallows the first request to end, obeys the second
                code = "try:\n while True: pass\nexcept BaseException: print('no')\nwhile True: pass"
            await one.send({"action": "execute_code", "params": {"code": code}, "id": "loop"})
            assert (await one.document())["status"] == "processing"
            await one.send({"action": "cancel", "params": {"id": "loop"}, "id": "c"})
            answers = {answer["id"]: answer for answer in [await one.answer(), await one.answer()]}
            assert answers["loop"]["code"] == "cancelled"
            assert answers["c"]["success"] is True
            # an old result would come here
            assert (await one.run("print('free')", "n"))["id"] == "n"


async def test_a_client_that_drops_frees_the_worker_and_is_served_when_it_comes_back(stage, client):
    async with client:
        async with talk(stage.scripting) as gone:
            await gone.send({"action": "execute_code", "params": {"code": "while True: pass"}, "id": "1"})
            assert (await gone.document())["status"] == "processing"
        async with talk(stage.scripting) as back:
            assert (await back.run("print('again')"))["output"] == "again\n"


GARBAGE = [b"hello", b"}", b'{"action":x', b"\xff\xfe", b"nullnull", b'{"a":1}}']


@pytest.mark.parametrize("garbage", GARBAGE, ids=[repr(row) for row in GARBAGE])
async def test_what_can_never_be_json_is_answered_and_ends_the_connection(stage, garbage):
    async with talk(stage.scripting) as one:
        await one.raw(garbage)
        one.writer.write_eof()
        answers = []
        while (answer := await one.document()) is not None:
            answers.append(answer)
        assert answers and all(answer["status"] == "error" for answer in answers)
    async with talk(stage.scripting) as other:
        assert (await other.run("print(1)"))["success"] is True


async def test_a_document_that_stops_half_way_ends_a_silent_client_stays(stage):
    async with talk(stage.scripting) as silent, talk(stage.scripting) as slow:
        await slow.raw(b'{"action":"ping","id":"half"')
        answer = await slow.document()
        assert (answer["id"], answer["code"]) == ("half", "timeout")
        assert await slow.document() is None
        assert (await silent.action("ping"))["success"] is True


async def test_bad_parameters_are_told(client):
    async with client as one:
        for params in ({}, {"code": ""}, {"code": 7}):
            answer = await one.action("execute_code", **params)
            assert (answer["code"], answer["success"]) == ("invalid", False)
        assert (await one.action("fly"))["message"] == "Unknown command: fly"


async def test_without_a_worker_it_says_at_once_how_to_start_one(broker, stage, own_gateway):
    """Also while a worker serves another space."""
    gateway = own_gateway(GW_SCRIPTING_SPACE="nobody")
    async with talk(gateway.port) as one:
        answer = await one.action("get_state")
        assert (answer["code"], answer["id"]) == ("no_worker", "1")
        assert "apt-get install" in answer["message"] and "--profile blender" in answer["message"]
        assert (await one.ask("get_state"))["code"] == "no_worker"


async def test_only_final_replies_count_in_the_statistics(broker, client):
    async with client as one, bus(broker) as watcher:

        async def counted():
            answer = await watcher.connection.request("$SRV.STATS.blender", b"", timeout=5)
            endpoints = json.loads(answer.data)["endpoints"]
            (code,) = [end for end in endpoints if end["name"] == "execute_code"]
            return code["num_requests"], code["num_errors"], code["processing_time"]

        requests, errors, busy = await counted()
        await one.run("import time; time.sleep(1.2)")
        await one.run("1/0")
        later = await counted()
        assert later[:2] == (requests + 2, errors + 1)
        assert later[2] > busy + 1_000_000_000


async def test_code_is_off_unless_allowed(broker, own_gateway, tmp_path):
    closed = own_gateway(GW_SCRIPTING_SPACE="closed")
    worker = start(broker, tmp_path / "closed", "closed", "--progress", "0.5")
    try:
        async with talk(closed.port) as one:
            answer = await one.run("print(1)")
            assert answer["code"] == "unauthorized" and "--allow-code" in answer["message"]
            assert (await one.ask("ping"))["status"] == "success"
    finally:
        assert worker.stop() == 0


async def test_code_is_refused_behind_an_exposed_gateway(broker, tmp_path):
    # a broker of their own: what one gateway says of itself counts for every worker on its broker
    broker = Broker(tmp_path / "nats")
    gateway = Gateway(broker, tmp_path / "open", GW_GATEWAY_BIND="0.0.0.0", GW_GATEWAY_ALLOW_EXPOSED="true")
    worker = start(broker, tmp_path / "refusing", "main", "--allow-code")
    try:
        async with talk(gateway.port) as one:
            while (answer := await one.run("print(1)"))["code"] in ("busy", "no_worker"):
                await asyncio.sleep(0.1)
            assert answer["code"] == "unauthorized" and "--allow-exposed" in answer["message"]
        assert worker.stop() == 0
        worker = start(broker, tmp_path / "meant", "main", "--allow-code", "--allow-exposed")
        async with talk(gateway.port) as one:
            await ready(one)
    finally:
        worker.stop()
        gateway.stop()
        broker.stop()


async def test_a_second_worker_stands_by_and_takes_over(broker, own_gateway, tmp_path):
    gateway = own_gateway(GW_SCRIPTING_SPACE="twins")
    first = start(broker, tmp_path / "first", "twins")
    second = start(broker, tmp_path / "second", "twins", "--allow-code", wait=False)
    try:
        await eventually(lambda: second.said("standing by"))
        async with talk(gateway.port) as one:
            await ready(one)
            who = "import os; print(os.getpid())"
            assert {(await one.run(who))["output"] for _ in range(10)} == {f"{first.process.pid}\n"}
            assert first.stop() == 0
            await eventually(second.serves)
            await ready(one)
            assert (await one.run(who))["output"] == f"{second.process.pid}\n"
    finally:
        first.stop()
        second.stop()


async def test_the_desktop_clients_way_of_reading_loses_nothing(stage, client):
    """It takes each chunk of the socket for one document."""
    async with client:
        command = ["node", str(HERE / "desktop_client.mjs"), str(stage.scripting), "50"]
        node = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await node.communicate()
        assert json.loads(out) == {"resolved": 50, "unparsed": 0}


def kernel_tells() -> bool:
    """Whether the gateway can know what a client has read; a sandbox may not let it."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not kernel_tells(), reason="this system has no NETLINK_SOCK_DIAG")
async def test_a_client_that_is_slow_to_read_still_gets_each_document_alone(stage, client):
    """Nothing is written before the last document was read, for about two seconds."""
    async with client as one:
        asked = [{"action": "execute_code", "params": {"code": f"print({n})"}, "id": n} for n in range(20)]
        # a socket of its own, read by hand: no reader of ours may take more than one read gives
        with socket.create_connection(("127.0.0.1", stage.scripting)) as line:
            line.sendall(b"".join(json.dumps(document).encode() for document in asked))
            line.setblocking(False)
            loop = asyncio.get_running_loop()
            answered = []
            while len(answered) < len(asked):
                # long enough for several answers, were they written as they come
                await asyncio.sleep(0.02)
                document = json.loads(await loop.sock_recv(line, 1 << 20))
                answered += [document["output"]] if "id" in document else []
        assert answered == [f"{n}\n" for n in range(20)]


async def test_the_addon_package_of_today_completes_its_checks(stage, client):
    """Its own client class, in a process of its own, with its telemetry off."""
    async with client:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "addon_client.py"),
            str(stage.scripting),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "DISABLE_TELEMETRY": "true"},
        )
        out, log = await program.communicate()
        assert out.decode().strip().endswith("all checks passed"), out.decode() + log.decode()[-2000:]
