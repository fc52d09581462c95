"""Screenshots: asked of exactly one page, written only where and when a script asked, on any gateway."""

import asyncio
import base64
import contextlib
import json
import os
import urllib.request

import nats
from stack import BIN, free_port
from viewer import PNG, PNG_URL, Scripts, joined, model, page, picture


async def test_a_screenshot_is_taken_by_one_page_and_written_once(own_gateway, tmp_path, space):
    (tmp_path / "pictures").mkdir()
    one = own_gateway(GW_CAD_SCREENSHOTS=str(tmp_path / "pictures"))
    here = Scripts(one.cad, space)
    file = tmp_path / "pictures" / "shot.png"
    async with page(one.cad, space) as first, page(one.cad, space) as second:
        await joined(here, first, second)
        for scripts in (here, here):
            await scripts.tell("C", {"type": "screenshot", "filename": str(file)})
            tasks = [asyncio.create_task(picture(viewer)) for viewer in (first, second)]
            done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1, "more than one page was asked"
            assert done.pop().result()["filename"] == str(file)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            while not file.exists():
                await asyncio.sleep(0.02)
            assert file.read_bytes() == base64.b64decode(PNG)
            assert list(file.parent.iterdir()) == [file]
            file.unlink()


async def test_no_file_is_written_that_was_not_asked_for_or_lies_elsewhere(own_gateway, tmp_path, space):
    (tmp_path / "pictures").mkdir()
    gateway = own_gateway(GW_CAD_SCREENSHOTS=str(tmp_path / "pictures"))
    scripts = Scripts(gateway.cad, space)
    inside, outside = tmp_path / "pictures" / "a.png", tmp_path / "outside.png"
    async with page(gateway.cad, space) as viewer:
        await joined(scripts, viewer)
        # never asked for
        await viewer.report("screenshot", {"filename": str(inside), "data": PNG_URL})
        for name in (str(outside), f"{tmp_path}/pictures/../outside.png", "relative.png", "/etc/causeway.png"):
            await scripts.tell("C", {"type": "screenshot", "filename": name})
            await picture(viewer)
        # asked for one, answered by another; no picture at all
        await scripts.tell("C", {"type": "screenshot", "filename": str(tmp_path / "pictures" / "b.png")})
        await picture(viewer, filename=str(inside))
        await scripts.tell("C", {"type": "screenshot", "filename": str(tmp_path / "pictures" / "c.png")})
        await picture(viewer, data="data:image/png;base64,AAAA")
        # after all those: one that is right
        right = tmp_path / "pictures" / "right.png"
        await scripts.tell("C", {"type": "screenshot", "filename": str(right)})
        await picture(viewer)
        while not right.exists():
            await asyncio.sleep(0.02)
        assert list(right.parent.iterdir()) == [right]
        assert not outside.exists()


async def test_without_a_page_a_screenshot_returns_and_the_log_says_where_to_look(own_gateway, space):
    gateway = own_gateway()
    await Scripts(gateway.cad, space).tell("C", {"type": "screenshot", "filename": "/tmp/nobody.png"})
    while f":{gateway.cad}/viewer" not in gateway.log.read_text():
        await asyncio.sleep(0.02)


async def test_a_screenshot_asked_for_at_one_gateway_is_taken_by_a_page_of_another(own_gateway, tmp_path, space):
    (tmp_path / "pictures").mkdir()
    one = own_gateway(GW_CAD_SCREENSHOTS=str(tmp_path / "pictures"))
    two = own_gateway(GW_CAD_SCREENSHOTS=str(tmp_path / "nowhere"))
    here = Scripts(one.cad, space)
    async with page(two.cad, space) as far:
        await joined(here, far)
        for number in range(3):
            file = tmp_path / "pictures" / f"shot{number}.png"
            await here.tell("C", {"type": "screenshot", "filename": str(file)})
            assert (await picture(far))["filename"] == str(file)
            while not file.exists():
                await asyncio.sleep(0.02)
            assert file.read_bytes() == base64.b64decode(PNG)


