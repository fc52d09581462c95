"""What clients ask about the scene, in the words Blender clients know. Main thread only."""

import bpy

from .wire import Failure

# as many as clients are used to see at once
MOST_LISTED = 10
PRIMITIVES = {
    "CUBE": bpy.ops.mesh.primitive_cube_add,
    "SPHERE": bpy.ops.mesh.primitive_uv_sphere_add,
    "MONKEY": bpy.ops.mesh.primitive_monkey_add,
}


def create_object(params: dict) -> dict:
    """A primitive; an unknown type is a cube, as clients expect."""
    wanted = str(params.get("type") or "CUBE").upper()
    kind = wanted if wanted in PRIMITIVES else "CUBE"
    place = params.get("location") or {}
    try:
        if isinstance(place, dict):
            place = [place.get(axis, 0) for axis in "xyz"]
        location = [float(part) for part in place]
        if len(location) != 3:
            raise ValueError
    except (TypeError, ValueError):
        raise Failure("invalid", "`location` is {x, y, z} or three numbers") from None
    # primitives cannot be added while another object is edited
    if bpy.context.object and bpy.context.object.mode != "OBJECT":
        bpy.ops.object.mode_set(mode="OBJECT")
    PRIMITIVES[kind](location=location)
    made = bpy.context.active_object
    if params.get("name"):
        made.name = str(params["name"])
    return {"object_name": made.name, "object_type": kind, "location": dict(zip("xyz", made.location))}


def get_state(params: dict) -> dict:
    active = bpy.context.view_layer.objects.active
    return {
        "mode": bpy.context.mode,
        "scene_name": bpy.context.scene.name,
        "active_object_name": active.name if active else None,
        "active_object_type": active.type if active else None,
        "selected_objects_names": [one.name for one in bpy.context.view_layer.objects if one.select_get()],
        "viewport_shading": _shading(),
    }


def get_scene_info(params: dict) -> dict:
    scene = bpy.context.scene
    listed = [
        {"name": one.name, "type": one.type, "location": _rounded(one.location)}
        for one in list(scene.objects)[:MOST_LISTED]
    ]
    return {
        "name": scene.name,
        "object_count": len(scene.objects),
        "objects": listed,
        "materials_count": len(bpy.data.materials),
    }


def get_object_info(params: dict) -> dict:
    name = params.get("name") or params.get("object_name")
    found = bpy.data.objects.get(str(name)) if name else None
    if found is None:
        raise Failure("worker_error", f"Object not found: {name}")
    told = {
        "name": found.name,
        "type": found.type,
        "location": list(found.location),
        "rotation": list(found.rotation_euler),
        "scale": list(found.scale),
        "visible": found.visible_get(),
        "materials": [slot.material.name for slot in found.material_slots if slot.material],
    }
    if found.type == "MESH":
        mesh = found.data
        told["mesh"] = {"vertices": len(mesh.vertices), "edges": len(mesh.edges), "polygons": len(mesh.polygons)}
    return told


def get_addon_info(params: dict) -> dict:
    """What current clients ask once after they connect."""
    return {
        "name": "Causeway",
        "addon_version": [0, 1, 0],
        "protocol_version": 15,
        "capabilities": ["get_scene_info", "get_object_info", "execute_code", "render"],
        "blender_version": bpy.app.version_string,
        "premium_generators": [],
    }


def _rounded(vector) -> list[float]:
    return [round(float(part), 2) for part in vector]


def _shading() -> str | None:
    screen = bpy.context.screen
    for area in screen.areas if screen else ():
        if area.type == "VIEW_3D":
            return area.spaces.active.shading.type
    return None
