"""The great vessels, as curves through the template; soft organs leave them in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.phantom.anatomy.canvas import Canvas
from synthoma.phantom.anatomy.shapes import Curve

Array = NDArray[Any]

# tissue, then template knots of x, y, z and radius in mm
GREAT = (
    (
        "aorta",
        [
            (-16, -30, 330, 11.5),
            (-14, -26, 250, 11),
            (-8, -22, 180, 10.5),
            (-5, -10, 140, 10),
            (-7, -1, 80, 9),
            (-7, 3, 30, 8.5),
            (-3, 3, 4, 8.5),
        ],
    ),
    (
        "artery",
        [
            (-4, 3, 6, 6.5),
            (-16, -2, -22, 5.5),
            (-36, -4, -55, 5.5),
            (-56, 10, -85, 4.5),
            (-72, 42, -130, 4.5),
            (-78, 52, -165, 4.5),
        ],
    ),
    (
        "artery",
        [
            (-4, 3, 6, 6.5),
            (10, 0, -22, 5.5),
            (34, -4, -55, 5.5),
            (56, 10, -85, 4.5),
            (72, 42, -130, 4.5),
            (78, 52, -165, 4.5),
        ],
    ),
    (
        "postcava",
        [
            (24, 4, 250, 13),
            (23, -6, 212, 12.5),
            (22, -14, 185, 12.5),
            (22, -14, 150, 11.5),
            (21, -8, 105, 11.5),
            (19, -4, 60, 11),
            (17, -4, 20, 10.5),
            (14, -8, -4, 10),
        ],
    ),
    (
        "vein",
        [
            (13, -8, -2, 8.5),
            (-6, -14, -25, 6.5),
            (-34, -16, -55, 6),
            (-54, 0, -85, 5.5),
            (-64, 40, -130, 5.5),
            (-70, 50, -165, 5.5),
        ],
    ),
    (
        "vein",
        [
            (14, -8, -2, 8.5),
            (24, -16, -30, 6.5),
            (42, -14, -58, 6),
            (52, 0, -85, 5.5),
            (62, 40, -130, 5.5),
            (68, 50, -165, 5.5),
        ],
    ),
    ("celiac_trunk", [(-5, -4, 124, 3.8), (-6, 12, 122, 3.6), (-4, 18, 120, 3.2)]),
    ("artery", [(-4, 18, 120, 2.6), (14, 20, 118, 2.4), (30, 16, 114, 2.2)]),
    ("artery", [(-5, 18, 120, 2.6), (-30, 8, 124, 2.5), (-60, -16, 126, 2.3), (-84, -30, 132, 2)]),
    ("artery", [(-6, 2, 106, 3.8), (-7, 14, 96, 3.6), (-5, 20, 70, 3.3), (0, 24, 40, 2.8), (14, 26, 5, 2.2)]),
    ("artery", [(2, -4, 98, 3), (20, -22, 95, 2.8), (40, -38, 90, 2.6)]),
    ("artery", [(-12, -4, 100, 3), (-26, -22, 100, 2.8), (-42, -38, 100, 2.6)]),
    ("vein", [(22, -12, 94, 4.5), (34, -24, 92, 4.2), (44, -34, 90, 4)]),
    ("vein", [(14, 2, 98, 4.2), (-6, 12, 99, 3.6), (-24, -6, 101, 4.2), (-42, -34, 101, 4)]),
)
PORTAL = (
    [(8, 26, 22, 4.2), (9, 24, 50, 5), (10, 18, 76, 6), (13, 15, 92, 6.5), (24, 13, 108, 7), (36, 12, 120, 7)],
    [(12, 15, 91, 4.8), (-12, 12, 100, 4.5), (-40, -6, 110, 4.3), (-66, -26, 122, 4), (-86, -34, 134, 3.5)],
)


def draw_great_vessels(canvas: Canvas) -> None:
    """Aorta, cava, iliac, celiac, mesenteric and renal vessels; soft organs leave them in place."""
    for tissue, knots in (*GREAT, *(("portal_vein", knots) for knots in PORTAL)):
        _draw(canvas, canvas.patient.curve("vessels", knots), tissue)


def _draw(canvas: Canvas, curve: Curve, tissue: str) -> None:
    tube = canvas.tube(curve)
    if tube is None:
        return
    phi = np.where(canvas.holds(tube.region, "bone_cortex", "bone_marrow", "disc"), np.float32(50), tube.phi)
    canvas.paint(tissue, phi, tube.region)
    held = canvas.firm[tube.region.slices]
    np.minimum(held, phi, out=held)
