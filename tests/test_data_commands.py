"""info, convert and split as a user runs them, on patients of a few voxels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datasets.builders import SHAPE, abdomenatlas, msd, patient
from synthoma import files
from synthoma.cli.main import app
from synthoma.datasets.layouts.opening import open_dataset
from synthoma.datasets.splits import read_splits
from synthoma.errors import CaseError
from synthoma.volume import Geometry

GRID = Geometry.of(SHAPE, (2.0, 2.0, 3.0), "LPS")
RUN = CliRunner()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Healthy cases, and what a synthesis might have made of them: the same patients."""
    healthy, made = tmp_path / "healthy", tmp_path / "made"
    abdomenatlas(healthy, [patient(GRID, name) for name in ("s1", "s2", "s3")])
    abdomenatlas(made, [patient(GRID, name) for name in ("s1_copy02", "s2")])
    (made / "s1_copy02" / "case.json").write_text(json.dumps({"patient": "s1"}))
    (made / "notes").mkdir()
    (made / "notes" / "read.me").touch()
    return healthy, made


def test_info_tells_what_a_folder_holds_and_what_it_passed_over(folders: tuple[Path, Path]) -> None:
    told = json.loads(RUN.invoke(app, ["info", str(folders[1]), "--json"]).stdout)
    assert (told["layout"], told["cases"], told["patients"]) == ("abdomenatlas", 2, 2)
    assert told["structures"] == {"colon_lesion": 2, "liver": 2, "liver_lesion": 2, "spleen": 2}
    assert told["passed over"] == ["notes"]
    assert "passed over notes" in RUN.invoke(app, ["info", str(folders[1])]).stdout


