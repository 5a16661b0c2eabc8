"""The gut from esophagus to rectum: walls of a given thickness in mm around gas, fluid, food or stool."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.phantom.anatomy import body
from synthoma.phantom.anatomy.canvas import Canvas, Tube
from synthoma.phantom.anatomy.noise import wave_along
from synthoma.phantom.anatomy.patient import Patient
from synthoma.phantom.anatomy.shapes import FAR_MM, Curve, points_of, spline

Array = NDArray[Any]

_ESOPHAGUS = [(-2, -34, 330, 9.5), (-3, -32, 260, 9.5), (-6, -22, 222, 10), (-14, -10, 196, 10), (-26, 0, 184, 11)]
_STOMACH = [
    (-62, -28, 192, 20),
    (-64, -14, 172, 38),
    (-60, 6, 148, 37),
    (-54, 28, 122, 32),
    (-38, 46, 98, 27),
    (-12, 56, 84, 22),
    (12, 50, 84, 17),
    (26, 40, 90, 12),
]
_DUODENUM = [
    (26, 40, 90, 11),
    (40, 28, 92, 13),
    (49, 12, 82, 13),
    (52, 0, 62, 13),
    (46, -4, 42, 13),
    (26, 4, 34, 12),
    (2, 13, 36, 11.5),
    (-20, 12, 44, 12),
    (-30, 14, 62, 12),
]
_COLON = [
    (84, 26, -62, 20),
    (86, 18, -42, 28),
    (91, 0, -8, 27),
    (95, -14, 24, 25),
    (93, -6, 48, 25),
    (82, 22, 56, 24),
    (64, 50, 46, 24),
    (34, 64, 30, 25),
    (0, 68, 22, 24),
    (-36, 64, 34, 24),
    (-66, 50, 62, 23),
    (-88, 24, 92, 22),
    (-104, -6, 112, 21),
    (-108, -30, 96, 20),
    (-104, -40, 56, 18),
    (-102, -36, 16, 17),
    (-98, -12, -22, 17),
    (-88, 20, -54, 17),
    (-60, 34, -78, 17),
    (-32, 12, -72, 17),
    (-8, -8, -62, 17),
    (14, -28, -74, 17),
    (10, -46, -92, 17),
]
_RECTUM = [
    (10, -46, -92, 17),
    (2, -58, -112, 20),
    (0, -66, -132, 23),
    (0, -64, -152, 21),
    (0, -52, -172, 15),
    (0, -52, -200, 12),
]
_TREITZ = (-28, 16, 58)


def _curve(patient: Patient, organ: str, knots: Any, jitter_mm: float = 0.0) -> Curve:
    return patient.curve(organ, knots, step_mm=5.0, jitter_mm=jitter_mm)


def stomach(patient: Patient) -> Curve:
    """The stomach's middle line."""
    knots = np.array(_STOMACH, float)
    knots[:, 3] *= 1 + 0.13 * patient.traits["stomach_fill"]
    return _curve(patient, "stomach", knots, 4.0)


def colon(patient: Patient) -> Curve:
    """The colon's middle line, cecum to sigmoid."""
    knots = np.array(_COLON, float)
    knots[:, 2] -= 15 * patient.traits["colon_sag"] * np.exp(-((knots[:, 0] / 55) ** 2)) * (knots[:, 1] > 40)
    return _curve(patient, "colon", knots, 6.0)


def draw_esophagus(canvas: Canvas) -> None:
    """A flat muscular tube beside the aorta, with a little air."""
    tube = canvas.tube(_curve(canvas.patient, "esophagus", _ESOPHAGUS))
    if tube is None:
        return
    phi = tube.phi + 0.6 * canvas.field("esophagus", 16, tube.region)
    keep = canvas.holds(tube.region, "aorta", "bone_cortex", "bone_marrow", "disc", "heart_muscle", "heart_blood")
    phi = np.where(keep, FAR_MM, phi)
    canvas.paint("esophagus_wall", phi, tube.region)
    air = phi + 7.0 + 1.4 * canvas.field("esophageal air", 14, tube.region)
    canvas.paint("esophagus_gas", air, tube.region)
    np.minimum(canvas.firm[tube.region.slices], phi, out=canvas.firm[tube.region.slices])


def draw_stomach(canvas: Canvas) -> None:
    """Food and fluid with gas above them, folds on the inside of the wall."""
    tube = canvas.tube(stomach(canvas.patient))
    if tube is None:
        return
    region = tube.region
    phi = canvas.settle(tube.phi + 2.0 * canvas.field("stomach", 34, region), region, 1.2)
    canvas.paint("stomach_wall", phi, region)
    inner = phi + 4.2 + 1.5 * canvas.field("rugae", 9, region)
    canvas.paint("stomach_contents", inner, region)
    level = np.float32(30 + 13 * canvas.patient.traits["stomach_gas"]) - region.points.y
    canvas.paint("stomach_gas", np.maximum(inner + 0.6, level), region)


