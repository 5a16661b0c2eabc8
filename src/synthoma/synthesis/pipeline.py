"""One case: plan, render, displacement, blend, judge, and again if the judge says no."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.errors import CaseError, RecipeError
from synthoma.synthesis import quality
from synthoma.synthesis.bodies import wall
from synthoma.synthesis.insertion import blending, mass_effect
from synthoma.synthesis.insertion.scene import Scene, scan_digest
from synthoma.synthesis.location import VESSELS, OrganModel
from synthoma.synthesis.plan import JudgeRecipe, SynthesisRecipe, bounding_radius_mm, draw_plan, draw_plans
from synthoma.synthesis.scan import PHASE_ORGANS, contrast_phase, scanner_blur_mm
from synthoma.synthesis.tumor import Generator, TumorPlan, Verdict
from synthoma.volume import Array, Box, Volume

GENERATORS = {"rules": "synthoma.synthesis.generators.rules.rules:Rules"}


@dataclass(frozen=True, eq=False)
class Attempt:
    """A plan and the verdict on it. index: of the tumor within case and organ; number: 0 for its first plan."""

    plan: TumorPlan
    verdict: Verdict
    index: int
    number: int


@dataclass(frozen=True, eq=False)
class Inserted(Attempt):
    """A tumor in the scan. changed: the box it or its push touched, with the voxels `before` and `after`.

    mask: bool on `box`.
    """

    box: Box
    mask: NDArray[np.bool_]
    changed: Box
    before: Array
    after: Array

    @cached_property
    def digest(self) -> str:
        """Of voxels and mask, to compare with a replay's."""
        return voxel_digest(self.after, self.mask)


@dataclass(frozen=True, eq=False)
class Synthesis:
    """A case with tumors put in.

    notes: what was asked for and left out, and why. boxes: of the healthy case's masks, where their voxels lie.
    """

    case: str
    scan_digest: str
    phase: str
    ct: Volume
    inserted: tuple[Inserted, ...]
    rejected: tuple[Attempt, ...] = ()
    notes: tuple[str, ...] = ()
    boxes: Mapping[str, Box] = field(default_factory=dict)

    def tumors(self, organ: str) -> Volume:
        """bool mask of the tumors put into one organ."""
        data = np.zeros(self.ct.data.shape, bool, order="F")
        for tumor in self.inserted:
            if tumor.plan.organ == organ:
                data[tumor.box.slices] |= tumor.mask
        return Volume(data, self.ct.geometry)

    def instances(self) -> Volume:
        """uint16 labels: 1, 2, ... for the tumors put in, in the order of `inserted`."""
        data = np.zeros(self.ct.data.shape, np.uint16, order="F")
        for number, tumor in enumerate(self.inserted, start=1):
            data[tumor.box.slices][tumor.mask] = number
        return Volume(data, self.ct.geometry)

    @cached_property
    def displacements(self) -> tuple[mass_effect.Displacement, ...]:
        """The displacements around the tumors that have one, in the order they happened."""
        found = (mass_effect.displacement(tumor.plan, self.ct.geometry) for tumor in self.inserted)
        return tuple(displacement for displacement in found if displacement is not None)

    def moved(self, mask: Volume) -> Volume:
        """A mask of the healthy scan as the tumors' pushes leave it; the same object if none reaches it."""
        data = mask.data
        for displacement in self.displacements:
            if data[displacement.box.slices].any():
                data = data.copy(order="K") if data is mask.data else data
                data[displacement.box.slices] = mass_effect.move_mask(data[displacement.box.slices], displacement)
        return mask if data is mask.data else Volume(data, mask.geometry)


def synthesize(case: Case, recipe: SynthesisRecipe, seed: int = 0) -> Synthesis:
    """The case with the tumors that recipe and seed lead to; the same bytes on every run.

    Organs that the case lacks, or that have no room, are notes as long as another organ of the recipe is there;
    if all fail, the first one's `CaseError` is raised.
    """
    scene = open_scene(case, recipe.organs)
    phase = phase_of(case, scene, recipe)
    blur = scanner_blur_mm(scene.ct)
    inserted: list[Inserted] = []
    rejected: list[Attempt] = []
    notes: list[str] = []
    refusals: list[CaseError] = []
    for organ in recipe.organs:
        try:
            organ_model = scene.measure_organ(organ, phase, blur, recipe.vessel_veto)
            plans = draw_plans(organ_model, recipe, seed)
        except CaseError as error:
            refusals.append(error)
            notes.append(error.what)
            continue
        if organ_model.touches_edge:
            notes.append(f"the {organ} is cut by the field of view")
        for attempt in _insert_all(scene, organ_model, plans, recipe, seed):
            if isinstance(attempt, Inserted):
                inserted.append(attempt)
            else:
                rejected.append(attempt)
    if len(refusals) == len(recipe.organs):
        raise refusals[0]
    return Synthesis(
        case=case.id,
        scan_digest=scan_digest(scene.original),
        phase=phase,
        ct=scene.ct,
        inserted=tuple(inserted),
        rejected=tuple(rejected),
        notes=tuple(notes),
        boxes=scene.boxes,
    )


