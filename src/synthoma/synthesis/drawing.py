"""What all plans have in common, drawn once for all generators: contrast, border, noise and mass effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthoma import anatomy
from synthoma.synthesis.location import OrganModel, apart
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.tumor import DISPLACEMENT_REACH, Quaternion, Request, TumorPlan, Vector

UPRIGHT = (1.0, 0.0, 0.0, 0.0)


def complete_plan(
    organ: OrganModel,
    request: Request,
    center_mm: Sequence[float],
    axes_mm: Sequence[float],
    rng: np.random.Generator,
    *,
    orientation: Quaternion = UPRIGHT,
    volume_mm3: float | None = None,
    radius_mm: float | None = None,
    relaxed: int = 0,
    details: Mapping[str, Any] | None = None,
) -> TumorPlan:
    """The plan of an ellipsoid, or of what it is told to be, with contrast, border and mass effect drawn for it.

    volume_mm3, radius_mm: of the ellipsoid unless told.
    """
    axes = rounded(axes_mm, 3)
    contrast = contrast_hu(organ, request.recipe, rng)
    edge = edge_mm(organ, rng)
    displaces = has_mass_effect(organ, request, center_mm, axes_mm, rng)
    return common_plan(
        organ,
        request,
        center_mm,
        axes,
        orientation=orientation,
        volume_mm3=4 / 3 * np.pi * float(np.prod(axes)) if volume_mm3 is None else volume_mm3,
        radius_mm=max(axes) if radius_mm is None else radius_mm,
        contrast_hu=contrast,
        edge_mm=edge,
        displacement_mm=displacement_mm(request.recipe, axes_mm, rng) if displaces else 0.0,
        relaxed=relaxed,
        details=details or {},
    )


def common_plan(
    organ: OrganModel, request: Request, center_mm: Sequence[float], axes_mm: Sequence[float], **fields: Any
) -> TumorPlan:
    """The plan with what follows from the organ, the scan and the request; nothing is drawn.

    Numbers are rounded to what matters, so a plan reads well and survives any file format unchanged.
    """
    return TumorPlan(
        organ=organ.organ,
        center_mm=rounded(center_mm, 3),
        axes_mm=rounded(axes_mm, 3),
        base_hu=organ.base_hu,
        blur_mm=round(organ.blur_mm, 2),
        noise_hu=round(organ.noise_hu, 1),
        noise_from_mm=rounded(organ.noise_from_mm, 1),
        noise_by="neighbors",
        seed=request.seed,
        **fields,
    )


def contrast_hu(organ: OrganModel, recipe: SynthesisRecipe, rng: np.random.Generator) -> float:
    """Mean inside minus the organ's mean: from the recipe's range, else from the organ's prior in this phase."""
    if recipe.contrast_hu:
        return round(uniform(recipe.contrast_hu, rng), 1)
    mean, deviation, low, high = anatomy.CONTRASTS[organ.organ, organ.phase]
    drawn = rng.normal(mean, deviation)
    while not low <= drawn <= high:
        drawn = rng.normal(mean, deviation)
    return round(float(drawn), 1)


def edge_mm(organ: OrganModel, rng: np.random.Generator) -> float:
    """SD of the tumor's own border."""
    return round(uniform(anatomy.TISSUES[organ.organ].edge_mm, rng), 2)


def has_mass_effect(
    organ: OrganModel,
    request: Request,
    center_mm: Sequence[float],
    axes_mm: Sequence[float],
    rng: np.random.Generator,
) -> bool:
    """Whether the tumor displaces its neighbors.

    Never where other tumors or real lesions lie within the displacement's reach: they stay as they are.
    """
    reach_mm = DISPLACEMENT_REACH * max(axes_mm)
    alone = apart(np.array([center_mm]), [*request.taken, *organ.lesions], reach_mm).all()
    return bool(rng.random() < request.recipe.mass_effect_share and alone)


def displacement_mm(recipe: SynthesisRecipe, axes_mm: Sequence[float], rng: np.random.Generator) -> float:
    """How far the border displaces its neighbors; at most 0.4 of the shortest half-axis, so that nothing folds."""
    return round(min(uniform(recipe.displacement_mm, rng), 0.4 * min(axes_mm)), 2)


def uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    """A number between two limits, given in either order."""
    return float(rng.uniform(min(limits), max(limits)))


def rounded(values: Sequence[float], digits: int) -> Vector:
    """Three numbers, rounded."""
    x, y, z = (round(float(value), digits) for value in values)
    return x, y, z
