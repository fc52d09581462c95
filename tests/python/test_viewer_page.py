"""The viewer's page over HTTP: what it is filled in with, how its files are sent, what it says when it is not there."""

import asyncio
import gzip
import http.client
import json
import os
import pathlib
import re

import pytest
import raw
from viewer import Scripts, joined, page, until

VIEWER = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "causeway" / "viewer"
KINDS = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "png": "image/png"}


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
    assert fetch(cad, "/viewer", Host="[::1]")[2].startswith(b'new Comms("[::1]", "", -1)')
    assert fetch(cad, "/viewer", Host='x"</script>')[0] == 400
    assert fetch(cad, "/viewer?space=a.b")[0] == 400
    status, headers, _ = fetch(main, "/viewer?gen=3&space=blue")
    assert (status, headers["location"]) == (302, "/viewer/3/?space=blue")
    assert fetch(cad, "/nothing")[0] == 404
    # asked for by every browser whose page names none
    assert (fetch(cad, "/favicon.ico")[0], fetch(main, "/favicon.ico")[0]) == (204, 204)


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


async def test_behind_a_tls_proxy_the_page_dials_the_proxy(own_gateway, tmp_path, space):
    # an https origin is no address of ours: the operator names it
    folder = str(assets(tmp_path / "assets"))
    gateway = own_gateway(GW_CAD_ASSETS=folder, GW_GATEWAY_ORIGINS="https://viewer.example")
    proxied = {"Host": "causeway:3939", "X_Forwarded_Host": "viewer.example", "X_Forwarded_Proto": "https"}
    assert b'new Comms("viewer.example", "", -1)' in fetch(gateway.cad, "/viewer", **proxied)[2]
    # the earlier page writes its port itself, and never wss: it is told which, by its own address
    third = fetch(gateway.cad, f"/viewer/3/?space={space}", **proxied)[2].decode()
    assert f'new Comms("viewer.example", (location.protocol === "https:" ? "443" : "80") + "/s/{space}", -1)' in third
    assert third.index('url.replace(/^ws:/, "wss:")') < third.index("new Comms(")
    third = fetch(gateway.cad, "/viewer/3/", **proxied | {"X_Forwarded_Host": "viewer.example:8443, inner"})[2]
    assert b'new Comms("viewer.example", "8443", -1)' in third
    assert fetch(gateway.cad, "/viewer", Host="a", X_Forwarded_Host='x"</script>')[0] == 400
    own = {"Host": "viewer.example", "Origin": "https://viewer.example"}
    head = await raw.handshake(gateway.cad, f"/s/{space}", own)
    assert head.startswith("HTTP/1.1 101"), head
    head = await raw.handshake(gateway.cad, f"/s/{space}", own | {"Origin": "https://elsewhere.example"})
    assert head.startswith("HTTP/1.1 403"), head


async def test_the_real_pages_are_filled_in(own_gateway):
    """Both generations from the wheels, where `make viewer-assets` has put them."""
    if not (VIEWER / "ocp_viewer").is_dir():
        pytest.skip("make viewer-assets has not been run")
    gateway = own_gateway(GW_CAD_ASSETS=str(VIEWER))
    for path, dials in (("/viewer", f'new Comms("127.0.0.1:{gateway.cad}"'), ("/viewer/3/", 'new Comms("127.0.0.1"')):
        status, headers, body = fetch(gateway.cad, path)
        assert (status, headers["cache-control"]) == (200, "no-store")
        text = body.decode()
        assert dials in text
        # the other generation's settings are told by this page's names
        assert f")({str(path == '/viewer').lower()});</script>" in text.partition('<script type="module"')[0]
        assert "{{" not in text and "{%" not in text and "$ws_" not in text, "a name is left open"
        base = path if path.endswith("/") else "/"
        files = set(re.findall(r'"(?:\./)?(static/[^"]+)"', text))
        assert any(name.endswith(".esm.js") for name in files), files
        for name in files:
            status, headers, body = fetch(gateway.cad, base + name, Accept_Encoding="gzip")
            assert status == 200, name
            assert headers["content-type"] == KINDS[name.rpartition(".")[2]]
            if name.endswith(".esm.js"):
                # a fifth of 3.5 MB, and nothing the second time
                assert headers["content-encoding"] == "gzip"
                assert len(body) < 1_000_000 < len(gzip.decompress(body))
                again = fetch(gateway.cad, base + name, Accept_Encoding="gzip", If_None_Match=headers["etag"])
                assert again[::2] == (304, b"")
                assert headers["cache-control"] == "no-cache"
                assert headers["vary"] == "accept-encoding"


