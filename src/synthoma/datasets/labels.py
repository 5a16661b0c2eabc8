"""Label maps: which values mean which structure, in the words of each data set."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from synthoma import anatomy, files, names
from synthoma.cases import Case, Label, Source
from synthoma.errors import LayoutError, SynthomaError
from synthoma.formats.dicom_outlines import Outline, OutlineMask
from synthoma.inputs import Reads
from synthoma.volume import Array, Geometry

Values = Mapping[str, tuple[int, ...]]

# Words that name a vessel without its organ, as others a tumor or cyst; the rest of the data set tells the organ.
VESSEL_WORDS = ("vessel", "vessels")
DATASET_ORGANS = {
    "hepatic": "liver",
    "liver": "liver",
    "lits": "liver",
    "pancreas": "pancreas",
    "kidney": "kidney",
    "kits": "kidney",
    "colon": "colon",
    "esophagus": "esophagus",
    "uterus": "uterus",
    "lung": "lung",
}

# Odd: organ, even: its tumor.
FREETUMOR = {
    "liver": 1,
    "liver_lesion": 2,
    "pancreas": 3,
    "pancreas_lesion": 4,
    "kidney": 5,
    "kidney_lesion": 6,
}


def structure_names(labels: Collection[str], dataset: str) -> dict[str, str]:
    """Each label of a data set -> our structure; a bare `cancer` is that of the one organ in sight.

    The organ is the only one among the labels, else the one in the data set's name (`Task08_HepaticVessel`:
    liver). Where neither tells, the word stays as it is. Raises `LayoutError` if two labels mean the same, and for a
    label that is no plain name, since masks are named so.
    """
    for label in labels:
        try:
            names.require_plain(label, "the name of a label")
        except SynthomaError as fault:
            raise LayoutError(fault.what, found=fault.found, expected=fault.expected, fix=fault.fix) from fault
    plain = {label: anatomy.canonical_name(label) for label in labels}
    organ = _organ_of(plain.values(), dataset)
    found: dict[str, str] = {}
    for label, name in plain.items():
        if organ and name in anatomy.TUMOR_WORDS:
            name = f"{organ}_lesion"
        elif organ and name in anatomy.CYST_WORDS:
            name = f"{organ}_cyst"
        elif organ == "liver" and name in VESSEL_WORDS:
            name = "hepatic_vessel"
        if name in found.values():
            raise LayoutError("two labels mean the same structure", found=f"{label!r} is {name} again")
        found[label] = name
    return found


def _organ_of(structures: Iterable[str], dataset: str) -> str:
    """The organ a bare `tumor` belongs to; empty if that cannot be told."""
    present = set(structures)
    organs = [organ.name for organ in anatomy.ORGANS.values() if present.intersection(organ.structures)]
    if len(organs) == 1:
        return organs[0]
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", dataset).lower()
    told = {organ for word, organ in DATASET_ORGANS.items() if word in words}
    return told.pop() if not organs and len(told) == 1 else ""


def with_tumors(values: Values) -> dict[str, tuple[int, ...]]:
    """The same structures, each organ with the values of its own tumors and cysts.

    In a label map a tumor's voxels are taken out of the organ; in ours an organ holds its tumors. Of two
    kidneys one cannot tell whose tumor it is, so they stay as they are (`Case.read_organ` adds it).
    """
    grown = {}
    for name, own in values.items():
        inside = [values.get(f"{name}_{kind}", ()) for kind in ("lesion", "cyst")]
        grown[name] = tuple(sorted({*own, *(value for more in inside for value in more)}))
    return grown


def label_sources(path: Path, values: Values) -> dict[str, Label]:
    """The masks of a case whose label map annotates every structure in `values`."""
    return {name: Label(path, own) for name, own in values.items()}


def segment_sources(path: Path) -> dict[str, Source]:
    """The structures of a `.seg.nrrd` by the names of its segments; reads its header only.

    A lone segment without a name that says something (`Segment_1`) is called as the file. Raises `LayoutError` for two
    segments of one structure.
    """
    segments = files.list_segments(path)
    stem = path.name[: -len(files.SEGMENTS_SUFFIX)]
    if not segments:
        return {anatomy.canonical_name(names.name_of_file(stem)): path}
    found: dict[str, Source] = {}
    for segment in segments:
        nameless = len(segments) == 1 and re.fullmatch(r"segment[_ ]?\d*", segment.name.strip().lower())
        structure = anatomy.canonical_name(names.usable_name(stem if nameless else segment.name))
        if structure in found:
            raise LayoutError(f"{path}: two segments are {structure}", found=segment.name, fix="rename one")
        found[structure] = segment
    return found


def outline_sources(outlines: Iterable[Outline], grid: Geometry, dataset: str) -> dict[str, Source]:
    """The structures of DICOM objects -> their masks on the scan's grid; reads no voxel.

    The label counts if it is a name that we know, with or without a number (`liver_lesion 2`), else the codes, else the
    label as it is. Lesions and cysts of one object are put together. Raises `LayoutError` for an organ twice, and for a
    structure that two objects hold.
    """
    held: dict[str, list[Outline]] = {}
    for outline in outlines:
        held.setdefault(_outlined(outline), []).append(outline)
    found: dict[str, Source] = {}
    for name, structure in structure_names(held, dataset).items():
        paths = list(dict.fromkeys(one.path for one in held[name]))
        if len(paths) > 1:
            files_named = " and ".join(path.name for path in paths[:3])
            raise LayoutError(
                f"two objects hold masks of {structure}", found=files_named, fix="keep one beside the scan"
            )
        if len(held[name]) > 1 and not _is_finding(structure):
            labels = ", ".join(repr(one.label) for one in held[name])
            raise LayoutError(f"{paths[0]} holds {structure} twice", found=labels, fix="rename one in what wrote it")
        found[structure] = OutlineMask(paths[0], tuple(one.number for one in held[name]), grid)
    return found


def _outlined(outline: Outline) -> str:
    """The name of a segment or region in our spelling; a tumor of an organ that is not told stays a `tumor`."""
    plain = anatomy.canonical_name(names.usable_name(outline.label))
    numbered = re.fullmatch(r"(.+?)[_ ]*(\d+|others)", plain)
    finding = anatomy.canonical_name(numbered[1]) if numbered else ""
    if _is_finding(finding):
        plain = finding
    return plain if anatomy.is_known(plain) or not outline.coded else outline.coded


def _is_finding(name: str) -> bool:
    """Whether a structure has parts that count one by one: tumors and cysts, of an organ that is told or not."""
    return name in (*anatomy.TUMOR_WORDS, *anatomy.CYST_WORDS) or name.endswith(("_lesion", "_cyst"))


@dataclass(frozen=True, eq=False)
class PresentLabels(Mapping[str, Label]):
    """The masks of a label map that does not say which of its classes were annotated.

    A class with voxels was; a class without any counts as *not annotated*, unless it is among `certain`. The
    map is read when first asked, so listing thousands of cases reads none.
    """

    path: Path
    classes: Values
    certain: frozenset[str] = frozenset()

    @cached_property
    def _sources(self) -> dict[str, Label]:
        present = set(used_values(files.read_labels(self.path).data))
        grown = with_tumors(self.classes)
        return {
            name: Label(self.path, grown[name])
            for name, own in self.classes.items()
            if name in self.certain or present.intersection(own)
        }

    def reads(self) -> Reads:
        """What the masks are made from; the map is not read for it."""
        return Reads({name: list(values) for name, values in self.classes.items()}, (self.path,))

    def __getitem__(self, structure: str) -> Label:
        return self._sources[structure]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def used_values(labels: Array) -> list[int]:
    """The values in a label map other than 0, ascending."""
    seen = np.zeros(np.iinfo(labels.dtype).max + 1, bool)
    flat = labels.ravel(order="K")
    seen[flat[:1]] = True
    seen[flat[1:][flat[1:] != flat[:-1]]] = True  # runs of a value begin where it differs from the one before
    found: list[int] = np.flatnonzero(seen[1:]).tolist()
    return [value + 1 for value in found]


def unknown_values(case: Case) -> dict[Path, list[int]]:
    """Label maps of a case -> the values in them that none of its masks stands for; reads every map."""
    known: dict[Path, set[int]] = {}
    for source in case.masks.values():
        if isinstance(source, Label):
            known.setdefault(source.path, set()).update(source.values)
    strange = {}
    for path, values in known.items():
        extra = [value for value in used_values(files.read_labels(path).data) if value not in values]
        if extra:
            strange[path] = extra
    return strange
