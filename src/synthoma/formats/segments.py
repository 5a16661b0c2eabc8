"""Several structures in one `.seg.nrrd`, as 3D Slicer writes it: their names, and each as a mask (extra `itk`).

The header names the segments. Those that do not overlap share a layer, a label map; overlapping ones lie in layers of
their own, numbers of one voxel. The file covers only the part of the scan's grid that holds segments.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from synthoma.errors import FileError
from synthoma.formats import itk
from synthoma.volume import Box, Geometry, Volume

SUFFIX = ".seg.nrrd"
_NAMED = re.compile(r"Segment(\d{1,6})_(?:ID|Name)", re.ASCII)


@dataclass(frozen=True)
class Segment:
    """One structure of a file: the voxels of a layer that hold a value. Called, it reads them.

    name: as its author wrote it. It is a source of masks for a `Case`, which reads the segments of one layer at once
    and places them on the scan's grid.
    """

    path: Path
    name: str
    layer: int
    value: int

    def __call__(self) -> Volume:
        """The segment as a bool mask on the file's own grid, a part of the scan's."""
        return self.mask(read_layer(self.path, self.layer))

    def mask(self, layer: Volume) -> Volume:
        """The segment in its layer, which was read before."""
        return Volume(layer.data == self.value, layer.geometry)


def list_segments(path: Path | str) -> list[Segment]:
    """The segments that a file's header names, in its order; none for a file that names none.

    Raises `FileError` if two have one name, or a layer or value is none.
    """
    path = Path(path)
    told, layers = itk.metadata(path, "Segment")
    numbers = sorted({int(match[1]) for match in map(_NAMED.fullmatch, told) if match})
    found: list[Segment] = []
    for place, number in enumerate(numbers):
        key = f"Segment{number}_"
        name = _letters(told.get(f"{key}Name", "") or told.get(f"{key}ID", "")) or f"segment {number}"
        # before 2020 Slicer wrote a layer for each, with neither number
        layer = told.get(f"{key}Layer", str(place if layers > 1 else 0))
        value = told.get(f"{key}LabelValue", "1")
        if not layer.strip().isdecimal() or not value.strip().isdecimal() or int(layer) >= layers:
            raise FileError(
                f"{path}: the segment {name!r} is nowhere",
                found=f"layer {layer}, value {value}",
                expected=f"a layer below {layers}, and a label",
            )
        if any(other.name == name for other in found):
            raise FileError(f"{path} holds two segments called {name!r}", fix="rename one in the program that wrote it")
        found.append(Segment(path, name, int(layer), int(value)))
    return found


def read_layer(path: Path | str, layer: int, box: Box | None = None) -> Volume:
    """One layer of a file as a label map (uint8 or uint16), or a box of it."""
    return itk.stored(Path(path), layer).labels(box)


def read_grid(path: Path | str) -> Geometry:
    """Where the voxels of every layer lie, from the header alone."""
    return itk.stored(Path(path), 0).geometry


def _letters(name: str) -> str:
    """A name as text; bytes that are no UTF-8 are read as Latin-1."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = os.fsencode(name).decode("latin-1")
    return name.strip()