async def test_browsers_ask_in_many_ways(own_gateway, tmp_path):
    gateway = own_gateway(GW_CAD_ASSETS=str(assets(tmp_path / "assets")))
    whole = fetch(gateway.cad, "/static/js/a.js")[2]
    head = fetch(gateway.cad, "/viewer", "HEAD")
    assert (head[0], head[2]) == (200, b"")
    assert int(head[1]["content-length"]) == len(fetch(gateway.cad, "/viewer")[2])
    assert fetch(gateway.cad, "/", "HEAD")[0] == 302
    assert fetch(gateway.cad, "/")[1]["location"] == "/viewer"
    for asked, status, part in (
        ("bytes=-5", 206, whole[-5:]),
        ("bytes=0-0", 206, whole[:1]),
        ("bytes=10-", 206, whole[10:]),
        # several ranges, and what is none, may be answered whole
        ("bytes=0-1,4-5", 200, whole),
        ("lines=1-2", 200, whole),
    ):
        answer = fetch(gateway.cad, "/static/js/a.js", Range=asked, Accept_Encoding="gzip")
        if status == 206:
            assert "content-encoding" not in answer[1], "a range of what?"
            assert answer[1]["content-range"].endswith(f"/{len(whole)}")
            assert (answer[0], answer[2]) == (206, part), asked
        else:
            assert (answer[0], gzip.decompress(answer[2])) == (200, part), asked
    for method in ("POST", "PUT", "DELETE"):
        assert fetch(gateway.cad, "/static/js/a.js", method)[0] == 405, method
        assert fetch(gateway.cad, "/viewer", method)[0] == 405, method
    assert fetch(gateway.cad, "/static/js/a.js", Accept_Encoding="gzip;q=0, br")[1].get("content-encoding") is None
    assert fetch(gateway.cad, "/static/js/a.js", If_None_Match='"other"')[0] == 200
    tag = fetch(gateway.cad, "/static/js/a.js")[1]["etag"]
    assert fetch(gateway.cad, "/static/js/a.js", If_None_Match=f'"other", {tag}')[0] == 304


async def test_the_landing_page_lists_pages_and_scripts_of_each_space(gateway, space):
    async def rooms():
        _, _, body = await asyncio.to_thread(fetch, gateway.port, "/status.json")
        return {room["space"]: room for room in json.loads(body)["rooms"] if room["dialect"] == "cad"}

    async def listed(where: str, **wanted):
        await until(rooms, lambda found: wanted.items() <= found.get(where, {}).items())

    scripts, others = Scripts(gateway.cad, space), f"{space}-other"
    async with page(gateway.cad, space) as one, page(gateway.cad, space, "L:Python listener"):
        async with page(gateway.cad, space) as two, page(gateway.cad, others):
            await joined(scripts, one, two)
            await scripts.status()
            # the worker is no page; a script is there for a moment only
            await listed(space, pages=2, sessions=3, visits=2)
            await listed(others, pages=1, sessions=1, visits=0)
        await listed(space, pages=1, sessions=2, visits=2)
        assert (await rooms())[space]["visited"] < 60
    # also where nobody looks
    await scripts.config()
    await listed(space, pages=0, visits=3)
