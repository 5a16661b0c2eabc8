"""Cases (one scan of one patient, with its masks) and lesions (connected tumors in a mask, in mm)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from synthoma import anatomy, files, names
from synthoma.bounded import Bounded, turn_onto
from synthoma.components import Parts, parts_of
from synthoma.errors import CaseError, SynthomaError
from synthoma.formats.segments import Segment
from synthoma.inputs import Reads
from synthoma.volume import Array, Box, Geometry, Volume, triple


@dataclass(frozen=True)
class Label:
    """One structure inside a label map: the voxels holding any of `values`."""

    path: Path
    values: tuple[int, ...]


_SPECK = 64  # voxels in the box of a lesion that is small enough to be met again

# Where voxels come from: a mask or image file, a label map, a named segment, memory, or a function (which must pickle).
Source = Path | Label | Segment | Volume | Callable[[], Volume]


@dataclass(frozen=True, eq=False)
class Case:
    """One scan of one patient, with its masks; voxels are read when asked for.

    masks: structure (in `anatomy.canonical_name` spelling) -> source. A structure that is missing here is
    *not annotated*; one whose mask is empty is annotated and absent. The two are never mixed up.
    patient: what splits and bootstraps use; several cases may share one.
    attributes: phase, sex, hospital, ... as plain data.
    Raises `SynthomaError` for an id or a structure that is no plain name: files are named so.
    """

    id: str
    image: Source
    masks: Mapping[str, Source] = field(default_factory=dict)
    patient: str = ""
    dataset: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    draw: ClassVar[Callable[[Case], bytes] | None] = None  # how a notebook shows a case; `reading` sets it

    def __post_init__(self) -> None:
        names.require_plain(self.id, "the id of a case")
        if isinstance(self.masks, dict):  # others read their structures from a file when they are asked
            for structure in self.masks:
                names.require_plain(structure, "the name of a structure", self.id)
        if not self.patient:
            object.__setattr__(self, "patient", self.id)

    def __repr__(self) -> str:
        patient = "" if self.patient == self.id else f" of {self.patient}"
        masks = f"{len(self.masks)} masks" if isinstance(self.masks, dict) else "masks told by a file"
        try:
            told = not isinstance(self.image, Path) or self.image.is_file()  # a series has hundreds of headers
            grid = f", {self._scan_grid}" if told and self._scan_grid is not None else ""
        except SynthomaError:
            grid = ", scan unreadable"
        return f"<Case {self.id}{patient}: {masks}{grid}>"

    def _repr_png_(self) -> bytes | None:
        return None if Case.draw is None else Case.draw(self)

    def read_image(self, box: Box | None = None) -> Volume:
        """The scan in HU, or a box of it."""
        with self.named():
            if isinstance(self.image, Path):
                return files.read_image(self.image, box)
            if isinstance(self.image, Label):
                raise CaseError("a label map is not a scan", found=self.image.path)
            whole = self.image if isinstance(self.image, Volume) else self.image()
            return whole if box is None else whole.crop(box)

    def read_geometry(self) -> Geometry:
        """The scan's grid; of a file, from its header alone."""
        with self.named():
            if isinstance(self.image, Path):
                return files.read_geometry(self.image)
        return self.read_image().geometry

    @cached_property
    def _scan_grid(self) -> Geometry | None:
        """The scan's grid, where its header or memory tells it; None if a function makes the scan, or it is gone."""
        if isinstance(self.image, Volume):
            return self.image.geometry
        if isinstance(self.image, Path) and self.image.exists():
            return files.read_geometry(self.image)
        return None

    def read_mask(self, structure: str, box: Box | None = None) -> Volume:
        """One structure as a bool mask, or a box of it; `CaseError` if it is not annotated."""
        return self.read_masks([structure], box)[structure]

    def read_masks(self, structures: Iterable[str] | None = None, box: Box | None = None) -> dict[str, Volume]:
        """Structures as bool masks, all of them unless told."""
        return dict(self.each_mask(structures, box))

    def each_mask(
        self, structures: Iterable[str] | None = None, box: Box | None = None
    ) -> Iterator[tuple[str, Volume]]:
        """The same, one after the other in the order asked for, so that thirty masks need the memory of one.

        Structures of one label map that follow each other are read from it at once. A mask whose file orders or
        turns the axes of the scan's grid otherwise comes on the scan's grid; `GeometryError`, before its voxels are
        read, for one on any other grid. box: in voxels of the scan.
        """
        wanted = list(self.masks) if structures is None else list(structures)
        held: tuple[Path, int | None] | None = None
        for name in wanted:
            with self.named():
                source = self.masks.get(name)
                if source is None:
                    raise CaseError(f"{name} is not annotated", expected=f"one of {', '.join(self.masks) or 'none'}")
                if isinstance(source, Label | Segment):
                    layer = source.layer if isinstance(source, Segment) else None
                    if held != (source.path, layer):
                        labels, held = self._read_labels(source.path, name, box, layer), (source.path, layer)
                    values = (source.value,) if isinstance(source, Segment) else source.values
                    mask = Volume(_where(labels.data, values), labels.geometry)
                elif isinstance(source, Path):
                    mask = self._read_labels(source, name, box)
                else:
                    mask = source if isinstance(source, Volume) else source()
                    if self._scan_grid is not None:
                        mask = mask.on(self._scan_grid, f"{name} mask")
                    mask = mask if box is None else mask.crop(box)
                mask = Volume(_as_bool(mask.data), mask.geometry)
            yield name, mask

    def each_bounded(self, structures: Iterable[str] | None = None) -> Iterator[tuple[str, Bounded]]:
        """The same as the boxes around the masks, on the scan's grid where it is known; no more than a box is held.

        A source that is a function may tell its mask as `bounded()` as well.
        """
        wanted, scan = list(self.masks) if structures is None else list(structures), self._scan_grid
        for told, group in groupby(wanted, lambda name: scan is not None and _is_told_bounded(self.masks.get(name))):
            if not told or scan is None:
                yield from ((name, Bounded.cut_from(whole)) for name, whole in self.each_mask(group))
                continue
            for name in group:
                with self.named():
                    source: Any = self.masks[name]
                    if isinstance(source, Path):  # refused before its voxels are read
                        turn_onto(scan, files.read_geometry(source, labels=True), f"{name} mask")
                    mask = (
                        files.open_stored(source, labels=True).mask() if isinstance(source, Path) else source.bounded()
                    )
                    mask = mask.onto(scan, f"{name} mask")
                yield name, mask

    def _read_labels(self, path: Path, name: str, box: Box | None, layer: int | None = None) -> Volume:
        """A mask, label map or layer of segments on the scan's grid, or a box of it."""
        scan = self._scan_grid
        segments = files.suffix_of(path) == files.SEGMENTS_SUFFIX
        if scan is None or segments:
            labels = files.read_labels(path, layer=layer)
            labels = labels if scan is None else labels.on(scan, f"{name} mask", partly=segments)
            return labels if box is None else labels.crop(box)
        stored = files.read_geometry(path, labels=True)
        if turn_onto(scan, stored, f"{name} mask") is None:
            return files.read_labels(path, box)
        labels = files.read_labels(path, box and scan.box_on(stored, box))
        return labels.on(scan if box is None else scan.crop(box))

    def reads(self) -> Reads:
        """What the case is made from: what is known of it, and every file behind its scan and its masks.

        Reads no voxels. Masks that are made when asked for tell by a `reads` of their own what they are made from, or
        by their fields; of other functions nothing is known.
        """
        known = [self.id, self.patient, self.dataset, dict(self.attributes)]
        tells = getattr(self.masks, "reads", None)
        if tells is not None:
            masks: Reads = tells()
            return Reads([known, _without_file(self.image)], _files_of(self.image)) + masks
        sources = {"": self.image, **self.masks}
        places = {
            path: number for number, path in enumerate(dict.fromkeys(p for s in sources.values() for p in _files_of(s)))
        }
        facts = [[name, _without_file(s), [places[path] for path in _files_of(s)]] for name, s in sources.items()]
        return Reads([known, facts], tuple(places))

    def has_organ(self, organ: str) -> bool:
        """Whether any part of the organ is annotated."""
        return any(part in self.masks for part in anatomy.organ(organ).structures)

    def read_organ(self, organ: str, box: Box | None = None) -> Volume:
        """An organ as one bool mask: its annotated parts (both kidneys) and the tumors inside it.

        Raises `CaseError` if no part of it is annotated.
        """
        parts = [part for part in anatomy.organ(organ).structures if part in self.masks]
        if not parts:
            raise CaseError(
                f"the {organ} is not annotated",
                case=self.id,
                found=", ".join(self.masks) or "no mask",
                expected=" or ".join(anatomy.organ(organ).structures),
                fix="leave the organ out of the recipe, or segment it first",
            )
        lesion = anatomy.organ(organ).lesion
        masks = list(self.read_masks(parts + [lesion] * (lesion in self.masks), box).values())
        return Volume(np.logical_or.reduce([mask.data for mask in masks]), masks[0].geometry)

    def named(self) -> _CaseNamed:
        """A block whose `SynthomaError` names this case."""
        return _CaseNamed(self.id)


