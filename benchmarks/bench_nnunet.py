"""nnU-Net's training loader, its own augmentation included, with and without tumors in its patches."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing.pool
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from synthoma.cases import Case
from synthoma.datasets.conversion import ConvertRecipe, convert_case, finish_conversion, plan_conversion
from synthoma.datasets.layouts.opening import Dataset
from synthoma.phantom.cohort import CohortRecipe, cohort_case

NAME, SPACING_MM = "Dataset900_Bench", 1.5
CASES = 2
BATCHES, REPEATS = 12, 3  # batches of two patches that a measurement takes
STRUCTURES = ("liver", "liver_lesion")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, in_folders(Path(folder)):
        write_raw(Path(folder) / "raw" / NAME)
        start = time.process_time()
        patch = plan_and_preprocess()
        print(f"plan and preprocess: {time.process_time() - start:.0f} s CPU; patch {patch}, batch 2")
        start = time.process_time()
        tumors = loader("synthoma.integrations.nnunet.trainer", "SynthomaTrainer")
        print(f"organs measured, once for all: {time.process_time() - start:.1f} s CPU")
        plain = loader("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", "nnUNetTrainer")
        rounds = [(batch_ms(plain), batch_ms(tumors)) for _ in range(REPEATS)]
        without, having = (min(times) for times in zip(*rounds, strict=True))
        ratios = ", ".join(f"{b / a:.2f}" for a, b in rounds)
        print(f"CPU ms a patch: nnU-Net's loader {without:.0f}, with tumors at probability 0.5 {having:.0f}", end=": ")
        print(f"{having / without:.2f}x (rounds: {ratios}; n = {2 * BATCHES} patches a round; goal: at most 1.5x)")


@contextlib.contextmanager
def in_folders(folder: Path) -> Iterator[None]:
    """nnU-Net's folders and workers: those of a process that does all by itself."""
    names = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}
    told = {variable: str(folder / name) for variable, name in names.items()}
    own = multiprocessing.get_context

    def context(method: str | None = None) -> Any:
        made = own(method)
        return mock.Mock(wraps=made, Pool=multiprocessing.pool.ThreadPool) if method == "spawn" else made

    with (
        mock.patch.dict(os.environ, {**told, "nnUNet_n_proc_DA": "1"}),
        mock.patch("multiprocessing.get_context", context),
    ):
        yield


def write_raw(folder: Path) -> None:
    """In-silico patients as nnU-Net's raw data."""
    cases = [healthy(cohort_case(CohortRecipe(cases=CASES, spacing_mm=SPACING_MM), index)) for index in range(CASES)]
    dataset = Dataset(folder.parent / "none", "memory", "bench", tuple(cases), (), ())
    conversion = plan_conversion(dataset, "nnunet", folder, ConvertRecipe(structures=STRUCTURES, missing="empty"))
    finish_conversion(conversion, [convert_case(case, conversion) for case in cases])


def healthy(case: Case) -> Case:
    return replace(case, masks={name: case.masks[name] for name in STRUCTURES if name in case.masks})


def plan_and_preprocess() -> list[int]:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        extract_fingerprints([900], num_processes=1)
        plan_experiments([900])
        preprocess([900], configurations=("3d_fullres",), num_processes=(1,))
    plans = json.loads((Path(os.environ["nnUNet_preprocessed"]) / NAME / "nnUNetPlans.json").read_text())  # noqa: SIM112
    return list(plans["configurations"]["3d_fullres"]["patch_size"])


def loader(module: str, trainer: str) -> Any:
    """The training loader of a trainer, in this process."""
    import importlib

    folder = Path(os.environ["nnUNet_preprocessed"]) / NAME  # noqa: SIM112  # nnU-Net's own spelling
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    about = json.loads((folder / "dataset.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()), mock.patch.dict(os.environ, nnUNet_n_proc_DA="0"):
        made = getattr(importlib.import_module(module), trainer)(plans, "3d_fullres", "all", about, torch.device("cpu"))
        made.batch_size = 2
        return made.get_dataloaders()[0]


def batch_ms(batches: Any) -> float:
    """CPU ms a patch."""
    np.random.seed(0)
    torch.manual_seed(0)
    start = time.process_time()
    for _ in range(BATCHES):
        next(batches)
    return 500 * (time.process_time() - start) / BATCHES


if __name__ == "__main__":
    main()
