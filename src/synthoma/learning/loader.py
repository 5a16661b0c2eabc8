"""Batches of patches as torch tensors, made ahead by worker processes; the same for any number of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from synthoma.errors import RecipeError, RunError
from synthoma.learning.finishing import finish
from synthoma.learning.patches import Patch, Patches, RawPatch

Batch = dict[str, Any]
Position = tuple[int, int]  # epoch, index


def loader(
    patches: Patches,
    epoch: int,
    start: int = 0,
    batch: int = 2,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    epochs: int = 1,
    device: torch.device | None = None,
) -> Iterator[Batch]:
    """The batches of an epoch from step `start` on, and of the epochs after it: `epochs` in all.

    image: float32 (B, 1, I, J, K). target: uint8 (B, C, I, J, K). annotated: bool (B, C). synthetic: bool (B,).
    ignored: bool (B, 1, I, J, K), or None if no patch has ignored voxels. case: ids. box: where each lies. index: of
    each in the epoch. epoch, step: of the batch. batch: patches of this
    process; rank `rank` of `world` takes every `world`-th of a step, so that all together see what one process
    with a batch of `batch * world` sees. workers: processes that make patches ahead; 0 makes them here. device: where
    the batches will be used; for CUDA they lie in page-locked memory. If the augment renders tumors on a device,
    workers only read, and batches are finished there: image, target and ignored are on it. An error in a worker is
    raised here, with its traceback and the case's id.
    """
    steps = steps_per_epoch(patches, batch, world)
    positions = [
        [(now, (step * batch + place) * world + rank) for place in range(batch)]
        for now in range(epoch, epoch + epochs)
        for step in range(start if now == epoch else 0, steps)
    ]
    raw, where_used = patches.finished_on_device, device or torch.device("cpu")
    data: DataLoader[Any] = DataLoader(
        _Stream(patches),
        batch_sampler=positions,
        num_workers=workers,
        collate_fn=list if raw else collate,
        worker_init_fn=_settle,
        pin_memory=not raw and where_used.type == "cuda",
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # its own: the global one belongs to the training loop
    )
    try:
        for made, where in zip(data, positions, strict=True):
            batches = finish(patches, made, where_used) if raw else made
            batches["epoch"], first = where[0]
            batches["step"] = first // (batch * world)
            yield batches
    except RuntimeError as error:
        if "exited unexpectedly" in str(error) or "killed by signal" in str(error):
            raise RunError(
                "a process that makes patches was killed, most likely for want of memory",
                found=str(error).splitlines()[0],
                fix="use fewer workers or smaller patches; in a container give it more shared memory (--shm-size)",
            ) from error
        raise


def steps_per_epoch(patches: Patches, batch: int, world: int = 1) -> int:
    """How many batches an epoch has; patches that do not fill one are not made. `RecipeError` if there is none."""
    steps = patches.recipe.per_epoch // (batch * world)
    if steps == 0:
        raise RecipeError(
            "an epoch has less patches than a batch",
            found=f"per_epoch {patches.recipe.per_epoch}",
            expected=batch * world,
        )
    return steps


def collate(items: list[tuple[int, Patch]]) -> Batch:
    """Patches with their indices as one batch; see `loader`."""
    patches = [patch for _, patch in items]
    return {
        "image": torch.from_numpy(np.stack([patch.image for patch in patches])),
        "target": torch.from_numpy(np.stack([patch.target for patch in patches])),
        "annotated": torch.from_numpy(np.stack([patch.annotated for patch in patches])),
        "ignored": _ignored(patches),
        "synthetic": torch.tensor([patch.synthetic for patch in patches]),
        "case": [patch.case for patch in patches],
        "box": [patch.box for patch in patches],
        "index": [index for index, _ in items],
    }


def _ignored(patches: list[Patch]) -> torch.Tensor | None:
    if all(patch.ignored is None for patch in patches):
        return None
    none = np.zeros(patches[0].image.shape, bool)
    return torch.from_numpy(np.stack([none if patch.ignored is None else patch.ignored for patch in patches]))


class _Stream(Dataset[tuple[int, Patch | RawPatch]]):
    def __init__(self, patches: Patches) -> None:
        self.patches = patches

    def __getitem__(self, position: Position) -> tuple[int, Patch | RawPatch]:
        epoch, index = position
        return index, (self.patches.cut if self.patches.finished_on_device else self.patches.draw)(epoch, index)


def _settle(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # workers are as many as there are cores; OpenCV's own threads do not survive a fork
