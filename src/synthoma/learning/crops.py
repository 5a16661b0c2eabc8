"""Lesion crops: the real lesions of any data set with tumor labels, measured, each with its surroundings.

A data set of their own beside the cached cases: a row for every lesion, from which crops are cut when they are asked
for. Generators learn from them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from synthoma import anatomy
from synthoma.cases import Case, Lesion, label_lesions
from synthoma.errors import CaseError
from synthoma.learning.cache import build_cache
from synthoma.learning.entry import Entry
from synthoma.learning.looks import OTHER, Look, measure_look, tissue_of
from synthoma.learning.turns import Turn
from synthoma.pictures import TUMOR_WORDS
from synthoma.recipe import Recipe
from synthoma.seeds import rng_for
from synthoma.volume import Array, Box, Floats, Triple, Volume, triple

_FORMAT = 2  # raise it when the same lesion would be measured otherwise
_SOFT_HU = (-50.0, 300.0)  # what an organ's typical HU are told from: no gas, stool, fat or bone
_RING_MM = (4.0, 15.0)  # around a lesion of no known organ: where the tissue that it grows in is looked at
_LESION_IDS = [number for name, number in anatomy.STRUCTURES.items() if anatomy.is_lesion(name)]
_EDGE_MM = 0.9  # SD of a real lesion's border, as far as a mask tells


class CropRecipe(Recipe):
    """What a lesion crop is.

    size: voxels along each side. spacing_mm: of the grid. smallest_mm: lesions of less diameter are left out.
    """

    size: int = Field(48, ge=16, le=192, multiple_of=8)
    spacing_mm: float = Field(1.5, gt=0, le=10)
    smallest_mm: float = Field(5.0, ge=0)


@dataclass(frozen=True)
class CropRow:
    """A lesion of a case: where it lies in the cached scan, the organ's typical HU, and its look.

    start: of the bits of its mask.
    """

    index: int
    start: int
    box: Box
    base_hu: float
    look: Look


@dataclass(frozen=True, eq=False)
class LesionCrop:
    """A lesion with its surroundings. All arrays (S, S, S), axes near to RAS+ unless they were turned.

    hu: float32. mask: bool, this lesion alone; others: bool, lesions of the six organs beside it. alpha: float32, the
    share of each voxel that is lesion. tissue: float32, the lesion's HU without noise.
    """

    hu: Floats
    mask: NDArray[np.bool_]
    others: NDArray[np.bool_]
    alpha: Floats
    tissue: Floats
    base_hu: float
    look: Look
    case: str


@dataclass(frozen=True)
class LesionTable:
    """Measures the lesions of a case for the cache; a part of `build_cache`."""

    recipe: CropRecipe

    @property
    def name(self) -> str:
        """Of the tables."""
        text = json.dumps([_FORMAT, self.recipe.smallest_mm])
        return f"crops-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"

    def prepare(self, ct: Volume, masks: Mapping[str, Volume], case: Case) -> dict[str, Array]:
        """The rows of a case as JSON, and the masks of its lesions, as bits, one after the other."""
        rows: list[dict[str, Any]] = []
        bits: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)]
        lesions = [name for name in masks if _is_tumor(name)]
        tumors = np.zeros(ct.data.shape, bool)
        for name in lesions:
            tumors |= masks[name].data
        for name in lesions:
            organ = name.removesuffix("_lesion") if name.removesuffix("_lesion") in anatomy.ORGANS else OTHER
            found, ranks, outer = label_lesions(masks[name], organ, case.id)
            base = _organ_hu(ct, masks, organ, tumors)
            for lesion in found:
                if lesion.equivalent_diameter_mm < self.recipe.smallest_mm:
                    continue
                mask = ranks[lesion.box.seen_from(outer).slices] == lesion.index
                start = sum(len(part) for part in bits)
                rows.append(_measured(ct, lesion, mask, tumors, base, case) | {"start": start})
                bits.append(np.packbits(mask))
        return {"rows": np.frombuffer(json.dumps(rows).encode(), np.uint8), "masks": np.concatenate(bits)}


@dataclass(frozen=True, eq=False)
class LesionCrops:
    """The lesions of some cached cases, as crops on demand."""

    entries: Sequence[Entry]
    recipe: CropRecipe
    lesions: tuple[tuple[int, CropRow], ...]

    @classmethod
    def of(cls, entries: Sequence[Entry], recipe: CropRecipe) -> LesionCrops:
        """The lesions of cached cases that `LesionTable` has measured. Raises `CaseError` if there is none."""
        table = LesionTable(recipe).name
        rows = tuple((number, row) for number, entry in enumerate(entries) for row in _rows(entry, table))
        if not rows:
            raise CaseError(
                "no lesion to learn from",
                found=f"{len(entries)} cases without a tumor label of {recipe.smallest_mm} mm or more",
                fix="give a data set with tumor labels (masks named ORGAN_lesion)",
            )
        return cls(entries, recipe, rows)

    def __len__(self) -> int:
        return len(self.lesions)

    @property
    def organs(self) -> tuple[str, ...]:
        """The organs that have lesions."""
        return tuple(sorted({row.look.organ for _, row in self.lesions}))

    def patient(self, index: int) -> str:
        """Whose lesion it is."""
        return self.entries[self.lesions[index][0]].patient

    def side(self, share: float, seed: int = 0) -> tuple[list[int], list[int]]:
        """Lesions to learn from, and those of about `share` of the patients held back."""
        held = [i for i in range(len(self)) if rng_for(seed, "crops", self.patient(i)).random() < share]
        return [i for i in range(len(self)) if i not in set(held)], held

    def crop(self, index: int, rng: np.random.Generator | None = None) -> LesionCrop:
        """A lesion in the middle of its crop; with random numbers moved, mirrored and turned in the axial plane.

        Of a lesion larger than a crop, the part around one of its voxels.
        """
        number, row = self.lesions[index]
        entry, size = self.entries[number], self.recipe.size
        mask = _mask(entry, LesionTable(self.recipe).name, row)
        box = _box(row.box, mask, size, rng)
        hu = np.asarray(entry.read_hu(box), np.float32)
        whole = np.zeros(box.shape, bool)
        shared = box.overlap(row.box)
        if shared is not None:
            here, there = shared
            whole[here] = mask[there]
        others = np.isin(entry.read_labels(box), _LESION_IDS) & ~whole
        if rng is not None:
            hu, whole, others = Turn.draw(rng).all((hu, whole, others))
        spacing = entry.geometry.spacing_mm
        alpha = ndimage.gaussian_filter(whole.astype(np.float32), [_EDGE_MM / s for s in spacing], truncate=3)
        return LesionCrop(hu, whole, others, alpha, tissue_of(hu, whole, spacing), row.base_hu, row.look, entry.case)


def build_crops(cases: Iterable[Case], folder: Path | str, recipe: CropRecipe, workers: int = 0) -> LesionCrops:
    """The lesions of some cases; scans and measurements are kept in the cache folder, for any number of runs."""
    return LesionCrops.of(build_cache(cases, folder, recipe.spacing_mm, LesionTable(recipe), workers), recipe)


def _measured(
    ct: Volume, lesion: Lesion, mask: NDArray[np.bool_], tumors: NDArray[np.bool_], base: float | None, case: Case
) -> dict[str, Any]:
    spacing = ct.geometry.spacing_mm
    box = lesion.box.grow(2).clip(ct.data.shape)
    whole = np.zeros(box.shape, bool)
    whole[lesion.box.seen_from(box).slices] = mask
    base_hu = _ring_hu(ct, lesion.box, mask, tumors) if base is None else base
    phase = anatomy.canonical_phase(str(case.attributes.get("phase") or ""))
    tissue = tissue_of(ct.data[box.slices], whole, spacing)
    look = measure_look(tissue, whole, spacing, base_hu, lesion.organ, phase, lesion.equivalent_diameter_mm)
    return {
        "index": lesion.index,
        "box": lesion.box,
        "base_hu": base_hu,
        "look": dataclasses.asdict(look.rounded()),
    }


def _organ_hu(ct: Volume, masks: Mapping[str, Volume], organ: str, tumors: NDArray[np.bool_]) -> float | None:
    """The typical HU of an organ without its tumors; None if the case does not show it."""
    if organ == OTHER:
        return None
    parts = [masks[name] for name in anatomy.organ(organ).structures if name in masks]
    values = [ct.data[part.data & ~tumors] for part in parts]
    soft = np.concatenate(values) if values else np.empty(0)
    soft = soft[(soft > _SOFT_HU[0]) & (soft < _SOFT_HU[1])]
    return float(np.median(soft)) if soft.size else None


def _ring_hu(ct: Volume, box: Box, mask: NDArray[np.bool_], tumors: NDArray[np.bool_]) -> float:
    """The typical HU of the soft tissue around a lesion; its own if there is none."""
    import edt

    spacing = ct.geometry.spacing_mm
    outer = box.grow([round(_RING_MM[1] / s) + 1 for s in spacing]).clip(ct.data.shape)
    outside = np.ones(outer.shape, bool)
    outside[box.seen_from(outer).slices] = ~mask
    away = edt.edt(np.ascontiguousarray(outside), anisotropy=spacing)
    ring = (away > _RING_MM[0]) & (away < _RING_MM[1]) & ~tumors[outer.slices]
    values = ct.data[outer.slices][ring]
    soft = values[(values > _SOFT_HU[0]) & (values < _SOFT_HU[1])]
    return float(np.median(soft if soft.size else ct.data[box.slices][mask]))


def _is_tumor(name: str) -> bool:
    return anatomy.is_lesion(name) or any(word in name for word in TUMOR_WORDS)


def _rows(entry: Entry, table: str) -> list[CropRow]:
    plain = json.loads(entry.tables(table)["rows"].tobytes())
    return [
        CropRow(
            row["index"],
            row["start"],
            Box(*(tuple(corner) for corner in row["box"])),
            row["base_hu"],
            Look(**row["look"] | {"histogram": tuple(row["look"]["histogram"])}),
        )
        for row in plain
    ]


def _mask(entry: Entry, table: str, row: CropRow) -> NDArray[np.bool_]:
    """A lesion's mask on its box."""
    count = int(np.prod(row.box.shape))
    bits = entry.tables(table)["masks"][row.start : row.start + -(-count // 8)]
    return np.unpackbits(bits, count=count).astype(bool).reshape(row.box.shape)


def _box(lesion: Box, mask: NDArray[np.bool_], size: int, rng: np.random.Generator | None) -> Box:
    """The crop's box: around the lesion's middle; around one of its voxels, if it is larger than the crop."""
    center = (np.asarray(lesion.lower) + lesion.upper) / 2
    room = np.maximum(size - np.asarray(lesion.shape), 0) / 2
    if (np.asarray(lesion.shape) > size).any() and rng is not None:
        voxels = np.argwhere(mask)
        center = np.asarray(lesion.lower) + voxels[rng.integers(len(voxels))]
    elif rng is not None:
        center = center + rng.uniform(-1, 1, 3) * np.minimum(room, size / 6)
    lower: Triple = triple(np.round(center - size / 2))
    return Box(lower, triple(np.asarray(lower) + size))
