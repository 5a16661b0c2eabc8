"""From a DICOM series to a DICOM SEG of its organs and tumors, as the command does it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from stubs import phantom, spec, threshold_model
from typer.testing import CliRunner

from synthoma.cases import Case
from synthoma.cli.main import app
from synthoma.datasets.writing import write_case
from synthoma.errors import CaseError
from synthoma.formats import dicom_write
from synthoma.learning.models import Model, save_model
from synthoma.learning.networks import build_network
from synthoma.reading import open_dataset
from synthoma.segmentation import outputs
from synthoma.volume import Geometry

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

RUN = CliRunner()
UPRIGHT = Geometry.of((60, 50, 24), (1.8, 2.0, 4.0), "LPS")
_TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
OBLIQUE = Geometry(UPRIGHT.shape, np.block([[_TURN @ np.diag((1.8, 2.0, 4.0)), np.ones((3, 1))], [0, 0, 0, 1]]))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's file; in place of its random weights, those that find a phantom's organ and tumor are used."""
    known = spec((16, 16, 16), 3.0)
    save_model(tmp_path / "found_by_hu.safetensors", Model(build_network(known.network, 2).eval(), known))
    monkeypatch.setattr(outputs, "model_at", lambda path, device: threshold_model())
    return tmp_path / "found_by_hu.safetensors"


@pytest.mark.parametrize("grid", [UPRIGHT, OBLIQUE], ids=["upright", "oblique"])
def test_a_series_becomes_masks_and_a_seg_of_the_same_voxels(tmp_path: Path, model: Path, grid: Geometry) -> None:
    scans, found, objects = tmp_path / "scans", tmp_path / "found", tmp_path / "objects"
    ct, organ, tumor = phantom(grid, 34, 14)
    dicom_write.write_series(ct, scans / "p1", "p1")
    result = RUN.invoke(app, ["segment", str(model), str(scans), "--out", str(found), "--dicom-seg"])
    assert result.exit_code == 0, result.output
    (objects / "p1").mkdir(parents=True)
    shutil.move(found / "p1" / "segmentation.dcm", objects / "p1")  # alone, so that nothing but the SEG is read
    read = open_dataset(scans, masks=objects)["p1"]
    masks = open_dataset(scans, masks=found)["p1"]
    geometry = read.read_geometry()
    for name, truth in (("liver", organ), ("liver_lesion", tumor)):
        written = masks.read_mask(name).on(geometry).data
        assert written.sum() == pytest.approx(truth.sum(), rel=0.1)
        np.testing.assert_array_equal(read.read_mask(name).on(geometry).data, written)
    seg = highdicom.seg.segread(objects / "p1" / "segmentation.dcm")
    series = pydicom.dcmread(next((scans / "p1").iterdir()))
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series.SeriesInstanceUID
    assert {one.SegmentAlgorithmName for one in seg.SegmentSequence} == {"synthoma found_by_hu.safetensors"}


def test_scans_that_are_no_series_are_told_before_anything_is_segmented(tmp_path: Path, model: Path) -> None:
    ct, _, _ = phantom(UPRIGHT, 34, 14)
    write_case(Case("p1", ct, {}), tmp_path / "scans" / "p1")
    words = ["segment", str(model), str(tmp_path / "scans"), "--out", str(tmp_path / "found"), "--dicom-seg"]
    refused = RUN.invoke(app, words)
    assert isinstance(refused.exception, CaseError)
    assert str(refused.exception).startswith("p1: a DICOM SEG refers to a DICOM series; found ct.nii.gz")
    assert not (tmp_path / "found").exists()


def test_a_series_that_nothing_can_refer_to_is_told_before_it_is_segmented(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dicom_write.write_series(phantom(UPRIGHT, 34, 14)[0], tmp_path / "scans" / "p1", "p1")
    for path in (tmp_path / "scans" / "p1").iterdir():
        header = pydicom.dcmread(path)
        del header.StudyInstanceUID
        header.save_as(path)
    asked: list[str] = []
    monkeypatch.setattr(outputs, "predict", lambda *_: asked.append("too late"))
    words = ["segment", str(model), str(tmp_path / "scans"), "--out", str(tmp_path / "found"), "--dicom-seg"]
    result = RUN.invoke(app, words)
    assert result.exit_code == 1
    assert "cannot be referred to; found no StudyInstanceUID" in result.output
    assert asked == []
