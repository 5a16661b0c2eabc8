"""Tumors through MONAI's and TorchIO's transforms, beside the same tumors through our own functions, on one crop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torchio as tio
from monai.data.meta_tensor import MetaTensor

from clock import seconds
from synthoma.cases import Case
from synthoma.integrations.labels import label_scheme
from synthoma.integrations.monai import RandTumord
from synthoma.integrations.torchio import RandomTumor
from synthoma.phantom.cohort import CohortRecipe, cohort_case
from synthoma.synthesis.pipeline import insert_tumors
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.volume import Box, Volume

SIZE, SPACING_MM, SEEDS = 96, 1.5, 40
RECIPE = SynthesisRecipe(organs=("liver",), phase="portal")
LABELS = {"liver": 1, "liver_tumor": 2, "kidney_left": 3, "kidney_right": 4, "spleen": 5, "pancreas": 6}


def crop() -> tuple[Volume, Volume]:
    """CT and label map of a patch around the middle of an in-silico liver."""
    case = cohort_case(CohortRecipe(spacing_mm=SPACING_MM), 0)
    scan, masks = case.read_image(), case.read_masks()
    labels = np.zeros(scan.data.shape, np.uint8, order="F")
    for name, value in LABELS.items():
        if name in masks:
            labels[masks[name].data] = value
    center = np.argwhere(masks["liver"].data).mean(axis=0).astype(int)
    i, j, k = (min(max(0, c - SIZE // 2), n - SIZE) for c, n in zip(center.tolist(), scan.data.shape, strict=True))
    box = Box((i, j, k), (i + SIZE, j + SIZE, k + SIZE))
    return scan.crop(box), Volume(labels, scan.geometry).crop(box)


def ours(scan: Volume, labels: Volume, seed: int) -> int:
    """`insert_tumors`, and all masks after it, as `synthesize` writes them; the number of tumors."""
    case = Case("case", scan, label_scheme(LABELS).masks(np.asarray(labels.data), labels.geometry, ["liver"]))
    made = insert_tumors(case, RECIPE, seed)
    for mask in case.read_masks().values():
        made.moved(mask)
    made.tumors("liver")
    return len(made.inserted)


def monai_calls(scan: Volume, labels: Volume, count: int) -> list[tuple[int, Callable[[], object]]]:
    """A seed, and the call that draws with it; voxels in C order, as MONAI's readers give them."""
    item = {
        name: MetaTensor(
            np.ascontiguousarray(volume.data, np.float32)[None], affine=torch.from_numpy(scan.geometry.affine.copy())
        )
        for name, volume in (("image", scan), ("label", labels))
    }
    transform = RandTumord(RECIPE, labels={"label": LABELS}, prob=1.0)

    def call(state: int) -> object:
        transform.set_random_state(state)
        return transform(item)

    drawn = []
    for state in range(count):
        transform.set_random_state(state)
        transform.randomize()
        drawn.append((transform.seed, partial(call, state)))
    return drawn


def torchio_calls(scan: Volume, labels: Volume, count: int) -> list[tuple[int, Callable[[], object]]]:
    """The same of TorchIO."""
    subject = tio.Subject(
        ct=tio.ScalarImage(tensor=np.ascontiguousarray(scan.data)[None], affine=scan.geometry.affine),
        seg=tio.LabelMap(tensor=np.ascontiguousarray(labels.data)[None], affine=scan.geometry.affine),
    )
    transform = RandomTumor(RECIPE, labels={"seg": LABELS})

    def call(state: int) -> object:
        torch.manual_seed(state)
        return transform(subject)

    drawn = []
    for state in range(count):
        torch.manual_seed(state)
        torch.rand(1)
        drawn.append((transform._get_random_seed(), partial(call, state)))
    return drawn


def main() -> None:
    """Each draw through the transform and through our functions, one right after the other; `SEEDS` of them.

    A number behind the script's name is that of the draws.
    """
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if __name__ == "__main__" and len(sys.argv) > 1 else SEEDS
    scan, labels = crop()
    print(f"{SIZE}^3 crop at {SPACING_MM} mm, {count} draws, least CPU of 3 runs each (goal: at most 1.10x of ours)")
    for name, of in (("RandTumord", monai_calls), ("RandomTumor", torchio_calls)):
        calls = of(scan, labels, count)
        calls[0][1]()  # kernels are compiled
        tumors, base, mine = 0, [], []
        for seed, call in calls:
            tumors += ours(scan, labels, seed)
            base.append(seconds(partial(ours, scan, labels, seed)))
            mine.append(seconds(call))
        ratios = np.array(mine) / np.array(base)
        low, high = (bootstrap(ratios, level) for level in (0.025, 0.975))
        print(
            f"{name:12} {1000 * np.mean(mine):6.1f} ms a patch, insert_tumors and masks {1000 * np.mean(base):6.1f}; "
            f"median of the ratios {np.median(ratios):.2f} ({low:.2f} to {high:.2f}), of the sums "
            f"{sum(mine) / sum(base):.2f} ({tumors} tumors)",
            flush=True,
        )


def bootstrap(ratios: np.ndarray, level: float) -> float:
    """A quantile of the median over 2,000 resamples of the draws."""
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    return float(np.quantile(np.median(drawn, axis=1), level))


if __name__ == "__main__":
    main()
