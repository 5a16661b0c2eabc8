"""The loader: reading a crop, patches with and without online synthesis, beside MONAI's cache and random crops."""

from __future__ import annotations

import dataclasses
import itertools
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from synthoma.cases import Case
from synthoma.datasets.layouts.opening import read_case
from synthoma.learning.augmentation import AugmentationRecipe
from synthoma.learning.cache import build_cache
from synthoma.learning.entry import Entry
from synthoma.learning.loader import loader
from synthoma.learning.patches import Patches, PatchRecipe
from synthoma.phantom.cohort import CohortRecipe, cohort_case
from synthoma.recipe import read_recipe
from synthoma.synthesis.online.online import Online
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.volume import Box

ROOT = Path(__file__).parents[1]
SPACING_MM, SIZE, WINDOW = 1.5, (96, 96, 96), (-175.0, 250.0)
CLASSES = ("liver", "liver_lesion")
COPIES = 4  # of each scan under other names, so that tumors differ from case to case
COUNT, WATCHED = 60, 120  # patches a measurement: of CPU time, and by the clock
PAIRS = 7  # of measurements without and with tumors, in turn, from which a ratio and its spread are told
PUBLISHED = "rule-based tumors as a transform: 100-1400 ms CPU a patch (published code)"
_EPOCHS = itertools.count(0, 1000)  # every measurement starts with one that nobody has seen
OFF = AugmentationRecipe(
    flip=(0, 0, 0), **{name: 0 for name in AugmentationRecipe.model_fields if name.endswith("probability")}
)


def scans() -> list[Case]:
    """An in-silico patient, and the real liver donor if real data is at hand; as healthy cases under several names."""
    found = [cohort_case(CohortRecipe(spacing_mm=SPACING_MM), 0)]
    real = Path(os.environ.get("SYNTHOMA_DATA", "")) / "chaos"
    if real.is_dir():
        found.append(read_case(real))
    return [
        dataclasses.replace(case, id=f"{case.id}_{copy}", patient="", attributes={**case.attributes, "healthy": True})
        for case in found
        for copy in range(COPIES)
    ]


def crop_ms(entries: list[Entry]) -> tuple[float, float]:
    """Median and 90 % of the wall time of reading HU of a random patch, in ms."""
    rng, took = np.random.default_rng(0), []
    for _ in range(200):
        entry = entries[int(rng.integers(len(entries)))]
        i, j, k = (int(rng.integers(0, max(1, n - size))) for n, size in zip(entry.geometry.shape, SIZE, strict=True))
        start = time.perf_counter()
        entry.read_hu(Box((i, j, k), (i + SIZE[0], j + SIZE[1], k + SIZE[2])))
        took.append(1000 * (time.perf_counter() - start))
    return float(np.median(took)), float(np.quantile(took, 0.9))


def cpu_ms(work: Callable[[int], object], count: int, repeats: int = 2) -> float:
    """The least CPU time of some repeats, which are told their number, a patch, in ms."""
    best = float("inf")
    for repeat in range(repeats):
        start = time.process_time()
        work(repeat)
        best = min(best, time.process_time() - start)
    return 1000 * best / count


def patches_ms(entries: list[Entry], augment: Online | None, augmentation: AugmentationRecipe, again: bool) -> float:
    """CPU ms a patch, within an epoch (`again`: cases and their tumors come up again) or each from another one."""
    source = patches_of(entries, augment, augmentation)
    first = next(_EPOCHS)
    return cpu_ms(
        lambda repeat: [source.draw(first + repeat + (0 if again else 2 * n), n) for n in range(COUNT)], COUNT
    )


def ratios_in_turn(entries: list[Entry], augment: Online, count: int = COUNT, pairs: int = PAIRS) -> list[float]:
    """CPU time with tumors over that without, of pairs of runs of `count` patches, each from another epoch."""
    sources = [patches_of(entries, made, AugmentationRecipe()) for made in (None, augment)]
    ratios = []
    for _ in range(pairs):
        first = next(_EPOCHS)
        plain, full = (
            cpu_ms(lambda _, source=source, first=first: [source.draw(first + n, n) for n in range(count)], count, 1)
            for source in sources
        )
        ratios.append(full / plain)
    return ratios


def tumor_share(entries: list[Entry], augment: Online) -> float:
    """The share of patches that show a synthetic tumor."""
    source = patches_of(entries, augment, OFF)
    return float(np.mean([source.draw(0, n).synthetic for n in range(COUNT)]))


def patches_of(entries: list[Entry], augment: Online | None, augmentation: AugmentationRecipe) -> Patches:
    recipe = PatchRecipe(
        size=SIZE, spacing_mm=SPACING_MM, window_hu=WINDOW, per_epoch=WATCHED, augmentation=augmentation
    )
    return Patches(entries, recipe, CLASSES, augment)


