"""CAD: scripts that open a connection for each message, pages that stay, models of any size, two gateways."""

import asyncio
import hashlib
import json
import socket as sockets
import time

import nats
import raw
import websockets
import websockets.sync.client
from viewer import Scripts, joined, model, page, until


async def test_every_page_gets_models_byte_for_byte_in_order(gateway, space):
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as one, page(gateway.cad, space) as two:
        await joined(scripts, one, two)
        sent = []
        for number in range(10):
            sent.append(model(f"m{number}"))
            await scripts.tell("D", sent[-1])
            sent.append(json.dumps({"type": "ui", "config": {"ticks": number}}).encode())
            await scripts.tell("S", sent[-1])
        for viewer in (one, two):
            assert [(await viewer.text()).encode() for _ in sent] == sent


async def test_a_script_is_answered_without_a_page(gateway, space):
    scripts = Scripts(gateway.cad, space)
    assert await scripts.status() == {}
    config = await scripts.config()
    assert config["_splash"] is True
    assert config["reset_camera"] == "KEEP"
    assert await scripts.exact({"model": {"parts": []}}) == {"ok": False, "reason": "no_backend"}
    await scripts.tell("D", model("box"))
    assert (await until(scripts.config, lambda config: not config["_splash"]))["_splash"] is False
    await scripts.tell("D", {"type": "clear"})
    assert (await scripts.config())["_splash"] is False


async def test_a_late_page_is_given_what_is_shown(gateway, space):
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as early:
        await joined(scripts, early)
        await scripts.tell("D", model("old"))
        await scripts.tell("D", {"data": [], "type": "animation", "config": {"speed": 9}})
        await scripts.tell("D", model("box"))
        await scripts.tell("S", {"type": "ui", "config": {"axes": True, "ticks": 3}})
        await scripts.tell("S", {"type": "ui", "config": {"axes": False}})
        await scripts.tell("D", {"data": [], "type": "animation", "config": {"speed": 1}})
        for _ in range(6):
            await early.text()
        async with page(gateway.cad, space) as late:
            assert (await late.text()).encode() == model("box", reset_camera="reset")
            assert await late.json() == {"type": "ui", "config": {"axes": False, "ticks": 3}}
            assert (await late.json())["config"] == {"speed": 1}
            await late.hears_nothing()
        await scripts.tell("D", {"type": "clear"})
        assert await early.json() == {"type": "clear"}
        async with page(gateway.cad, space) as later:
            await later.hears_nothing()


async def test_status_is_what_the_page_touched_last_reports(gateway, space):
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as one, page(gateway.cad, space) as two:
        await one.report("status", {"axes": True, "zoom": 1})
        await one.report("status", {"zoom": 2})
        assert await until(scripts.status, lambda status: status.get("zoom") == 2) == {"axes": True, "zoom": 2}
        # all pages report after a model, the one touched last counts
        for again in range(8):
            # nothing was sent to the pages lately, so this is a hand
            await two.report("status", {"zoom": 3, "hand": again})
            status = await until(scripts.status, lambda status: status.get("hand") == again)
            assert status["zoom"] == 3 and status["axes"] is True
            sent = time.monotonic()
            await scripts.tell("D", model("box"))
            for viewer in (one, two):
                await viewer.text()
            await one.report("status", {"zoom": 4})
            await two.report("status", {"zoom": 5, "end": again})
            status = await until(scripts.status, lambda status: status.get("end") == again)
            # a report three seconds after the model is a hand's again: a starved machine has another try
            if status["zoom"] == 5 or time.monotonic() - sent < 3:
                break
            await asyncio.sleep(3.5)
        assert status["zoom"] == 5
        # it has reported the model and was silent since: what it says now is a hand's, however young the model
        await scripts.tell("D", model("ball"))
        for viewer in (one, two):
            await viewer.text()
        await one.report("status", {"zoom": 7})
        await asyncio.sleep(1)
        await one.report("status", {"zoom": 8})
        await until(scripts.status, lambda status: status["zoom"] == 8)
    # nobody is left: whoever comes counts
    async with page(gateway.cad, space) as three:
        await three.text()
        await three.report("status", {"zoom": 6})
        await until(scripts.status, lambda status: status["zoom"] == 6)


async def test_a_storm_of_reports_ends_in_the_last(gateway, broker, space):
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as one:
        for number in range(600):
            await one.report("status", {"zoom": number, f"k{number % 50}": number})
        status = await until(scripts.status, lambda status: status.get("zoom") == 599)
        assert all(status[f"k{key}"] == 550 + key for key in range(50))