class _CaseNamed:
    """A block whose `SynthomaError` names the case."""

    def __init__(self, case: str) -> None:
        self.case = case

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SynthomaError) and error.case is None:
            raise error.of_case(self.case) from error


def _files_of(source: Any) -> tuple[Path, ...]:
    """The files behind a source; of a function with fields (a dataclass), those among its fields."""
    if isinstance(source, Path):
        return (source,)
    if isinstance(source, tuple):
        return tuple(path for part in source for path in _files_of(part))
    if is_dataclass(source) and not isinstance(source, Volume | Case):
        return tuple(path for own in fields(source) for path in _files_of(getattr(source, own.name)))
    return ()


def _without_file(source: Any) -> Any:
    """What tells a source beside its files: the values of a label map, the voxels of one in memory."""
    if isinstance(source, Volume):
        digest = hashlib.blake2b(repr((source.data.shape, source.geometry.affine.tolist())).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(source.data).tobytes())
        return digest.hexdigest()
    if is_dataclass(source):
        return {own.name: _without_file(getattr(source, own.name)) for own in fields(source)}
    if isinstance(source, tuple):
        return [_without_file(part) for part in source]
    return source if isinstance(source, int | float | str) else ""


def _is_told_bounded(source: Source | None) -> bool:
    return hasattr(source, "bounded") or (isinstance(source, Path) and files.suffix_of(source) != files.SEGMENTS_SUFFIX)


