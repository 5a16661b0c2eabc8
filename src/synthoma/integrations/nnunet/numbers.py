"""Values of a segmentation as numbers of structures, as synthesis knows them, and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy
from synthoma.integrations.labels import LabelScheme
from synthoma.learning.gridding import IGNORED, LEFT_OUT
from synthoma.volume import Array

KEEP = -1  # a number that says too little to choose a value by: the voxel keeps its own
_OTHER_TUMOR = 1 + max(anatomy.STRUCTURES.values())
_FIRST_OTHER, _LAST_OTHER = _OTHER_TUMOR + 1, 62  # structures that `anatomy` does not know


@dataclass(frozen=True, eq=False)
class Numbers:
    """A label scheme as tables. number_of: by value. value_of: int16, by number; `KEEP` where it is no single value.

    A value that belongs to several structures is that of the smallest. Tumors of other organs, and structures that
    `anatomy` does not know, have numbers of their own, so that nothing grows over them. Vessels inside organs count as
    background.
    """

    number_of: NDArray[np.uint8]
    value_of: NDArray[np.int16]

    @classmethod
    def of_scheme(cls, scheme: LabelScheme) -> Numbers:
        """The tables of a scheme."""
        known = dict(anatomy.STRUCTURES) | dict.fromkeys(LEFT_OUT, 0) | {anatomy.IGNORE: IGNORED}
        known |= {organ.name: known[organ.parts[0]] for organ in anatomy.ORGANS.values() if organ.name not in known}
        number_of = np.zeros(1 + max(scheme.values), np.uint8)
        value_of = np.full(256, KEEP, np.int16)
        value_of[0] = 0
        free = _FIRST_OTHER
        # small structures last, over those that hold them
        for name, values in sorted(scheme.structures.items(), key=lambda item: -len(item[1])):
            number = known.get(name, _OTHER_TUMOR if anatomy.is_lesion(name) else free)
            if number == free:
                free += 1
            number_of[list(values)] = min(number, _LAST_OTHER) if number != IGNORED else IGNORED
        for number in range(1, 256):
            own = np.flatnonzero(number_of == number)
            if len(own) == 1:
                value_of[number] = own[0]
        for organ, value in scheme.tumors.items():
            value_of[anatomy.STRUCTURES[anatomy.organ(organ).lesion]] = value
        return cls(number_of, value_of)

    @cached_property
    def tumor_values(self) -> frozenset[int]:
        """Of new tumors."""
        lesions = [anatomy.STRUCTURES[organ.lesion] for organ in anatomy.ORGANS.values()]
        return frozenset(self.value_of[lesions].tolist()) - {KEEP}

    @cached_property
    def organ_values(self) -> frozenset[int]:
        """Of organs that can have tumors, without their tumors."""
        parts = [anatomy.STRUCTURES[part] for organ in anatomy.ORGANS.values() for part in organ.parts]
        return frozenset(np.flatnonzero(np.isin(self.number_of, parts)).tolist())

    def numbers(self, values: Array) -> NDArray[np.uint8]:
        """Of a segmentation as nnU-Net keeps it, whose -1 lies outside of the scan's content."""
        return self.number_of[np.maximum(values, 0)]
