"""Tumors into the arrays of somebody's pipeline: whole scans, or patches cut from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.integrations.images import as_hu, geometry_of, in_columns, require_hu, turned
from synthoma.integrations.labels import LabelScheme
from synthoma.integrations.sources import Bank, Source
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.insertion import mass_effect
from synthoma.synthesis.insertion.insertion import Inserted, insert
from synthoma.synthesis.insertion.scene import FRAME
from synthoma.synthesis.pipeline import Synthesis, insert_tumors, open_scene, replay_plans
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.store.overlay import require_scan
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Geometry, Volume

CASE = "case"  # the id of a case whose name nobody told
_NEAR_MM = 30.0  # tumors of kidney and pancreas have their centers outside of the organ, up to here
_ALIKE_HU = 40.0  # by how much an organ's median may differ from that of the scan that a manifest's tumors were made on


@dataclass(frozen=True, eq=False)
class WithTumors:
    """An image and its label maps with tumors, in the types they came in; the same arrays where nothing changed.

    plans: of the tumors, in the order they were put in. notes: why there are none, or fewer than asked for.
    """

    image: Array
    labels: Mapping[str, Array]
    plans: tuple[TumorPlan, ...]
    notes: tuple[str, ...] = ()


def add_tumors(
    image: Array,
    affine: Any,
    labels: Mapping[str, Array],
    schemes: Mapping[str, LabelScheme],
    source: Source,
    seed: int,
    case: str = CASE,
) -> WithTumors:
    """The image and its label maps with the tumors that source and seed lead to; the input stays as it is.

    image: (I, J, K) HU, any number type. affine: (4, 4), voxel index -> RAS+ mm. labels, schemes: by name, on the grid
    of the image; the organs are those of all of them together, and every map with a value for an organ's tumors gets
    them. Mass effect moves all maps. source: as `sources.open_source` and `fitted` give it. seed, case: as
    `synthoma synthesize` has them; for a whole scan the voxels are those that it makes.

    A patch is taken for a scan whose field of view ends there: the organ is measured in the patch alone, its tumors
    lie in it and are cut at its faces. The tumors of a manifest are put in as far as they reach into it. Where there is
    no organ, or no room, nothing changes and a note says so.

    Raises `GeometryError` without a usable affine, `CaseError` for labels that a scheme does not know, for what is no
    HU, and for a case that a manifest does not fit.
    """
    geometry = geometry_of(image.shape, affine, case)
    maps = {name: in_columns(schemes[name].read(data, case)) for name, data in labels.items()}
    for name, data in maps.items():
        if data.shape != geometry.shape:
            raise CaseError(f"{name} is not the image's shape", case=case, found=data.shape, expected=geometry.shape)
    organs = source.organs if isinstance(source, SynthesisRecipe) else tuple(anatomy.ORGANS)
    masks = _masks(maps, schemes, geometry, organs)
    present = tuple(organ for organ in organs if _has_voxels(organ, masks))
    if not present:
        return WithTumors(image, labels, (), ("no organ that tumors grow in lies there",))
    hu = in_columns(as_hu(image, case))
    require_hu(hu, masks, case)
    known = Case(case, Volume(hu, geometry), masks)
    if isinstance(source, SynthesisRecipe):
        try:
            made = insert_tumors(known, source.with_changes(organs=present), seed)
        except CaseError as error:  # no room for what was drawn; what is wrong with image or labels was said before
            return WithTumors(image, labels, (), (str(error),))
    elif isinstance(source, Bank):
        made = _of_bank(known, source, seed, [organ for organ in present if _is_labelled(organ, schemes)])
    else:
        made = replay_plans(known, source.plans, allow_modules=source.allow_modules)
    return _painted(image, labels, schemes, made)


def _masks(
    maps: Mapping[str, Array], schemes: Mapping[str, LabelScheme], geometry: Geometry, organs: Sequence[str]
) -> dict[str, Volume]:
    """The structures of all maps; of one that two maps show, the first map's."""
    found: dict[str, Volume] = {}
    for name, data in maps.items():
        found = schemes[name].masks(data, geometry, organs) | found
    return found


def _has_voxels(organ: str, masks: Mapping[str, Volume]) -> bool:
    return any(name in masks and bool(masks[name].data.any()) for name in anatomy.organ(organ).structures)


def _is_labelled(organ: str, schemes: Mapping[str, LabelScheme]) -> bool:
    return any(organ in scheme.tumors for scheme in schemes.values())


