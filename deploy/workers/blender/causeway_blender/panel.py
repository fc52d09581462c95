"""The add-on: a panel with address and space, and a timer that runs the jobs while the window stays alive."""

import argparse
import os
import sys

import bpy

# the zip brings its own NATS client
sys.path.append(os.path.join(os.path.dirname(__file__), "vendor"))

from . import actions  # noqa: E402 the path comes first
from .gate import Gate  # noqa: E402
from .job import Cancelled  # noqa: E402
from .lane import Lane  # noqa: E402
from .worker import Worker  # noqa: E402

# how often jobs are looked for: often enough to feel at once, seldom enough to cost nothing
EVERY = 0.05


class Link:
    """The one connection of this Blender."""

    worker: Worker | None = None
    lane: Lane | None = None


class CausewaySettings(bpy.types.PropertyGroup):
    """Kept with the scene, so that a file remembers where it was served."""

    address: bpy.props.StringProperty(name="NATS", default="nats://127.0.0.1:4222")
    space: bpy.props.StringProperty(name="Space", default="main")
    allow_code: bpy.props.BoolProperty(
        name="Allow code",
        description="Clients of the space may run any Python with your rights on this machine",
        default=False,
    )


class CAUSEWAY_OT_connect(bpy.types.Operator):
    """Serve this Blender to the clients of the space"""

    bl_idname = "causeway.connect"
    bl_label = "Connect"

    def execute(self, context):
        own = context.scene.causeway
        if Link.worker:
            return {"CANCELLED"}
        options = argparse.Namespace(
            nats=own.address, space=own.space, service="blender", user="", password="", progress=5.0
        )
        gate = Gate(own.allow_code, allow_exposed=False)
        Link.lane = Lane(actions.blender(gate))
        Link.worker = Worker(options, Link.lane, "Blender with a window", gate)
        Link.worker.start()
        bpy.app.timers.register(pump, persistent=True)
        return {"FINISHED"}


class CAUSEWAY_OT_disconnect(bpy.types.Operator):
    """Stop serving this Blender"""

    bl_idname = "causeway.disconnect"
    bl_label = "Disconnect"

    def execute(self, context):
        leave()
        return {"FINISHED"}


class CAUSEWAY_PT_panel(bpy.types.Panel):
    """Where the gateway is, and whether it is connected"""

    bl_label = "Causeway"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Causeway"

    def draw(self, context):
        own = context.scene.causeway
        fields = self.layout.column()
        # what is in use is not changed under way
        fields.enabled = Link.worker is None
        fields.prop(own, "address")
        fields.prop(own, "space")
        fields.prop(own, "allow_code")
        if Link.worker is None:
            self.layout.operator("causeway.connect")
            self.layout.label(text="not connected", icon="UNLINKED")
        else:
            self.layout.operator("causeway.disconnect")
            self.layout.label(text=Link.worker.state, icon="LINKED")


def pump():
    """Runs at most one job, on the main thread, between two redraws."""
    if Link.worker is None:
        return None
    before = Link.worker.state
    try:
        ran = Link.lane.step(None)
    except Cancelled:
        ran = True
    if ran or before != getattr(pump, "shown", None):
        pump.shown = before
        for window in bpy.context.window_manager.windows:
            for area in window.screen.areas:
                area.tag_redraw()
    return 0.0 if ran else EVERY


def leave():
    worker, Link.worker = Link.worker, None
    if worker:
        worker.stop()


CLASSES = (CausewaySettings, CAUSEWAY_OT_connect, CAUSEWAY_OT_disconnect, CAUSEWAY_PT_panel)


def register():
    for one in CLASSES:
        bpy.utils.register_class(one)
    bpy.types.Scene.causeway = bpy.props.PointerProperty(type=CausewaySettings)


def unregister():
    leave()
    del bpy.types.Scene.causeway
    for one in reversed(CLASSES):
        bpy.utils.unregister_class(one)