def _as_bool(data: Array) -> Array:
    """Where a mask is not 0; the same memory if it holds 0 and 1 only."""
    if data.dtype == np.uint8 and data.max(initial=0) <= 1:
        return data.view(bool)
    return data if data.dtype == bool else data != 0


def _where(labels: Array, values: tuple[int, ...]) -> Array:
    if len(values) == 1:
        return np.asarray(labels == values[0])
    table = np.zeros(np.iinfo(labels.dtype).max + 1, bool)
    table[[value for value in values if value < table.size]] = True
    return table[labels]


@dataclass(frozen=True)
class Lesion:
    """One connected tumor of a mask. Made by `find_lesions` only.

    index: 1, 2, ... by falling volume. equivalent_diameter_mm: of the ball of the same volume. center_mm: centroid,
    RAS+. box: in voxels of the mask. synthetic: made by us. longest_axial_mm: the longest line in any axial slice,
    between outer corners of voxels, as radiologists measure a lesion; nan where it was not measured.
    """

    case: str
    organ: str
    index: int
    voxels: int
    volume_ml: float
    equivalent_diameter_mm: float
    center_mm: tuple[float, float, float]
    box: Box
    synthetic: bool = False
    longest_axial_mm: float = math.nan


def find_lesions(mask: Volume, organ: str, case: str = "", synthetic: bool = False) -> list[Lesion]:
    """The 26-connected components of a tumor mask, largest first; an empty mask gives an empty list."""
    return _components(mask, organ, case, synthetic)[0]


def label_lesions(mask: Volume, organ: str, case: str = "", lengths: bool = True) -> tuple[list[Lesion], Array, Box]:
    """The same, with each lesion's index in its voxels on the box of all of them; empty if the mask is.

    lengths: whether `longest_axial_mm` is wanted, which costs most where there are many.
    """
    lesions, parts = _components(mask, organ, case, lengths=lengths)
    return lesions, parts.ranked, parts.box


