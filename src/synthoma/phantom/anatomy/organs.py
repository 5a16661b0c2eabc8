"""The solid organs, gallbladder and the organs of the pelvis, each contesting its place with its neighbors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.phantom.anatomy import body
from synthoma.phantom.anatomy.canvas import Canvas, Region
from synthoma.phantom.anatomy.patient import Patient
from synthoma.phantom.anatomy.shapes import Curve, Points, ellipsoid, smooth_max, smooth_min

Array = NDArray[Any]

LIVER_BOX = ((-90, -100, 25), (140, 105, 225))
_PANCREAS = [
    (28, 5, 50, 10),
    (28, 8, 66, 16),
    (24, 14, 80, 16.5),
    (14, 22, 93, 13),
    (-4, 24, 100, 12.5),
    (-24, 14, 106, 13),
    (-44, -2, 112, 13.5),
    (-62, -16, 119, 13.5),
    (-79, -27, 128, 10.5),
]


def liver_shape(points: Points, patient: Patient) -> Array:
    """Distance to the liver before its neighbors: under the right dome, above a slope rising to the left."""
    size = np.float32(np.log(patient.sizes["liver"]) * 60)
    shift = patient.shifts_mm["liver"]
    x, y, z = points.x, points.y, points.z
    slope = np.float32(0.60 - 0.045 * patient.traits["liver_slope"])
    floor = 55 + slope * (100 - x) + 0.10 * np.clip(y, -60, 60) - size + shift[2]
    floor = floor - 26 * np.exp(-(((x + 5) / 45) ** 2)) * np.clip(y / 60, 0, 1)
    below = (floor - z) * np.float32(0.82)
    edge = 6 - 0.85 * (y + 42) - 0.8 * np.clip(150 - z, 0, 60) + shift[0] - size
    left = (np.maximum(edge, -80 - 14 * patient.traits["left_lobe"] + shift[0] - size) - x) * np.float32(0.76)
    inside = smooth_max(body.dome(points) + np.float32(0.8), body.cavity(points) + 1, 6)
    return smooth_max(smooth_max(inside, below, 22), left, 16)


def draw_liver(canvas: Canvas) -> None:
    """Liver with its fissures, against the diaphragm without fat between."""
    region = canvas.region(*LIVER_BOX)
    if region is None:
        return
    patient, p = canvas.patient, region.points
    phi = liver_shape(p, patient) + 2.2 * canvas.field("liver", 38, region)
    bend = 5 * canvas.field("fissure", 40, region)
    fissure = np.maximum(np.abs(p.x + 4 + 0.12 * (p.y - 60) + bend) - 1.5, np.maximum(34 - p.y, p.z - 142))
    ligament = np.maximum(np.abs(p.x - 6 - 0.55 * (20 - p.y) + bend) - 1.1, np.maximum(np.abs(p.y + 2) - 16, p.z - 172))
    phi = np.maximum(phi, -np.minimum(fissure, ligament))
    if "liver_left" in patient.absent:
        phi = np.maximum(phi, -p.x - 10 + 2 * canvas.field("resection", 25, region))
    phi = canvas.settle(phi, region, 0.6)
    canvas.paint("liver", phi, region)


def draw_gall_bladder(canvas: Canvas) -> None:
    """A pear in the fossa under the liver, with a thin wall."""
    knots = [(46, 60, 70, 10), (44, 52, 80, 14.5), (40, 42, 94, 12), (35, 33, 104, 6), (32, 28, 108, 2.5)]
    tube = canvas.tube(canvas.patient.curve("gall_bladder", knots))
    if tube is None:
        return
    phi = canvas.settle(tube.phi, tube.region, 0.4, firm=True)
    canvas.paint("gall_bladder_wall", phi, tube.region)
    canvas.paint("gall_bladder", phi + 1.4, tube.region)


def draw_spleen(canvas: Canvas) -> None:
    """A crescent under the left dome, hollowed by stomach and kidney."""
    region = canvas.region((-140, -105, 70), (-30, 60, 225))
    if region is None:
        return
    p = canvas.patient.frame("spleen", (-96, -34, 142), region.points)
    across = 0.80 * p.x + 0.60 * p.y
    shape = ellipsoid(Points(across, -0.60 * p.x + 0.80 * p.y, p.z - 0.15 * p.y), (-4, 4, 0), (41, 66, 64))
    hollow = np.float32(50) - np.sqrt((p.x - 58) ** 2 + (p.y - 34) ** 2 + (0.35 * p.z) ** 2)
    inside = smooth_max(body.dome(region.points) + 1, body.cavity(region.points) + 1, 6)
    phi = smooth_max(smooth_max(inside, shape, 14), hollow, 10)
    phi = phi + 2.0 * canvas.field("spleen", 30, region)
    canvas.paint("spleen", canvas.settle(phi, region, 1.0), region)


def draw_kidneys(canvas: Canvas) -> None:
    """Both kidneys with cortex, medulla, sinus fat and pelvis, in a sleeve of perirenal fat."""
    for side, name, center in ((1, "right", (64, -38, 82)), (-1, "left", (-62, -42, 96))):
        if f"kidney_{name}" in canvas.patient.absent:
            continue
        low = (min(side * 15, side * 110), -100, center[2] - 85)
        high = (max(side * 15, side * 110), 20, center[2] + 85)
        region = canvas.region(low, high)
        if region is not None:
            _draw_kidney(canvas, region, side, name, center)


def _draw_kidney(canvas: Canvas, region: Region, side: int, name: str, center: tuple[float, float, float]) -> None:
    framed = canvas.patient.frame(f"kidney_{name}", center, region.points)
    # the upper pole leans inward and back, the hilum looks inward and forward
    u: Array = framed.x * np.float32(side)
    v: Array = framed.y
    w: Array = framed.z
    u = u + np.float32(0.20) * w
    v = v + np.float32(0.24) * w
    u, v = np.float32(0.85) * u - np.float32(0.52) * v, np.float32(0.52) * u + np.float32(0.85) * v
    u = u + np.float32(0.0035) * w * w - 3
    local = Points(u, v, w)
    wobble = canvas.field(f"kidney {name}", 22, region)
    outer = ellipsoid(local, (0, 0, 0), (27.5, 25.5, 55)) + 1.0 * wobble
    sinus = ellipsoid(local, (-13, 0, 0), (15, 9, 25)) + 3.0 * canvas.field(f"sinus {name}", 11, region)
    outer = smooth_max(outer, -ellipsoid(local, (-32, 0, 0), (13, 8, 17)), 4)
    fat = np.float32(3 + 7 * canvas.patient.visceral)
    canvas.settle(outer - fat, region, 0.5)
    outer = canvas.settle(outer, region, 1.0, firm=True)
    canvas.paint(f"kidney_cortex_{name}", outer, region)
    rays = canvas.field(f"pyramids {name}", 15, region)
    medulla = np.maximum(outer + 6.5, -rays * 7 - 1.5)
    canvas.paint(f"kidney_medulla_{name}", medulla, region)
    hole = np.maximum(sinus, outer + 3)
    hole = np.where(u < -8, np.maximum(sinus, outer), hole)
    canvas.paint("visceral_fat", hole, region)
    pelvis = ellipsoid(local, (-17, -2, -3), (9, 3.6, 12)) + 1.0 * canvas.field(f"pelvis {name}", 9, region)
    canvas.paint(f"renal_pelvis_{name}", pelvis, region)
    vessel = np.hypot(v - 5, w - 4 + 0.2 * u) - 2.6
    canvas.paint("vein", np.maximum(vessel, np.maximum(sinus, outer - 4)), region)


def draw_adrenals(canvas: Canvas) -> None:
    """Two thin limbs above each kidney, shaped like a Y."""
    for name, middle in (("right", (29, -33, 140)), ("left", (-30, -16, 130))):
        side = 1 if name == "right" else -1
        x, y, z = middle
        front = (x, y + 8, z)
        for knots in (
            [(*front, 3.2), (x + 3 * side, y - 4, z - 2, 3.2), (x + 9 * side, y - 18, z - 12, 2.5)],
            [(*front, 3.2), (x - 1 * side, y - 6, z - 2, 3.0), (x - 2 * side, y - 20, z - 10, 2.4)],
            [(*front, 3.0), (x + 2 * side, y - 2, z + 10, 2.8), (x + 5 * side, y - 12, z + 16, 2.4)],
        ):
            tube = canvas.tube(canvas.patient.curve("adrenal", knots))
            if tube is not None:
                phi = canvas.settle(tube.phi, tube.region, 0.4, firm=True)
                canvas.paint(f"adrenal_{name}", phi, tube.region)


def pancreas(patient: Patient) -> Curve:
    """The pancreas's middle line, where its duct runs, from the head to the tail."""
    return patient.curve("pancreas", _PANCREAS, jitter_mm=2.0)


