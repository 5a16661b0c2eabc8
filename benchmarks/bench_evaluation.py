"""Scoring two label maps of 512 x 512 x 200 with an organ and nine lesions, beside surface-distance and others.

The others run if they are installed (`pip install surface-distance`; MONAI and panoptica are large). Memory is what
Python and numpy allocate above the label maps, which leaves out torch's own.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import clock
from synthoma import files
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe, score_labels
from synthoma.evaluation.summary import summarise
from synthoma.volume import Geometry, Volume

GRID = Geometry.of((512, 512, 200), (0.8, 0.8, 1.5))
ORGAN, LESION = 1, 2
STRUCTURES = {"liver": (ORGAN, LESION), "liver_lesion": (LESION,)}


def label_map(shift_mm: float, distant: bool = False) -> Volume:
    """An organ of about 200 x 160 x 180 mm with nine lesions of 8 to 50 mm, moved and swollen by `shift_mm`."""
    data = np.zeros(GRID.shape, np.uint8, order="F")
    _ball(data, (150.0 + shift_mm, 190.0, 150.0), (100.0, 80.0, 90.0 + shift_mm), ORGAN)
    rng = np.random.default_rng(1)
    for diameter in (8, 10, 12, 15, 18, 22, 28, 36, 50):
        center = np.array([150, 190, 150]) + rng.uniform(-45, 45, 3)
        _ball(
            data, center + rng.normal(0, shift_mm, 3) * (shift_mm > 0), np.full(3, diameter / 2 + shift_mm / 2), LESION
        )
    if distant:
        _ball(data, (395.0, 395.0, 290.0), np.full(3, 6.0), LESION)
    return Volume(data, GRID)


def _ball(data: np.ndarray, center_mm: Any, half_mm: Any, label: int) -> None:
    grid = [np.arange(n) * s for n, s in zip(GRID.shape, GRID.spacing_mm, strict=True)]
    parts = [((g - c) / h) ** 2 for g, c, h in zip(grid, center_mm, half_mm, strict=True)]
    for k in np.flatnonzero(parts[2] <= 1):
        plane = parts[0][:, None] + parts[1] <= 1 - parts[2][k]
        data[:, :, k][plane] = label


def _mask(labels: Volume, values: tuple[int, ...]) -> np.ndarray:
    return labels.data >= min(values)


def ours(truth: Volume, predicted: Volume, distances: bool) -> None:
    """Everything the package scores."""
    score_labels(truth, predicted, STRUCTURES, EvaluateRecipe(distances=distances))


def surface_distance(truth: Volume, predicted: Volume, distances: bool) -> None:
    """DSC, NSD at three tolerances, HD95 and mean distances; no lesions."""
    import surface_distance as reference

    for values in STRUCTURES.values():
        a, b = (_mask(labels, values) for labels in (truth, predicted))
        reference.compute_dice_coefficient(a, b)
        found = reference.compute_surface_distances(a, b, GRID.spacing_mm)
        for tolerance in (1.0, 2.0, 3.0):
            reference.compute_surface_dice_at_tolerance(found, tolerance)
        if distances:
            reference.compute_robust_hausdorff(found, 95)
            reference.compute_average_surface_distance(found)


def monai(truth: Volume, predicted: Volume, distances: bool) -> None:
    """DSC and sub-voxel NSD of both structures."""
    import torch
    from monai.metrics import compute_dice, compute_surface_dice

    torch.set_num_threads(1)
    masks = [
        torch.from_numpy(np.stack([_mask(labels, values) for values in STRUCTURES.values()])[None])
        for labels in (predicted, truth)
    ]
    compute_dice(*masks)
    compute_surface_dice(*masks, class_thresholds=[2.0, 2.0], include_background=True, spacing=GRID.spacing_mm,
                         use_subvoxels=True)  # fmt: skip


def panoptica(truth: Volume, predicted: Volume, distances: bool) -> None:
    """Lesions matched, DSC and IoU of the matches; tumors only."""
    from panoptica import ConnectedComponentsInstanceApproximator as Approximator
    from panoptica import InputType, NaiveThresholdMatching, Panoptica_Evaluator

    evaluator = Panoptica_Evaluator(
        expected_input=InputType.SEMANTIC, instance_approximator=Approximator(),
        instance_matcher=NaiveThresholdMatching(matching_threshold=0.1),
    )  # fmt: skip
    evaluator.evaluate(*((labels.data == LESION).astype(np.uint8) for labels in (predicted, truth)))


OTHERS: dict[str, Callable[[Volume, Volume, bool], None]] = {
    "surface_distance": surface_distance,
    "monai": monai,
    "panoptica": panoptica,
}


def measure(run: Callable[[Volume, Volume, bool], None], *given: Any, repeats: int = 3) -> tuple[float, float]:
    """Best CPU seconds, and the peak of memory above what is given in MB."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run(*given)
        seconds.append(time.process_time() - start)
    tracemalloc.start()
    run(*given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return min(seconds), peak / 2**20


def pair_figures(distant: bool) -> None:
    truth, predicted = label_map(0.0), label_map(1.5, distant)
    print("with a distant false positive" if distant else "a plain pair")
    print(f"{'':34}{'CPU s':>8}{'MB':>8}{'x':>8}")
    own = {flag: measure(ours, truth, predicted, flag) for flag in (False, True)}
    print(f"{'synthoma, DSC + NSD + lesions':34}{own[False][0]:8.2f}{own[False][1]:8.0f}{1:8.1f}")
    print(f"{'synthoma, and HD95 + ASSD':34}{own[True][0]:8.2f}{own[True][1]:8.0f}{own[True][0] / own[False][0]:8.1f}")
    for name, run in OTHERS.items():
        if importlib.util.find_spec(name) is None:
            print(f"{name:34}not installed")
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seconds, peak = measure(run, truth, predicted, True, repeats=1 if distant else 2)
        line = f"{name:34}{seconds:8.2f}{peak:8.0f}{seconds / own[False][0]:8.1f}"
        print(f"{line}  ({seconds / own[True][0]:.1f} x ours with HD95 and ASSD)")


def summary_figures(cases: int = 200) -> None:
    grid = Geometry.of((48, 48, 32), (2.0, 2.0, 3.0))
    scores: list[CaseScores] = []
    place = np.moveaxis(np.indices(grid.shape), 0, -1) * grid.spacing_mm
    for case in range(cases):
        rng = np.random.default_rng(case)
        truth = np.linalg.norm(place - rng.uniform(30, 60, 3), axis=-1) < rng.uniform(4, 15) * (case % 3 > 0)
        predicted = np.roll(truth, rng.integers(0, 3), axis=0)
        found = score_labels(Volume(truth, grid), Volume(predicted, grid), {"liver_lesion": None}, case=f"c{case}")
        scores.append(found)
    start = time.process_time()
    summarise(scores)
    print(f"{cases} cases summarised with 2,000 resamples: {time.process_time() - start:.2f} s CPU (goal: < 5)")


def many_lesions_figures() -> None:
    """Cost follows voxels: the same grids with few and with many lesions."""
    for shape, first, second, side in (((96, 80, 64), 700, 444, 3), ((300, 300, 150), 1000, 5000, 1)):
        grid = Geometry.of(shape, (0.8, 0.8, 1.5))
        truth, predicted = (Volume(specks(shape, count, side), grid) for count in (first, second))
        seconds = clock.seconds(lambda a=truth, b=predicted: score_labels(a, b, {"liver_lesion": None}), repeats=1)
        print(f"{first} x {second} lesions of {side**3} voxels: {seconds:.2f} s CPU (goal: < {1 if side == 3 else 3})")


def specks(shape: tuple[int, int, int], count: int, side: int) -> np.ndarray:
    """Separate cubes, the same first ones for every count."""
    mask = np.zeros(shape, bool)
    every = [range(2, n - side, side + (4 if side == 3 else 9)) for n in shape]
    places = np.stack(np.meshgrid(*every, indexing="ij"), axis=-1).reshape(-1, 3)
    for i, j, k in np.random.default_rng(0).permutation(places)[:count]:
        mask[i : i + side, j : j + side, k : k + side] = True
    return mask


def bad_prediction_figures() -> None:
    """A prediction full of noise, beside one distance transform of the whole grid: goal below 3 s each."""
    import edt

    truth = label_map(0.0).data == ORGAN
    once = clock.seconds(lambda: edt.edt(truth, anisotropy=GRID.spacing_mm), repeats=1)
    rng = np.random.default_rng(0)
    noise = rng.random(GRID.shape[::-1], dtype=np.float32).T  # in the order of files
    for name, predicted in (
        ("one voxel in 10,000", noise < 1e-4), ("one in 1,000", noise < 1e-3), ("one in 20", noise < 0.05),
        ("half of all", noise < 0.5), ("everything but the organ", ~truth),
    ):  # fmt: skip
        a, b = Volume(truth, GRID), Volume(predicted, GRID)
        seconds = clock.seconds(lambda a=a, b=b: score_labels(a, b, {"liver": None}), repeats=1)
        print(f"{name + ' predicted as organ':42}{seconds:6.2f} s CPU, {seconds / once:.1f} distance transforms")


def memory_figures(shape: tuple[int, int, int] = (1024, 1024, 1024)) -> None:
    """Peak memory of scoring two mask files of a scan of 2 GiB in a process of its own; goal below 3 GB."""
    with tempfile.TemporaryDirectory() as folder:
        grid = Geometry.of(shape, 0.6)
        for name, shift in (("truth", 0), ("predicted", 3)):
            mask = np.zeros(shape, np.uint8, order="F")
            mask[200 + shift : 600, 300:700, 250:600] = 1
            mask[900:910, 900:910, 900:910] = shift > 0
            files.write_volume(Volume(mask, grid), Path(folder) / f"{name}.nii.gz")
        # not ru_maxrss, which counts the process that started this one
        program = (
            "import re, sys; from pathlib import Path; from synthoma.cases import Case\n"
            "from synthoma.evaluation.scoring import score_case\n"
            "a, b = (Case('c', Path(p), {'liver': Path(p)}) for p in sys.argv[1:]); score_case(a, b)\n"
            "print(int(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1]) / 2**20)"
        )
        paths = [f"{folder}/{name}.nii.gz" for name in ("truth", "predicted")]
        done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True)
        print(f"two masks of {'x'.join(map(str, shape))} voxels: {float(done.stdout):.2f} GB at most (goal: < 3)")


def main() -> None:
    for distant in (False, True):
        pair_figures(distant)
    many_lesions_figures()
    bad_prediction_figures()
    memory_figures()
    summary_figures()


if __name__ == "__main__":
    main()
