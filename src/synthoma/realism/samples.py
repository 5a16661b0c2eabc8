"""Lesions with their surroundings, as features are measured on: real and synthetic ones alike."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import edt
import numpy as np

from synthoma import anatomy
from synthoma.cases import Case, Lesion, label_lesions
from synthoma.seeds import rng_for
from synthoma.synthesis.scan import scanner_blur_mm
from synthoma.volume import Array, Geometry, Volume, triple

MARGIN_MM = 25.0  # around a lesion; the ring of its organ ends at 10 mm
HEALTHY_MM = 10.0  # radius of a ball of healthy tissue
_COARSE_MM = 3.0  # grid on which a place for it is looked for


@dataclass(frozen=True, eq=False)
class Healthy:
    """A ball of an organ without a lesion, `HEALTHY_MM` in radius: its center, and HU of the box around it."""

    center_mm: tuple[float, float, float]
    ct: Volume


@dataclass(frozen=True, eq=False)
class Sample:
    """One lesion on the crop around it.

    ct: HU. mask: the lesion (bool). organ: tissue of its organ outside all lesions (bool); None where the organ is not
    annotated. others: all other lesions of the case (bool). blur_mm: SD of the scanner's blur in this scan.
    neighbor_mm: from its center to that of the nearest lesion of the same organ; nan for the only one. healthy: a
    place of the organ without a lesion, drawn for each lesion; None where there is no such ball.
    """

    case: str
    patient: str
    lesion: Lesion
    ct: Volume
    mask: Array
    organ: Array | None
    others: Array
    blur_mm: float
    neighbor_mm: float
    healthy: Healthy | None = None


def lesion_organs(case: Case) -> tuple[str, ...]:
    """The organs whose lesions a case annotates, in the order of `anatomy.ORGANS`."""
    return tuple(organ for organ in anatomy.ORGANS if anatomy.organ(organ).lesion in case.masks)


def read_samples(case: Case, organs: Collection[str] = (), smallest_ml: float = 0.05) -> Iterator[Sample]:
    """The lesions of a case in these organs (all unless told), the largest first, without those below `smallest_ml`.

    The scan and each mask are read once. Raises `GeometryError` for a mask on another grid.
    """
    chosen = [organ for organ in lesion_organs(case) if not organs or organ in organs]
    if not chosen:
        return
    ct = case.read_image()
    blur_mm = scanner_blur_mm(ct)
    margin = [int(np.ceil(MARGIN_MM / spacing)) for spacing in ct.geometry.spacing_mm]
    masks = {organ: case.read_mask(anatomy.organ(organ).lesion) for organ in chosen}
    organ_masks = {organ: case.read_organ(organ) for organ in chosen if case.has_organ(organ)}
    for organ, mask in masks.items():
        ct.require_same_grid(mask, f"{anatomy.organ(organ).lesion} mask")
        ct.require_same_grid(organ_masks.get(organ, mask), f"{organ} mask")
    every = np.logical_or.reduce([mask.data for mask in masks.values()])
    for organ, mask in masks.items():
        lesions, labels, whole = label_lesions(mask, organ, case.id)
        lesions = [lesion for lesion in lesions if lesion.volume_ml >= smallest_ml]
        tissue = organ_masks[organ].data & ~every if lesions and organ in organ_masks else None
        centers = np.array([lesion.center_mm for lesion in lesions])
        places = np.zeros((0, 3), int) if tissue is None else _balls(tissue, ct.geometry)
        for lesion in lesions:
            box = lesion.box.grow(margin).clip(ct.geometry.shape)
            own = np.zeros(box.shape, bool)
            place = lesion.box.seen_from(box).slices
            own[place] = labels[lesion.box.seen_from(whole).slices] == lesion.index
            gaps = np.sort(np.linalg.norm(centers - lesion.center_mm, axis=1))
            yield Sample(
                case=case.id,
                patient=case.patient,
                lesion=lesion,
                ct=ct.crop(box),
                mask=own,
                organ=None if tissue is None else tissue[box.slices],
                others=every[box.slices] & ~own,
                blur_mm=blur_mm,
                neighbor_mm=float(gaps[1]) if len(lesions) > 1 else float("nan"),
                healthy=_healthy(ct, places, rng_for(0, "healthy", case.id, organ, lesion.index)),
            )


def _balls(tissue: Array, geometry: Geometry) -> Array:
    """(N, 3): voxels around which a ball of healthy tissue lies wholly within the organ and outside all lesions."""
    steps = [max(1, round(_COARSE_MM / spacing)) for spacing in geometry.spacing_mm]
    coarse = np.ascontiguousarray(tissue[tuple(slice(None, None, step) for step in steps)])
    apart_mm = tuple(step * spacing for step, spacing in zip(steps, geometry.spacing_mm, strict=True))
    depth = edt.edt(coarse, anisotropy=apart_mm, black_border=True)
    return np.asarray(np.argwhere(depth >= HEALTHY_MM + max(apart_mm)) * steps)


def _healthy(ct: Volume, places: Array, rng: np.random.Generator) -> Healthy | None:
    if len(places) == 0:
        return None
    i, j, k = ct.geometry.to_mm(triple(places[rng.integers(len(places))]))
    center_mm = float(i), float(j), float(k)
    return Healthy(center_mm, ct.crop(ct.geometry.box_around(center_mm, HEALTHY_MM + 5)))
