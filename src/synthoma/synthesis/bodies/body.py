"""A tumor's body: where its plan puts it, and which share of each voxel it fills; masses and wall tumors alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import erf
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from synthoma import anatomy
from synthoma.anatomy import ShapePrior
from synthoma.synthesis.location import OrganModel
from synthoma.synthesis.tumor import Measure, Quaternion, Request, TumorPlan, Vector, no_scores
from synthoma.volume import Box, Floats, Geometry, Volume

COVERAGE_STEPS = 1280


@dataclass(frozen=True)
class Surface:
    """The details of a plan that has a body.

    form: `mass`, a star-shaped body, or `wall`, a thickening of a hollow organ's wall. roughness, spectrum, skew:
    amplitude a, power p and skew s of the surface ln r = a (n - s (n^2 - 1)). lumen: a wall's border to what its organ
    holds, `sharp` but for scanner and voxel, or as `soft` as that to tissue, as before manifests of format 4. outside:
    share of a wall's thickness for which its organ is too narrow; it lies outside.
    """

    form: Literal["mass", "wall"] = "mass"
    roughness: Annotated[float, Field(ge=0, le=2)] = 0.0
    spectrum: Annotated[float, Field(ge=-20, le=20)] = 3.0
    skew: Annotated[float, Field(ge=-5, le=5)] = 0.0
    lumen: Literal["soft", "sharp"] = "soft"
    outside: Annotated[float, Field(ge=0, le=0.9)] = 0.0

    @classmethod
    def of(cls, plan: TumorPlan) -> Surface:
        """The surface of a plan."""
        return plan.details_as(cls)


@dataclass(frozen=True)
class Placement:
    """Where a body lies and what it is; the fields are those of `TumorPlan`."""

    center_mm: Vector
    axes_mm: Vector
    orientation: Quaternion
    relaxed: int
    surface: Surface


@dataclass(frozen=True, eq=False)
class Body:
    """A shape on a box of a grid. All arrays float32 (box), the first axis fastest in memory.

    alpha: share of each voxel that is tumor, blurred by scanner and border. radius: 0 at the center, 1 at the
    surface, exact where the inside was asked for, else 0 deep inside. depth_mm: below the surface, likewise.
    measure: scores that only this form has.
    """

    box: Box
    alpha: Floats
    radius: Floats
    depth_mm: Floats
    measure: Measure = no_scores


@dataclass(frozen=True)
class Form:
    """A kind of body.

    place: organ, request, surface, random numbers -> where and how large. volume_mm3: of half-axes. reach: how far
    from its center, in mm, a plan needs to know the organ. make: plan, grid, organ and whether the inside is needed ->
    body. box: the voxels that the body may fill. outer_box: the same or more, at little cost. follows_organ: whether
    the organ's shape decides on the volume as well. has_mass_effect: whether it may displace its neighbors.
    """

    place: Callable[[OrganModel, Request, Surface, np.random.Generator], Placement]
    volume_mm3: Callable[[Vector], float]
    reach: Callable[[TumorPlan], float]
    make: Callable[[TumorPlan, Geometry, Volume, bool], Body]
    box: Callable[[TumorPlan, Geometry], Box]
    outer_box: Callable[[TumorPlan, Geometry], Box]
    follows_organ: bool
    has_mass_effect: bool


def draw_surface(organ: OrganModel, diameter_mm: float, rng: np.random.Generator) -> Surface:
    """A surface as rough as real tumors of this organ and size are."""
    prior: ShapePrior = anatomy.SHAPES[organ.organ]
    amplitude = prior.roughness_20 * (diameter_mm / 20) ** prior.roughness_growth
    amplitude *= float(np.exp(prior.roughness_spread * rng.standard_normal()))
    spectrum = float(rng.normal(prior.spectrum, anatomy.SPECTRUM_SPREAD))
    skew = float(rng.normal(*anatomy.SKEW))
    form: Any = anatomy.SITES[organ.organ].form
    lumen: Any = "sharp" if form == "wall" else "soft"
    return Surface(form, min(amplitude, anatomy.ROUGHNESS_LIMIT), spectrum, skew, lumen)


def rounded_surface(surface: Surface) -> dict[str, Any]:
    """The surface as a plan's details, with the digits that matter."""
    digits = {"roughness": 4, "spectrum": 3, "skew": 3}
    plain = dict(vars(surface))
    if surface.form == "mass":
        del plain["lumen"], plain["outside"]
    return plain | {name: round(plain[name], count) for name, count in digits.items()}


def bounding_radius_mm(axes_mm: Vector, roughness: float) -> float:
    """Of a ball around the center that holds the body, lobules and all but the rarest bump included."""
    return max(axes_mm) * (1 + 1.5 * roughness)


def coverage(distance: Floats) -> Floats:
    """The share of a voxel inside, from its center's distance outside the surface in SDs of the blur.

    0.5 on the surface, exactly 1 and 0 from 2.5 SDs on.
    """
    per_step = np.float32(-COVERAGE_STEPS / 2.5)
    index = np.clip(distance * per_step + np.float32(COVERAGE_STEPS + 0.5), 0, 2 * COVERAGE_STEPS)
    return np.asarray(coverage_table()[index.astype(np.intp)])


@lru_cache(maxsize=1)
def coverage_table() -> Floats:
    """`coverage` from 2.5 SDs outside to 2.5 SDs inside, in steps of 2.5 / `COVERAGE_STEPS`."""
    at = np.linspace(-2.5, 2.5, 2 * COVERAGE_STEPS + 1)
    cumulative = np.array([0.5 * (1 + erf(x / np.sqrt(2))) for x in at])
    return np.asarray((cumulative - cumulative[0]) / (cumulative[-1] - cumulative[0]), np.float32)
