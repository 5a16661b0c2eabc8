"""One tumor into a scan: rendered, confined, blended and judged; and redrawn until one is accepted."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from synthoma.errors import CaseError
from synthoma.synthesis import quality
from synthoma.synthesis.insertion import blending, mass_effect, room
from synthoma.synthesis.insertion.scene import Scene
from synthoma.synthesis.location import OrganModel
from synthoma.synthesis.plan import draw_plan
from synthoma.synthesis.recipe import JudgeRecipe, SynthesisRecipe
from synthoma.synthesis.scan import Noise
from synthoma.synthesis.tumor import Critic, Generator, TumorPlan, Verdict
from synthoma.volume import Array, Box, Geometry

_MOST_VOXELS = 200_000_000


@dataclass(frozen=True, eq=False)
class Attempt:
    """A plan and the verdict on it. index: of the tumor within case and organ; number: 0 for its first plan."""

    plan: TumorPlan
    verdict: Verdict
    index: int
    number: int


@dataclass(frozen=True, eq=False)
class Inserted(Attempt):
    """A tumor in the scan.

    box, mask: its label (bool, box). changed: the box that it or its mass effect changed, with the voxels `before` and
    `after`.
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


# plan, index of the tumor, number of the attempt -> what became of it
Insert = Callable[[TumorPlan, int, int], Attempt]


def insert(
    scene: Scene,
    plan: TumorPlan,
    generator: Generator,
    index: int,
    number: int,
    judge: JudgeRecipe | None = None,
    critic: Critic | None = None,
    noise: Noise | None = None,
) -> Attempt:
    """One plan rendered, blended and judged; the scene changes only if it is accepted, which gives an `Inserted`.

    judge: None accepts every tumor, as a replay does. critic: a further judge, see `quality.judge`. noise: the healthy
    scan's at the plan's reference site, where the scene is only a part of the scan.
    """
    require_size(plan, scene.geometry)
    displacement = mass_effect.displacement(plan, scene.geometry)
    if displacement is not None and scene.holds_tumor(displacement.box):
        plan, displacement = dataclasses.replace(plan, displacement_mm=0.0), None
    organ = scene.organ(plan.organ, plan.center_mm, generator.reach(plan))
    try:
        tumor = generator.render(scene.ct, organ, plan).within(scene.hu.shape)
    except CaseError as error:  # no wall there, or outside the scan
        if judge is None:
            raise
        return Attempt(plan, Verdict(False, error.what), index, number)
    planned, spacing_mm = tumor.mask, scene.geometry.spacing_mm
    changed = tumor.box if displacement is None else tumor.box.hull(displacement.box)
    before = scene.hu[changed.slices].copy(order="K")
    own = before if displacement is None else None
    tumor = room.place(tumor, scene.ct, organ, scene.occupied(tumor.box, plan.organ), own)
    if displacement is not None:
        moved = mass_effect.move_image(scene.hu[displacement.box.slices], displacement)
        scene.hu[displacement.box.slices] = moved
    if judge is not None and not tumor.mask.any():
        blended = scene.hu[tumor.box.slices]  # sure to be rejected, so its tissue need not be made
    else:
        blended = blending.blend(scene.ct, tumor, noise or scene.noise(plan.noise_from_mm), own)
    slits = room.slit_share(planned, tumor.mask, spacing_mm)
    verdict = quality.judge(blended, tumor, scene.ct, judge or JudgeRecipe(), critic, slits)
    if judge is not None and not verdict.accepted:
        scene.hu[changed.slices] = before
        return Attempt(plan, verdict, index, number)
    scene.settle(tumor.box, blended, tumor.mask, plan.organ, displacement)
    after = scene.hu[changed.slices].copy(order="K") if own is None else blended
    return Inserted(plan, verdict, index, number, tumor.box, tumor.mask, changed, before, after)


def require_size(plan: TumorPlan, scan: Geometry) -> None:
    """`CaseError` for a tumor that would not fit into memory: a plan from a file may say anything."""
    radius_mm = max(plan.radius_mm, *plan.axes_mm)
    if (2 * radius_mm) ** 3 / scan.voxel_mm3 > _MOST_VOXELS:
        raise CaseError(
            f"a tumor of {plan.equivalent_diameter_mm:.0f} mm is too large for voxels of {scan.voxel_mm3:.2g} mm3",
            expected=f"at most {_MOST_VOXELS / 1e6:.0f} million voxels in the box around it",
            fix="look at where the plan is from",
        )


def insert_plans(
    insert_one: Insert, organ: OrganModel, plans: Sequence[TumorPlan], recipe: SynthesisRecipe, seed: int
) -> Iterator[Attempt]:
    """Every plan of an organ, and its redraws until one is accepted or the retries are spent."""
    settled: list[TumorPlan] = []
    for index, first in enumerate(plans):
        plan, others = first, [*settled, *plans[index + 1 :]]
        for number in range(recipe.retries + 1):
            if number:
                try:
                    plan = draw_plan(organ, recipe, seed, index, number, first.equivalent_diameter_mm, others)
                except CaseError:
                    break
            attempt = insert_one(plan, index, number)
            yield attempt
            if isinstance(attempt, Inserted):
                settled.append(plan)
                break


def voxel_digest(after: Array, mask: NDArray[np.bool_]) -> str:
    """16 hexadecimal digits of a tumor's changed voxels and its mask, both in Fortran order."""
    digest = hashlib.blake2b(after.tobytes(order="F"), digest_size=8)
    digest.update(np.packbits(mask.ravel(order="F")).tobytes())
    return digest.hexdigest()
