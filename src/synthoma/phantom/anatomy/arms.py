"""Arms beside the body, of patients who cannot lift them over their head."""

from __future__ import annotations

import numpy as np

from synthoma.phantom.anatomy import body
from synthoma.phantom.anatomy.canvas import Canvas
from synthoma.phantom.anatomy.patient import Patient
from synthoma.phantom.anatomy.shapes import Curve, points_of, spline

ROOM_MM = 105.0  # that the field of view is wider on either side
_LEVELS = (-150.0, -95.0, -20.0, 60.0, 95.0, 170.0, 300.0)  # hand, wrist, forearm, elbow, upper arm: template z
_RADII = (27.0, 25.0, 34.0, 40.0, 41.0, 43.0, 46.0)
_ELBOW = 80.0
_GAP_MM = 2.0


def arms(patient: Patient) -> tuple[Curve, Curve]:
    """The middle lines of the left and the right arm, in the world."""
    wide = 0.9 + 0.006 * patient.subcutaneous_mm
    tried = np.arange(60.0, 320.0, 2.0)
    curves = []
    for side in (-1.0, 1.0):
        knots = []
        for level, radius in zip(_LEVELS, _RADII, strict=True):
            points = points_of(np.stack([side * tried, np.full_like(tried, -12), np.full_like(tried, level)], axis=1))
            inside = body.skin(points, patient, body.wall(points)) < 0
            reach = float(tried[inside].max(initial=120.0))
            (center,) = patient.to_world(np.array([(side * reach, -12.0, level)]))
            knots.append((center[0] + side * (wide * radius + _GAP_MM), *center[1:], wide * radius))
        curves.append(spline(np.array(knots), 6.0))
    return curves[0], curves[1]


def draw_arms(canvas: Canvas) -> None:
    """Skin, fat, muscle, and the bones: one above the elbow, two below."""
    elbow = float(canvas.patient.to_world(np.array([(0.0, 0.0, _ELBOW)]))[0, 2])
    for curve in arms(canvas.patient):
        tube = canvas.tube(curve, reach_mm=4)
        if tube is None:
            continue
        rough = 1.2 * canvas.field("arms", 30, tube.region)
        for tissue, depth in (("skin", 0.0), ("fat", 2.0), ("muscle", 3.0 + canvas.patient.subcutaneous_mm / 4)):
            canvas.paint(tissue, tube.phi + np.float32(depth) + rough * (tissue == "muscle"), tube.region)
        below, above = curve.points[:, 2] < elbow + 8, curve.points[:, 2] > elbow - 8
        for chosen, shift_mm, radius in ((above, 0.0, 11.5), (below, 10.0, 7.5), (below, -10.0, 7.5)):
            if chosen.sum() > 1:
                line = curve.points[chosen] + (0.0, shift_mm, 0.0)
                bone = canvas.tube(Curve(line, np.full(len(line), radius)), reach_mm=2)
                if bone is not None:
                    canvas.paint("bone_cortex", bone.phi, bone.region)
                    canvas.paint("bone_marrow", bone.phi + 3.5, bone.region)
