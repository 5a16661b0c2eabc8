"""A preprocessed case as synthesis reads it: HU and structures, box by box, along RAS axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.integrations.nnunet.changes import Changes
from synthoma.integrations.nnunet.normalization import CtNormalization
from synthoma.integrations.nnunet.numbers import KEEP, Numbers
from synthoma.learning.entry import read_tables
from synthoma.learning.gridding import IGNORED
from synthoma.orientation import moves
from synthoma.synthesis.insertion.crops import DrawnTumor
from synthoma.synthesis.insertion.scene import FRAME
from synthoma.volume import PADDING_HU, Array, Box, Geometry, Volume

_STRUCTURE = 63  # of a label of a `crops.Change`; the bit above says that the tumor bulges out of its organ there


@dataclass(eq=False)
class Host:
    """A case that can get tumors. stored: its grid along the axes of nnU-Net's arrays. path: of its tables.

    annotated: structures; the tumors of an organ are among them if new ones may go there. Voxels are read within
    `reading` only, from the arrays that it is given.
    """

    case: str
    stored: Geometry
    annotated: tuple[str, ...]
    path: Path
    normalization: CtNormalization
    numbers: Numbers
    attributes: Mapping[str, Any] = field(default_factory=dict)
    _arrays: tuple[Any, Any] | None = None

    @cached_property
    def geometry(self) -> Geometry:
        """The grid along RAS axes."""
        return self.stored.reoriented(FRAME)

    @contextmanager
    def reading(self, image: Any, segmentation: Any) -> Iterator[None]:
        """A block in which the voxels are those of these arrays (1, I, J, K), numpy or blosc2."""
        self._arrays = image, segmentation
        try:
            yield
        finally:
            self._arrays = None

    def read_hu(self, box: Box) -> Array:
        """int16 HU of a box along RAS axes; -1024 where it reaches outside."""
        return self._read(0, box, PADDING_HU)

    def read_labels(self, box: Box) -> NDArray[np.uint8]:
        """Numbers of structures in a box along RAS axes; 0 outside."""
        return self._read(1, box, 0)

    def tables(self, name: str) -> dict[str, Array]:
        """What synthesis measured of the case; `path` is that of the tables of this name."""
        return read_tables(self.path)

    def changes(self, drawn: Sequence[DrawnTumor]) -> Changes:
        """What tumors that are made change, along the axes of nnU-Net's arrays; each voxel as the last one left it."""
        order, flips = moves(FRAME, self.stored.axes)
        turn = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)
        parts: list[tuple[Array, Array, Array]] = []
        boxes: list[Box] = []
        for tumor in drawn:
            made = tumor.made
            assert made is not None, "tumors are made when they are drawn"
            hu, numbers = self.read_hu(made.box), self.read_labels(made.box)
            after = np.where(made.labels == IGNORED, made.labels, made.labels & _STRUCTURE)
            differs = (made.hu != hu) | (after != numbers)
            for earlier in boxes:  # what an earlier tumor changed may have been changed back
                if shared := made.box.overlap(earlier):
                    differs[shared[0]] = True
            values = np.where(after == numbers, np.int16(KEEP), self.numbers.value_of[after])
            by_hu = made.hu.astype(np.float32) - hu
            differs, values, by_hu = (each.transpose(order)[turn] for each in (differs, values, by_hu))
            at = np.argwhere(differs) + self.geometry.turned_box(made.box, self.stored.axes).lower
            parts.append((at, by_hu[differs], values[differs]))
            boxes.append(made.box)
        at, by_hu, values = (np.concatenate(each) for each in zip(*parts, strict=True))
        if any(box.meets(earlier) for n, box in enumerate(boxes) for earlier in boxes[:n]):
            flat = np.ravel_multi_index(tuple(at.T), self.stored.shape)
            last = len(flat) - 1 - np.unique(flat[::-1], return_index=True)[1]
            at, by_hu, values = at[last], by_hu[last], values[last]
        return Changes(at.astype(np.int32), by_hu, values)

    def _read(self, which: int, box: Box, outside: int) -> Array:
        assert self._arrays is not None, "voxels are read within `reading`"
        inside = box.clip(self.geometry.shape)
        whole = np.full(box.shape, outside, np.int16 if which == 0 else np.uint8, order="F")
        if 0 not in inside.shape:
            stored = self.geometry.turned_box(inside, self.stored.axes)
            values = np.asarray(self._arrays[which][(0, *stored.slices)])
            made = self.normalization.to_hu(values) if which == 0 else self.numbers.numbers(values)
            part = Volume(made, self.stored.crop(stored)).reorient(FRAME).data
            whole[inside.seen_from(box).slices] = part
        return whole
