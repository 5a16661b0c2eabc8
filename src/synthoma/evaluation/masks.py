"""Masks of a case as their files hold them: a label map and its values, a mask, or probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from synthoma.cases import Case, Label
from synthoma.errors import CaseError, FileError
from synthoma.evaluation.fractions import gather_fractions
from synthoma.evaluation.planes import Planes, gather_regions, planes_of, read_planes
from synthoma.evaluation.regions import Region
from synthoma.evaluation.voxel import overlap
from synthoma.formats.segments import Segment
from synthoma.volume import Box, Volume

_HALF = 0.5  # where scores become the mask beside them


@dataclass(frozen=True)
class SingleMask:
    """A map that was found without a word about its values: a mask, or fractions; refused with several values."""

    path: Path
    structure: str

    def read(self) -> Region | Planes:
        """The region of the mask, or the planes of fractions."""
        planes = read_planes(self.path)
        if planes.fractions:
            return planes
        regions, met = gather_regions(planes, {self.structure: None})
        if len(met) > 1:
            raise CaseError(
                f"what the values of {self.path.name} mean is not told",
                found=", ".join(map(str, met[:5])) + ", ..." * (len(met) > 5),
                expected=f"one value beside 0, the {self.structure}",
                fix=f"say --labels {','.join(f'NAME={value}' for value in met[:3])}, or put a dataset.json with labels"
                f" into {self.path.parent}",
            )
        return regions[self.structure]

    def __call__(self) -> Volume:
        found = self.read()
        if isinstance(found, Planes):
            return found.volume()
        return Volume(found.read(Box.whole(found.geometry.shape)), found.geometry)


@dataclass(frozen=True)
class ScoredMask:
    """A mask beside which the scores lie that it is made from: it holds the voxels of at least one half.

    A mask that holds others was changed since, so it is taken as it is, and the scores are not.
    """

    path: Path
    scores: Path

    def read(self) -> Region | Planes:
        """The planes of the scores, or the region of a mask that was changed; `FileError` for scores above 1."""
        planes = read_planes(self.scores)
        values = () if planes.fractions else gather_regions(planes, {"": None})[1]
        if max(values, default=0) > 1:
            raise FileError(
                f"the scores in {self.scores} are whole numbers", found=f"values up to {max(values)}",
                expected="probabilities from 0 to 1, of which the mask holds those of at least 0.5",
                fix="divide them by their highest value, or give the header that factor (scl_slope of NIfTI)",
            )  # fmt: skip
        mask = self._region()
        if not planes.fractions or not planes.geometry.matches(mask.geometry):
            return mask
        whole = gather_fractions(planes, _HALF).above(_HALF)
        return planes if whole.voxels == mask.voxels == overlap(whole, mask) else mask

    def __call__(self) -> Volume:
        mask = self._region()
        return Volume(mask.read(Box.whole(mask.geometry.shape)), mask.geometry)

    def _region(self) -> Region:
        return gather_regions(read_planes(self.path), {"": None})[0][""]


def read_masks(case: Case, structures: Sequence[str], truth: bool = False) -> Iterator[tuple[str, Region | Planes]]:
    """The structures in order, one at a time; those of one label map that follow each other read it once.

    Fractions come as planes, still to be read, and everything else as a region. truth: fractions are refused, values
    of a label map that stand for nothing are not; in a prediction they are a `CaseError`.
    """
    for path, names in groupby(structures, lambda name: _map_of(case, name)):
        with case.named():
            if path is not None:
                yield from _of_label_map(case, path, list(names), truth).items()
            else:
                for name in names:
                    yield name, _alone(case, name, truth)


def _map_of(case: Case, structure: str) -> Path | None:
    source = case.masks[structure]
    return source.path if isinstance(source, Label) else None


def _of_label_map(case: Case, path: Path, names: list[str], truth: bool) -> dict[str, Region]:
    sources = {name: source for name, source in case.masks.items() if isinstance(source, Label) and source.path == path}
    regions, met = gather_regions(read_planes(path, truth=True), {name: sources[name].values for name in names})
    known = {value for source in sources.values() for value in source.values}
    strange = [value for value in met if value not in known]
    if strange and not truth:
        raise CaseError(
            f"{path} holds labels outside its scheme",
            found=", ".join(map(str, strange[:5])),
            expected=", ".join(map(str, sorted(known))),
            fix="name them in dataset.json, or with --labels",
        )
    return regions


def _alone(case: Case, name: str, truth: bool) -> Region | Planes:
    """A structure that has a source of its own."""
    source = case.masks[name]
    if isinstance(source, SingleMask | ScoredMask):
        return source.read()
    if isinstance(source, Path):
        planes = read_planes(source, truth)
    elif isinstance(source, Label | Segment):
        planes = planes_of(case.read_mask(name))
    else:
        planes = planes_of(source if isinstance(source, Volume) else source())
    if not planes.fractions:
        return gather_regions(planes, {name: None})[0][name]
    if truth:
        raise CaseError(f"the truth of {name} is no mask", found="fractions", expected="whole numbers")
    return planes
