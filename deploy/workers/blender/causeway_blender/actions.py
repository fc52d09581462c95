"""The table of what clients can ask, by name: in Blender, or in plain Python."""

import functools

from .execute import about, execute_code
from .gate import Gate
from .wire import Reply


def plain(gate: Gate) -> dict:
    """Without Blender: code and signs of life."""
    return {
        "execute_code": _guarded(gate, {}),
        "ping": lambda job, params: Reply.done(result={"pong": True}),
        "get_addon_info": lambda job, params: Reply.done(result=about()),
    }


def blender(gate: Gate) -> dict:
    """All of them; to be called where bpy can be imported."""
    import bmesh
    import bpy
    import mathutils

    from . import render, scene

    return {
        "execute_code": _guarded(gate, {"bpy": bpy, "mathutils": mathutils, "bmesh": bmesh}),
        "ping": lambda job, params: Reply.done(result={"pong": True}),
        "create_object": _answering(scene.create_object),
        "get_state": _answering(scene.get_state),
        "get_scene_info": _answering(scene.get_scene_info),
        "get_object_info": _answering(scene.get_object_info),
        "get_addon_info": _answering(scene.get_addon_info),
        "render": render.render,
    }


def _guarded(gate: Gate, given: dict):
    def run(job, params):
        gate.check()
        return execute_code(job, params, given)

    return run


def _answering(ask):
    @functools.wraps(ask)
    def run(job, params):
        return Reply.done(result=ask(params))

    return run
