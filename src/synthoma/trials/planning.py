"""One host of a trial: a place for the largest lesion, then every cell of the design at that place, one scan a cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy, disk
from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.names import file_name
from synthoma.synthesis.bodies.body import Surface, bounding_radius_mm
from synthoma.synthesis.bodies.forms import FORMS
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.insertion.insertion import Attempt, Inserted, insert
from synthoma.synthesis.insertion.scene import Scene, scan_digest
from synthoma.synthesis.location import OrganModel
from synthoma.synthesis.pipeline import Synthesis, as_stored, open_scene, phase_of
from synthoma.synthesis.plan import draw_plan
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.scan import scanner_blur_mm
from synthoma.synthesis.store.columns import Row
from synthoma.synthesis.store.manifest import rows_of
from synthoma.synthesis.store.overlay import OVERLAY, write_overlay
from synthoma.synthesis.tumor import TumorPlan, Verdict
from synthoma.trials.recipe import Cell, TrialRecipe

Labels = NDArray[np.uint8]  # the structure that each voxel of the scan belongs to

# A lesion of a trial has no rim, no core and no specks unless the recipe says so; then these are their measures.
_RIM_MM, _CORE_SHARE = 2.0, 0.5


@dataclass(frozen=True)
class Site:
    """A place in a host. plan: of the largest lesion that fits there."""

    number: int
    plan: TumorPlan


def plan_host(case: Case, recipe: TrialRecipe, seed: int, out: Path | str, write: str) -> dict[str, Any]:
    """Every scan of one host: HOST without a lesion, then HOST_trial001, ... one for each cell; as JSON data.

    write: `overlay` writes the changed voxels of each scan under `out`; `plans` nothing, since the rows are enough.
    rows: of the manifest. lesions: one a lesion, with the attributes it has. left_out: one a lesion that has no room or
    was rejected, with the reason. Raises `CaseError` if the case lacks the organ, or has no room even for the smallest.
    """
    scene = open_scene(case, (recipe.organ,))
    rules = synthesis_recipe(recipe)
    phase = phase_of(case, scene, rules)
    organ = scene.measure_organ(recipe.organ, phase, scanner_blur_mm(scene.ct), recipe.vessel_veto)
    empty = partial(_as_synthesis, scene, scan_digest(scene.original), phase)
    cells = recipe.cells()
    assert scene.map is not None  # the organ is in it
    labels = scene.map.copy(order="K")
    sites, lacking = find_sites(scene, organ, recipe, seed, labels)
    made: dict[str, list[Any]] = {"rows": [], "lesions": [], "left_out": []}

    def keep(synthesis: Synthesis) -> None:
        rows = rows_of(synthesis, (recipe.organ,), case.id)
        made["rows"] += rows
        if write == "overlay":
            with disk.atomic_folder(Path(out) / file_name(synthesis.case)) as folder:
                write_overlay(synthesis, rows, folder / OVERLAY)

    keep(empty(case.id, ()))
    for number in range(len(cells)):
        # each place holds another cell, so a scan has small and large, faint and plain lesions
        wanted = [(site, cells[(number + site.number * len(cells) // recipe.sites) % len(cells)]) for site in sites]
        identity = trial_id(case.id, number + 1)
        attempts = insert_all(scene, wanted, rules, recipe.inside, labels)
        inserted = [(site, cell, each) for site, cell, each in attempts if isinstance(each, Inserted)]
        for site, cell, each in attempts:
            if isinstance(each, Inserted):
                made["lesions"].append(_lesion(case, identity, site, cell, each))
            else:
                made["left_out"].append(_left_out(case, site.number, cell, each.verdict.reason))
        if inserted:
            keep(empty(identity, tuple(each for _, _, each in inserted)))
    made["left_out"] += [_left_out(case, number, cell, reason) for number, reason in lacking for cell in cells]
    return {"host": case.id, "patient": case.patient, "phase": phase, **made}


def synthesis_recipe(recipe: TrialRecipe) -> SynthesisRecipe:
    """How the places of a trial are drawn: masses by rules, without mass effect, however faint."""
    return SynthesisRecipe(
        organs=(recipe.organ,), lesions=(1, 1), phase=recipe.phase, vessel_veto=recipe.vessel_veto,
        mass_effect_share=0.0, gap_mm=recipe.gap_mm, retries=recipe.retries,
    )  # fmt: skip


def find_sites(
    scene: Scene, organ: OrganModel, recipe: TrialRecipe, seed: int, labels: Labels
) -> tuple[list[Site], list[tuple[int, str]]]:
    """The places in a host, each for the largest lesion that fits; and the places that could not be had, with why.

    Raises the first place's `CaseError` if there is none at all. The scene stays as it is.
    """
    sites: list[Site] = []
    lacking: list[tuple[int, str]] = []
    diameters = sorted({cell["diameter_mm"] for cell in recipe.cells()}, reverse=True)
    for number in range(recipe.sites):
        reason = ""
        for diameter_mm in diameters:
            cell = {**recipe.base_cell, "diameter_mm": diameter_mm}
            found, why = _find_site(scene, organ, cell, recipe, seed, number, sites, labels)
            reason = reason or why
            if found is not None:
                sites.append(found)
                break
        else:
            lacking.append((number, reason))
    if not sites:
        raise CaseError(f"no room for a lesion in the {recipe.organ}: {lacking[0][1]}", case=scene.case)
    return sites, lacking


def _find_site(
    scene: Scene, organ: OrganModel, cell: Cell, recipe: TrialRecipe, seed: int, number: int,
    sites: Sequence[Site], labels: Labels,
) -> tuple[Site | None, str]:  # fmt: skip
    """A place for a lesion of this cell, or why there is none."""
    rules, why = synthesis_recipe(recipe), ""
    for attempt in range(rules.retries + 1):
        try:
            plan = draw_plan(organ, rules, seed, number, attempt, cell["diameter_mm"], [site.plan for site in sites])
        except CaseError as error:
            return None, why or error.what
        site = Site(number, plan)
        [(_, _, done)] = insert_all(scene, [(site, cell)], rules, recipe.inside, labels)
        if isinstance(done, Inserted):
            return site, ""
        why = why or done.verdict.reason
    return None, why


def insert_all(
    scene: Scene, wanted: Sequence[tuple[Site, Cell]], rules: SynthesisRecipe, inside: float, labels: Labels
) -> list[tuple[Site, Cell, Attempt]]:
    """The lesions of one scan, inserted and judged one after the other; then the scene is as it was before.

    inside: the least share of a lesion that lies in the organ. labels: the scene's map before any lesion.
    """
    generator = open_generator("rules")
    done: list[tuple[Site, Cell, Attempt]] = []
    for site, cell in wanted:
        attempt = insert(scene, cell_plan(site.plan, cell), generator, site.number, 0, rules.judge)
        if isinstance(attempt, Inserted) and (share := _share_inside(scene, attempt)) < inside:
            _take_out(scene, attempt, labels)
            verdict = Verdict(False, f"only {100 * share:.0f} % of it lies in the {attempt.plan.organ}")
            attempt = Attempt(attempt.plan, verdict, attempt.index, attempt.number)
        done.append((site, cell, attempt))
    for _, _, attempt in reversed(done):
        if isinstance(attempt, Inserted):
            _take_out(scene, attempt, labels)
    return done


def _share_inside(scene: Scene, tumor: Inserted) -> float:
    """The share of a tumor's voxels that lie in its organ."""
    names = anatomy.organ(tumor.plan.organ).structures
    parts = [scene.masks[name][tumor.box.slices] for name in names if name in scene.masks]
    return float(np.logical_or.reduce(parts)[tumor.mask].mean())