async def heard(bus, subject: str, body: dict) -> list:
    """What a request on the bus is answered with, to the final answer."""
    replies = await bus.subscribe(inbox := bus.new_inbox())
    await bus.publish(subject, json.dumps(body).encode(), reply=inbox)
    answers = []
    while True:
        answers.append(await replies.next_msg(timeout=60))
        if (answers[-1].headers or {}).get("Gw-Status") not in ("ack", "progress"):
            return answers


async def served(bus, subject: str, body: dict) -> list:
    """The same, from the moment on at which somebody serves it."""
    while True:
        answers = await heard(bus, subject, body)
        if (answers[0].headers or {}).get("Status") != "503":
            return answers
        await asyncio.sleep(0.05)


async def test_pages_are_a_service_on_the_bus_as_long_as_there_are_any(gateway, broker, space):
    subject = f"gw.v1.cmd.{space}.viewer.screenshot"
    bus = await nats.connect(broker.url)
    (nobody,) = await heard(bus, subject, {"filename": "/tmp/x.png"})
    assert nobody.headers["Status"] == "503", "somebody serves a space without pages"
    async with page(gateway.cad, space) as viewer:
        asked = asyncio.create_task(served(bus, subject, {"filename": "/nowhere/x.png"}))
        assert await picture(viewer) == {"type": "screenshot", "filename": "/nowhere/x.png"}
        ack, done = await asked
        assert ack.headers["Gw-Status"] == "ack"
        assert json.loads(done.data)["filename"] == "/nowhere/x.png"
        (invalid,) = await heard(bus, subject, {"name": "x"})
        assert invalid.headers["Nats-Service-Error-Code"] == "400"
    # a moment later nobody serves it; what is asked in the very moment of the end may find no ear
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                (answer,) = await heard(bus, subject, {"filename": "/tmp/x.png"})
            if answer.headers.get("Status") == "503":
                break
            assert answer.headers["Nats-Service-Error-Code"] == "503"
        await asyncio.sleep(0.05)
    await bus.close()


async def test_when_the_page_that_was_asked_leaves_another_one_is(own_gateway, tmp_path, space):
    gateway = own_gateway(GW_CAD_SCREENSHOTS=str(tmp_path))
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as first, page(gateway.cad, space) as second:
        await joined(scripts, first, second)
        await scripts.tell("C", {"type": "screenshot", "filename": str(tmp_path / "shot.png")})
        asked = {asyncio.create_task(viewer.json()): viewer for viewer in (first, second)}
        done, (waiting,) = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        # killed, not closed
        asked[done.pop()].socket.transport.abort()
        request = await waiting
        assert request["filename"] == str(tmp_path / "shot.png")
        await asked[waiting].report("screenshot", {"filename": request["filename"], "data": PNG_URL})
        while not (tmp_path / "shot.png").exists():
            await asyncio.sleep(0.02)


async def test_a_picture_shows_what_was_shown_before_it(own_gateway, tmp_path, space):
    gateway = own_gateway(GW_CAD_SCREENSHOTS=str(tmp_path))
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space) as viewer:
        await joined(scripts, viewer)
        for number in range(5):
            # the script goes on as soon as its bytes are on their way
            await scripts.tell("D", model(f"m{number}", padding=3 << 20))
            await scripts.tell("C", {"type": "screenshot", "filename": str(tmp_path / "shot.png")})
            assert f'"m{number}"' in (await viewer.text())[-200:]
            await picture(viewer)


