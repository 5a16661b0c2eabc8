"""Overlap and volume of two masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthoma.evaluation.regions import Region


@dataclass(frozen=True)
class VoxelScores:
    """DSC and IoU are nan if both masks are empty, 0 if one is. error_ml: predicted less true volume."""

    dsc: float
    iou: float
    truth_ml: float
    predicted_ml: float

    @property
    def error_ml(self) -> float:
        return self.predicted_ml - self.truth_ml


def score_voxels(truth: Region, predicted: Region) -> VoxelScores:
    """Overlap and volume of two masks of one grid."""
    both = overlap(truth, predicted)
    sizes = truth.voxels + predicted.voxels
    return VoxelScores(
        2 * both / sizes if sizes else np.nan,
        both / (sizes - both) if sizes else np.nan,
        truth.volume_ml,
        predicted.volume_ml,
    )


def overlap(first: Region, second: Region) -> int:
    """How many voxels two masks share."""
    shared = 0
    for block in first.blocks:
        shared += int(np.count_nonzero(block.mask & second.read(block.box)))
    return shared
