"""How much memory segmenting a scan takes, told before a voxel is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from synthoma.learning.gridding import training_grid
from synthoma.learning.models import ModelSpec
from synthoma.learning.networks import NetworkRecipe, build_network
from synthoma.segmentation.windows import Windows
from synthoma.volume import Geometry, Triple

_FLOAT, _HU = 4, 2
# Measured on CPUs with 96^3 windows: convolutions need a third more than the maps they read and write, and full
# resolution is laid out in blocks of 16 channels however few there are.
WORKSPACE, BLOCKS = 1.35, 64
RESULT = 10  # bytes a voxel of the scan while a structure that fills all of it is cut out


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by what they are for. scan: as read; the rest comes on top of it."""

    scan: int
    resampled: int
    probabilities: int
    slab: int
    network: int
    result: int
    first_look: int = 0

    @classmethod
    def of(cls, spec: ModelSpec, scan: Geometry, windows: Triple, batch: int, kept: int = 0) -> MemoryEstimate:
        """What a scan of this geometry will take in windows of this size, `batch` at a time.

        kept: the most that may be kept of a first look. On a GPU that, slab and network lie there, all else in main
        memory.
        """
        grid = training_grid(scan, spec.spacing_mm)
        classes, voxels, found = len(spec.classes), math.prod(grid.shape), math.prod(scan.shape)
        slab = math.prod(Windows(grid.shape, windows, 0.0).slab) * classes * _FLOAT
        window = batch * math.prod(windows) * _FLOAT
        return cls(
            scan=found * _HU,
            resampled=voxels * _HU,
            probabilities=voxels * classes,
            slab=2 * slab,  # twice while it advances
            network=int(WORKSPACE * network_bytes(spec.network, classes, windows, batch)) + BLOCKS * window,
            result=RESULT * found,
            first_look=min(kept, len(Windows(grid.shape, windows, 0.0)) * classes * math.prod(windows) * _FLOAT),
        )

    @property
    def above_scan(self) -> int:
        """The most that is needed at once, besides the scan: slab and network go before the result comes."""
        return self.probabilities + max(self.resampled + self.slab + self.network + self.first_look, self.result)

    @property
    def bytes(self) -> int:
        """The most that is needed at once."""
        return self.scan + self.above_scan

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in vars(self).items())
        return f"at most about {gigabytes(self.bytes)} ({parts})"


@lru_cache(maxsize=8)
def network_bytes(network: NetworkRecipe, classes: int, size: Triple, batch: int) -> int:
    """The most that the network's maps fill at once for `batch` windows in float32; nothing is computed."""
    with torch.random.fork_rng(devices=[]):
        net = build_network(network, classes).eval().to("meta")
    with torch.no_grad(), _Peak() as peak:
        net(torch.empty(batch, 1, *size, device="meta"))
    return int(peak.bytes)


def gigabytes(size: float) -> str:
    """`1.25 GB`."""
    return f"{size / 1e9:.2f} GB"


class _Peak(TorchDispatchMode):
    """The most that the tensors made in the block fill at once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.live = {key: entry for key, entry in self.live.items() if not entry[0].expired()}
        self.bytes = max(self.bytes, sum(size for _, size in self.live.values()))
        return result
