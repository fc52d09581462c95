"""CAD: scripts that open a connection for each message, pages that stay, models of any size, two gateways."""

import asyncio
import base64
import gzip
import hashlib
import http.client
import json
import socket as sockets

import raw
import websockets
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
        # nothing was sent to the pages, so this is a hand
        await two.report("status", {"zoom": 3})
        assert await until(scripts.status, lambda status: status.get("zoom") == 3) == {"axes": True, "zoom": 3}
        # all pages report after a model, the one touched last counts
        await scripts.tell("D", model("box"))
        for viewer in (one, two):
            await viewer.text()
        await one.report("status", {"zoom": 4})
        await two.report("status", {"zoom": 5, "end": True})
        assert (await until(scripts.status, lambda status: "end" in status))["zoom"] == 5
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
    gateway = own_gateway(GW_WEBSOCKET_PING="300ms", GW_WEBSOCKET_PONG="300ms")
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
        for number in range(250):
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


def fetch(port: int, path: str, method: str = "GET", **headers: str):
    """One request by hand, so that nothing is followed or unpacked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict((name.lower(), value) for name, value in answer.getheaders()), body


def assets(folder):
    """Pages of both generations, as small as their templates allow."""
    third, fourth = folder / "ocp_vscode", folder / "ocp_viewer" / "server"
    for generation, text in (
        (third, '<body {{ standalone_init|safe }}>{{ standalone_comms|safe }} {{ glass|tojson }} {{ theme }} "{{ scriptSrc }}"'),
        (fourth, "new Comms($ws_host, $ws_port, $max_retries); $theme $tree_width $modifier_keys $$x"),
    ):
        (generation / "templates").mkdir(parents=True)
        (generation / "templates" / "viewer.html").write_text(text)
        (generation / "static" / "js").mkdir(parents=True)
        (generation / "static" / "js" / "a.js").write_text(f"// {generation.name}\n" + "x = 1;\n" * 1000)
    return folder


async def test_the_page_dials_back_where_it_came_from(own_gateway, tmp_path):
    gateway = own_gateway(GW_CAD_ASSETS=str(assets(tmp_path / "assets")), GW_CAD_VIEWER="theme=dark")
    cad, main = gateway.cad, gateway.port
    status, headers, _ = fetch(cad, "/?space=blue")
    assert (status, headers["location"]) == (302, "/viewer?space=blue")
    pages = {
        (cad, "/viewer"): f'new Comms("127.0.0.1:{cad}", "", -1)',
        (cad, "/viewer?space=blue"): f'new Comms("127.0.0.1:{cad}/s/blue", "", -1)',
        (main, "/viewer"): f'new Comms("127.0.0.1:{main}/cad", "", -1)',
        (main, "/viewer/3/?space=blue"): f'new Comms("127.0.0.1", "{main}/cad/s/blue", -1)',
    }
    for (port, path), dials in pages.items():
        status, headers, body = fetch(port, path)
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert dials in body.decode(), body
        assert "dark" in body.decode()
        # a script's text knows no entities
        assert "/3/" not in path or '"./static/js/three-cad-viewer.esm.js"' in body.decode(), body
    assert fetch(cad, "/viewer", Host="viewer.example")[2].startswith(b'new Comms("viewer.example", "", -1)')
    assert fetch(cad, "/viewer", Host='x"</script>')[0] == 400
    assert fetch(cad, "/viewer?space=a.b")[0] == 400
    status, headers, _ = fetch(main, "/viewer?gen=3&space=blue")
    assert (status, headers["location"]) == (302, "/viewer/3/?space=blue")
    assert fetch(cad, "/nothing")[0] == 404


async def test_files_of_the_page_are_sent_once_and_small(own_gateway, tmp_path):
    gateway = own_gateway(GW_CAD_ASSETS=str(assets(tmp_path / "assets")))
    status, headers, body = fetch(gateway.cad, "/static/js/a.js")
    assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert body.startswith(b"// server")
    assert fetch(gateway.cad, "/viewer/3/static/js/a.js")[2].startswith(b"// ocp_vscode")
    packed = fetch(gateway.cad, "/static/js/a.js", Accept_Encoding="gzip")
    assert packed[1]["content-encoding"] == "gzip"
    assert gzip.decompress(packed[2]) == body
    assert fetch(gateway.cad, "/static/js/a.js", If_None_Match=headers["etag"])[::2] == (304, b"")
    part = fetch(gateway.cad, "/static/js/a.js", Range="bytes=3-8")
    assert (part[0], part[2]) == (206, body[3:9])
    assert fetch(gateway.cad, "/static/js/a.js", Range="bytes=99999999-")[0] == 416
    head = fetch(gateway.cad, "/static/js/a.js", "HEAD")
    assert (head[0], head[2], head[1]["content-length"]) == (200, b"", str(len(body)))
    for path in ("/static/../templates/viewer.html", "/static/%2e%2e/templates/viewer.html", "/static/js", "/static/"):
        assert fetch(gateway.cad, path)[0] == 404, path


async def test_without_pages_the_address_says_what_to_do(own_gateway, tmp_path):
    gateway = own_gateway(GW_CAD_ASSETS=str(tmp_path / "later"))
    status, _, body = fetch(gateway.cad, "/viewer")
    assert status == 503
    assert b"make viewer-assets" in body
    assets(tmp_path / "later")
    assert fetch(gateway.cad, "/viewer")[0] == 200


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


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(2000)).decode()


async def picture(viewer, **changes) -> dict:
    """Answers a request for a screenshot as a page does."""
    request = await viewer.json()
    assert request["type"] == "screenshot"
    await viewer.report("screenshot", {"filename": request["filename"], "data": "data:image/png;base64," + PNG, **changes})
    return request


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
        await viewer.report("screenshot", {"filename": str(inside), "data": "data:image/png;base64," + PNG})
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