def _components(
    mask: Volume, organ: str, case: str, synthetic: bool = False, lengths: bool = True
) -> tuple[list[Lesion], Parts]:
    """Lesions, largest first, and the parts that they are."""
    parts = parts_of(mask)
    length_mm = _length_of(mask.geometry)
    lesions = []
    numbered = zip(parts.order.tolist(), parts.sizes.tolist(), parts.centers_mm.tolist(), parts.boxes, strict=True)
    for index, (label, voxels, (x, y, z), place) in enumerate(numbered, start=1):
        mm3 = voxels * mask.geometry.voxel_mm3
        box = Box(triple([s.start for s in place]), triple([s.stop for s in place])).shift(parts.box.lower)
        sizes = mm3 / 1000, equivalent_diameter_mm(mm3)
        longest_mm = length_mm(parts.labels[place] == label) if lengths else math.nan
        lesions.append(Lesion(case, organ, index, voxels, *sizes, (x, y, z), box, synthetic, longest_mm))
    return lesions, parts


def _length_of(geometry: Geometry) -> Callable[[Array], float]:
    """`longest_axial_mm` that measures equal specks once: noise has thousands of them."""
    known: dict[tuple[tuple[int, ...], bytes], float] = {}

    def length_mm(shape: Array) -> float:
        if shape.size > _SPECK:
            return longest_axial_mm(shape, geometry)
        key = shape.shape, shape.tobytes()
        if key not in known:
            known[key] = longest_axial_mm(shape, geometry)
        return known[key]

    return length_mm


def equivalent_diameter_mm(volume_mm3: float) -> float:
    """Diameter of the ball of this volume; 0 for 0."""
    return float((6 * volume_mm3 / np.pi) ** (1 / 3))


def longest_axial_mm(mask: Array, geometry: Geometry) -> float:
    """The longest line between two points of a mask (I, J, K) within one axial slice, in mm; 0 if it is empty.

    geometry: the mask's axes and spacing; its shape does not matter. Measured between outer corners of voxels, so a
    single voxel has the length of its diagonal. Axial slices are those across the axis nearest to head and feet.
    """
    up = next(axis for axis, letter in enumerate(geometry.axes) if letter in "SI")
    across = [axis for axis in range(3) if axis != up]
    slices = np.ascontiguousarray(mask.transpose(up, *across))
    steps = geometry.affine[:3, across]  # one voxel along either axis of a slice, mm
    longest, most = 0.0, _most_mm(slices, steps)
    for number in np.argsort(-most, kind="stable").tolist():
        if most[number] <= longest:  # no slice that is left holds a longer line
            break
        points = hull_corners(row_ends(slices[number])) @ steps.T
        apart = ((points[:, None] - points[None]) ** 2).sum(axis=2)
        longest = max(longest, float(np.sqrt(apart.max())))
    return longest


def _most_mm(slices: Array, steps: Array) -> Array:
    """No line within each slice (n, I, J) is longer: twice the way from its box's middle to the farthest corner."""
    rows, count, length = np.asarray(slices.any(axis=2)), slices.shape[1], slices.shape[2]
    first, last = slices.argmax(axis=2), length - slices[:, :, ::-1].argmax(axis=2)
    height = (rows.argmax(axis=1) + count - rows[:, ::-1].argmax(axis=1)) / 2
    width = (np.where(rows, first, length).min(axis=1) + np.where(rows, last, 0).max(axis=1)) / 2
    across = np.abs(np.arange(count) + 0.5 - height[:, None]) + 0.5
    along = np.maximum(width[:, None] - first, last - width[:, None])
    (one, both), (_, other) = steps.T @ steps
    squared = one * across**2 + 2 * abs(both) * across * along + other * along**2
    return np.asarray(2 * np.sqrt(np.where(rows, squared, 0).max(axis=1)) * (1 + 1e-12))


def row_ends(plane: Array) -> Array:
    """The corners (n, 2) at both ends of every row of a slice, in voxels; the farthest two points are among them."""
    rows = np.flatnonzero(plane.any(axis=1))
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - plane[rows, ::-1].argmax(axis=1)
    return np.concatenate([np.stack([rows + more, ends], axis=1) for more in (0, 1) for ends in (first, last)])


def hull_corners(points: Array) -> Array:
    """The corners of the convex hull of points (n, 2) that are not all on one line; a few points as they are."""
    from scipy.spatial import ConvexHull

    return points if len(points) <= 40 else points[ConvexHull(points).vertices]
