"""One case: measure its organs, draw plans, put the tumors in; or put in the tumors of given plans."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce

import numpy as np

from synthoma import anatomy, hounsfield
from synthoma.bounded import EMPTY, Bounded
from synthoma.cases import Case
from synthoma.errors import CaseError, RecipeError
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.insertion import mass_effect
from synthoma.synthesis.insertion.insertion import Attempt, Inserted, insert, insert_plans
from synthoma.synthesis.insertion.scene import FRAME, Scene, scan_digest
from synthoma.synthesis.location import VESSELS
from synthoma.synthesis.plan import draw_plans
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.scan import PHASE_ORGANS, contrast_phase, scanner_blur_mm
from synthoma.synthesis.tumor import Critic, TumorPlan
from synthoma.synthesis.view import TumorView, view_tumor
from synthoma.volume import Box, Geometry, Volume

_SCAN_MM = 150.0  # of a slice's sides: less is a crop


@dataclass(frozen=True, eq=False)
class Synthesis:
    """A case with tumors put in.

    ct: on the scan's own grid. inserted: their boxes, and `boxes`, count voxels of `geometry`, the same grid with its
    axes turned to `frame`. notes: what was asked for and left out, and why. boxes: of the healthy case's masks.
    displaced: structures that are known to have been moved by a mass effect; of others it has to be looked up. masks:
    those that are known as they are with the tumors' mass effect, on `geometry`.
    """

    case: str
    scan_digest: str
    phase: str
    ct: Volume
    inserted: tuple[Inserted, ...]
    rejected: tuple[Attempt, ...] = ()
    notes: tuple[str, ...] = ()
    boxes: Mapping[str, Box] = field(default_factory=dict)
    displaced: frozenset[str] = frozenset()
    masks: Mapping[str, Bounded] = field(default_factory=dict)
    frame: str = FRAME

    @cached_property
    def geometry(self) -> Geometry:
        """The grid that the boxes of tumors belong to."""
        return self.ct.geometry.reoriented(self.frame)

    def stored_box(self, box: Box) -> Box:
        """A box of `geometry` as a box of `ct`."""
        return self.geometry.turned_box(box, self.ct.geometry.axes)

    def tumors(self, organ: str) -> Volume:
        """bool mask of the tumors put into one organ, on the grid of `ct`."""
        mask = self.tumor_mask(organ).onto(self.ct.geometry)
        data = np.zeros(self.ct.data.shape, bool, order="F")
        data[mask.box.slices] = mask.data
        return Volume(data, self.ct.geometry)

    def tumor_mask(self, organ: str, real: Bounded | None = None) -> Bounded:
        """The same on `geometry`; real: tumors that were there before and are in it as well."""
        own = [tumor for tumor in self.inserted if tumor.plan.organ == organ]
        boxes = [tumor.box for tumor in own] + ([real.box] if real is not None and real.box != EMPTY else [])
        hull = reduce(Box.hull, boxes) if boxes else EMPTY
        data = np.zeros(hull.shape, bool, order="F")
        if real is not None:
            data[real.box.seen_from(hull).slices] = real.data
        for tumor in own:
            data[tumor.box.seen_from(hull).slices] |= tumor.mask
        return Bounded(self.geometry, hull, data)

    def instances(self) -> Volume:
        """uint16 labels: 1, 2, ... for the tumors put in, in the order of `inserted`, on the grid of `ct`."""
        turned = np.zeros(self.geometry.shape, np.uint16, order="F")
        for number, tumor in enumerate(self.inserted, start=1):
            turned[tumor.box.slices][tumor.mask] = number
        return as_stored(Volume(turned, self.geometry), self.ct.geometry)

    @cached_property
    def displacements(self) -> tuple[mass_effect.Displacement, ...]:
        """The displacements around the tumors that have one, in the order they happened."""
        found = (mass_effect.displacement(tumor.plan, self.geometry) for tumor in self.inserted)
        return tuple(displacement for displacement in found if displacement is not None)

    def view(self, number: int) -> TumorView:
        """Tumor 1, 2, ... to look at, before and after; `CaseError` for a number that there is none of."""
        return view_tumor(self, number)

    def __repr__(self) -> str:
        counts = Counter(tumor.plan.organ for tumor in self.inserted)
        tumors = ", ".join(f"{organ} {count}" for organ, count in counts.items()) or "none"
        rejected = f"{len(self.rejected)} plans rejected"
        return f"<Synthesis {self.case}: tumors {tumors}; {rejected}; {self.phase}; {self.ct.geometry}>"

    def _repr_png_(self) -> bytes | None:
        if not self.inserted:
            return None
        from synthoma.pictures import GALLERY_COLUMNS, as_png, show_gallery

        views = [self.view(number) for number in range(1, min(len(self.inserted), GALLERY_COLUMNS) + 1)]
        items = [
            (f"{number}: {tumor.plan.organ}", view.before, view.after, view.mask)
            for number, (tumor, view) in enumerate(zip(self.inserted, views, strict=False), start=1)
        ]
        return as_png(lambda file: show_gallery(items, file, f"{self.case}: {len(self.inserted)} tumors"))

    def moved(self, mask: Volume) -> Volume:
        """A mask of the healthy scan after the tumors' mass effect; the same object if none reaches it."""
        healthy = Bounded.of(mask).reorient(self.frame)
        moved = self.moved_mask(healthy)
        return mask if moved is healthy else as_stored(moved.whole, mask.geometry)

    def moved_mask(self, mask: Bounded) -> Bounded:
        """The same with the axes of `geometry`."""
        for displacement in self.displacements:
            part = mask.on(displacement.box)
            if part.any():
                mask = mask.changed(displacement.box, mass_effect.move_mask(part, displacement))
        return mask


