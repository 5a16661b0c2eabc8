"""Masks of a case as their files hold them: a label map and its values, a mask, or probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from synthoma import files
from synthoma.cases import Case, Label
from synthoma.datasets.labels import used_values
from synthoma.errors import CaseError
from synthoma.volume import Volume


class Mask(NamedTuple):
    """One structure: the voxels of `volume` that hold one of `values`; None is whatever is not 0."""

    volume: Volume
    values: tuple[int, ...] | None = None

    @property
    def is_probability(self) -> bool:
        """Whether the volume holds probabilities; `region_above` refuses those outside 0 to 1."""
        return self.volume.data.dtype == np.float32


def read_masks(case: Case, structures: Sequence[str], strict: bool = False) -> Iterator[tuple[str, Mask]]:
    """The structures in order, one at a time; those of one label map that follow each other read it once.

    strict: a label map with values that stand for nothing is a `CaseError`. Truth may have some: regions to ignore.
    """
    path: Path | None = None
    for name in structures:
        with case.named():
            source = case.masks[name]
            if isinstance(source, Label):
                if source.path != path:
                    labels, path = files.read_labels(source.path), source.path
                    if strict:
                        _refuse_strange(case, path, labels)
                mask = Mask(labels, source.values)
            elif isinstance(source, Path):
                mask = Mask(files.read_image(source))  # int16 for masks, float32 for probabilities
            else:
                mask = Mask(source if isinstance(source, Volume) else source())
        yield name, mask


def _refuse_strange(case: Case, path: Path, labels: Volume) -> None:
    known = {value for source in case.masks.values() if isinstance(source, Label) for value in source.values}
    strange = [value for value in used_values(labels.data) if value not in known]
    if strange:
        raise CaseError(
            f"{path} holds labels outside its scheme",
            found=", ".join(map(str, strange[:5])),
            expected=", ".join(map(str, sorted(known))),
            fix="name them in dataset.json",
        )