async def test_what_became_of_screenshots_is_counted(own_gateway, tmp_path, space):
    (tmp_path / "pictures").mkdir()
    gateway = own_gateway(GW_CAD_SCREENSHOTS=str(tmp_path / "pictures"))
    scripts = Scripts(gateway.cad, space)

    def counted(result: str) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.ops}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        name = f'gw_screenshots_total{{result="{result}"}} '
        return next(int(line.removeprefix(name)) for line in lines if line.startswith(name))

    await scripts.tell("C", {"type": "screenshot", "filename": str(tmp_path / "pictures" / "a.png")})
    while counted("no_page") < 1:
        await asyncio.sleep(0.05)
    async with page(gateway.cad, space) as viewer:
        await joined(scripts, viewer)
        for place in ("pictures", "."):
            await scripts.tell("C", {"type": "screenshot", "filename": str(tmp_path / place / "b.png")})
            await picture(viewer)
        while (counted("written"), counted("refused")) != (1, 1):
            await asyncio.sleep(0.05)
    assert counted("asked") == 3


@contextlib.asynccontextmanager
async def screenshots(broker, *arguments: str, **settings: str):
    """`causeway screenshots` as a process; ends by SIGTERM where it does not end by itself."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GW_")}
    env |= {"GW_NATS_URL": broker.url, **settings}
    pipe = asyncio.subprocess.PIPE
    command = [BIN, "screenshots", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_another_machine_writes_what_its_scripts_asked_for(own_gateway, broker, tmp_path, space):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    gateway = own_gateway(GW_CAD_SCREENSHOTS=str(tmp_path / "here"))
    scripts, there = Scripts(gateway.cad, space), tmp_path / "there"
    follow = screenshots(broker, "--space", space, GW_CAD_SCREENSHOTS=str(there))
    async with page(gateway.cad, space) as viewer, follow as process:
        await joined(scripts, viewer)
        said = await process.stdout.readline()
        # on a busy machine NATS may come first
        while b"waiting for NATS" in said:
            said = await process.stdout.readline()
        assert b"waiting for pictures" in said
        # also one that is too large for a message
        large = "data:image/png;base64," + base64.b64encode(base64.b64decode(PNG) + bytes(2 << 20)).decode()
        for name, data in (("small.png", PNG_URL), ("large.png", large)):
            await scripts.tell("C", {"type": "screenshot", "filename": str(there / name)})
            await picture(viewer, data=data)
            assert f"written: {there / name}".encode() in await process.stdout.readline()
            assert (there / name).read_bytes() == base64.b64decode(data.partition(",")[2])
        # nobody asked for this one, and that one lies elsewhere
        await viewer.report("screenshot", {"filename": str(there / "forged.png"), "data": PNG_URL})
        await scripts.tell("C", {"type": "screenshot", "filename": str(tmp_path / "outside.png")})
        await picture(viewer)
        assert b"not written" in await process.stdout.readline()
        assert sorted(file.name for file in there.iterdir()) == ["large.png", "small.png"]
        process.terminate()
        assert await process.wait() == 0


async def test_a_picture_is_taken_from_the_command_line(gateway, broker, tmp_path, space):
    file = tmp_path / "taken.png"
    async with screenshots(broker, "--space", space, str(file)) as process:
        _, said = await process.communicate()
        assert process.returncode == 1
        assert b"no page of this space is open" in said
    async with page(gateway.cad, space) as viewer:
        taken = 0
        while not taken:
            # the page may not be served yet
            async with screenshots(broker, "--space", space, str(file)) as process:
                answering = asyncio.create_task(picture(viewer))
                _, said = await process.communicate()
                taken = process.returncode == 0
                answering.cancel()
                assert taken or b"no page of this space is open" in said
                await asyncio.gather(answering, return_exceptions=True)
        assert file.read_bytes() == base64.b64decode(PNG)
        assert list(tmp_path.iterdir()) == [file]


async def test_without_nats_nobody_waits_for_a_picture_and_no_password_is_shown(broker, tmp_path):
    nowhere = f"nats://someone:hunter2@127.0.0.1:{free_port()}"
    async with screenshots(broker, str(tmp_path / "taken.png"), GW_NATS_URL=nowhere) as process:
        _, said = await process.communicate()
        assert process.returncode == 1
        assert b"no NATS at nats://" in said and b"--nats-url" in said and b"hunter2" not in said
