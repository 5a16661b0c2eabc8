"""Masks to one label map: tumors over what lies in an organ, that over the organ, that over the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.datasets.labels import FREETUMOR
from synthoma.errors import CaseError
from synthoma.volume import Array, Box, Geometry, Volume

# What a label map may show, by name: structure -> value.
SCHEMES: dict[str, Mapping[str, int]] = {
    "abdomenatlas": anatomy.STRUCTURES,
    "freetumor": FREETUMOR,
    "organs": {name: value for value, name in enumerate(anatomy.ORGANS, start=1)},
    "tumors": {organ.lesion: value for value, organ in enumerate(anatomy.ORGANS.values(), start=1)},
}
# Structures that lie inside an organ and would vanish under it; so would cysts and parts (`pancreas_head`).
INSIDE_ORGANS = ("hepatic_vessel", "portal_vein_and_splenic_vein", "bile_duct", "pancreatic_duct")


@dataclass(frozen=True)
class Painted:
    """A label map and what it lost: `overwritten[below][above]` voxels of one structure went to another."""

    labels: Volume
    overwritten: dict[str, dict[str, int]]


def label_map(case: Case, scheme: str) -> Volume:
    """The case's masks as one label map, uint8: `abdomenatlas` ids, `freetumor`, `organs` or `tumors`.

    organs, tumors: values 1 to 6 in the order of `anatomy.ORGANS`; an organ holds its tumors. Structures that
    are not annotated are left out, which a label map cannot tell from absent ones: keep the masks beside it.
    Raises `CaseError` if none of the scheme's structures is annotated.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"no scheme {scheme!r}; there are {', '.join(SCHEMES)}")
    wanted = {name: value for name, value in SCHEMES[scheme].items() if annotated(case, name)}
    if not wanted:
        raise CaseError(
            f"nothing of {scheme} is annotated",
            case=case.id,
            found=", ".join(case.masks) or "no mask",
            expected=f"any of {', '.join(SCHEMES[scheme])}",
        )
    return paint(case, wanted, case.read_geometry()).labels


def annotated(case: Case, structure: str) -> bool:
    """Whether a structure can be drawn: it has a mask, or it is an organ of which every part has one."""
    if structure in case.masks:
        return True
    organ = anatomy.ORGANS.get(structure)
    return organ is not None and all(part in case.masks for part in organ.parts)


def paint(case: Case, values: Mapping[str, int], geometry: Geometry) -> Painted:
    """The masks of annotated structures as one label map on the scan's grid, uint8.

    values: structure -> 1 to 255. Where masks overlap the higher rank wins (tumor, cyst or part, organ, rest),
    among equals the higher value. An organ holds its tumors, wanted or not. Raises `GeometryError` for a mask
    on another grid than `geometry`.
    """
    order = sorted(values, key=lambda name: (_rank(name), values[name]))
    drawn = [(name, mask) for name in order for mask in _masks_of(case, name, values)]
    labels = np.zeros(geometry.shape, np.uint8, order="F")
    canvas = Volume(labels, geometry)
    overwritten: dict[str, dict[str, int]] = {}
    for (name, source), (_, mask) in zip(drawn, case.each_mask(mask for _, mask in drawn), strict=True):
        with case.named():
            canvas.require_same_grid(mask, source)
        counts = _fill(labels, mask.data, values[name])
        for below, value in values.items():
            if below != name and counts[value]:
                lost = overwritten.setdefault(below, {})
                lost[name] = lost.get(name, 0) + int(counts[value])
    return Painted(canvas, overwritten)


def _rank(structure: str) -> int:
    """Who wins where masks overlap; the higher."""
    if structure == anatomy.IGNORE:
        return 4
    if anatomy.is_lesion(structure):
        return 3
    organs = {name for organ in anatomy.ORGANS.values() for name in organ.structures}
    if structure in organs:
        return 1
    is_part = any(structure.startswith(f"{name}_") for name in organs)
    return 2 if is_part or structure in INSIDE_ORGANS else 0


def _masks_of(case: Case, structure: str, values: Iterable[str]) -> list[str]:
    """The masks to draw for a structure; an organ's tumors are drawn with it unless they come by themselves."""
    organ = anatomy.ORGANS.get(structure)
    if organ is None:
        return [structure]
    own = [structure] if structure in case.masks else list(organ.parts)
    return own + [organ.lesion] * (organ.lesion in case.masks and organ.lesion not in values)


def _fill(labels: Array, mask: Array, value: int) -> Array:
    """Sets `value` inside the mask, in place; how many voxels of each value were there before (256)."""
    box = Box.around(mask)
    if box is None:
        return np.zeros(256, int)
    inside, below = mask[box.slices], labels[box.slices]
    counts = np.bincount(below[inside], minlength=256)
    below[inside] = value
    return counts
