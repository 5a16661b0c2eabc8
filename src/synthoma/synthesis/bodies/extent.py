"""How long, how wide and how thick a wall tumor is, by its volume and the width of its organ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from synthoma.synthesis.tumor import Vector

LONGEST_MM = 35.0
CLOSED = 1.4  # thickness over the organ's radius from which an annular tumor surely closes the lumen
_THINNEST_MM = 3.0
_LEAST_LENGTH = 0.7  # half length over thickness of annular tumors; shorter ones would be a membrane across the lumen
_MOST_OUTSIDE, _MOST_OUTSIDE_MM = 0.5, 8.0  # of the thickness, for which an organ is too narrow


class Wanted(NamedTuple):
    """What is drawn of a wall tumor's axes. thicker, longer: ln of thickness and aspect, in SDs. The others: in [0, 1).

    annular: below the chance of it, it is. around: how far more than once. closes: below 1/4, it does, below 1/2 in an
    organ that is narrower than it is thick. leaves: how much of the lumen, if it does not.
    """

    thicker: float
    longer: float
    annular: float
    around: float
    closes: float
    leaves: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Wanted:
        """Independent of the place."""
        return cls(*rng.standard_normal(2).tolist(), *rng.random(4).tolist())


def axes_of(diameter_mm: float, radius_mm: float, wanted: Wanted) -> tuple[Vector, float]:
    """Half length, half arc and thickness of a tumor on a tube, and the share of the thickness outside of the tube.

    Polypoid when small, often annular when large. Walls of cancers are 10 to 30 mm thick over 30 to 60 mm. Three of
    four annular ones leave a lumen, in narrow organs one of two. What a narrow organ has no room for grows outward.
    """
    product = diameter_mm**3 / 4  # of the three: the planned volume is 2/3 pi a b c
    natural = max(_THINNEST_MM, 0.5 * diameter_mm * (diameter_mm / 10) ** -0.25 * float(np.exp(0.18 * wanted.thicker)))
    around = np.pi * radius_mm
    aspect = np.exp(0.15 + 0.3 * wanted.longer)
    # how much of the circumference it would take if as long as wide
    needed = np.sqrt(product / min(natural, radius_mm)) / around
    inside = min(natural, 0.8 * radius_mm)
    thick = inside + _outside(natural, inside)
    half_arc = np.sqrt(product / (thick * aspect))
    if wanted.annular < 1 / (1 + np.exp((0.6 - needed) / 0.08)) or half_arc > 0.8 * around:
        ring = _ring(product, natural, radius_mm, wanted)
        if ring[1] >= min(_THINNEST_MM, 0.5 * radius_mm):
            half_arc, inside, thick = ring
    half_length = product / (half_arc * thick)
    if half_length > LONGEST_MM:
        longer, half_length = half_length / LONGEST_MM, LONGEST_MM
        inside, thick = inside * longer, thick * longer
    return (float(half_length), float(half_arc), float(thick)), round(1 - float(inside / thick), 3)


def _ring(product: float, natural_mm: float, radius_mm: float, wanted: Wanted) -> tuple[float, float, float]:
    """Half arc of an annular tumor of this product of axes, its thickness inside the organ, and all of it.

    Thinner than wanted if it were too short.
    """
    half_arc = np.pi * radius_mm * (1.05 + 0.35 * wanted.around)
    closed, most = CLOSED * radius_mm, product / (half_arc * _LEAST_LENGTH * radius_mm)
    if most >= closed and wanted.closes < (0.25 if natural_mm < radius_mm else 0.5):
        thick = float(np.clip(natural_mm, closed, most))
        return half_arc, thick, thick
    most = float(np.sqrt(product / (half_arc * _LEAST_LENGTH)))
    inside = min(natural_mm, (0.5 + 0.3 * wanted.leaves) * radius_mm, most)
    return half_arc, inside, min(inside + _outside(natural_mm, inside), max(most, inside))


def _outside(natural_mm: float, inside_mm: float) -> float:
    """How thick the part outside the organ is."""
    return min(natural_mm - inside_mm, _MOST_OUTSIDE * natural_mm, _MOST_OUTSIDE_MM)