def as_stored(volume: Volume, stored: Geometry) -> Volume:
    """A volume with its axes turned back to those of the grid that it was turned from."""
    return Volume(volume.reorient(stored.axes).data, stored)


def insert_tumors(
    case: Case, recipe: SynthesisRecipe, seed: int = 0, critic: Critic | None = None, device: str = "cpu"
) -> Synthesis:
    """The case with the tumors that recipe and seed lead to; the same bytes on every run.

    Organs that the case lacks, or that have no room, are notes as long as another organ of the recipe is there;
    if all fail, the first one's `CaseError` is raised. critic: a further judge of each tumor. device: where a learned
    generator computes.
    """
    if recipe.critic.models and critic is None:
        raise RecipeError(
            "the recipe names a critic, which is not here to judge",
            found=", ".join(recipe.critic.models),
            fix="synthesize a data set (synthoma.synthesize opens it), or give critic=",
        )
    generator = open_generator(recipe.generator, device, allowed=(recipe.generator,))
    scene = open_scene(case, recipe.organs)
    _require_hu(scene)
    phase = phase_of(case, scene, recipe)
    blur = scanner_blur_mm(scene.ct)
    attempts: list[Attempt] = []
    notes: list[str] = []
    refusals: list[CaseError] = []
    for organ in recipe.organs:
        try:
            measured = scene.measure_organ(organ, phase, blur, recipe.vessel_veto)
            plans = draw_plans(measured, recipe, seed)
        except CaseError as error:
            refusals.append(error)
            notes.append(error.what)
            continue
        if measured.touches_edge:
            notes.append(f"the {organ} is cut by the field of view")

        def insert_one(plan: TumorPlan, index: int, number: int) -> Attempt:
            return insert(scene, plan, generator, index, number, recipe.judgement, critic)

        made = list(insert_plans(insert_one, measured, plans, recipe, seed))
        if made and not any(isinstance(attempt, Inserted) for attempt in made):
            notes.append(f"no tumor in the {organ}: {_why_none(made)}")
        attempts += made
    if len(refusals) == len(recipe.organs):
        raise refusals[0]
    return Synthesis(
        case=case.id,
        scan_digest=scan_digest(scene.original),
        phase=phase,
        ct=as_stored(scene.ct, scene.stored),
        inserted=tuple(attempt for attempt in attempts if isinstance(attempt, Inserted)),
        rejected=tuple(attempt for attempt in attempts if not isinstance(attempt, Inserted)),
        notes=tuple(notes),
        boxes=scene.boxes,
        displaced=frozenset(scene.moved),
        masks=scene.masks,
    )