def draw_duodenum(canvas: Canvas) -> None:
    """The C around the head of the pancreas."""
    tube = canvas.tube(_curve(canvas.patient, "duodenum", _DUODENUM, 1.5))
    if tube is None:
        return
    phi = tube.phi + 1.2 * canvas.field("duodenum", 14, tube.region)
    phi = canvas.settle(phi, tube.region, 0.8)
    canvas.paint("duodenum_wall", phi, tube.region)
    inner = phi + 3.4 + 1.6 * canvas.field("duodenal folds", 7, tube.region)
    canvas.paint("duodenum_contents", inner, tube.region)


def draw_colon(canvas: Canvas) -> None:
    """The frame of the abdomen: haustra, a wall of 2 to 3 mm, gas above stool, the sigmoid narrow."""
    curve = colon(canvas.patient)
    tube = canvas.tube(curve, apart_mm=90)
    if tube is not None:
        phi = _haustra(canvas, tube, curve)
        apart = np.maximum(phi, (phi - tube.rival) / 2 + 0.6)
        phi = canvas.settle(apart, tube.region, 1.2)
        _fill_colon(canvas, tube, phi, curve, "colon")
    knots = np.array(_RECTUM, float)
    knots[:, 3] *= 1 + 0.15 * canvas.patient.traits["rectum_fill"]
    rectum = _curve(canvas.patient, "rectum", knots)
    tube = canvas.tube(rectum)
    if tube is not None:
        phi = tube.phi + 1.5 * canvas.field("rectum", 22, tube.region)
        colon_there = canvas.holds(tube.region, "colon_wall", "colon_stool", "colon_gas")
        phi = canvas.settle(np.where(colon_there, FAR_MM, phi), tube.region, 0.4)
        _fill_colon(canvas, tube, phi, rectum, "rectum")


def _haustra(canvas: Canvas, tube: Tube, curve: Curve) -> Array:
    """Pouches about 30 mm long between folds that bite into the lumen, in rows around it."""
    seed, along = canvas.patient.seed, _each_mm(curve)
    turn = _at(tube, np.cumsum(2 * np.pi / (31 + 5 * wave_along(seed, "haustra", 160, along))))
    # rows of pouches are shifted against each other, which the field does
    turn = turn + np.float32(1.3) * canvas.field("haustra", 40, tube.region)
    fold = np.exp(-3.5 * (1 - np.cos(turn)))
    depth = _at(tube, np.interp(along / along[-1], (0, 0.1, 0.55, 0.8, 1), (5.5, 6.5, 6.0, 3.5, 2.5)))
    wide = _at(tube, 3 * wave_along(seed, "caliber", 190, along))
    result: Array = tube.phi + depth * fold - wide + 1.4 * canvas.field("colon", 20, tube.region)
    return result


def _each_mm(curve: Curve) -> Array:
    """Arc lengths 0, 1, 2, ... mm to the end of the curve."""
    return np.arange(0, curve.along_mm[-1] + 1, 1.0)


def _at(tube: Tube, values: Array) -> Array:
    """Values given for each mm along a curve, at the voxels around it."""
    result: Array = values.astype(np.float32).take(tube.along.astype(np.int32), mode="clip")
    return result


def _front_mm(canvas: Canvas, curve: Curve) -> Array:
    """Template y of the curve for each mm along it: gas rises from there."""
    y = canvas.patient.to_template(points_of(curve.points)).y
    return np.interp(_each_mm(curve), curve.along_mm, y)


def _fill_colon(canvas: Canvas, tube: Tube, phi: Array, curve: Curve, organ: str) -> None:
    """Wall, then stool with bubbles, then gas where the anterior part of a segment holds it."""
    region, seed, along = tube.region, canvas.patient.seed, _each_mm(curve)
    canvas.paint(f"{organ}_wall", phi, region)
    inner = phi + np.float32(2.6)
    canvas.paint(f"{organ}_stool", inner, region)
    wave = wave_along(seed, f"{organ} gas", 330, along) + 0.6 * canvas.patient.traits["colon_gas"]
    level = _at(tube, _front_mm(canvas, curve) + 4 - 15 * wave)
    level = level + np.float32(2.5) * canvas.field(f"{organ} stool", 12, region)
    canvas.paint(f"{organ}_gas", np.maximum(inner + 0.5, level - region.points.y), region)
    froth = _at(tube, 2.2 + 0.9 * wave_along(seed, f"{organ} froth", 260, along))
    bubbles = froth - 2 * canvas.field(f"{organ} bubbles", 5.5, region)
    canvas.paint(f"{organ}_gas", np.maximum(inner + 1.5, bubbles), region)


