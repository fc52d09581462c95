"""The viewer's page over HTTP: what it is filled in with, how its files are sent, what it says when it is not there."""

import gzip
import http.client


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
