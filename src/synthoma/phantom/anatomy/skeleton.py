"""Bones: vertebrae with discs and processes, ribs with their cartilage, pelvis and femur heads; muscles beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.phantom.anatomy import body
from synthoma.phantom.anatomy.canvas import Canvas, Region
from synthoma.phantom.anatomy.shapes import (
    Curve,
    Points,
    ellipsoid,
    plate,
    smooth_max,
    smooth_min,
    superellipse,
    table,
)

Array = NDArray[Any]

# centers of the vertebrae L5 .. T5 along z, and how far the column's middle lies in front of y = 0
LEVELS_MM = (-36, 0, 36, 71, 105, 137, 167, 195, 222, 248, 273, 297, 320)
_SACRUM_TOP_MM = -57
# template x, y, z of the corners of the right hip bone's plates
_HIP = {
    "sacroiliac_top": (44, -62, -38),
    "sacroiliac_low": (46, -70, -82),
    "spine_back": (42, -88, -62),
    "crest_back": (62, -72, -8),
    "crest_top": (112, -22, 8),
    "crest_front": (128, 26, -26),
    "spine_front": (122, 40, -48),
    "spine_low": (100, 34, -88),
    "notch": (62, -50, -106),
    "socket": (84, -2, -112),
}
_PLATES = (
    ("sacroiliac_top", "crest_back", "spine_back", (9, 8, 10)),
    ("sacroiliac_top", "sacroiliac_low", "spine_back", (9, 12, 10)),
    ("sacroiliac_top", "crest_back", "crest_top", (9, 7, 8)),
    ("sacroiliac_top", "crest_top", "socket", (9, 7, 15)),
    ("sacroiliac_top", "sacroiliac_low", "socket", (9, 13, 17)),
    ("sacroiliac_low", "notch", "socket", (12, 12, 22)),
    ("crest_top", "crest_front", "socket", (8, 9, 15)),
    ("crest_front", "spine_front", "spine_low", (9, 9, 11)),
    ("crest_front", "spine_low", "socket", (9, 11, 20)),
)

# muscles inside the cavity's surface: template x, y, z and radius in mm of the right ones
_MUSCLES = (
    [
        (18, -36, 118, 5),
        (24, -38, 84, 13),
        (32, -38, 44, 19),
        (40, -33, 0, 23),
        (48, -16, -40, 23),
        (66, 6, -80, 20),
        (84, 28, -112, 17),
        (96, 34, -140, 15),
        (106, 14, -175, 14),
    ],
    [(54, -76, 96, 5), (62, -76, 66, 9), (70, -68, 30, 13), (78, -58, 4, 14)],
    [(96, -14, -8, 9), (90, -8, -38, 14), (88, 4, -70, 17), (90, 20, -100, 15)],
    [(74, -30, -30, 12), (78, -18, -60, 15), (84, 6, -95, 15)],
    [(9, -14, 150, 4.5), (12, -12, 118, 5.5), (14, -12, 82, 4.5)],
)


def draw_spine(canvas: Canvas) -> None:
    """Vertebrae, discs, canal and sacrum."""
    region = canvas.region((-62, -125, -64), (62, 5, 340))
    if region is not None:
        _draw_column(canvas, region)
    region = canvas.region((-68, -125, -185), (68, -10, -40))
    if region is not None:
        _draw_sacrum(canvas, region)


def _draw_column(canvas: Canvas, region: Region) -> None:
    p = region.points
    y = p.y - body.column_y(p.z)
    # lumbar lordosis: end plates tilt with the column
    tilt = table(p.z, (-40, 30, 110, 200), (0.22, 0.0, -0.12, -0.10))
    z = p.z - tilt * y
    middles = np.array(LEVELS_MM, np.float32)
    edges = (middles[1:] + middles[:-1]) / 2
    steps = np.digitize(np.arange(-120, 360, 0.5), edges)
    level = steps.take(((z + 120) * 2).astype(np.int32), mode="clip")
    height = np.diff(np.append(middles, 344)).astype(np.float32)[level]
    v = z - middles[level]
    width = table(p.z, (-40, 40, 140, 320), (25, 23, 19, 15.5))
    depth = table(p.z, (-40, 40, 140, 320), (17, 17, 15.5, 13.5))
    waist = np.float32(1) - np.float32(0.07) * (1 - (2 * v / height) ** 2)
    around = superellipse(p.x / (width * waist), y / (depth * waist), np.hypot(p.x, y))
    ends = np.abs(v) - height * np.float32(0.385)
    span = np.maximum(_SACRUM_TOP_MM - z, 0)
    bone = smooth_max(around, ends, 3) + span
    disc = np.maximum(around + 1, -ends)
    canal = superellipse(p.x / 11, (y + depth + 9) / 9, np.hypot(p.x, y + depth + 9))
    arch = _arch(p, y, v, depth) + span
    canvas.paint("disc", np.maximum(disc, span), region)
    canvas.paint("visceral_fat", np.maximum(canal, span), region)
    _paint_bone(canvas, np.maximum(smooth_min(bone, arch, 2), 1 - canal), region, 1.6)
    canvas.paint("thecal_sac", np.maximum(canal + 2.5, span), region)
    hold = np.minimum(np.minimum(around, arch), canal) + span
    np.minimum(canvas.firm[region.slices], hold, out=canvas.firm[region.slices])


def _arch(p: Points, y: Array, v: Array, depth: Array) -> Array:
    """Pedicles, lamina, facets, transverse and spinous processes of every vertebra at once."""
    side = np.abs(p.x)
    back = y + depth
    pedicle = np.maximum(np.abs(side - 13) - 4.5, np.abs(v - 5) - 6.5)
    pedicle = smooth_max(pedicle, np.abs(back + 7) - 10, 3)
    ring = np.abs(superellipse(p.x / 15, (back + 10) / 14, np.hypot(p.x, back + 10))) - 3
    ring = np.maximum(smooth_max(ring, np.abs(v + 3) - 9, 3), back + 8)
    facet = ellipsoid(Points(side, back, v), (17, -17, 11), (7.5, 7.5, 11))
    facet = np.minimum(facet, ellipsoid(Points(side, back, v), (15, -19, -11), (6, 6, 10)))
    reach = np.where(p.z > 125, np.float32(20), np.float32(40))
    lateral = np.sqrt((back + 12 + 0.12 * side) ** 2 + (v - 4) ** 2) - 4.2
    lateral = np.maximum(lateral, np.maximum(12 - side, side - reach))
    drop = table(p.z, (0, 130, 200), (0.1, 0.2, 0.7))
    spinous = np.maximum(side - 2.8, np.abs(v + 5 - drop * (back + 24)) - 9)
    spinous = smooth_max(spinous, np.abs(back + 37) - 17, 4)
    result = smooth_min(smooth_min(pedicle, ring, 3), facet, 2)
    return smooth_min(smooth_min(result, lateral, 3), spinous, 4)


def _draw_sacrum(canvas: Canvas, region: Region) -> None:
    p = region.points
    middle = table(p.z, (-180, -165, -150, -110, -80, -58), (-84, -98, -104, -98, -78, -56))
    width = table(p.z, (-178, -165, -150, -120, -85, -58), (4, 10, 18, 34, 50, 44))
    thick = table(p.z, (-178, -150, -110, -80, -58), (4, 7, 13, 18, 17))
    y = p.y - middle + np.float32(0.004) * p.x**2
    bone = superellipse(p.x / width, y / thick, np.hypot(p.x, y))
    bone = smooth_max(bone, np.maximum(p.z - 0.22 * (p.y - body.column_y(p.z)) - _SACRUM_TOP_MM, -180 - p.z), 3)
    holes = np.hypot(np.abs(p.x) - table(p.z, (-160, -80), (14, 24)), (np.mod(p.z + 62, 26) - 13)) - 2.6
    canal = np.hypot(p.x / 1.6, y + 0.35 * thick) - table(p.z, (-150, -60), (1, 7))
    _paint_bone(canvas, np.maximum(np.maximum(bone, -holes), -canal), region, 1.2)
    canvas.paint("thecal_sac", np.maximum(canal + 1, bone + 3), region)
    np.minimum(canvas.firm[region.slices], bone, out=canvas.firm[region.slices])


def _paint_bone(canvas: Canvas, phi: Array, region: Region, shell_mm: float, side: str = "") -> None:
    cortex, marrow = (f"femur_cortex_{side}", f"femur_marrow_{side}") if side else ("bone_cortex", "bone_marrow")
    canvas.paint(cortex, phi, region)
    canvas.paint(marrow, phi + np.float32(shell_mm), region)


def draw_ribs(canvas: Canvas) -> None:
    """Ribs 5 to 12 as flat oblique bands in the wall, and the cartilage that ends at the breast bone."""
    reach = {12: 0.40, 11: 0.52, 10: 0.66, 9: 0.70, 8: 0.74, 7: 0.77, 6: 0.79, 5: 0.80}
    for number, end in reach.items():
        start_z = LEVELS_MM[17 - number] + 6
        for side in (1, -1):
            turns = np.linspace(0.07, end, 26)
            _draw_rib(canvas, _rib_knots(turns, start_z, end, side), ("bone_cortex", "bone_marrow"), 4.0)
            if number <= 10:
                turns = np.linspace(end, 0.985, 14)
                knots = _rib_knots(turns, start_z, end, side)
                knots[:, 2] += (turns - end) / (0.985 - end) * (178 - knots[-1, 2]) * 0.9
                _draw_rib(canvas, knots, ("cartilage", "cartilage"), 4.4)


def _rib_knots(turns: Array, start_z: float, end: float, side: int) -> Array:
    """Points in the wall from the spine (turn 0) to the front (turn 1), descending."""
    angle = np.pi * turns
    z = start_z - 145 * np.minimum(turns, end)
    flat = np.zeros_like(z)
    half, front, back = (reach + 7.5 for reach in body.cavity_reach(z))
    depth = np.where(turns > 0.5, front, back)
    x = side * half * np.abs(np.sin(angle)) ** 0.8
    y = -np.sign(np.cos(angle)) * depth * np.abs(np.cos(angle)) ** 0.8
    return np.column_stack([x, y, z, flat])


def _draw_rib(canvas: Canvas, knots: Array, tissues: tuple[str, str], radius_mm: float) -> None:
    """A rib is a band: two parallel rods, one above the other."""
    knots[:, 3] = radius_mm
    middle = canvas.patient.curve("ribs", knots, 14.0)
    rods = [Curve(middle.points + np.array([0, 0, lift]), middle.radii) for lift in (-2.8, 2.8)]
    tubes = [tube for tube in (canvas.tube(rod, reach_mm=3) for rod in rods) if tube is not None]
    for tissue, shell_mm in zip(tissues, (0, 1.3), strict=True):
        for tube in tubes:
            canvas.paint(tissue, tube.phi + np.float32(shell_mm), tube.region)


def draw_pelvis(canvas: Canvas) -> None:
    """Hip bones as plates, pubis and ischium as rods, and the femur heads in their sockets."""
    for side in (1, -1):
        low, high = sorted((38 * side, 140 * side))
        region = canvas.region((low, -100, -185), (high, 60, 20))
        if region is None:
            continue
        p = Points(region.points.x * side, region.points.y, region.points.z)
        wings = None
        for a, b, c, thick in _PLATES:
            one = plate(p, np.array([_HIP[a], _HIP[b], _HIP[c]]), thick)
            wings = one if wings is None else smooth_min(wings, one, 7)
        assert wings is not None
        head = ellipsoid(p, (90, 4, -132), (23.5, 23.5, 23.5))
        socket = np.maximum(ellipsoid(p, (87, 2, -130), (33, 34, 33)), np.maximum(1.5 - head, p.x - 96))
        bone = smooth_min(wings, socket, 5)
        _paint_bone(canvas, np.maximum(bone, 1.5 - head), region, 1.8)
        np.minimum(canvas.firm[region.slices], bone, out=canvas.firm[region.slices])
        _draw_rods(canvas, side)
        name = "right" if side > 0 else "left"
        _draw_femur(canvas, side, name)


def _draw_rods(canvas: Canvas, side: int) -> None:
    for knots in (
        [(74, 20, -130, 9), (50, 42, -138, 7.5), (22, 52, -148, 8.5), (7, 50, -158, 9)],
        [(82, -26, -136, 12), (72, -40, -155, 12), (62, -42, -182, 14)],
        [(10, 48, -164, 8), (30, 30, -178, 7), (48, 0, -192, 8)],
    ):
        rod = np.array(knots, float) * [side, 1, 1, 1]
        tube = canvas.tube(canvas.patient.curve("pelvis", rod), reach_mm=6)
        if tube is not None:
            _paint_bone(canvas, tube.phi, tube.region, 1.8)
            np.minimum(canvas.firm[tube.region.slices], tube.phi, out=canvas.firm[tube.region.slices])


def _draw_femur(canvas: Canvas, side: int, name: str) -> None:
    head = np.array([(90, 4, -132, 23.0), (94, 3, -134, 22.0)], float) * [side, 1, 1, 1]
    neck = np.array([(98, 2, -138, 15), (122, -4, -152, 15), (134, -8, -166, 18), (132, -6, -200, 17)], float)
    tubes = [canvas.tube(canvas.patient.curve("pelvis", knots), reach_mm=6) for knots in (head, neck * [side, 1, 1, 1])]
    for inner in (False, True):
        for tube in tubes:
            if tube is not None:
                kind = "marrow" if inner else "cortex"
                canvas.paint(f"femur_{kind}_{name}", tube.phi + (2.2 if inner else 0), tube.region)


def draw_muscles(canvas: Canvas) -> None:
    """Psoas, quadratus lumborum, iliacus and the diaphragm's crura, which stand inside the cavity's surface."""
    for side in (1, -1):
        for tissue_knots in _MUSCLES:
            knots = np.array(tissue_knots, float) * [side, 1, 1, 1]
            tube = canvas.tube(canvas.patient.curve("muscles", knots, 8), reach_mm=6)
            if tube is None:
                continue
            bone = canvas.holds(tube.region, "bone_cortex", "bone_marrow", "disc", "thecal_sac")
            canvas.paint("muscle", np.where(bone, 50, tube.phi), tube.region)
            held = canvas.firm[tube.region.slices]
            np.minimum(held, tube.phi, out=held)