def _why_none(rejected: Sequence[Attempt]) -> str:
    """How many plans were rejected, and the commonest reason with an example of its figures."""
    kinds = [re.split(r"[-+]?\d", attempt.verdict.reason)[0] for attempt in rejected]
    kind, count = Counter(kinds).most_common(1)[0]
    example = rejected[kinds.index(kind)].verdict.reason
    way_out = "; lower critic.keep, or ask for larger or plainer tumors" if "critic" in example else ""
    return f"all {len(rejected)} plans were rejected, {count} of them like this: {example}{way_out}"


def phase_of(case: Case, scene: Scene, recipe: SynthesisRecipe) -> str:
    """The recipe's, the case's attribute, or told from the HU; `CaseError` if it cannot be told."""
    said = str(case.attributes.get("phase") or "")
    told = recipe.phase or anatomy.canonical_phase(said)
    return told or contrast_phase(scene.ct, scene.masks, case.id)


def replay_plans(
    case: Case,
    plans: Sequence[TumorPlan],
    device: str = "cpu",
    allow_modules: Collection[str] = (),
    frame: str = FRAME,
    generator: str = "",
) -> Synthesis:
    """The case with exactly these tumors, in this order; nothing is drawn and nothing rejected.

    allow_modules: generators of the form `module:Class` that the plans may name. frame: the axes that voxels are
    counted along; the first versions counted along those of the file. generator: who renders instead of whom the plans
    name; a learned one only if it is the same model.
    """
    scene = open_scene(case, tuple(dict.fromkeys(plan.organ for plan in plans)), frame)
    inserted = []
    for index, plan in enumerate(plans):
        done = insert(scene, plan, open_generator(generator or plan.generator, device, allow_modules), index, 0)
        assert isinstance(done, Inserted)
        inserted.append(done)
    ct = as_stored(scene.ct, scene.stored)
    return Synthesis(
        case.id,
        scan_digest(scene.original),
        "",
        ct,
        tuple(inserted),
        boxes=scene.boxes,
        displaced=frozenset(scene.moved),
        masks=scene.masks,
        frame=frame,
    )


def _require_hu(scene: Scene) -> None:
    """`CaseError` if the scan was scaled, to 0-1 or 0-255: contrasts in HU would mean nothing there.

    A small crop is not looked at: it may show nothing but an organ, where no scan lacks fat and air.
    """
    hu = scene.original.data
    extents_mm = sorted(np.multiply(hu.shape, scene.geometry.spacing_mm))
    if extents_mm[1] < _SCAN_MM:
        return
    step = max(1, round((hu.size / 100_000) ** (1 / 3)))
    reason = hounsfield.impossible_hu(hu[::step, ::step, ::step].reshape(-1))
    if reason is not None and reason.kind == "scaled":
        raise CaseError(
            "the scan is not in HU", case=scene.case, found=reason.told, expected=reason.expected,
            fix="go back to the scan in HU",
        )  # fmt: skip


def open_scene(case: Case, organs: Sequence[str], frame: str = FRAME) -> Scene:
    """The case's scan and masks, ready for tumors in these organs; `CaseError` if the scan holds NaN or infinity.

    The axes are turned to `frame` (views, no copies), so the way that a file stores its voxels changes no tumor.
    """
    ct = case.read_image()
    if ct.data.dtype != np.int16 and not np.isfinite(ct.data).all():
        raise CaseError("the scan holds NaN or infinite HU", case=case.id, fix="replace them by -1024")
    scene = Scene(case.id, ct.reorient(frame), ct.geometry)
    needed = {name for organ in organs for name in (*anatomy.organ(organ).structures, anatomy.organ(organ).lesion)}
    needed |= {*PHASE_ORGANS, *VESSELS}
    with case.named():
        for name, mask in case.each_bounded():
            ct.geometry.require_same(mask.grid, f"{name} mask")
            scene.add_mask(name, mask.reorient(frame), keep=name in needed)
    return scene