def _take_out(scene: Scene, tumor: Inserted, labels: Labels) -> None:
    """The scene as it was before the last tumor. labels: its map before any."""
    assert scene.map is not None  # the organ is in it
    scene.hu[tumor.changed.slices] = tumor.before
    scene.map[tumor.box.slices] = labels[tumor.box.slices]


def cell_plan(plan: TumorPlan, cell: Cell) -> TumorPlan:
    """The plan with the attributes of a cell; place, orientation, proportions and seed stay.

    What the cell does not tell stays as well, save rim, core and calcifications, which the lesions of a trial do not
    have unless they are told.
    """
    scale = cell["diameter_mm"] / plan.equivalent_diameter_mm
    x, y, z = (round(float(axis) * scale, 3) for axis in plan.axes_mm)
    details = {name: value for name, value in plan.details.items() if name not in _LEFT_AWAY}
    details |= {name: cell[name] for name in ("roughness", "texture_hu") if name in cell}
    if cell.get("rim_hu"):
        details |= {"rim_hu": cell["rim_hu"], "rim_mm": _RIM_MM}
    if cell.get("core_hu"):
        details |= {"core_hu": cell["core_hu"], "core_share": _CORE_SHARE}
    changed = dataclasses.replace(plan, details=details)
    surface = Surface.of(changed)
    return dataclasses.replace(
        changed,
        axes_mm=(x, y, z),
        volume_mm3=FORMS[surface.form].volume_mm3((x, y, z)),
        radius_mm=bounding_radius_mm((x, y, z), surface.roughness),
        contrast_hu=cell["contrast_hu"],
        edge_mm=cell.get("edge_mm", plan.edge_mm),
        displacement_mm=0.0,
    )


_LEFT_AWAY = ("rim_hu", "rim_mm", "core_hu", "core_share", "calcifications")


def trial_id(host: str, number: int) -> str:
    """The id of scan 1, 2, ... of a host."""
    return f"{host}_trial{number:03d}"


def _as_synthesis(scene: Scene, digest: str, phase: str, identity: str, inserted: tuple[Inserted, ...]) -> Synthesis:
    """A scan of the trial; its voxels are the host's, since rows and overlay need only what the lesions changed."""
    return Synthesis(
        identity, digest, phase, as_stored(scene.original, scene.stored), inserted, boxes=scene.boxes,
        notes=("the host without a lesion",) * (not inserted),
    )  # fmt: skip


def _lesion(case: Case, identity: str, site: Site, cell: Cell, done: Inserted) -> Row:
    return {
        "case": identity, "host": case.id, "patient": case.patient, "site": site.number, **cell,
        "center_mm": list(done.plan.center_mm), "radius_mm": done.plan.radius_mm,
        "measured_diameter_mm": done.verdict.scores["equivalent_diameter_mm"],
        "measured_contrast_hu": done.verdict.scores["contrast_hu"],
    }  # fmt: skip


def _left_out(case: Case, site: int, cell: Cell, reason: str) -> Row:
    return {"host": case.id, "patient": case.patient, "site": site, **cell, "reason": reason}
