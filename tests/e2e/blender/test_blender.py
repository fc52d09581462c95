"""Scripting clients answered by a real Blender: objects, pictures, runaway code, a worker that dies, the add-on."""

import asyncio
import base64
import os
import pathlib
import shutil
import struct
import subprocess
import zlib

import pytest
from documents import Worker, talk

RUN = pathlib.Path(__file__).parents[3] / "deploy/workers/blender/run"
# a gateway that loses patience soon; signs of life come sooner
DEADLINE, PROGRESS = "4s", "1"


@pytest.fixture
def blender(broker, tmp_path):
    """Starts workers in Blender: `await blender("space")`."""
    started = []

    async def start(space, *arguments):
        log = tmp_path / f"blender{len(started)}"
        options = ("--space", space, "--progress", PROGRESS, *(arguments or ("--allow-code",)))
        worker = Worker(broker, log, *options, command=[str(RUN)])
        started.append(worker)
        while not worker.serves():
            await asyncio.sleep(0.2)
        return worker

    yield start
    for worker in started:
        worker.stop()


async def ready(one):
    while (await one.run("pass")).get("success") is not True:
        await asyncio.sleep(0.2)


def pixels(png: bytes) -> tuple[int, int, set[bytes]]:
    """Width, height and the different bytes of the decompressed picture: enough to see that something is on it."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    data, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    return width, height, set(zlib.decompress(data))


async def test_objects_state_and_a_picture(blender, own_gateway):
    gateway = own_gateway(GW_SCRIPTING_SPACE="scene")
    await blender("scene")
    async with talk(gateway.port) as one:
        await ready(one)
        made = await one.action("create_object", type="MONKEY", name="Suzanne ü", location={"x": 1, "y": 2, "z": 3})
        assert (made["type"], made["object_name"], made["object_type"]) == ("object_created", "Suzanne ü", "MONKEY")
        assert made["location"] == {"x": 1.0, "y": 2.0, "z": 3.0}
        state = await one.action("get_state")
        assert state["type"] == "blender_state" and state["state"]["active_object_name"] == "Suzanne ü"
        info = await one.ask("get_scene_info")
        assert {"name": "Suzanne ü", "type": "MESH", "location": [1.0, 2.0, 3.0]} in info["result"]["objects"]
        info = await one.ask("get_object_info", name="Suzanne ü")
        assert info["result"]["mesh"]["vertices"] == 507
        missing = await one.ask("get_object_info", name="nobody")
        assert missing == {"status": "error", "message": "Object not found: nobody", "code": "worker_error"}
        code = "print(len(bpy.data.objects), mathutils.Vector((1, 2, 3)).length_squared, bool(bmesh.new()))"
        assert (await one.run(code))["output"] == "4 14.0 True\n"
        picture = (await one.action("render", width=160, height=90, samples=4))["result"]
        assert picture["content_type"] == "image/png"
        width, height, values = pixels(base64.b64decode(picture["base64"]))
        assert (width, height) == (160, 90) and len(values) > 20
        # the scene's own settings are as they were
        assert (await one.run("print(bpy.context.scene.render.resolution_x)"))["output"] == "1920\n"


async def test_a_large_picture_passes_through_the_object_store(blender, own_gateway):
    gateway = own_gateway(GW_SCRIPTING_SPACE="large")
    await blender("large")
    async with talk(gateway.port) as one:
        await ready(one)
        # noise does not compress: above the one megabyte that a message may have
        noise = "world = bpy.context.scene.world.node_tree\nnoise = world.nodes.new('ShaderNodeTexWhiteNoise')\n"
        noise += "where = world.nodes.new('ShaderNodeTexCoord')\n"
        noise += "world.links.new(where.outputs['Window'], noise.inputs['Vector'])\n"
        noise += "world.links.new(noise.outputs['Color'], world.nodes['Background'].inputs['Color'])"
        assert (await one.run(noise))["success"] is True
        picture = (await one.action("render", width=1024, height=768, samples=1))["result"]
        png = base64.b64decode(picture["base64"])
        assert len(png) > 1_048_576 and pixels(png)[:2] == (1024, 768)


async def test_a_runaway_loop_is_cancelled(blender, own_gateway):
    gateway = own_gateway(GW_SCRIPTING_SPACE="loop")
    await blender("loop")
    async with talk(gateway.port) as one:
        await ready(one)
        await one.send({"action": "execute_code", "params": {"code": "while True: pass"}, "id": "loop"})
        assert (await one.document())["status"] == "processing"
        await one.send({"action": "cancel", "params": {"id": "loop"}, "id": "c"})
        answers = {answer["id"]: answer for answer in [await one.answer(), await one.answer()]}
        assert answers["loop"]["code"] == "cancelled"
        assert (await one.run("print(bpy.app.background)"))["output"] == "True\n"


async def test_a_worker_that_dies_is_told_and_the_next_one_serves(blender, own_gateway):
    gateway = own_gateway(GW_SCRIPTING_SPACE="death", GW_COMMANDS_DEADLINE=DEADLINE)
    first = await blender("death")
    async with talk(gateway.port) as one:
        await ready(one)
        await one.send({"action": "execute_code", "params": {"code": "while True: pass"}, "id": "lost"})
        assert (await one.document())["status"] == "processing"
        first.kill()
        answer = await one.answer()
        assert (answer["id"], answer["code"], answer["success"]) == ("lost", "timeout", False)
        await blender("death")
        await ready(one)
        assert (await one.run("print('next')"))["output"] == "next\n"
