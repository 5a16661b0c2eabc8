"""One read of a case: what its scan and each of its masks hold, and what could not be read.

The catalog's row and the validation's faults both come from here, so a case is read once. Passes over whole
arrays are those of a maximum; everything else looks at a sample of the scan and at the box around a structure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from synthoma import anatomy, files
from synthoma.cases import Case, Label, Lesion, Source, find_lesions
from synthoma.datasets.fingerprint import fingerprint
from synthoma.datasets.labels import used_values
from synthoma.errors import SynthomaError
from synthoma.formats.segments import Segment
from synthoma.volume import Array, Box, Geometry, Volume

SAMPLES = 100_000  # voxels for statistics of HU
LESION_MARGIN_MM = 3.0  # an organ this near to a lesion's box holds it
OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


@dataclass(frozen=True)
class Scan:
    """A scan. low, high: over all voxels, nan if any is. sample: finite values, one axis."""

    geometry: Geometry
    low: float
    high: float
    sample: Array
    fingerprint: bytes
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Structure:
    """An annotated structure. box: None if it has no voxel. cut: sides (R, A, S, ...) where it meets the end
    of the volume. strange: other values than one in a mask of its own."""

    name: str
    geometry: Geometry
    volume_ml: float
    box: Box | None
    cut: str = ""
    strange: tuple[int, ...] = ()

    @property
    def center_mm(self) -> Array:
        """Center of the box, RAS+; nan if there is none."""
        if self.box is None:
            return np.full(3, np.nan)
        return self.geometry.to_mm((np.add(*self.box) - 1) / 2)


@dataclass(frozen=True)
class Inspection:
    """A case after one read. structures: those that could be read. lesions: by structure, the largest first.

    apart: lesion structure -> how many of its lesions have no organ near. unknown: label map -> values that
    no structure stands for. failed: structure, "" for the scan, "masks" for their list -> why it was not read.
    """

    case: Case
    scan: Scan | None
    structures: dict[str, Structure] = field(default_factory=dict)
    lesions: dict[str, list[Lesion]] = field(default_factory=dict)
    apart: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, list[int]] = field(default_factory=dict)
    failed: dict[str, SynthomaError] = field(default_factory=dict)


# A structure's voxels inside its box, and that box.
Part = tuple[Array, Box]


def inspect_case(case: Case) -> Inspection:
    """Scan and masks, each read once; what cannot be read is noted, and the rest still read."""
    scan, failed = None, {}
    try:
        scan = _scan(case)
    except SynthomaError as error:
        failed[""] = error
    result = Inspection(case, scan, failed=failed)
    parts: dict[str, Part] = {}
    try:
        sources = _by_source(case)
    except SynthomaError as error:  # a label map that must be read to know its structures
        if not failed or failed[""].what != error.what:  # a folder without a scan is told once
            result.failed["masks"] = error
        return result
    for source, members in sources:
        try:
            labels = _on_scan(_labels(source), source, scan)
        except SynthomaError as error:
            result.failed.update(dict.fromkeys(members, error))
            continue
        if isinstance(source, Label):
            found = _in_map(labels, members, result, str(source.path))
        else:
            found = _alone(labels, next(iter(members)))
        for structure, part in found:
            result.structures[structure.name] = structure
            if part is not None and _is_needed(structure.name, case):
                parts[structure.name] = (part[0].copy(order="K"), part[1])  # lets go of the whole mask
    for name in parts:
        if anatomy.is_lesion(name):
            _find_lesions(name, parts, result)
    return result


def _scan(case: Case) -> Scan:
    ct = case.read_image()
    data = ct.data
    finite = _sample(data)
    finite = finite[np.isfinite(finite)] if finite.dtype.kind == "f" else finite
    doubts = files.affine_doubts(case.image) if isinstance(case.image, Path) and case.image.is_file() else []
    empty = data.size == 0
    low, high = (np.nan, np.nan) if empty else (float(data.min()), float(data.max()))
    return Scan(ct.geometry, low, high, finite, fingerprint(ct), tuple(doubts))


def _sample(data: Array) -> Array:
    """Every n-th voxel of the rows and of the columns of every slice, about `SAMPLES` in all."""
    step = max(1, round((data.size / SAMPLES) ** 0.5))
    slowest = int(np.argmax(np.abs(data.strides)))
    steps = [1 if axis == slowest else min(step, max(1, data.shape[axis])) for axis in range(3)]
    return data[tuple(slice(n // 2, None, n) for n in steps)].ravel()


def _by_source(case: Case) -> list[tuple[Source, dict[str, tuple[int, ...]]]]:
    """Each file once, with the structures it holds and their values."""
    maps: dict[Path, tuple[Source, dict[str, tuple[int, ...]]]] = {}
    alone: list[tuple[Source, dict[str, tuple[int, ...]]]] = []
    for name, source in case.masks.items():
        if isinstance(source, Label):
            maps.setdefault(source.path, (source, {}))[1][name] = source.values
        else:
            alone.append((source, {name: ()}))
    return [*maps.values(), *alone]


def _labels(source: Source) -> Volume:
    if isinstance(source, Volume):
        return source
    if isinstance(source, Label):
        return files.read_labels(source.path)
    return files.read_labels(source) if isinstance(source, Path) else source()


def _on_scan(mask: Volume, source: Source, scan: Scan | None) -> Volume:
    """The mask with the scan's axes, if it lies on the scan's grid but for their order and direction."""
    turn = scan.geometry.alignment(mask.geometry) if scan else None
    if scan is None or turn is None or (turn.changes_nothing and mask.data.shape == scan.geometry.shape):
        return mask
    if isinstance(source, Segment) or (isinstance(source, Path) and files.suffix_of(source) == files.SEGMENTS_SUFFIX):
        return mask.on(scan.geometry, partly=True)
    same = turn.lower == (0, 0, 0) and sorted(mask.data.shape) == sorted(scan.geometry.shape)
    return mask.on(scan.geometry) if same else mask


def _alone(mask: Volume, name: str) -> Iterator[tuple[Structure, Part | None]]:
    """A mask of its own: any value but 0 is the structure."""
    data = mask.data.view(bool) if mask.data.dtype == np.uint8 else mask.data
    box = Box.around(data)
    if box is None:
        yield Structure(name, mask.geometry, 0.0, None), None
        return
    part = mask.data[box.slices]
    strange: tuple[int, ...] = ()
    if part.dtype != bool and part.max() > 1:
        values = used_values(part)
        strange = tuple(values) if len(values) > 1 else ()
    inside = part if part.dtype == bool else part.view(bool) if part.max() == 1 and part.itemsize == 1 else part != 0
    yield _structure(name, mask.geometry, box, int(np.count_nonzero(inside)), strange), (inside, box)


def _in_map(
    labels: Volume, members: dict[str, tuple[int, ...]], result: Inspection, path: str
) -> Iterator[tuple[Structure, Part | None]]:
    """The structures of a label map, counted in one pass over the box of all of them."""
    import cc3d

    whole = Box.around(labels.data.view(bool) if labels.data.dtype == np.uint8 else labels.data)
    if whole is None:
        for name in members:
            yield Structure(name, labels.geometry, 0.0, None), None
        return
    part = labels.data[whole.slices]
    table = cc3d.statistics(np.asfortranarray(part))
    counts = table["voxel_counts"]
    known = {value for values in members.values() for value in values}
    strange = [value for value in np.flatnonzero(counts).tolist() if value and value not in known]
    if strange:
        result.unknown[path] = strange
    for name, values in members.items():
        present = [value for value in values if value < len(counts) and counts[value]]
        if not present:
            yield Structure(name, labels.geometry, 0.0, None), None
            continue
        inner = _around([table["bounding_boxes"][value] for value in present])
        box = inner.shift(whole.lower)
        voxels = int(sum(int(counts[value]) for value in present))
        mask: Part | None = None
        if _is_needed(name, result.case):
            mask = (np.isin(part[inner.slices], present), box)
        yield _structure(name, labels.geometry, box, voxels), mask


def _structure(name: str, geometry: Geometry, box: Box, voxels: int, strange: tuple[int, ...] = ()) -> Structure:
    cut = ""
    for letter, low, high, size in zip(geometry.axes, box.lower, box.upper, geometry.shape, strict=True):
        cut += OPPOSITE[letter] * (low == 0) + letter * (high == size)
    return Structure(name, geometry, voxels * geometry.voxel_mm3 / 1000, box, cut, strange)


def _is_needed(name: str, case: Case) -> bool:
    """Lesions, and the organs that should hold annotated lesions, are looked at voxel by voxel."""
    return anatomy.is_lesion(name) or any(
        name in organ.structures and organ.lesion in case.masks for organ in anatomy.ORGANS.values()
    )


def _find_lesions(name: str, parts: dict[str, Part], result: Inspection) -> None:
    """Fills in the lesions of one mask, and how many of them lie apart from the organ."""
    mask, box = parts[name]
    geometry = result.structures[name].geometry
    stem = name.removesuffix("_lesion")
    lesions = find_lesions(Volume(mask, geometry.crop(box)), stem, result.case.id)
    result.lesions[name] = lesions
    organ = anatomy.ORGANS.get(stem)
    annotated = [part for part in organ.structures if part in result.structures] if organ else []
    near = [part for part in annotated if result.structures[part].geometry.matches(geometry)]
    if len(near) < len(annotated) or not near:
        return
    margin = [int(np.ceil(LESION_MARGIN_MM / spacing)) for spacing in geometry.spacing_mm]
    organs = [parts[part] for part in near if part in parts]
    result.apart[name] = sum(not _holds(organs, lesion.box.shift(box.lower).grow(margin)) for lesion in lesions)


def _holds(organs: list[Part], box: Box) -> bool:
    """Whether any organ has a voxel inside the box."""
    for mask, place in organs:
        shared = place.overlap(box)
        if shared and mask[shared[0]].any():
            return True
    return False


def _around(blocks: list[tuple[slice, slice, slice]]) -> Box:
    """The smallest box that holds all blocks."""
    i, j, k = ([block[axis].start for block in blocks] for axis in range(3))
    x, y, z = ([block[axis].stop for block in blocks] for axis in range(3))
    return Box((min(i), min(j), min(k)), (max(x), max(y), max(z)))