def draw_pancreas(canvas: Canvas) -> None:
    """From the duodenal C across the spine to the hilum of the spleen, lobulated."""
    tube = canvas.tube(pancreas(canvas.patient))
    if tube is None:
        return
    lobes = canvas.field("lobules", 9, tube.region)
    phi = tube.phi + 1.3 * lobes + 0.7 * canvas.field("small lobules", 4.5, tube.region)
    canvas.paint("pancreas", canvas.settle(phi, tube.region, 0.6, firm=True), tube.region)


def draw_bladder(canvas: Canvas) -> None:
    """Urine in a thin wall, behind the pubis."""
    region = canvas.region((-70, -50, -190), (70, 85, -70))
    if region is None:
        return
    patient = canvas.patient
    p = patient.frame("bladder", (0, 22, -134 if patient.sex == "female" else -112), region.points)
    full = 1 + 0.13 * patient.traits["bladder_fill"]
    phi = ellipsoid(p, (0, 0, 0), (41 * full, 29 * full, 28 * full)) + 1.2 * canvas.field("bladder", 30, region)
    phi = canvas.settle(phi, region, 1.0)
    canvas.paint("bladder_wall", phi, region)
    canvas.paint("bladder_urine", phi + 2.6, region)


def draw_uterus(canvas: Canvas) -> None:
    """Uterus bent forward over the bladder with its cavity, cervix, vagina and ovaries; women only."""
    region = canvas.region((-65, -75, -190), (65, 50, -60))
    if region is None:
        return
    p = canvas.patient.frame("uterus", (0, -10, -104), region.points)
    lean = np.float32(0.55)
    local = Points(p.x, p.y * np.float32(0.835) - p.z * lean, p.z * np.float32(0.835) + p.y * lean)
    corpus = ellipsoid(local, (0, 0, 2), (27, 20.5, 31)) + 1.0 * canvas.field("uterus", 24, region)
    cervix = ellipsoid(p, (0, -20, -26), (13.5, 12.5, 20))
    phi = canvas.settle(smooth_min(corpus, cervix, 10), region, 1.0, firm=True)
    canvas.paint("uterus", phi, region)
    lining = np.maximum(ellipsoid(local, (0, 0, 2), (14, 3.6, 20)), phi + 6)
    canvas.paint("endometrium", lining, region)
    vagina = ellipsoid(p, (0, -22, -58), (15, 6, 26))
    canvas.paint("vagina", canvas.settle(vagina, region, 0.8), region)
    for side in (1, -1):
        ovary = ellipsoid(p, (40 * side, -12, 2 - 4 * side), (10, 9, 14))
        canvas.paint("ovary", canvas.settle(ovary, region, 1.0), region)
        broad = np.hypot(p.y + 6, p.z + 4) - 2.5
        broad = np.maximum(broad, np.abs(p.x - 26 * side) - 12)
        canvas.paint("vein", np.where(canvas.holds(region, "visceral_fat"), broad, 50), region)


def draw_prostate(canvas: Canvas) -> None:
    """Prostate under the bladder and seminal vesicles behind it; men only."""
    region = canvas.region((-45, -60, -200), (45, 50, -100))
    if region is None:
        return
    p = canvas.patient.frame("uterus", (0, 8, -152), region.points)
    canvas.paint("prostate", canvas.settle(ellipsoid(p, (0, 0, 0), (24, 16, 18)), region, 0.8, firm=True), region)
    vesicles = ellipsoid(Points(np.abs(p.x), p.y + 0.2 * np.abs(p.x), p.z), (16, -26, 26), (17, 6, 7))
    canvas.paint("seminal_vesicle", canvas.settle(vesicles, region, 0.8), region)