def _of_bank(case: Case, bank: Bank, seed: int, organs: Sequence[str]) -> Synthesis:
    """The case with those tumors of a manifest that lie in it, in these organs; see `add_tumors`."""
    plans, digest = bank.plans(case.id, seed)
    scan = case.read_image()
    frame = _frame(scan, digest, case.id)
    plans = [plan for plan in plans if plan.organ in organs]
    scene = open_scene(case, organs, frame or FRAME)
    if frame is None:
        _require_fit(case, scan, plans)
        plans = [_with_noise_inside(plan, scene.geometry) for plan in plans]
    inserted, notes = [], []
    for index, plan in enumerate(plans):
        generator = open_generator(plan.generator, allowed=bank.allow_modules)
        if 0 in generator.box(plan, scene.geometry).clip(scene.geometry.shape).shape:
            continue
        try:
            done = insert(scene, plan, generator, index, 0)
        except CaseError as error:
            if frame is not None:
                raise
            notes.append(error.what)  # a patch shows too little of a hollow organ
            continue
        assert isinstance(done, Inserted)
        inserted.append(done)
    return Synthesis(case.id, digest, "", scan, tuple(inserted), notes=tuple(notes), frame=frame or FRAME)


def _frame(scan: Volume, digest: str, case: str) -> str | None:
    """The axes that a manifest's tumors count voxels along; None for a scan that was resampled or cropped since."""
    for kind in (scan.data.dtype, np.dtype(np.float32)):
        try:
            return require_scan(Volume(scan.data.astype(kind, copy=False), scan.geometry), digest, case)
        except CaseError:
            continue
    return None


def _require_fit(case: Case, scan: Volume, plans: Sequence[TumorPlan]) -> None:
    """`CaseError` if a scan cannot be the one, resampled or cropped, that plans were made on."""
    geometry = scan.geometry
    for name in dict.fromkeys(plan.organ for plan in plans):
        own = [plan for plan in plans if plan.organ == name]
        organ = case.read_organ(name).data
        for plan in own:
            center = np.rint(geometry.to_ijk(plan.center_mm))
            inside = bool(((center >= 0) & (center < geometry.shape)).all())
            near = geometry.box_around(plan.center_mm, plan.radius_mm + _NEAR_MM)
            if inside and not organ[near.slices].any():
                _refuse(case.id, f"no {name} around {plan.center_mm} mm", f"the {name} that a tumor was planned in")
        if anatomy.SITES[name].form == "mass":
            median = float(np.median(scan.data[organ]))
            if abs(median - own[0].base_hu) > _ALIKE_HU:
                _refuse(case.id, f"a {name} of {median:.0f} HU", f"about {own[0].base_hu:.0f} HU")


def _refuse(case: str, found: str, expected: str) -> None:
    raise CaseError(
        "the manifest's tumors were made on another scan", case=case, found=found, expected=expected,
        fix="give the scans and labels that they were made on, and the names of their cases",
    )  # fmt: skip


def _with_noise_inside(plan: TumorPlan, geometry: Geometry) -> TumorPlan:
    """The plan with a place to learn noise from that lies in a patch: the tumor's own if the planned one does not."""
    at = geometry.to_ijk(plan.noise_from_mm)
    inside = bool(((at >= 0) & (at <= np.asarray(geometry.shape) - 1)).all())
    return plan if inside else replace(plan, noise_from_mm=plan.center_mm)


def _painted(
    image: Array, labels: Mapping[str, Array], schemes: Mapping[str, LabelScheme], made: Synthesis
) -> WithTumors:
    """Image and label maps, in their own types, after what synthesis did."""
    plans = tuple(tumor.plan for tumor in made.inserted)
    if not plans:
        return WithTumors(image, labels, (), made.notes)
    scan = made.ct.geometry
    image, labels = image.copy(order="K"), {name: data.copy(order="K") for name, data in labels.items()}
    hu, maps = turned(image, scan, made.frame), {name: turned(data, scan, made.frame) for name, data in labels.items()}
    for tumor in made.inserted:
        hu[tumor.changed.slices] = tumor.after
        displacement = mass_effect.displacement(tumor.plan, made.geometry)
        for name, data in maps.items():
            if displacement is not None:
                part = data[displacement.box.slices]
                data[displacement.box.slices] = mass_effect.move_mask(part, displacement)
            if tumor.plan.organ in schemes[name].tumors:
                data[tumor.box.slices][tumor.mask] = schemes[name].tumors[tumor.plan.organ]
    return WithTumors(image, labels, plans, made.notes)
