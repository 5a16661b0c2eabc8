"""Patients as the arrays that a pipeline holds: an image, an affine, one label map."""

from __future__ import annotations

import numpy as np

from synthoma.cases import Case
from synthoma.volume import Array

LABELS = {"liver": 1, "liver_tumor": 2, "kidney_left": 3, "kidney_tumor": 4, "spleen": 5}
_VALUES = {"liver": 1, "kidney_left": 3, "spleen": 5, "liver_lesion": 2, "kidney_lesion": 4}


def label_map(case: Case) -> Array:
    """The case's masks with the values of `LABELS`, uint8."""
    labels = np.zeros(case.read_geometry().shape, np.uint8, order="F")
    masks = case.read_masks()
    for name, value in _VALUES.items():
        if name in masks:
            labels[masks[name].data] = value
    return labels
