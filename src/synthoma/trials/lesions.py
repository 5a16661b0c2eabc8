"""The lesions of one scan of a trial: a place's plan with the attributes of a cell, inserted, judged and taken out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy
from synthoma.synthesis.bodies.body import Surface, bounding_radius_mm
from synthoma.synthesis.bodies.forms import FORMS
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.insertion.insertion import Attempt, Inserted, insert
from synthoma.synthesis.insertion.scene import Scene
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.tumor import TumorPlan, Vector, Verdict
from synthoma.trials.recipe import Cell, Place, TrialRecipe, part_of

Labels = NDArray[np.uint8]  # the structure that each voxel of the scan belongs to

# A lesion of a trial has no rim, no core and no specks unless the recipe says so; then these are their measures.
_RIM_MM, _CORE_SHARE = 2.0, 0.5
_LEFT_AWAY = ("rim_hu", "rim_mm", "core_hu", "core_share", "calcifications")
_TOLD = ("roughness", "texture_hu", "drift_hu")  # details of a plan that a cell may tell


@dataclass(frozen=True)
class Site:
    """A lesion's places in a host. plan: the lesion there. centers_mm: its center by depth and distance to vessels."""

    number: int
    plan: TumorPlan
    centers_mm: Mapping[Place, Vector]


def synthesis_recipe(recipe: TrialRecipe) -> SynthesisRecipe:
    """How the places of a trial are drawn: without mass effect, however faint."""
    return SynthesisRecipe(
        organs=(recipe.organ,), lesions=(1, 1), phase=recipe.phase, vessel_veto=recipe.vessel_veto,
        mass_effect_share=0.0, gap_mm=recipe.gap_mm, retries=recipe.retries, generator=recipe.generator,
    )  # fmt: skip


def insert_all(
    scene: Scene,
    wanted: Sequence[tuple[Site, Cell]],
    rules: SynthesisRecipe,
    inside: float,
    labels: Labels,
    in_view: NDArray[np.bool_] | None = None,
) -> list[tuple[Site, Cell, Attempt]]:
    """The lesions of one scan, inserted and judged one after the other; then the scene is as it was before.

    inside: the least share of a lesion that lies in the organ, and in the field of view. labels: the scene's map before
    any lesion. in_view: columns (I, J) that are not cut off; all unless told.
    """
    generator = open_generator(rules.generator, allowed=(rules.generator,))
    done: list[tuple[Site, Cell, Attempt]] = []
    for site, cell in wanted:
        attempt = insert(scene, cell_plan(site, cell), generator, site.number, 0, rules.judge)
        if isinstance(attempt, Inserted) and (reason := _outside(scene, attempt, inside, in_view)):
            _take_out(scene, attempt, labels)
            attempt = Attempt(attempt.plan, Verdict(False, reason), attempt.index, attempt.number)
        done.append((site, cell, attempt))
    for _, _, attempt in reversed(done):
        if isinstance(attempt, Inserted):
            _take_out(scene, attempt, labels)
    return done


def _outside(scene: Scene, tumor: Inserted, inside: float, in_view: NDArray[np.bool_] | None) -> str:
    """Why a tumor lies too far outside of organ or view; empty if it does not."""
    names = anatomy.organ(tumor.plan.organ).structures
    parts = [scene.masks[name].on(tumor.box) for name in names if name in scene.masks]
    share = float(np.logical_or.reduce(parts)[tumor.mask].mean())
    if share < inside:
        return f"only {100 * share:.0f} % of it lies in the {tumor.plan.organ}"
    if in_view is not None:
        seen = np.broadcast_to(in_view[tumor.box.slices[:2]][:, :, None], tumor.mask.shape)[tumor.mask].mean()
        if seen < inside:
            return f"only {100 * seen:.0f} % of it lies in the field of view"
    return ""


def _take_out(scene: Scene, tumor: Inserted, labels: Labels) -> None:
    """The scene as it was before the last tumor. labels: its map before any."""
    assert scene.map is not None  # the organ is in it
    scene.hu[tumor.changed.slices] = tumor.before
    scene.map[tumor.box.slices] = labels[tumor.box.slices]


def cell_plan(site: Site, cell: Cell) -> TumorPlan:
    """The plan of a place with the attributes of a cell; orientation, proportions and seed stay.

    So does the center, save where depth and distance to vessels are told. What the cell does not tell stays as well,
    save rim, core and calcifications, which the lesions of a trial do not have unless they are told.
    """
    plan = site.plan
    scale = cell["diameter_mm"] / plan.equivalent_diameter_mm
    x, y, z = (round(float(axis) * scale, 3) for axis in plan.axes_mm)
    same = dataclasses.replace(
        plan,
        center_mm=site.centers_mm[part_of(cell, "place")],
        axes_mm=(x, y, z),
        contrast_hu=cell["contrast_hu"],
        edge_mm=cell.get("edge_mm", plan.edge_mm),
        displacement_mm=0.0,
    )
    if plan.generator != "rules":
        return dataclasses.replace(
            same, volume_mm3=plan.volume_mm3 * scale**3, radius_mm=round(plan.radius_mm * scale, 3)
        )
    details = {name: value for name, value in plan.details.items() if name not in _LEFT_AWAY}
    details |= {name: cell[name] for name in _TOLD if name in cell}
    if "drift_mm" in details or "drift_hu" in cell:
        before = float(plan.details.get("drift_mm", plan.equivalent_diameter_mm / 2))
        details["drift_mm"] = round(before * scale, 3)
    if cell.get("rim_hu"):
        details |= {"rim_hu": cell["rim_hu"], "rim_mm": _RIM_MM}
    if cell.get("core_hu"):
        details |= {"core_hu": cell["core_hu"], "core_share": _CORE_SHARE}
    surface = Surface.of(dataclasses.replace(same, details=details))
    return dataclasses.replace(
        same,
        details=details,
        volume_mm3=FORMS[surface.form].volume_mm3((x, y, z)),
        radius_mm=bounding_radius_mm((x, y, z), surface.roughness),
    )