def test_what_no_label_map_can_say_is_refused_before_anything_is_written(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (folders[0] / "s2/segmentations/Spleen.nii.gz").unlink()
    out = tmp_path / "out"
    words = ["convert", str(folders[0]), "--to", "nnunet", "--out", str(out)]
    refused = RUN.invoke(app, words)
    assert isinstance(refused.exception, CaseError)
    assert not out.exists()
    assert RUN.invoke(app, [*words, "--allow-failures", "1"]).exit_code == 0
    assert {case.id for case in open_dataset(out)} == {"s1", "s3"}


def test_several_folders_are_converted_as_one_and_patients_stay_together(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "Dataset001_both"
    result = RUN.invoke(app, ["convert", *map(str, folders), "--to", "nnunet", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "s2 is called s2_made" in result.output
    after = open_dataset(out)
    assert {case.id: case.patient for case in after} == {
        "s1": "s1", "s1_copy02": "s1", "s2": "s2", "s2_made": "s2", "s3": "s3",
    }  # fmt: skip
    checked = RUN.invoke(app, ["split", str(out), "--check", str(out / "splits_final.json")])
    assert (checked.exit_code, checked.stdout.splitlines()[-1]) == (0, "5 cases of 3 patients, 0 leaks")
    (tmp_path / "bad.json").write_text(json.dumps([{"train": ["s1", "s2"], "val": ["s1_copy02"]}]))
    leaking = RUN.invoke(app, ["split", str(out), "--check", str(tmp_path / "bad.json")])
    assert leaking.exit_code == 1
    assert "s1 (train) and s1_copy02 (val) in fold 0: one patient" in leaking.output


def test_splits_are_drawn_written_and_shown(tmp_path: Path) -> None:
    msd(tmp_path / "in", [patient(GRID, f"liver_{number}") for number in range(6)])
    out = tmp_path / "splits.json"
    result = RUN.invoke(
        app,
        ["split", str(tmp_path / "in"), "--out", str(out), "--set", "folds=2", "--nnunet", str(tmp_path / "n.json")],
    )
    assert result.exit_code == 0, result.output
    assert "fold 1 val" in result.stdout
    assert len(read_splits(out).folds) == len(json.loads((tmp_path / "n.json").read_text())) == 2


def test_scans_and_masks_of_two_folders_are_synthesized_and_none_at_all_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        files.write_volume(patient(GRID, name).image, tmp_path / "scans" / f"{name}.nii.gz")
        files.write_volume(patient(GRID).masks["liver"], tmp_path / "masks" / name / "liver.nii.gz")
    asked = ["synthesize", "liver", "--data", str(tmp_path / "scans"), "--out", str(tmp_path / "out")]
    without = RUN.invoke(app, asked)
    assert "has a mask" in str(without.exception)
    assert "--masks MASKS" in str(without.exception)
    assert not (tmp_path / "out").exists()
    plans = RUN.invoke(app, [*asked, "--masks", str(tmp_path / "masks"), "--write", "plans"])
    assert "join them first" in str(plans.exception)
    RUN.invoke(app, [*asked, "--masks", str(tmp_path / "masks")])
    assert {case.id for case in open_dataset(tmp_path / "out")} == {"a", "b"}


def test_validate_says_that_there_are_no_masks(tmp_path: Path) -> None:
    files.write_volume(patient(GRID).image, tmp_path / "scans" / "a.nii.gz")
    result = RUN.invoke(app, ["validate", str(tmp_path / "scans"), "--out", str(tmp_path / "report")])
    assert "no_masks: segment the organs first" in result.output


def test_validate_names_the_structure_that_is_at_fault(folders: tuple[Path, Path], tmp_path: Path) -> None:
    masks = folders[0] / "s2/segmentations"
    (masks / "liver.nii.gz").rename(masks / "livr.nii.gz")
    told = RUN.invoke(app, ["validate", str(folders[0]), "--out", str(tmp_path / "report")]).output
    (line,) = [line for line in told.splitlines() if "names_unknown" in line and "warning" in line]
    assert "livr" in line


def test_evaluate_and_compare_say_what_they_found(folders: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["evaluate", str(folders[0]), str(folders[0]), "--set", "resamples=100", "--out"]
    for name in ("first", "second"):
        told = RUN.invoke(app, [*words, str(tmp_path / name)]).stdout
        assert "liver_lesion: 6 of 6 lesions found (100 %" in told
        assert f"report: {tmp_path / name / 'report.html'}" in told
    told = RUN.invoke(app, ["compare", str(tmp_path / "first"), str(tmp_path / "second"), "--out", str(tmp_path / "c")])
    assert "liver_lesion: no difference is shown in DSC" in told.stdout


def test_places_on_the_machine_are_in_run_json_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / "s2/segmentations/Spleen.nii.gz").write_bytes(b"no mask")
    (folders[0] / "s3/ct.nii.gz").write_bytes(b"no scan")
    runs = {
        "valid": ["validate", str(folders[0])],
        "converted": ["convert", str(folders[0]), "--to", "abdomenatlas"],
        "scored": ["evaluate", str(folders[1]), str(folders[1])],
    }
    for name, words in runs.items():
        RUN.invoke(app, [*words, "--out", str(tmp_path / name)])
        told = {path.name: path.read_text(errors="replace") for path in (tmp_path / name).iterdir() if path.is_file()}
        assert "records.jsonl" in told
        for place in (str(tmp_path), str(Path(__file__).parents[1])):
            holding = [file for file, text in told.items() if place in text]
            assert holding == (["run.json"] if place == str(tmp_path) else []), name
    assert "s3/ct.nii.gz" in (tmp_path / "valid/report.json").read_text()
    assert "s3/ct.nii.gz" in (tmp_path / "converted/records.jsonl").read_text()


@pytest.mark.parametrize("layout", ["nnunet", "msd", "abdomenatlas"])
def test_a_case_that_is_done_again_and_fails_leaves_no_old_files(
    folders: tuple[Path, Path], tmp_path: Path, layout: str
) -> None:
    out = tmp_path / "out"
    words = ["convert", str(folders[0]), "--to", layout, "--out", str(out)]
    assert RUN.invoke(app, words).exit_code == 0
    assert any("s2" in path.name for path in out.rglob("*") if path.suffix == ".gz" or path.is_dir())
    (folders[0] / "s2/ct.nii.gz").write_bytes(b"no scan")
    assert RUN.invoke(app, words).exit_code == 1
    assert not [path for path in out.rglob("*") if ("s2" in path.name and path.suffix == ".gz") or path.name == "s2"]
    assert {case.id for case in open_dataset(out)} == {"s1", "s3"}
