"""Causeway's Blender worker: a NATS client that runs jobs inside Blender, with or without a window.

`headless` is the worker without a window; `panel` is the add-on. Both share everything else.
"""

bl_info = {
    "name": "Causeway",
    "author": "Causeway",
    "version": (0, 1, 0),
    "blender": (3, 0, 0),
    "location": "View3D > Sidebar > Causeway",
    "description": "Serves this Blender to the clients of a Causeway gateway",
    "category": "Interface",
}


def register():
    """Called by Blender when the add-on is switched on."""
    from . import panel

    panel.register()


def unregister():
    """Called by Blender when the add-on is switched off."""
    from . import panel

    panel.unregister()