async def test_a_large_model_arrives_whole_though_its_sender_is_gone(gateway, space):
    big = model("big", padding=20 << 20)
    assert len(big) > 20 << 20
    wanted = hashlib.sha256(big).hexdigest()
    async with page(gateway.cad, space) as slow, page(gateway.cad, space) as quick:
        sender = Scripts(gateway.cad, space)
        await joined(sender, slow, quick)
        # closes 50 ms after the last byte left, whatever the gateway does
        await sender.tell("D", big)
        await sender.tell("S", {"type": "ui", "config": {"after": True}})
        assert hashlib.sha256((await quick.text()).encode()).hexdigest() == wanted
        assert (await quick.json())["config"] == {"after": True}
        await asyncio.sleep(1)
        assert hashlib.sha256((await slow.text()).encode()).hexdigest() == wanted
        assert (await slow.json())["config"] == {"after": True}
    async with page(gateway.cad, space) as late:
        assert len(await late.text()) == len(big) + 1


async def test_nothing_is_written_to_a_script_that_still_sends(own_gateway, space):
    # pages are pinged too, and may be slow to answer
    gateway = own_gateway(GW_WEBSOCKET_PING="300ms", GW_WEBSOCKET_PONG="60s")
    big = model("slow", padding=1 << 20)
    async with page(gateway.cad, space) as viewer, raw.upgraded(gateway.cad, f"/s/{space}") as peer:
        await joined(Scripts(gateway.cad, space), viewer)
        message = raw.frame(2, b"D:" + big)
        for start in range(0, len(message), 1 << 17):
            await peer.send(message[start : start + (1 << 17)])
            await asyncio.sleep(0.2)
        assert (await viewer.text()).encode() == big
        peer.writer.write_eof()
        assert await peer.reader.read() == b"", "the gateway wrote to a script"


async def test_two_gateways_and_a_restart_show_the_same(own_gateway, space):
    one, two = own_gateway(), own_gateway()
    first, second = Scripts(one.cad, space), Scripts(two.cad, space)
    async with page(two.cad, space) as far:
        await joined(first, far)
        await first.tell("D", model("box"))
        assert (await far.text()).encode() == model("box")
        await until(second.config, lambda config: not config["_splash"])
        await far.report("status", {"zoom": 7})
        assert await until(first.status, lambda status: status.get("zoom") == 7) == {"zoom": 7}
        await asyncio.gather(*(scripts.tell("S", {"type": "ui", "config": {f"k{n}": n}})
                               for n, scripts in enumerate([first, second] * 3)))
        for _ in range(6):
            await far.text()
    one.stop()
    one.start()
    assert (await first.config())["_splash"] is False
    assert await first.status() == {"zoom": 7}
    async with page(one.cad, space) as again:
        assert (await again.text()).encode() == model("box", reset_camera="reset")
        assert (await again.json())["config"] == {f"k{n}": n for n in range(6)}


async def test_two_scripts_at_once_lose_no_answer(gateway, space):
    async def loop(scripts):
        for number in range(1000):
            answer = await (scripts.config() if number % 2 else scripts.status())
            assert isinstance(answer, dict)

    await asyncio.gather(*(loop(Scripts(gateway.cad, space)) for _ in range(2)))


async def test_what_makes_no_sense_ends_with_a_reason(gateway, space):
    for message in ("C:{nope", "", "C", "B:{}", b"D:{\"type\":\"data\",\"x\":\"\xff\"}"):
        async with websockets.connect(f"ws://127.0.0.1:{gateway.cad}/s/{space}") as socket:
            await socket.send(message)
            try:
                raise AssertionError(await socket.recv())
            except websockets.ConnectionClosed as closed:
                assert closed.rcvd.code == 1007
                assert closed.rcvd.reason
    # probes that connect and say nothing
    for _ in range(3):
        sockets.create_connection(("127.0.0.1", gateway.cad)).close()
    assert await Scripts(gateway.cad, space).status() == {}


async def test_a_foreign_page_is_refused(gateway, space):
    url = f"ws://127.0.0.1:{gateway.cad}/s/{space}"
    try:
        async with websockets.connect(url, origin="https://elsewhere.example"):
            raise AssertionError("a foreign page got in")
    except websockets.InvalidStatus as refused:
        assert refused.response.status_code == 403


async def test_settings_of_the_operator_and_of_the_user(own_gateway, tmp_path, space):
    (tmp_path / "home").mkdir()
    file = tmp_path / "home" / ".ocpvscode_standalone"
    file.write_text("no_glass: true\nticks: 7\ngrid_xz: true\ncollapse: nonsense\n")
    gateway = own_gateway(HOME=str(tmp_path / "home"), GW_CAD_VIEWER="ticks=9,collapse=R")
    scripts = Scripts(gateway.cad, space)
    config = await scripts.config()
    assert (config["glass"], config["ticks"], config["collapse"]) == (False, 9, "R")
    assert config["grid"] == [False, True, False]
    file.write_text("axes: true\n")
    config = await scripts.config()
    assert (config["glass"], config["axes"]) == (True, True)


