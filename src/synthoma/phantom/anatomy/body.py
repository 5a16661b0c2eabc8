"""The trunk: skin, fat, the muscular wall with its layers, diaphragm, lungs and heart.

`wall`, `cavity` and `dome` are the surfaces everything else is packed into: the outside of the muscles, the
inside of the wall, and the underside of the diaphragm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.phantom.anatomy.canvas import Canvas, Region
from synthoma.phantom.anatomy.patient import Patient
from synthoma.phantom.anatomy.shapes import Points, ellipsoid, smooth_max, smooth_min, superellipse, table

Array = NDArray[Any]

# template z -> the y of the vertebral bodies' middle
_COLUMN_Z = (-75, -36, 0, 36, 71, 105, 137, 167, 200, 250, 320)
_COLUMN_Y = (-52, -36, -29, -28, -31, -36, -43, -50, -57, -66, -68)
# template z -> half-width, front and back of the muscular wall's outside and of the cavity inside it, in mm
_WALL_Z = (-190, -160, -120, -80, -40, 0, 50, 100, 150, 230, 290)
_WALL_HALF = (158, 160, 158, 150, 142, 133, 134, 139, 143, 146, 144)
_WALL_FRONT = (62, 70, 80, 88, 92, 94, 96, 99, 101, 102, 102)
_WALL_BACK = (110, 116, 120, 118, 112, 106, 108, 113, 117, 120, 118)
_CAVITY_Z = (-190, -160, -130, -100, -70, -40, 0, 50, 100, 150, 230, 290)
_CAVITY_HALF = (36, 39, 47, 65, 92, 110, 116, 119, 125, 130, 132, 130)
_CAVITY_FRONT = (24, 38, 56, 70, 78, 82, 85, 87, 89, 90, 88, 86)
_CAVITY_BACK = (82, 84, 82, 74, 62, 58, 67, 80, 88, 94, 98, 96)


def column_y(z: Array) -> Array:
    """The y of the vertebral bodies' middle."""
    return table(z, _COLUMN_Z, _COLUMN_Y)


def wall(points: Points) -> Array:
    """Distance to the outside of the trunk's muscles; the long muscles of the back bulge beside the spine."""
    around = _section(points, _WALL_Z, _WALL_HALF, _WALL_FRONT, _WALL_BACK, (0.25, 0.45))
    across = (np.abs(points.x) - 36) / table(points.z, (-110, -60, 40, 150, 250), (26, 36, 37, 30, 26))
    depth = table(points.z, (-110, -60, 40, 130, 190, 250), (16, 27, 30, 24, 17, 14))
    back = points.y - column_y(points.z) + table(points.z, (-60, 40, 130, 190, 250), (66, 66, 62, 54, 48))
    muscle = superellipse(across, back / depth, np.hypot(across * depth, back), 0.3)
    return smooth_min(around, muscle, 22)


def cavity(points: Points) -> Array:
    """Distance to the inside of the trunk's wall, thorax, abdomen and pelvis together."""
    return _section(points, _CAVITY_Z, _CAVITY_HALF, _CAVITY_FRONT, _CAVITY_BACK, (0.3, 0.75))


def cavity_reach(z: Array) -> tuple[Array, Array, Array]:
    """Half-width, front and back of the cavity at template heights, in mm from its axis."""
    half, front, back = (table(z, _CAVITY_Z, row) for row in (_CAVITY_HALF, _CAVITY_FRONT, _CAVITY_BACK))
    return half, front, back


def dome(points: Points) -> Array:
    """Distance to the underside of the diaphragm: a dome on each side, the right one higher."""
    right = _dome(points, 50, 76, 124)
    left = _dome(points, -50, 76, 112)
    return smooth_min(right, left, 44)


def _section(points: Points, z: Any, half: Any, front: Any, back: Any, square: tuple[float, float]) -> Array:
    width = table(points.z, z, half)
    depth = np.where(points.y > 0, table(points.z, z, front), table(points.z, z, back))
    corners = np.where(points.y > 0, np.float32(square[0]), np.float32(square[1]))
    return superellipse(points.x / width, points.y / depth, np.hypot(points.x, points.y), corners)


def _dome(points: Points, x: float, half: float, height: float) -> Array:
    p = points.shifted((x, -3, 86))
    up = np.maximum(p.z, 0) / np.float32(height)
    flat = np.sqrt((p.x / np.float32(half)) ** 2 + (p.y / np.float32(90)) ** 2)
    return superellipse(flat, up, np.sqrt(p.x**2 + p.y**2 + np.maximum(p.z, 0) ** 2))


def skin(points: Points, patient: Patient, outside: Array) -> Array:
    """Distance to the skin: the wall's outside grown by the fat under the skin, thicker at hip and buttock."""
    length = np.hypot(points.x, points.y) + np.float32(1)
    back = np.clip(-points.y / length, 0, 1)
    side = np.clip(np.abs(points.x) / length, 0, 1)
    around = np.float32(0.85) + np.float32(0.55) * back * side * 2 - np.float32(0.35) * back**6
    height = table(points.z, (-190, -120, -60, 0, 60, 140, 230), (1.5, 1.45, 1.25, 1.1, 0.9, 0.62, 0.5))
    thick = np.float32(patient.subcutaneous_mm) * around * height + 2
    navel = 9 * np.exp(-((points.x / 7) ** 2) - ((points.z - 2) / 7) ** 2) * (points.y > 0)
    result: Array = outside - thick + navel
    return result