def patches_a_second(entries: list[Entry], augment: Online | None, workers: int = 2) -> tuple[float, float]:
    """By the clock, with as many worker processes, after the first batches; and the workers' CPU ms a patch."""
    source = patches_of(entries, augment, AugmentationRecipe())
    used = _children_seconds()
    batches = loader(source, 0, batch=2, workers=workers)
    for _ in range(10):
        next(batches)
    start, done = time.perf_counter(), 0
    for batch in batches:
        done += len(batch["image"])
    rate = done / (time.perf_counter() - start)
    del batches
    return rate, 1000 * (_children_seconds() - used) / WATCHED


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def monai_ms(entries: list[Entry], augment: bool) -> float:
    """CPU ms a patch of MONAI's CacheDataset and RandCropByPosNegLabel, on the same voxels held in memory."""
    from monai import transforms as mt
    from monai.data.dataset import CacheDataset
    from monai.utils.misc import set_determinism

    keys, modes = ["image", "label"], ("bilinear", "nearest")
    data = []
    for entry in entries:
        whole = Box.whole(entry.geometry.shape)
        data.append({"image": entry.read_hu(whole)[None], "label": (entry.read_labels(whole) == 5)[None]})
    fixed = [
        mt.EnsureTyped(keys),
        mt.ScaleIntensityRanged("image", *WINDOW, 0.0, 1.0, clip=True),
        mt.FgBgToIndicesd("label", image_key="image"),
    ]
    crop = mt.RandCropByPosNegLabeld(
        keys, "label", SIZE, pos=1, neg=1, num_samples=1, fg_indices_key="label_fg_indices",
        bg_indices_key="label_bg_indices", allow_smaller=True,
    )  # fmt: skip
    same = [
        mt.RandAffined(
            keys, prob=0.51, rotate_range=(0.35, 0, 0), scale_range=(0.2, 0.2, 0.2), mode=modes, padding_mode="zeros"
        ),
        *(mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
        mt.RandSimulateLowResolutiond("image", prob=0.15, zoom_range=(0.25, 0.75)),
        mt.RandGaussianSmoothd("image", prob=0.15, sigma_x=(0.3, 1), sigma_y=(0.3, 1), sigma_z=(0.3, 1)),
        mt.RandScaleIntensityd("image", prob=0.2, factors=0.25),
        mt.RandShiftIntensityd("image", prob=0.2, offsets=0.05),
        mt.RandGaussianNoised("image", prob=0.2, std=0.05),
        mt.RandAdjustContrastd("image", prob=0.2, gamma=(0.7, 1.5)),
    ]
    set_determinism(0)
    chain = mt.Compose([*fixed, mt.SpatialPadd(keys, SIZE), crop, *(same if augment else [])])
    dataset = CacheDataset(data, chain, cache_rate=1.0, num_workers=None, progress=False)
    return cpu_ms(lambda _: [dataset[n % len(dataset)] for n in range(COUNT // 2)], COUNT // 2)


def memory_mb(entries: list[Entry], augment: Online) -> tuple[float, float]:
    """Peak memory of this process after 100 and after 300 patches."""
    source = patches_of(entries, augment, AugmentationRecipe())
    peaks = []
    for epoch in range(3):
        for index in range(100):
            source.draw(epoch, index)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return peaks[0], peaks[-1]


def main() -> None:
    torch.set_num_threads(1)
    augment = Online(read_recipe(SynthesisRecipe, ROOT / "src/synthoma/recipes/synthesis/liver.toml"), 0.5)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        entries = build_cache(scans(), folder, SPACING_MM, augment)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 2**20
        print(
            f"{len(entries)} cases cached, {size / len(entries):.0f} MB each, {time.process_time() - start:.0f} s CPU"
        )
        median, most = crop_ms(entries)
        print(f"96^3 crop of HU: {median:.2f} ms, 90 % of them under {most:.2f} ms (goal: about 2)")
        rows = {"crop and window": OFF, "with augmentation": AugmentationRecipe()}
        print(f"{'CPU ms a patch':20}{'plain':>8}{'with tumors':>14}{'all new':>16}{'MONAI, plain':>16}")
        for name, augmentation in rows.items():
            plain = patches_ms(entries, None, augmentation, True)
            full, new = (patches_ms(entries, augment, augmentation, again) for again in (True, False))
            monai = monai_ms(entries[::COPIES], augmentation is not OFF)
            ratios = f"{full:8.1f} {full / plain:4.2f}x{new:10.1f} {new / plain:4.2f}x"
            print(f"{name:20}{plain:8.1f}{ratios}{monai:16.1f}")
        print(
            f"{tumor_share(entries, augment):.0%} of the patches show a synthetic tumor; an epoch shows a case", end=" "
        )
        print(f"{COUNT / len(entries):.0f} times. All new: every patch from another epoch, so no tumor is used again")
        ratios = ratios_in_turn(entries, augment)
        print(
            f"all new, {len(ratios)} pairs of {COUNT} patches in turn: {np.mean(ratios):.2f}x in the mean, "
            f"{min(ratios):.2f} to {max(ratios):.2f}, SD {np.std(ratios, ddof=1):.2f}"
        )
        print(f"goal: ratio at most 1.5; {PUBLISHED}")
        for name, made in (("plain", None), ("with tumors", augment)):
            rate, cpu = patches_a_second(entries, made)
            print(f"two workers, {name}: {rate:.0f} patches a second by the clock, {cpu:.1f} ms CPU each in workers")
        print("goal: 40 patches a second on two cores, that is 50 ms CPU each")
        early, late = memory_mb(entries, augment)
        print(f"peak memory after 100 patches {early:.0f} MB, after 300 {late:.0f} MB")


if __name__ == "__main__":
    main()
