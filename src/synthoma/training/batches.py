"""Batches that generators learn from: the same for any number of processes that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from synthoma.learning.crops import LesionCrop, LesionCrops
from synthoma.learning.tissue import TISSUE_HU
from synthoma.seeds import rng_for

Batch = dict[str, Any]


def stream(make: Callable[[int], Batch], start: int, stop: int, workers: int) -> Iterator[Batch]:
    """The batches `make` gives of steps `start` ... `stop`, made ahead by so many processes; 0 makes them here."""
    data = DataLoader(
        _Steps(make),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        worker_init_fn=_settle,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # its own: the global one belongs to the training loop
    )
    yield from data


@dataclass(frozen=True, eq=False)
class LesionBatches:
    """Batches of real lesions; organs with few lesions come up more often than their share. `batches(step)` is one.

    hu (B, 1, S, S, S), base (B,): HU of the scan, and the organ's. alpha, support, tissue: of the lesion; its share of
    each voxel, where it is above 0, and its HU around the crop's mean in units of the network. condition (B, ...).
    trend: (B,), of looks. case: ids. index: of each lesion.
    """

    crops: LesionCrops
    chosen: tuple[int, ...]
    batch: int
    seed: int
    name: str = "lesions"

    def __call__(self, step: int) -> Batch:
        rng = rng_for(self.seed, self.name, step)
        picks = rng.choice(len(self.chosen), self.batch, p=self._weights())
        indices = [self.chosen[pick] for pick in picks]
        return collate([self.crops.crop(index, rng) for index in indices], indices)

    def looks(self) -> NDArray[np.float32]:
        """Those of all lesions to learn from, a row each."""
        return np.stack([self.crops.lesions[index][1].look.numbers() for index in self.chosen])

    def _weights(self) -> NDArray[np.float64]:
        organs = [self.crops.lesions[index][1].look.organ for index in self.chosen]
        counts = {organ: organs.count(organ) for organ in set(organs)}
        weights = np.array([counts[organ] ** -0.5 for organ in organs])
        return np.asarray(weights / weights.sum())


def collate(crops: list[LesionCrop], indices: list[int]) -> Batch:
    """Crops as one batch; see `LesionBatches`."""
    tissue = []
    for crop in crops:
        core = crop.tissue[crop.mask]
        tissue.append((crop.tissue - (core.mean() if core.size else 0)) / TISSUE_HU)
    return {
        "hu": _stacked([crop.hu for crop in crops]),
        "base": torch.tensor([crop.base_hu for crop in crops], dtype=torch.float32),
        "alpha": _stacked([crop.alpha for crop in crops]),
        "mask": _stacked([crop.mask for crop in crops]),
        "others": _stacked([crop.others for crop in crops]),
        "tissue": _stacked(tissue),
        "tissue_hu": _stacked([crop.tissue for crop in crops]),
        "condition": torch.from_numpy(np.stack([crop.look.condition() for crop in crops])),
        "trend": torch.tensor([crop.look.trend for crop in crops], dtype=torch.float32),
        "case": [crop.case for crop in crops],
        "index": indices,
    }


def noise_like(images: torch.Tensor, seed: int, *keys: str | int) -> torch.Tensor:
    """Standard normal noise of this shape, the same on every machine."""
    drawn = rng_for(seed, *keys).standard_normal(tuple(images.shape), np.float32)
    return torch.from_numpy(drawn).to(images.device)


def _stacked(arrays: list[Any]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.ascontiguousarray(array) for array in arrays])[:, None])


class _Steps(Dataset[Batch]):
    def __init__(self, make: Callable[[int], Batch]) -> None:
        self.make = make

    def __getitem__(self, step: int) -> Batch:
        return self.make(step)


def _settle(worker: int) -> None:
    torch.set_num_threads(1)
