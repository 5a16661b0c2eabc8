"""Tumors by hand-made rules: a body with the statistics of real lesions, and tissue in HU."""

from __future__ import annotations

from typing import Any

import numpy as np

from synthoma import anatomy
from synthoma.synthesis import drawing
from synthoma.synthesis.bodies.body import bounding_radius_mm, draw_surface, rounded_surface
from synthoma.synthesis.bodies.forms import FORMS, BodyGenerator, form_of
from synthoma.synthesis.drawing import rounded, uniform
from synthoma.synthesis.generators.details import Calcification, Tissue
from synthoma.synthesis.generators.texture import tissue
from synthoma.synthesis.location import OrganModel
from synthoma.synthesis.tumor import Request, Tumor, TumorPlan
from synthoma.volume import Volume


class Rules(BodyGenerator):
    """The `rules` generator."""

    def draw(self, organ: OrganModel, request: Request, rng: np.random.Generator) -> TumorPlan:
        """A plan with surface, place and tissue as real tumors of this organ and size have them."""
        prior, diameter_mm = anatomy.TISSUES[organ.organ], request.diameter_mm
        surface = draw_surface(organ, diameter_mm, rng)
        form = FORMS[surface.form]
        placed = form.place(organ, request, surface, rng)
        contrast = drawing.contrast_hu(organ, request.recipe, rng)
        has_core = diameter_mm >= prior.core_from_mm and rng.random() < prior.core_share
        has_rim = rng.random() < prior.rim_share
        displaces = form.has_mass_effect and drawing.has_mass_effect(
            organ, request, placed.center_mm, placed.axes_mm, rng
        )
        details: dict[str, Any] = rounded_surface(placed.surface)
        details["texture_hu"] = round(uniform(prior.texture_hu, rng), 1)
        details["texture_mm"] = round(uniform(prior.texture_mm, rng), 1)
        edge = drawing.edge_mm(organ, rng)
        if has_rim:
            details["rim_hu"] = round(uniform(prior.rim_hu, rng), 1)
            details["rim_mm"] = round(rng.uniform(0.08, 0.2) * diameter_mm, 1)
        if has_core:
            details["core_hu"] = round(uniform(prior.core_hu, rng), 1)
            details["core_share"] = round(rng.uniform(0.4, 0.75), 2)
        displacement = drawing.displacement_mm(request.recipe, placed.axes_mm, rng) if displaces else 0.0
        if specks := _draw_specks(diameter_mm, prior.speck_share, rng):
            details["calcifications"] = [[list(speck.position), speck.radius_mm, speck.hu] for speck in specks]
        details |= _draw_drift(organ, request, rng)
        axes = rounded(placed.axes_mm, 3)
        w, *xyz = placed.orientation
        return drawing.common_plan(
            organ,
            request,
            placed.center_mm,
            placed.axes_mm,
            # a norm's last bit differs between machines, and a plan may not
            orientation=(round(w, 6), *rounded(xyz, 6)),
            volume_mm3=form.volume_mm3(axes),
            radius_mm=bounding_radius_mm(axes, details["roughness"]),
            contrast_hu=contrast,
            edge_mm=edge,
            displacement_mm=displacement,
            relaxed=placed.relaxed,
            details=details,
        )

    def render(self, ct: Volume, organ: Volume, plan: TumorPlan) -> Tumor:
        """The tumor of `plan` on the grid of `ct`. Raises `CaseError` if nothing of it lies in the scan."""
        form = form_of(plan)
        body = form.make(plan, ct.geometry, organ, Tissue.of(plan).needs_inside)
        hu = tissue(plan, ct.geometry, body)
        tumor = Tumor(plan, body.box, body.alpha, hu, form.follows_organ, body.measure)
        return tumor.within(ct.data.shape)


def _draw_drift(organ: OrganModel, request: Request, rng: np.random.Generator) -> dict[str, float]:
    """Details of the drift of HU from border to middle, the recipe's, else the prior's (0 if unenhanced)."""
    prior = anatomy.TISSUES[organ.organ]
    limits = request.recipe.drift_hu or (prior.drift_hu if organ.phase != "unenhanced" else (0.0, 0.0))
    drift_hu, share = round(uniform(limits, rng), 1), uniform(prior.drift_share, rng)
    if not drift_hu or anatomy.SITES[organ.organ].form == "wall":
        return {}
    return {"drift_hu": drift_hu, "drift_mm": round(share * request.diameter_mm / 2, 1)}


def _draw_specks(diameter_mm: float, share: float, rng: np.random.Generator) -> list[Calcification]:
    if diameter_mm < 10 or rng.random() >= share:
        return []
    specks = []
    for _ in range(int(rng.integers(1, 5))):
        direction = rng.standard_normal(3)
        place = direction / np.linalg.norm(direction) * 0.75 * rng.random() ** (1 / 3)
        radius_mm = round(min(rng.uniform(0.6, 2.0), 0.08 * diameter_mm), 2)
        specks.append(Calcification(rounded(place, 3), radius_mm, round(rng.uniform(180, 600), 0)))
    return specks
