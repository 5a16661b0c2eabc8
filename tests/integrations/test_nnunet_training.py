"""nnU-Net itself, on tiny cases and the CPU: plan, preprocess, train with tumors, resume, predict."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import multiprocessing.pool
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from learning.small_cases import FLAT, TILTED, ball, patient
from synthoma.datasets.conversion import ConvertRecipe, convert_case, finish_conversion, plan_conversion
from synthoma.datasets.layouts.opening import Dataset
from synthoma.integrations.nnunet.finding import trainers_folder
from synthoma.integrations.nnunet.grid import preprocessed_grid

pytestmark = pytest.mark.slow
nnunetv2 = pytest.importorskip("nnunetv2", reason="the extra nnunet is not installed")
torch = pytest.importorskip("torch")

NAME = "Dataset901_Tiny"
THICK = FLAT.reoriented("SPL")  # the thick slices come first in the file, so nnU-Net turns the axes
CASES = [
    patient("anna", THICK),
    patient("carl", TILTED),
    patient("bert", THICK, [((-10.0, 0.0, 0.0), 10.0)]),
    patient("dora", THICK, [((-10.0, 10.0, 0.0), 8.0)]),
]
TINY = """
from synthoma.integrations.nnunet.trainer import SynthomaTrainer

class TinyTrainer(SynthomaTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = EPOCHS, 2, 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Planned and preprocessed, with a small network; nnU-Net's pools are threads, since its import takes long."""
    folder = tmp_path_factory.mktemp("nnunet")
    own = multiprocessing.get_context

    def context(method: str | None = None) -> Any:
        made = own(method)
        return mock.Mock(wraps=made, Pool=lambda processes: multiprocessing.pool.ThreadPool(1)) if method else made

    told = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    told |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    with mock.patch.dict(os.environ, told), mock.patch("multiprocessing.get_context", context):
        define_torchvision_operators()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        write_raw(folder / "nnUNet_raw" / NAME)
        plan_and_preprocess(folder / "nnUNet_preprocessed" / NAME)
        yield folder
        torch.set_num_threads(threads)


def define_torchvision_operators() -> None:
    """PyTorch's CPU build beside PyPI's torchvision: nnU-Net imports it, and it only lacks these two names."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def write_raw(folder: Path) -> None:
    dataset = Dataset(folder.parent / "none", "memory", "tiny", tuple(CASES), (), ())
    conversion = plan_conversion(dataset, "nnunet", folder, ConvertRecipe(structures=("liver", "liver_lesion")))
    finish_conversion(conversion, [convert_case(case, conversion) for case in CASES])


def plan_and_preprocess(folder: Path) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    extract_fingerprints([901], num_processes=1)
    plan_experiments([901], gpu_memory_target_in_gb=1)
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    settings = plans["configurations"]["3d_fullres"]
    settings |= {"patch_size": [16, 32, 32], "batch_size": 2}
    network = settings["architecture"]["arch_kwargs"]
    network |= {name: network[name][:3] for name in ("kernel_sizes", "strides", "n_conv_per_stage")}
    network |= {"n_stages": 3, "features_per_stage": [4, 8, 8], "n_conv_per_stage_decoder": [1, 1]}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    preprocess([901], configurations=("3d_fullres",), num_processes=(1,))
    splits = [{"train": ["anna", "bert", "carl"], "val": ["dora"]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))


def made_trainer(folder: Path, tumors: bool) -> Any:
    """A trainer as nnU-Net makes it, not initialized."""
    module = "synthoma.integrations.nnunet" if tumors else "nnunetv2.training.nnUNetTrainer"
    name = "trainer" if tumors else "nnUNetTrainer"
    kind = getattr(importlib.import_module(f"{module}.{name}"), "SynthomaTrainer" if tumors else "nnUNetTrainer")
    plans = json.loads((folder / "nnUNet_preprocessed" / NAME / "nnUNetPlans.json").read_text())
    about = json.loads((folder / "nnUNet_preprocessed" / NAME / "dataset.json").read_text())
    trainer = kind(plans | {"continue_training": False}, "3d_fullres", 0, about, torch.device("cpu"))
    trainer.batch_size = 2
    return trainer


def test_voxels_lie_where_nnunet_put_them(folder: Path) -> None:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    plans = json.loads((folder / "nnUNet_preprocessed" / NAME / "nnUNetPlans.json").read_text())
    assert plans["transpose_forward"] != [0, 1, 2], "the test is about turned axes too"
    cases = nnUNetDatasetBlosc2(str(folder / "nnUNet_preprocessed" / NAME / "nnUNetPlans_3d_fullres"))
    for case in CASES:
        _, segmentation, _, properties = cases.load_case(case.id)
        grid = preprocessed_grid(properties, plans["transpose_forward"], segmentation.shape[1:])
        liver = segmentation[0] > 0
        center_mm = grid.to_mm(np.argwhere(liver)).mean(axis=0)
        truth = case.read_mask("liver")
        assert np.allclose(center_mm, truth.geometry.to_mm(np.argwhere(truth.data)).mean(axis=0), atol=0.15)
        assert liver.sum() * grid.voxel_mm3 == pytest.approx(truth.data.sum() * truth.geometry.voxel_mm3, rel=0.02)
        same = ball(grid, (-10.0, 0.0, 0.0), 34.0)
        assert 2 * (same & liver).sum() / (same.sum() + liver.sum()) > 0.97


def test_training_patches_show_tumors_and_those_of_validation_are_nnunets_own(folder: Path) -> None:
    with mock.patch.dict(os.environ, {"nnUNet_n_proc_DA": "0"}):
        seen = []
        for tumors in (False, True):
            np.random.seed(0)
            torch.manual_seed(0)
            trainer = made_trainer(folder, tumors)
            _, validation = trainer.get_tr_and_val_datasets()
            assert type(validation).__name__ == "nnUNetDatasetBlosc2"
            with mock.patch.object(trainer, "get_tr_and_val_datasets", lambda pair=(validation, validation): pair):
                _, batches = trainer.get_dataloaders()
                np.random.seed(1)
                torch.manual_seed(1)
                seen.append(next(batches))
        assert torch.equal(seen[0]["data"], seen[1]["data"])
        assert all(torch.equal(a, b) for a, b in zip(seen[0]["target"], seen[1]["target"], strict=True))
        batches, _ = trainer.get_dataloaders()
        lesions = [bool((target == 2).any()) for _ in range(8) for target in next(batches)["target"][0]]
        assert sum(lesions) >= 3


def test_workers_draw_different_tumors(folder: Path) -> None:
    from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

    trainer = made_trainer(folder, tumors=True)
    training, _ = trainer.get_tr_and_val_datasets()
    training = replace(training, tumors=replace(training.tumors, probability=1.0))
    training.cases.identifiers[:] = ["anna"]
    shape = training.load_case("anna")[1].shape[1:]
    batches = nnUNetDataLoader(training, 2, shape, shape, trainer.label_manager)
    workers = NonDetMultiThreadedAugmenter(batches, None, 2, num_cached=2)
    try:
        made = [next(workers)["target"] for _ in range(6)]
    finally:
        workers._finish()
    drawn = [(target == 2).numpy().tobytes() for batch in made for target in batch]
    assert len(set(drawn)) == len(drawn)


def test_train_resume_and_predict(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.run.run_training import run_training

    monkeypatch.setenv("nnUNet_extTrainer", f"{tmp_path}{os.pathsep}{trainers_folder()}")
    results = folder / "nnUNet_results" / NAME / "TinyTrainer__nnUNetPlans__3d_fullres"
    for epochs in (1, 2):
        (tmp_path / "tiny_trainer.py").write_text(TINY.replace("EPOCHS", str(epochs)))
        importlib.invalidate_caches()
        again = epochs == 2
        run_training("901", "3d_fullres", 0, "TinyTrainer", continue_training=again, device=torch.device("cpu"))
        saved = torch.load(results / "fold_0" / "checkpoint_final.pth", weights_only=False)
        assert saved["current_epoch"] == epochs
    record = json.loads((results / "fold_0" / "synthoma.json").read_text())
    assert record["hosts"] == ["anna", "carl"]
    assert record["others"] == {"bert": "liver: real tumors"}
    assert record["recipe"]["organs"] == ["liver"]
    assert (results / "fold_0" / "validation" / "dora.nii.gz").is_file()
    predictor = nnUNetPredictor(use_mirroring=False, tile_step_size=1, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(results), (0,))
    scan = folder / "nnUNet_raw" / NAME / "imagesTr" / "anna_0000.nii.gz"
    predictor.predict_from_files_sequential([[str(scan)]], [str(tmp_path / "anna.nii.gz")])
    assert (tmp_path / "anna.nii.gz").is_file()


def test_nnunet_finds_the_trainer_in_the_folder_that_the_command_prints(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from synthoma.integrations.nnunet.trainer import SynthomaTrainer

    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))
    assert recursive_find_trainer_class_by_name("SynthomaTrainer") is SynthomaTrainer
