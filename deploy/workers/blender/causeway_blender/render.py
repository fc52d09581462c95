"""Renders the scene to a PNG and gives the scene's settings back as they were. Main thread only."""

import contextlib
import os
import tempfile

import bpy

from .wire import Failure, Reply

# larger pictures would outgrow what the gateway passes on
LARGEST = 8192


def render(job, params: dict) -> Reply:
    """`width`, `height`, `samples`, `engine`, `denoise`, all optional; the answer's body is the picture itself."""
    scene = bpy.context.scene
    if scene.camera is None:
        raise Failure("worker_error", "the scene has no camera")
    wanted = {"resolution_percentage": 100, "engine": str(params.get("engine") or "CYCLES").upper()}
    for name, setting in (("width", "resolution_x"), ("height", "resolution_y")):
        if name in params:
            wanted[setting] = _number(params, name, LARGEST)
    handle, path = tempfile.mkstemp(suffix=".png")
    os.close(handle)
    try:
        with contextlib.ExitStack() as after:
            try:
                for name, value in {**wanted, "filepath": path}.items():
                    _set(after, scene.render, name, value)
                _set(after, scene.render.image_settings, "file_format", "PNG")
                if scene.render.engine == "CYCLES":
                    samples = _number(params, "samples", 4096) if "samples" in params else 16
                    _set(after, scene.cycles, "samples", samples)
                    # some builds come without the denoiser, and a render that asks for it fails there
                    _set(after, scene.cycles, "use_denoising", bool(params.get("denoise")))
            except TypeError as error:
                raise Failure("invalid", str(error)) from None
            with contextlib.redirect_stdout(job.output):
                bpy.ops.render.render(write_still=True)
        with open(path, "rb") as picture:
            return Reply(picture.read(), "image/png")
    finally:
        os.unlink(path)


def _number(params: dict, name: str, most: int) -> int:
    value = params[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise Failure("invalid", f"`{name}` is a whole number from 1 to {most}")
    return value


def _set(after: contextlib.ExitStack, of, name: str, value) -> None:
    before = getattr(of, name)
    setattr(of, name, value)
    after.callback(setattr, of, name, before)
