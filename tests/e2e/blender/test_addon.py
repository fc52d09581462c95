"""The add-on in a Blender with a window, and the bridge to an add-on that listens on TCP."""

import asyncio
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest
from documents import WORKER, Worker, talk

FOLDER = WORKER.parent


@pytest.fixture
def display(tmp_path):
    """A screen nobody sees."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-nolisten", "tcp"]
    with (tmp_path / "xvfb").open("w") as log:
        screen = subprocess.Popen(command, pass_fds=[write], stdout=log, stderr=log)
    os.close(write)
    with os.fdopen(read) as told:
        number = told.readline().strip()
    assert number, (tmp_path / "xvfb").read_text()
    yield f":{number}"
    screen.terminate()
    screen.wait()


def picture_of_the_window(path: pathlib.Path) -> str:
    """Code that opens the sidebar and takes the window's picture."""
    return f"""
window = bpy.context.window_manager.windows[0]
area = next(area for area in window.screen.areas if area.type == 'VIEW_3D')
area.spaces.active.show_region_ui = True
with bpy.context.temp_override(window=window, area=area):
    bpy.ops.wm.redraw_timer(type='DRAW_WIN_SWAP', iterations=3)
    bpy.ops.screen.screenshot(filepath={str(path)!r})
print(bpy.app.background)
"""


async def test_the_addon_serves_while_its_window_lives(broker, own_gateway, display, tmp_path):
    archive = tmp_path / "addon.zip"
    build = await asyncio.create_subprocess_exec(
        str(FOLDER / "build-addon"), str(archive), env={**os.environ, "PYTHON": sys.executable}
    )
    assert await build.wait() == 0
    start = tmp_path / "start.py"
    # what a user does by hand: install, switch on, fill in, connect
    start.write_text(
        f"""
import bpy
bpy.ops.preferences.addon_install(filepath={str(archive)!r})
bpy.ops.preferences.addon_enable(module='causeway_blender')
from causeway_blender.panel import CAUSEWAY_PT_panel
# no code can choose the sidebar's tab: for the picture the panel goes to the one that is open
bpy.utils.unregister_class(CAUSEWAY_PT_panel)
CAUSEWAY_PT_panel.bl_category = 'Item'
bpy.utils.register_class(CAUSEWAY_PT_panel)
bpy.context.preferences.view.show_splash = False
own = bpy.context.scene.causeway
own.address, own.space, own.allow_code = {broker.url!r}, 'window', True
assert bpy.ops.causeway.connect() == {{'FINISHED'}}
"""
    )
    gateway = own_gateway(GW_SCRIPTING_SPACE="window")
    home = tmp_path / "home"
    home.mkdir()
    env = {**os.environ, "DISPLAY": display, "HOME": str(home), "LIBGL_ALWAYS_SOFTWARE": "1"}
    log = tmp_path / "window.log"
    command = ["blender", "-noaudio", "--factory-startup", "-p", "0", "0", "1280", "800", "--python", str(start)]
    with log.open("w") as out:
        blender = subprocess.Popen(command, stdout=out, stderr=out, env=env)
    try:
        async with talk(gateway.port) as one:
            while (await one.run("pass")).get("success") is not True:
                assert blender.poll() is None, log.read_text()
                await asyncio.sleep(0.5)
            made = await one.action("create_object", type="MONKEY", name="Suzanne")
            assert made["object_name"] == "Suzanne"
            state = (await one.action("get_state"))["state"]
            assert state["viewport_shading"] == "SOLID"
            picture = pathlib.Path(os.environ.get("ADDON_PICTURE", tmp_path / "window.png"))
            shown = await one.run(picture_of_the_window(picture))
            assert shown.get("output", "").endswith("False\n"), shown
            assert picture.read_bytes()[:4] == b"\x89PNG"
            # a loop that never ends is ended without harm to the window
            await one.send({"action": "execute_code", "params": {"code": "while True: pass"}, "id": "loop"})
            assert (await one.document())["status"] == "processing"
            await one.send({"action": "cancel", "params": {"id": "loop"}, "id": "c"})
            answers = {answer["id"]: answer for answer in [await one.answer(), await one.answer()]}
            assert answers["loop"]["code"] == "cancelled"
            assert (await one.run("bpy.ops.causeway.disconnect.poll(); print(1)"))["output"] == "1\n"
    finally:
        blender.kill()
        blender.wait()


class OldAddon(threading.Thread):
    """An add-on as people run it today: one request, one answer, parsed when it parses."""

    def __init__(self):
        super().__init__(daemon=True)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.start()

    def run(self):
        while True:
            connection, _ = self.server.accept()
            with connection:
                self.serve(connection)

    def serve(self, connection):
        heard = b""
        while more := connection.recv(8192):
            heard += more
            try:
                request = json.loads(heard)
            except ValueError:
                continue
            heard = b""
            answer = {"status": "success", "result": {"asked": request["type"], **request["params"]}}
            if request["type"] == "execute_code":
                answer["result"] = {"executed": True, "result": request["params"]["code"].upper()}
            if request["type"] == "get_object_info":
                answer = {"status": "error", "message": "Object not found: é"}
            connection.sendall(json.dumps(answer, ensure_ascii=False).encode())


async def test_the_bridge_passes_on_to_an_addon_on_tcp(broker, own_gateway, tmp_path):
    addon = OldAddon()
    gateway = own_gateway(GW_SCRIPTING_SPACE="bridged")
    command = [sys.executable, str(FOLDER / "bridge.py"), "--addon", f"127.0.0.1:{addon.port}"]
    bridge = Worker(broker, tmp_path / "bridge", "--space", "bridged", "--allow-code", command=command)
    try:
        async with talk(gateway.port) as one:
            while (await one.run("pass")).get("success") is not True:
                assert not bridge.said("Traceback")
                await asyncio.sleep(0.2)
            assert (await one.run("print('ü😀')"))["output"] == "PRINT('Ü😀')"
            assert (await one.ask("get_scene_info", x=1))["result"] == {"asked": "get_scene_info", "x": 1}
            assert (await one.ask("get_object_info", name="x"))["message"] == "Object not found: é"
            large = await one.run("x" * 3_000_000)
            assert large["output"] == "X" * 3_000_000
    finally:
        assert bridge.stop() == 0, bridge.log.read_text()