def draw_small_bowel(canvas: Canvas, loops: list[Curve]) -> None:
    """Loops that fill what the colon's frame leaves free, moulded by each other."""
    for number, curve in enumerate(loops):
        tube = canvas.tube(curve, reach_mm=6, apart_mm=34)
        if tube is None:
            continue
        phi = tube.phi + 1.5 * canvas.field("intestine", 18, tube.region)
        phi = np.maximum(phi, (phi - tube.rival) / 2 + 0.5)
        phi = canvas.settle(phi, tube.region, 0.9)
        canvas.paint("intestine_wall", phi, tube.region)
        _fill_loop(canvas, tube, phi, curve, number)


def _fill_loop(canvas: Canvas, tube: Tube, phi: Array, curve: Curve, number: int) -> None:
    """Some loops lie collapsed, some hold fluid, few gas."""
    region, seed, along = tube.region, canvas.patient.seed, _each_mm(curve)
    wall = _at(tube, np.clip(5.0 - 2.2 * wave_along(seed, f"loop {number}", 210, along), 2.4, 9))
    inner = phi + wall + np.float32(1.5) * canvas.field("folds", 6, region)
    canvas.paint("intestine_contents", inner, region)
    level = _at(tube, _front_mm(canvas, curve) + 9 - 5 * wave_along(seed, f"air {number}", 260, along))
    canvas.paint("intestine_gas", np.maximum(phi + np.float32(3.2), level - region.points.y), region)


def small_bowel(patient: Patient) -> list[Curve]:
    """Middle lines of the loops: a walk through places spread over the free peritoneal space."""
    rng = patient.rng("loops")
    apart = 24.0 * patient.sizes["intestine"] * (1 + 0.12 * patient.visceral)
    places = _loop_places(patient, rng, apart)
    runs, run = [], [np.array(_TREITZ, float)]
    while len(places):
        gaps = np.linalg.norm((places - run[-1]) * (1, 1, 1.1), axis=1)
        next_one = int(np.argmin(gaps * rng.uniform(1, 1.35, len(gaps))))
        if gaps[next_one] > 2.3 * apart:
            runs.append(run)
            run = []
        run.append(places[next_one])
        places = np.delete(places, next_one, axis=0)
    runs.append(run)
    curves = []
    for line in runs:
        if len(line) >= 3:
            radii = np.clip(rng.normal(0.5 * apart + 1.2, 1.2, len(line)), 9.5, 17)
            knots = np.column_stack([patient.to_world(np.array(line)), radii])
            curves.append(spline(knots, 5.0))
    return curves


def _loop_places(patient: Patient, rng: np.random.Generator, apart: float) -> Array:
    """A jittered close packing of template points where no other part of the gut runs."""
    steps = np.array([apart, apart * 0.87, apart * 0.82])
    counts = (np.array([210, 150, 250]) / steps).astype(int)
    i, j, k = np.meshgrid(*(np.arange(n) for n in counts), indexing="ij")
    x = (i + 0.5 * (j % 2) + 0.25 * (k % 2)) * steps[0] - 100
    y = (j + 0.33 * (k % 2)) * steps[1] - 58
    z = k * steps[2] - 122
    places = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    places += rng.uniform(-0.25, 0.25, places.shape) * apart + rng.uniform(-0.5, 0.5, 3) * steps
    points = points_of(places)
    free = (body.cavity(points) < -10) & (
        points.z < np.where((points.x < -15) & (points.y > 8), 112, 74 + 0.15 * points.x)
    )
    free &= points.y > np.interp(points.z, (-110, -60, -20, 30, 80), (-40, -30, 4, 16, 26)) - 0.25 * np.abs(points.x)
    world = patient.to_world(places)
    taken = [stomach(patient), colon(patient), _curve(patient, "duodenum", _DUODENUM, 1.5)]
    for curve in taken:
        gap = np.linalg.norm(world[:, None] - curve.points[None], axis=2) - curve.radii[None]
        free &= gap.min(axis=1) > 6
    places = places[free]
    # the pelvis belongs to bladder, uterus and rectum
    deep = (places[:, 2] < -84) & (np.abs(places[:, 0]) < 30)
    return np.asarray(places[~deep])
