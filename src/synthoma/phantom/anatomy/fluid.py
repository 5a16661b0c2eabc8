"""Ascites: free fluid between the wall of the abdomen and the organs, and in the pelvis."""

from __future__ import annotations

import numpy as np

from synthoma.phantom.anatomy import body
from synthoma.phantom.anatomy.canvas import Canvas
from synthoma.phantom.anatomy.tissues import TISSUE_ID

_BACK = -40.0  # template y: what lies behind is outside the peritoneum
_PELVIS = -62.0  # template z under which fluid takes the place of fat


def draw_ascites(canvas: Canvas) -> None:
    """A coat of fluid under diaphragm and wall, thickest where patients lie on it; organs are kept out of it.

    Drawn before the organs.
    """
    region = canvas.whole()
    points = region.points
    inside = body.cavity(points) + 1.5 * canvas.field("trunk", 45, region)
    from_wall = np.maximum(inside, body.dome(points))
    waves = np.clip(0.75 + 0.35 * canvas.field("ascites", 70, region), 0.1, 1.6)
    front = np.clip((points.y - np.float32(_BACK)) / 35, 0, 1) * np.clip((points.z + 150) / 40, 0, 1)
    low = np.float32(1.35) - np.float32(0.004) * np.clip(points.y + 40, 0, 140)
    thick = np.float32(canvas.patient.ascites_mm) * waves * front * low
    canvas.paint("ascites", np.maximum(from_wall, -thick - from_wall), region)
    np.minimum(canvas.firm, -from_wall - thick, out=canvas.firm)


def flood_pelvis(canvas: Canvas) -> None:
    """Fluid instead of fat between the organs of the pelvis. Drawn after the organs."""
    points = canvas.points
    deep = (points.z < _PELVIS) & (points.y > -70) & (body.cavity(points) < -4)
    fat, fluid = TISSUE_ID["visceral_fat"], TISSUE_ID["ascites"]
    for tissue in (canvas.main, canvas.under):
        tissue[deep & (tissue == fat)] = fluid
