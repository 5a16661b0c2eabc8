"""Samples inside voxels that are long for a tumor: how many, where, and on which finer grid they lie."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Floats, Geometry, Triple, triple

_SAMPLE_MM = 1.25  # voxels longer than this, and than a fifth of the tumor's radius, are sampled more than once
_MOST = 8


def samples_per_voxel(plan: TumorPlan, geometry: Geometry) -> Triple:
    """How many samples a voxel has along each axis."""
    finest = max(_SAMPLE_MM, 0.2 * min(plan.axes_mm))
    return triple(max(1, min(_MOST, int(np.ceil(spacing / finest - 1e-6)))) for spacing in geometry.spacing_mm)


@lru_cache(maxsize=16)
def sample_offsets(samples: Triple) -> Array:
    """Positions of the samples inside a voxel (n, 3), in voxels from its center."""
    axes = [(np.arange(n) + 0.5) / n - 0.5 for n in samples]
    return np.array(np.meshgrid(*axes, indexing="ij")).reshape(3, -1).T


def sample_grid(geometry: Geometry, samples: Triple) -> Geometry:
    """The grid whose voxels are the samples."""
    affine = geometry.affine.copy()
    affine[:3, :3] /= np.asarray(samples)
    affine[:3, 3] = geometry.to_mm((1 / np.asarray(samples) - 1) / 2)
    return Geometry(triple(n * count for n, count in zip(geometry.shape, samples, strict=True)), affine)


def voxel_means(values: Floats, samples: Triple) -> Floats:
    """Means over the samples of each voxel; values: on the `sample_grid`."""
    if samples == (1, 1, 1):
        return values
    i, j, k = (n // count for n, count in zip(values.shape, samples, strict=True))
    parted = values.reshape(i, samples[0], j, samples[1], k, samples[2])
    return np.asarray(parted.mean(axis=(1, 3, 5), dtype=np.float32))
