"""Finished plans rendered by the CPU's kernels and by torch, on the CPU and on a GPU if there is one, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from clock import seconds
from synthoma.learning.gridding import paint
from synthoma.phantom.cohort import CohortRecipe, cohort_case
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.insertion import crops
from synthoma.synthesis.insertion.crops import DrawnTumor
from synthoma.synthesis.on_device.rendering import cut, render_batch
from synthoma.synthesis.online.bank import HeldScan
from synthoma.synthesis.pipeline import insert_tumors
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.scan import Noise
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Box

SPACING_MM, SIZE, BATCH, EPOCHS = 1.5, 96, 8, 3
RECIPE = SynthesisRecipe(lesions=(4, 8), mass_effect_share=0.0, phase="portal")


def scan_and_plans() -> tuple[HeldScan, list[list[TumorPlan]]]:
    """An in-silico liver on the training's grid, and the plans of some epochs, none with a mass effect."""
    case = cohort_case(CohortRecipe(spacing_mm=SPACING_MM, region="liver"), 0)
    ct = case.read_image()
    masks = {name: case.read_mask(name) for name in case.masks}
    plans = [[done.plan for done in insert_tumors(case, RECIPE, seed).inserted] for seed in range(EPOCHS)]
    return HeldScan(case.id, ct.geometry, ct.data, paint(masks, ct.geometry)), plans


def drawn_of(scan: HeldScan, plans: Sequence[TumorPlan]) -> list[DrawnTumor]:
    """The tumors of these plans, none of them made."""
    ct = crops.Volume(scan.hu, scan.geometry)
    return [
        DrawnTumor(
            plan, open_generator(plan.generator), n, Noise.at(ct, plan.noise_from_mm or plan.center_mm), ct.geometry
        )
        for n, plan in enumerate(plans)
    ]


def boxes_of(scan: HeldScan, plans: Sequence[TumorPlan]) -> list[Box]:
    """A batch of patches, each around a tumor; none knows what another one rendered, as of different scans."""
    boxes = []
    for n in range(BATCH):
        middle = np.rint(scan.geometry.to_ijk(np.array([plans[n % len(plans)].center_mm]))[0]).astype(int)
        lower = tuple(int(i) - SIZE // 2 for i in middle)
        boxes.append(Box(lower, tuple(i + SIZE for i in lower)))
    return boxes


def wall_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The least time by the clock: what a GPU does is no CPU time."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def on_kernels(scan: HeldScan, plans: Sequence[TumorPlan]) -> list[tuple[Array, Array]]:
    """HU and labels of a batch from the CPU's renderer."""
    return [crops.render(scan, box, drawn_of(scan, plans)) for box in boxes_of(scan, plans)]


def on_device(scan: HeldScan, plans: Sequence[TumorPlan], device: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The same from torch."""
    return render_batch([cut(scan, box, drawn_of(scan, plans)) for box in boxes_of(scan, plans)], device)


def main() -> None:
    scan, epochs = scan_and_plans()
    patches = BATCH * EPOCHS
    print(f"{sum(map(len, epochs))} tumors of {EPOCHS} epochs, {patches} patches of {SIZE}^3 in batches of {BATCH}")
    kernels = sum(seconds(partial(on_kernels, scan, plans)) for plans in epochs)
    print(f"kernels of the CPU: {1000 * kernels / patches:.1f} CPU ms a patch")
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        cpu = wall = 0.0
        apart = voxels = 0
        for plans in epochs:
            cpu += seconds(partial(on_device, scan, plans, device))
            wall += wall_seconds(partial(on_device, scan, plans, device))
            for (hu, labels), (own_hu, own_labels) in zip(
                on_device(scan, plans, device), on_kernels(scan, plans), strict=True
            ):
                apart += int((hu.cpu().numpy() != own_hu).sum() + (labels.cpu().numpy() != own_labels).sum())
                voxels += own_hu.size
        print(
            f"torch, {device}: {1000 * cpu / patches:.1f} CPU ms, {1000 * wall / patches:.1f} ms by the clock a patch;"
            f" {apart} of {voxels:,} voxels differ (by 1 HU, where rounding goes the other way)"
        )
    if not torch.cuda.is_available():
        print("no CUDA device: nothing is said about GPUs")


if __name__ == "__main__":
    main()