async def test_questions_do_not_wait_for_a_model_that_is_still_coming(gateway, space):
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as viewer, raw.upgraded(gateway.cad, f"/s/{space}") as peer:
        await joined(scripts, viewer)
        big = model("slow", padding=1 << 20)
        message = raw.frame(2, b"D:" + big)
        await peer.send(message[: 1 << 19])
        # the gateway has begun to read it as soon as it answers what comes later
        assert await scripts.status() == {}
        assert (await scripts.config())["_splash"] is True
        assert not (await scripts.exact({"model": {}}))["ok"]
        # settings are of the model that was begun before them
        await scripts.tell("S", {"type": "ui", "config": {"after": True}})
        await viewer.hears_nothing()
        await peer.send(message[1 << 19 :])
        assert (await viewer.text()).encode() == big
        assert (await viewer.json())["config"] == {"after": True}


async def test_a_model_that_is_too_large_is_refused_with_a_reason_that_scripts_print(own_gateway, space):
    gateway = own_gateway(GW_CAD_MAX_MESSAGE="1MiB")

    def show(size: int) -> None:
        # as upstream does it: a blocking client that sends everything, then closes
        with websockets.sync.client.connect(f"ws://127.0.0.1:{gateway.cad}/s/{space}", close_timeout=0.05) as socket:
            socket.send(b"D:" + model("big", padding=size))
            # what it would hear if it listened
            socket.recv()

    for size in (2 << 20, 65 << 20):
        try:
            await asyncio.to_thread(show, size)
            raise AssertionError("it was taken")
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd is not None, f"{size} bytes: the reason was lost"
            assert closed.rcvd.code == 1009
            assert "at most 1048576 bytes" in closed.rcvd.reason
    # who only sends a model does not look for the close code: said again where an answer is waited for, and in the log
    scripts = Scripts(gateway.cad, space)

    async def exact():
        try:
            return await scripts.exact({"model": {}})
        except websockets.ConnectionClosed as closed:
            return closed.rcvd.code, "at most 1048576 bytes" in closed.rcvd.reason

    assert [await exact(), await exact()] == [(1009, True)] * 2
    assert (await scripts.config())["_splash"] is True
    while "at most 1048576 bytes" not in gateway.log.read_text():
        await asyncio.sleep(0.02)
    # others were not refused
    assert not (await Scripts(gateway.cad, f"{space}-other").exact({"model": {}}))["ok"]
    # the next one is welcome, and the refusal is past
    await scripts.tell("D", model("small"))
    assert not (await until(scripts.config, lambda config: not config["_splash"]))["_splash"]
    await until(exact, lambda answer: answer == {"ok": False, "reason": "no_backend"})


async def test_a_drag_is_told_to_the_bus_thirty_times_a_second(gateway, broker, space):
    bus = await nats.connect(broker.url)
    live = await bus.subscribe(f"gw.v1.live.{space}.cad.status")
    await bus.flush()
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as viewer:
        for number in range(300):
            await viewer.report("status", {"zoom": number, "states": {f"/Group/{at}": [1, 1] for at in range(100)}})
        times = []
        while True:
            message = await live.next_msg(timeout=60)
            times.append(int(message.headers["Gw-Time"]))
            if json.loads(message.data)["merged"]["zoom"] == 299:
                break
    assert all(later - earlier > 30_000_000 for earlier, later in zip(times, times[1:], strict=False))
    assert (await scripts.status())["zoom"] == 299
    await bus.close()


async def test_a_page_that_is_killed_is_forgotten_and_one_that_is_loaded_again_goes_on(gateway, space):
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as first:
        await joined(scripts, first)
        await first.report("status", {"zoom": 1})
        await until(scripts.status, lambda status: status.get("zoom") == 1)
        async with page(gateway.cad, space) as second:
            assert (await second.json())["value"] == 0.25
            # killed, not closed
            first.socket.transport.abort()
            await scripts.tell("D", model("box"))
            assert (await second.text()).encode() == model("box")

            # as soon as the gateway has forgotten it, the other one counts
            async def status():
                await second.report("status", {"zoom": 2})
                return await scripts.status()

            await until(status, lambda status: status["zoom"] == 2)
    async with page(gateway.cad, space) as again:
        assert (await again.text()).encode() == model("box", reset_camera="reset")
        await again.report("status", {"zoom": 3})
        await until(scripts.status, lambda status: status["zoom"] == 3)
