"""Real cases and their synthetic copies as one nnU-Net data set, with the folds that nnU-Net reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import synthoma
from synthesis.patients import OBLIQUE, RECIPE, UPRIGHT, patient
from synthoma import files
from synthoma.cli.main import app
from synthoma.datasets.writing import write_case
from synthoma.reading import open_dataset

NAMES = {"anna": UPRIGHT, "bert": UPRIGHT, "carl": OBLIQUE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`real`, two synthetic copies of each in `made`, and both as an nnU-Net data set in `mixed`."""
    root = tmp_path_factory.mktemp("mixed")
    for name, grid in NAMES.items():
        write_case(patient(name, grid, ill=True), root / "real" / name)
    made = synthoma.synthesize(
        RECIPE.with_changes(organs=("liver",), lesions=(2, 2)), root / "real", root / "made", copies=2, write="overlay"
    )
    assert not made.failed
    words = ["convert", str(root / "real"), str(root / "made"), "--to", "nnunet", "--out", str(root / "mixed")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return root


def test_folds_keep_a_patient_and_the_copies_made_of_it_on_one_side(folder: Path) -> None:
    folds = json.loads((folder / "mixed" / "splits_final.json").read_text())
    written = {path.name.removesuffix("_0000.nii.gz") for path in (folder / "mixed" / "imagesTr").iterdir()}
    assert len(written) == 9  # of each patient the real scan and two copies
    assert [len(fold["val"]) for fold in folds] == [3, 3, 3]
    for fold in folds:
        assert set(fold["train"]) | set(fold["val"]) == written
        assert not set(fold["train"]) & set(fold["val"])
        (held_out,) = {name[:4] for name in fold["val"]}
        assert held_out not in {name[:4] for name in fold["train"]}
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(written)


def test_label_maps_hold_real_tumors_and_in_the_copies_new_ones_too(folder: Path) -> None:
    labels = json.loads((folder / "mixed" / "dataset.json").read_text())["labels"]
    made = open_dataset(folder / "made")
    copies = {f"{name}_copy02": name for name in NAMES}
    for copy, name in copies.items():
        real, ill = (files.read_labels(folder / "mixed" / "labelsTr" / f"{one}.nii.gz").data for one in (name, copy))
        own = patient(name, NAMES[name], ill=True).read_mask("liver_lesion").on(made[copy].read_geometry()).data != 0
        lesions = made[copy].read_mask("liver_lesion").data != 0
        shown = files.read_labels(folder / "mixed" / "labelsTr" / f"{copy}.nii.gz").on(made[copy].read_geometry()).data
        np.testing.assert_array_equal(shown == labels["liver_lesion"], lesions)
        assert (lesions & own).sum() == own.sum()
        assert (ill == labels["liver_lesion"]).sum() > (real == labels["liver_lesion"]).sum() == own.sum()
        scans = [files.read_image(folder / "mixed" / "imagesTr" / f"{one}_0000.nii.gz").data for one in (name, copy)]
        assert not np.array_equal(*scans)
