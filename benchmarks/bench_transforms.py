"""Tumors through MONAI's and TorchIO's transforms, beside the same tumors through our own functions, on one crop."""

from __future__ import annotations

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

SIZE, SPACING_MM, SEEDS = 96, 1.5, 12
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


def ours(scan: Volume, labels: Volume, seeds: list[int]) -> int:
    """`insert_tumors`, and all masks after it, as `synthesize` writes them; the number of tumors."""
    scheme, count = label_scheme(LABELS), 0
    for seed in seeds:
        case = Case("case", scan, scheme.masks(np.asarray(labels.data), labels.geometry, ["liver"]))
        made = insert_tumors(case, RECIPE, seed)
        for mask in case.read_masks().values():
            made.moved(mask)
        made.tumors("liver")
        count += len(made.inserted)
    return count


def monai_work(scan: Volume, labels: Volume) -> tuple[Callable[[], object], list[int]]:
    """One call for each seed, and the seeds."""
    item = {
        name: MetaTensor(
            np.asarray(volume.data, np.float32)[None], affine=torch.from_numpy(scan.geometry.affine.copy())
        )
        for name, volume in (("image", scan), ("label", labels))
    }
    transform = RandTumord(RECIPE, labels={"label": LABELS}, prob=1.0).set_random_state(0)
    drawn = []
    for _ in range(SEEDS):
        transform.randomize()
        drawn.append(transform.seed)

    def work() -> None:
        transform.set_random_state(0)
        for _ in range(SEEDS):
            transform(item)

    return work, drawn


def torchio_work(scan: Volume, labels: Volume) -> tuple[Callable[[], object], list[int]]:
    """The same of TorchIO."""
    subject = tio.Subject(
        ct=tio.ScalarImage(tensor=np.ascontiguousarray(scan.data)[None], affine=scan.geometry.affine),
        seg=tio.LabelMap(tensor=np.ascontiguousarray(labels.data)[None], affine=scan.geometry.affine),
    )
    transform = RandomTumor(RECIPE, labels={"seg": LABELS})
    torch.manual_seed(0)
    drawn = []
    for _ in range(SEEDS):
        torch.rand(1)
        drawn.append(transform._get_random_seed())

    def work() -> None:
        torch.manual_seed(0)
        for _ in range(SEEDS):
            transform(subject)

    return work, drawn


def main() -> None:
    torch.set_num_threads(1)
    scan, labels = crop()
    print(f"{SIZE}^3 crop at {SPACING_MM} mm, {SEEDS} draws each, least CPU of 3 runs (goal: at most 1.10x of ours)")
    for name, of in (("RandTumord", monai_work), ("RandomTumor", torchio_work)):
        work, drawn = of(scan, labels)
        tumors = ours(scan, labels, drawn)
        work()
        base, mine = seconds(partial(ours, scan, labels, drawn)), seconds(work)
        print(
            f"{name:12} {1000 * mine / SEEDS:6.1f} ms a patch, insert_tumors and masks {1000 * base / SEEDS:6.1f} ms: "
            f"{mine / base:.2f}x ({tumors} tumors in {SEEDS} patches)"
        )


if __name__ == "__main__":
    main()
