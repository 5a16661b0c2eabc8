"""The training loop: a step with the loader and online synthesis beside a step on a constant batch.

On a GPU the U-Net recipe as it is, in bf16, with workers; without one a narrow U-Net on small patches, which are made
in the same process: the figure there is the share of a step that patches take.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch

from synthoma.learning.cache import build_cache
from synthoma.learning.loader import Batch, loader
from synthoma.learning.loop import choose_device, choose_precision
from synthoma.learning.losses import loss
from synthoma.learning.networks import build_network
from synthoma.learning.patches import Patches
from synthoma.phantom.cohort import CohortRecipe, cohort_case
from synthoma.recipe import read_recipe
from synthoma.segmentation.recipe import TrainRecipe
from synthoma.training.tumors import make_augment, with_synthesis

RECIPE = Path(__file__).parents[1] / "src/synthoma/recipes/train/unet.toml"
SMALL = ["network.width=8", "patches.size=[48,48,48]", "patches.spacing_mm=3.0"]
WARM_UP, STEPS = 3, 12
CASES = 4


def step_seconds(recipe: TrainRecipe, batches: Iterable[Batch], device: torch.device) -> float:
    """Mean wall time of a step, the wait for its batch included."""
    torch.manual_seed(0)
    net = build_network(recipe.network, 2).to(device, memory_format=torch.channels_last_3d).train()
    optimizer = torch.optim.AdamW(net.parameters())
    precision = choose_precision("auto", device)
    start = 0.0
    for number, batch in enumerate(islice(batches, WARM_UP + STEPS)):
        if number == WARM_UP:
            _settle(device)
            start = time.perf_counter()
        image = batch["image"].to(device, non_blocking=True, memory_format=torch.channels_last_3d)
        target = batch["target"].to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits = net(image)
        loss(logits, target, batch["annotated"], recipe.loss, recipe.classes)[0].backward()
        optimizer.step()
    _settle(device)
    return (time.perf_counter() - start) / STEPS


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _again(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch


def main() -> None:
    """Print both step times and their ratio."""
    device = choose_device("auto")
    gpu = device.type == "cuda"
    recipe = with_synthesis(read_recipe(TrainRecipe, RECIPE, [] if gpu else SMALL), RECIPE)
    workers = max(0, (os.cpu_count() or 1) - 1) if gpu else 0
    spacing = recipe.patches.spacing_mm
    cases = [cohort_case(CohortRecipe(cases=CASES, spacing_mm=spacing, region="liver"), n) for n in range(CASES)]
    with tempfile.TemporaryDirectory() as folder:
        augment = make_augment(recipe, 0)
        patches = Patches(build_cache(cases, folder, spacing, augment), recipe.patches, recipe.classes, augment)
        constant = step_seconds(recipe, _again(next(loader(patches, 0))), device)
        loaded = step_seconds(recipe, loader(patches, 1, workers=workers, device=device), device)
    what = f"{recipe.network.name}, batch 2 of {recipe.patches.size[0]}^3, {device.type}, {workers} workers"
    goal = ", goal 1.1" if gpu else ", no GPU: patches are made between steps"
    print(f"training step ({what}): constant batch {1000 * constant:.0f} ms, with loader and synthesis", end=" ")
    print(f"{1000 * loaded:.0f} ms, {loaded / constant:.2f}x{goal}")


if __name__ == "__main__":
    main()