def phase_of(case: Case, scene: Scene, recipe: SynthesisRecipe) -> str:
    """The recipe's, the case's attribute, or told from the HU; `CaseError` if it cannot be told."""
    said = str(case.attributes.get("phase") or "")
    return recipe.phase or anatomy.canonical_phase(said) or contrast_phase(scene.ct, scene.volumes(), case.id)


def replay(case: Case, plans: Sequence[TumorPlan]) -> Synthesis:
    """The case with exactly these tumors, in this order; nothing is drawn and nothing rejected."""
    scene = open_scene(case, tuple(dict.fromkeys(plan.organ for plan in plans)))
    done = [insert(scene, plan, JudgeRecipe(), index, 0, force=True) for index, plan in enumerate(plans)]
    inserted = tuple(tumor for tumor in done if isinstance(tumor, Inserted))
    return Synthesis(case.id, scan_digest(scene.original), "", scene.ct, inserted, boxes=scene.boxes)


def open_scene(case: Case, organs: Sequence[str]) -> Scene:
    """The case's scan and masks, ready for tumors in these organs; `CaseError` if the scan holds NaN or infinity."""
    ct = case.read_image()
    if ct.data.dtype != np.int16 and not np.isfinite(ct.data).all():
        raise CaseError("the scan holds NaN or infinite HU", case=case.id, fix="replace them by -1024")
    scene = Scene(case.id, ct)
    needed = {name for organ in organs for name in (*anatomy.organ(organ).structures, anatomy.organ(organ).lesion)}
    needed |= {*PHASE_ORGANS, *VESSELS}
    with case.named():
        for name, mask in case.each_mask():
            scene.add_mask(name, mask, keep=name in needed)
    return scene


def insert(
    scene: Scene,
    plan: TumorPlan,
    recipe: JudgeRecipe,
    index: int,
    number: int,
    force: bool = False,
    noise: blending.Noise | None = None,
) -> Attempt | Inserted:
    """One plan rendered, pushed, blended and judged; the scene changes only if it is accepted or `force`.

    noise: the healthy scan's at the plan's reference site, where the scene is only a part of the scan.
    """
    displacement = mass_effect.displacement(plan, scene.geometry)
    if displacement is not None and scene.holds_tumor(displacement.box):
        plan, displacement = dataclasses.replace(plan, displacement_mm=0.0), None
    organ = scene.organ(plan.organ, plan.center_mm, reach_mm(plan))
    tumor = generator(plan.generator).render(scene.ct, organ, plan)
    tumor = blending.confine(tumor, ~scene.occupied(tumor.box, plan.organ))
    changed = tumor.box if displacement is None else tumor.box.hull(displacement.box)
    before = scene.hu[changed.slices].copy(order="K")
    if displacement is not None:
        scene.hu[displacement.box.slices] = mass_effect.move_image(scene.hu[displacement.box.slices], displacement)
    blended = blending.blend(scene.ct, tumor, noise or scene.noise(plan.noise_from_mm))
    verdict = quality.judge(blended, tumor, scene.geometry, organ, recipe)
    if not (verdict.accepted or force):
        scene.hu[changed.slices] = before
        return Attempt(plan, verdict, index, number)
    scene.settle(tumor.box, blended, tumor.mask, plan.organ, displacement)
    after = scene.hu[changed.slices].copy(order="K")
    return Inserted(plan, verdict, index, number, tumor.box, tumor.mask, changed, before, after)


def voxel_digest(after: Array, mask: NDArray[np.bool_]) -> str:
    """16 hexadecimal digits of a tumor's changed voxels and its mask, both in Fortran order."""
    digest = hashlib.blake2b(after.tobytes(order="F"), digest_size=8)
    digest.update(np.packbits(mask.ravel(order="F")).tobytes())
    return digest.hexdigest()


def generator(name: str) -> Generator:
    """The generator of this name, or of `module:Class`; `RecipeError` listing the known ones."""
    target = GENERATORS.get(name, name)
    module, separator, kind = target.partition(":")
    if not separator:
        raise RecipeError(f"no generator {name!r}", expected=f"one of {', '.join(GENERATORS)}, or module:Class")
    try:
        found: Generator = getattr(importlib.import_module(module), kind)()
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"the generator {name} cannot be loaded", found=str(error)) from error
    return found


def _insert_all(
    scene: Scene, organ_model: OrganModel, plans: Sequence[TumorPlan], recipe: SynthesisRecipe, seed: int
) -> Iterator[Attempt | Inserted]:
    """Every plan, and its redraws until one is accepted or the retries are spent."""
    settled: list[TumorPlan] = []
    for index, first in enumerate(plans):
        plan, others = first, [*settled, *plans[index + 1 :]]
        for number in range(recipe.retries + 1):
            if number:
                try:
                    plan = draw_plan(organ_model, recipe, seed, index, number, first.equivalent_diameter_mm, others)
                except CaseError:
                    break
            attempt = insert(scene, plan, recipe.judge, index, number)
            yield attempt
            if isinstance(attempt, Inserted):
                settled.append(plan)
                break


def reach_mm(plan: TumorPlan) -> float:
    """How far from its center a plan needs to know the organ."""
    return wall.reach_mm(plan) if plan.form == "wall" else 1.2 * bounding_radius_mm(plan) + 5.0
