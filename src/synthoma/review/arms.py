"""The two arms of a blinded study: lesions found on both sides, matched in organ, size and contrast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from synthoma import disk
from synthoma.anatomy import is_lesion
from synthoma.cases import Case, Lesion, find_lesions
from synthoma.datasets.layouts.folders import RECORD
from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import CaseError
from synthoma.names import file_name
from synthoma.reading import is_synthesis, read_lesion
from synthoma.review.frames import LOWEST_HU, SCREEN, hu_int16
from synthoma.review.recipes import TuringRecipe
from synthoma.seeds import rng_for
from synthoma.statistics.multireader import auc
from synthoma.synthesis.store.manifest import read_manifest
from synthoma.volume import Array, Box, Geometry, Volume

RING_MM = (2.0, 8.0)  # around a lesion, where its contrast is measured against
MODEST_AUC = 0.75  # a scan's property that tells the arms better than this is reported
SLACK_MM = 5.0  # between a tumor's recorded center and that of its component


@dataclass(frozen=True)
class Subject:
    """A lesion that can be shown. technical: properties of the scan around it that should not tell the arm."""

    case: str
    organ: str
    center_mm: tuple[float, float, float]
    diameter_mm: float
    contrast_hu: float
    technical: dict[str, float]


@dataclass(frozen=True)
class Leak:
    """A property of the scans that tells the arms apart. auc: over the lesions chosen; p: two-sided."""

    name: str
    auc: float
    p: float

    def __str__(self) -> str:
        return f"{self.name} alone tells the arms apart: AUC {self.auc:.2f} (p = {self.p:.3f})"


def find_subjects(dataset: Dataset, organs: Sequence[str], synthetic: bool) -> list[Subject]:
    """Every lesion of a data set with its size and contrast; of a synthesis the synthetic ones only."""
    return [
        subject
        for case in dataset
        for name in case.masks
        if is_lesion(name) and (not organs or name.removesuffix("_lesion") in organs)
        for subject in _subjects(dataset, case, name, synthetic)
    ]


def _subjects(dataset: Dataset, case: Case, structure: str, synthetic: bool) -> Iterator[Subject]:
    organ = structure.removesuffix("_lesion")
    mask = case.read_mask(structure)
    lesions = find_lesions(mask, organ, case.id)
    if synthetic and is_synthesis(dataset.root):
        made = _made_centers_mm(dataset, case, organ)
        lesions = [lesion for lesion in lesions if _is_made(lesion, mask.geometry, made)]
    if not lesions:
        return
    scan = case.read_image()
    with case.named():
        scan.require_same_grid(mask, structure)
    technical = _technical(scan)
    for lesion in lesions:
        contrast = _contrast_hu(scan, mask, lesion)
        if np.isfinite(contrast):
            yield Subject(case.id, organ, lesion.center_mm, lesion.equivalent_diameter_mm, contrast, technical)


def _made_centers_mm(dataset: Dataset, case: Case, organ: str) -> list[tuple[float, ...]]:
    """Centers of the tumors that a synthesis put into a case."""
    record = dataset.root / file_name(case.id) / RECORD
    if record.is_file():
        lesions = disk.read_json(record).get("lesions", [])
        return [tuple(entry["center_mm"]) for entry in lesions if entry["synthetic"] and entry["organ"] == organ]
    tumors = [tumor for tumor in read_manifest(dataset.root).tumors() if (tumor.case, tumor.organ) == (case.id, organ)]
    masks = [read_lesion(dataset.root / file_name(case.id), tumor.number).mask for tumor in tumors]
    return [lesion.center_mm for mask in masks for lesion in find_lesions(mask, organ)]


def _is_made(lesion: Lesion, geometry: Geometry, made: Sequence[tuple[float, ...]]) -> bool:
    if not made:
        return False
    apart = np.linalg.norm(np.asarray(made) - np.asarray(lesion.center_mm), axis=1)
    return bool(apart.min() <= SLACK_MM + max(geometry.spacing_mm))


def _contrast_hu(scan: Volume, mask: Volume, lesion: Lesion) -> float:
    """Mean HU of a lesion less that of the ring around it, other lesions and air left out; nan without a ring."""
    import edt

    geometry = scan.geometry
    margin = [int(np.ceil(RING_MM[1] / mm)) for mm in geometry.spacing_mm]
    box = lesion.box.grow(margin).clip(geometry.shape)
    inside, hu = np.ascontiguousarray(mask.data[box.slices]) != 0, np.asarray(scan.data[box.slices], float)
    distance_mm = edt.edt((~inside).astype(np.uint8), anisotropy=geometry.spacing_mm)
    ring = (distance_mm >= RING_MM[0]) & (distance_mm <= RING_MM[1]) & (hu > -200)
    own = lesion.box.seen_from(box).slices
    body = hu[own][inside[own]]
    return float(body.mean() - hu[ring].mean()) if ring.any() and body.size else float("nan")


def _technical(scan: Volume) -> dict[str, float]:
    data = scan.data[:, :, :: max(1, scan.data.shape[2] // 16)]
    finite = data[np.isfinite(data)] if data.dtype == np.float32 else data.ravel()
    whole = np.rint(finite)
    i, j, k = scan.reorient(SCREEN).geometry.spacing_mm
    return {
        "pixel size": max(i, j),
        "slice spacing": k,
        "number of slices": float(scan.reorient(SCREEN).data.shape[2]),
        "lowest HU": float(finite.min()),
        "highest HU": float(finite.max()),
        "share of odd HU": float(np.mean(whole % 2 != 0)),
        "share of fractions": float(np.mean(whole != finite)),
    }


def match_arms(
    real: Sequence[Subject], synthetic: Sequence[Subject], recipe: TuringRecipe, seed: int
) -> list[tuple[Subject, Subject]]:
    """Pairs of a real and a synthetic lesion of one organ, as alike in size and contrast as can be.

    Every lesion is in at most one pair; organs get the same number as far as they go. Raises `CaseError` if there are
    fewer pairs than half of the items.
    """
    from scipy.optimize import linear_sum_assignment

    wanted = recipe.items // 2
    by_organ: dict[str, list[tuple[Subject, Subject]]] = {}
    for organ in sorted({subject.organ for subject in real}):
        ours = [subject for subject in real if subject.organ == organ]
        theirs = [subject for subject in synthetic if subject.organ == organ]
        cost = _unlikeness(ours, theirs, recipe)
        rows, columns = linear_sum_assignment(np.minimum(cost, 1e6))
        found = [(ours[r], theirs[c]) for r, c in zip(rows, columns, strict=True) if cost[r, c] < np.inf]
        if found:
            rng_for(seed, "pairs", organ).shuffle(found)
            by_organ[organ] = found
    total = sum(map(len, by_organ.values()))
    if total < wanted:
        raise CaseError(
            f"{total} pairs of a real and a synthetic lesion are alike",
            found=f"{len(real)} real and {len(synthetic)} synthetic lesions",
            expected=f"{wanted} pairs",
            fix="ask for fewer --set items=..., or allow more --set most_size_ratio=... --set most_contrast_hu=...",
        )
    chosen: list[tuple[Subject, Subject]] = []
    while len(chosen) < wanted:
        for pairs in by_organ.values():
            if pairs and len(chosen) < wanted:
                chosen.append(pairs.pop())
    return chosen


def _unlikeness(real: Sequence[Subject], synthetic: Sequence[Subject], recipe: TuringRecipe) -> Array:
    """How unlike each real lesion is to each synthetic one; inf where more than the recipe allows."""

    def table(name: str) -> tuple[Array, Array]:
        columns = [np.array([getattr(subject, name) for subject in side], float) for side in (real, synthetic)]
        return columns[0][:, None], columns[1][None, :]

    size = np.abs(np.subtract(*map(np.log, table("diameter_mm")))) / np.log(recipe.most_size_ratio)
    contrast = np.abs(np.subtract(*table("contrast_hu"))) / recipe.most_contrast_hu
    return np.where((size <= 1) & (contrast <= 1), size**2 + contrast**2, np.inf)


def find_leaks(pairs: Sequence[tuple[Subject, Subject]]) -> list[Leak]:
    """Properties of the scans by which the arms could be told without looking at a lesion."""
    from scipy.stats import mannwhitneyu

    leaks = []
    for name in pairs[0][0].technical:
        sides = [np.array([pair[side].technical[name] for pair in pairs]) for side in (0, 1)]
        values, positive = np.concatenate(sides), np.repeat([False, True], len(pairs))
        area = auc(values, positive)
        area = max(area, 1 - area)
        p = float(mannwhitneyu(*sides, alternative="two-sided").pvalue) if np.ptp(values) > 0 else 1.0
        if area > MODEST_AUC and p < 0.05:
            leaks.append(Leak(name, area, p))
    return leaks


def cut_out(scan: Volume, center_mm: Sequence[float], recipe: TuringRecipe) -> Volume:
    """The scan around a lesion on the screen's axes, as int16; air where the field leaves the scan."""
    turned = scan.reorient(SCREEN)
    if recipe.spacing_mm is not None:
        turned = turned.to(turned.geometry.resampled(recipe.spacing_mm), fill=LOWEST_HU)
    geometry = turned.geometry
    half = [n // 2 for n in field_shape(geometry, recipe)]
    at = np.rint(geometry.to_ijk(center_mm)).astype(int)
    box = Box(tuple(at - half), tuple(at + half + 1))
    data = np.full(box.shape, LOWEST_HU, np.int16)
    shared = Box.whole(geometry.shape).overlap(box)
    if shared is not None:
        data[shared[1]] = hu_int16(turned.data[shared[0]])
    return Volume(data, geometry.crop(box))


def field_shape(geometry: Geometry, recipe: TuringRecipe) -> tuple[int, ...]:
    """Voxels of the field on the screen's axes, an odd number along each: the lesion is in the middle."""
    spacing = recipe.spacing_mm or geometry.reoriented(SCREEN).spacing_mm
    return tuple(2 * round(mm / step / 2) + 1 for mm, step in zip(recipe.field_mm, spacing, strict=True))


def padded(data: Array, shape: Sequence[int]) -> Array:
    """The data centered in an array of this shape, air around it."""
    whole = np.full(tuple(shape), LOWEST_HU, np.int16)
    part = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(shape, data.shape, strict=True))
    whole[part] = data
    return whole