def draw_trunk(canvas: Canvas) -> None:
    """Skin, subcutaneous fat, muscle and its layers, and fat as the floor of the cavity."""
    region = canvas.whole()
    points = region.points
    wobble = canvas.field("trunk", 45, region)
    outside = wall(points) + 2.0 * wobble
    inside = cavity(points) + 1.5 * wobble
    surface = skin(points, canvas.patient, outside)
    canvas.paint("skin", surface, region)
    canvas.paint("fat", surface + 2, region)
    canvas.paint("muscle", outside, region)
    _draw_layers(canvas, region, outside, inside)
    canvas.paint("visceral_fat", inside, region)
    # what lies inside the wall may not leave it
    canvas.firm[...] = -inside - 1


def _draw_layers(canvas: Canvas, region: Region, outside: Array, inside: Array) -> None:
    """Fat between the muscles: three sheets at the flank, the rectus in front, bundles in back and hip."""
    points = region.points
    thick = np.maximum(inside - outside, np.float32(1))
    depth = -outside / thick
    flank = np.maximum(np.float32(58) - np.abs(points.x), -points.y - 48)
    flank = np.maximum(flank, points.z - 95)
    broken = canvas.field("sheets", 50, region)
    fade = np.maximum(-points.y - 10, 0) * np.float32(0.05)
    for level in (0.36, 0.68):
        sheet = np.abs(depth - np.float32(level)) * thick - 0.9 * broken + fade - np.float32(0.1)
        canvas.paint("fat", np.maximum(np.maximum(sheet, flank), np.float32(-12) - points.z), region)
    front = np.maximum(-points.y, outside)
    line = np.abs(np.abs(points.x) - np.float32(60)) - 2.5 * np.abs(depth - 0.5)
    canvas.paint("fat", np.maximum(line, np.maximum(front, -inside)), region)
    midline = np.maximum(np.abs(points.x) - 3, outside + 5)
    canvas.paint("fat", np.maximum(np.maximum(midline, front), -inside), region)
    bundle = np.abs(canvas.field("bundles", 42, region)) * 16 - np.float32(0.3) - 0.9 * broken
    deep = np.maximum(np.maximum(points.y + 30, 4 - inside), outside + 3)
    canvas.paint("fat", np.maximum(bundle, deep), region)
    hip = np.maximum(np.maximum(points.z + 25, 4 - inside), outside + 3)
    canvas.paint("fat", np.maximum(bundle, hip), region)
    sheet = np.abs(outside + 24 + 5 * broken) - np.float32(1.3)
    gluteal = np.maximum(np.maximum(points.y + 8, 6 - inside), points.z - 0.5 * points.y + 4)
    canvas.paint("fat", np.maximum(sheet, gluteal), region)
    spine = np.maximum(np.abs(points.x) - 1.2, np.maximum(points.y + 60, outside))
    canvas.paint("fat", spine, region)


def draw_thorax(canvas: Canvas) -> None:
    """Diaphragm, lung bases with their recess behind liver, spleen and kidneys, and the heart's underside."""
    region = canvas.region((-160, -130, 88), (160, 130, 420))
    if region is None:
        return
    points = region.points
    inside = cavity(points) + 1.5 * canvas.field("trunk", 45, region)
    under = dome(points)
    canvas.paint("muscle", np.maximum(np.maximum(inside, under - 3), -2.5 - under), region)
    canvas.paint("visceral_fat", np.maximum(np.maximum(inside, 3 - under), 92 - points.z), region)
    lung = np.maximum(np.maximum(inside + 1.5, 3.2 - under), 94 - points.z)
    middle = np.float32(27) - np.abs(points.x) - np.clip(points.y - 20, 0, 100) * np.float32(0.3)
    lung = smooth_max(lung, np.where(points.y > -62, middle, np.float32(24) - np.abs(points.x)), 8)
    heart = _heart(canvas, region)
    lung = smooth_max(lung, 3 - heart, 4)
    canvas.paint("lung_right", np.maximum(lung, -points.x), region)
    canvas.paint("lung_left", np.maximum(lung, points.x), region)
    walls = np.maximum(heart, 2.5 - under)
    canvas.paint("heart_muscle", walls, region)
    chambers = canvas.patient.frame("heart", (-28, 30, 258), points)
    left = np.maximum(walls + 10, ellipsoid(chambers, (-22, 2, 0), (24, 30, 40)))
    right = np.maximum(walls + 3.5, ellipsoid(chambers, (28, 14, 0), (30, 34, 46)))
    canvas.paint("heart_blood", np.minimum(left, right), region)
    # the organs below stay below
    held = canvas.firm[region.slices]
    np.minimum(held, np.maximum(-under, inside), out=held)


def _heart(canvas: Canvas, region: Region) -> Array:
    points = canvas.patient.frame("heart", (-28, 30, 258), region.points)
    shape = ellipsoid(points, (0, 0, 0), (60, 46, 56))
    return shape + 1.5 * canvas.field("heart", 30, region)
