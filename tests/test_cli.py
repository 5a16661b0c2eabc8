"""The commands as a user types them, on an in-silico patient at a coarse spacing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from synthoma import files
from synthoma.reading import open_dataset, read_case
from synthoma.synthesis.store.manifest import read_manifest
from synthoma.volume import Volume

ROOT = Path(__file__).parents[1]


def synthoma(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "synthoma", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=240)


def done(*words: object, cwd: Path) -> str:
    result = synthoma(*words, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embedded patient at 4 mm in `cohort`, and six tumors in it in `synthetic`."""
    folder = tmp_path_factory.mktemp("cli")
    done("cohort", "one", "--out", "cohort", "--set", "spacing_mm=4", cwd=folder)
    recipe = "six_organs"
    done("synthesize", recipe, "--data", "cohort", "--out", "synthetic", "--seed", 4, cwd=folder)
    return folder


def test_info_is_json_and_imports_no_torch(tmp_path: Path) -> None:
    facts = json.loads(done("info", "--json", cwd=tmp_path))
    assert facts["organs"] == ["liver", "pancreas", "kidney", "colon", "esophagus", "uterus"]
    assert "rules" in facts["generators"]
    code = "import sys, synthoma.cli.main; print('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_cohort_is_valid(work: Path) -> None:
    result = synthoma("validate", "cohort", "--out", "validation", cwd=work)
    assert result.returncode == 0, result.stdout
    assert json.loads((work / "validation/report.json").read_text())


def test_a_cohort_run_again_changes_no_byte(work: Path) -> None:
    before = {path: path.read_bytes() for path in (work / "cohort").rglob("*") if path.is_file()}
    done("cohort", "one", "--out", "cohort", "--set", "spacing_mm=4", cwd=work)
    after = {path: path.read_bytes() for path in (work / "cohort").rglob("*") if path.is_file()}
    assert {p.name for p in before if before[p] != after[p]} <= {"run.json"}
    assert before.keys() == after.keys()


def test_every_organ_got_a_tumor_that_the_labels_hold(work: Path) -> None:
    case = read_case(work / "synthetic/insilico_0000")
    healthy = files.read_image(work / "cohort/insilico_0000/ct.nii.gz")
    changed = case.read_image().data != healthy.data
    for organ in ("liver", "pancreas", "kidney", "colon", "esophagus", "uterus"):
        tumor = case.read_mask(f"{organ}_lesion").data
        assert tumor.any(), organ
        assert changed[tumor].mean() > 0.8, organ
    assert changed.mean() < 0.05


def test_replay_gives_the_same_scan_bit_for_bit(work: Path) -> None:
    done("replay", "synthetic/manifest.parquet", "--data", "cohort", "--out", "again", cwd=work)
    one, two = read_case(work / "synthetic/insilico_0000"), read_case(work / "again/insilico_0000")
    np.testing.assert_array_equal(one.read_image().data, two.read_image().data)
    assert list(one.masks) == list(two.masks)
    for name, mask in one.each_mask():
        np.testing.assert_array_equal(mask.data, two.read_mask(name).data)


@pytest.mark.parametrize("write", ["overlay", "plans"])
def test_the_small_forms_read_as_the_full_one(work: Path, write: str) -> None:
    recipe = "six_organs"
    done("synthesize", recipe, "--data", "cohort", "--out", write, "--seed", 4, "--write", write, cwd=work)
    full, small = read_case(work / "synthetic/insilico_0000"), open_dataset(work / write)["insilico_0000"]
    np.testing.assert_array_equal(full.read_image().data, small.read_image().data)
    for name, mask in full.each_mask():
        np.testing.assert_array_equal(mask.data, small.read_mask(name).data, name)
    assert len(list(read_manifest(work / write / "manifest.parquet").tumors())) == 6


@pytest.mark.parametrize("target", ["cohort/insilico_0000", "synthetic/insilico_0000#1", "synthetic"])
def test_show_writes_a_picture(work: Path, target: str) -> None:
    done("show", target, "--out", "picture.png", cwd=work)
    assert (work / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("layout", ["nnunet", "msd", "abdomenatlas"])
def test_converted_synthetic_data_reads_back(work: Path, layout: str) -> None:
    out = f"Dataset001_{layout}"
    chosen = 'structures=["liver", "liver_lesion"]'
    done("convert", "synthetic", "--to", layout, "--out", out, "--set", chosen, cwd=work)
    tumor = read_case(work / "synthetic/insilico_0000").read_mask("liver_lesion")
    (case,) = open_dataset(work / out)
    np.testing.assert_array_equal(case.read_mask("liver_lesion").data, tumor.data)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("validate", "nowhere"), "nowhere"),
        (("synthesize", "missing.toml", "--data", "cohort", "--out", "x"), "no recipe missing.toml"),
        (
            ("synthesize", "liver", "--data", "cohort", "--out", "cohort"),
            "another run",
        ),
        (
            (
                "synthesize",
                "liver",
                "--data",
                "cohort",
                "--out",
                "x",
                "--set",
                "organ=3",
            ),
            "unknown key organ, perhaps organs; known here: organs",
        ),
        (
            (
                "synthesize",
                "liver",
                "--data",
                "cohort",
                "--out",
                "x",
                "--write",
                "some",
            ),
            "full",
        ),
        (("show", "synthetic/insilico_0000#99", "--out", "x.png"), "99"),
        (("convert", "cohort", "--to", "minc", "--out", "y"), "not one of"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(work: Path, words: tuple[object, ...], sentence: str) -> None:
    result = synthoma(*words, cwd=work)
    assert result.returncode == 2, result.stdout + result.stderr
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_case_that_fails_is_a_row_and_exit_code_1(work: Path) -> None:
    data = work / "two"
    for name in ("good", "bad"):
        (data / name / "segmentations").mkdir(parents=True, exist_ok=True)
        for file in ("ct.nii.gz", "segmentations/liver.nii.gz", "segmentations/aorta.nii.gz"):
            (data / name / file).write_bytes((work / "cohort/insilico_0000" / file).read_bytes())
    ct = data / "bad/ct.nii.gz"
    ct.write_bytes(ct.read_bytes()[:5000])
    recipe = "liver"
    result = synthoma("synthesize", recipe, "--data", data, "--out", "partial", cwd=work)
    assert result.returncode == 1
    assert "bad" in result.stderr
    assert (work / "partial/good/ct.nii.gz").exists()
    assert not (work / "partial/bad").exists()


def test_predictions_are_scored_and_two_models_compared(work: Path) -> None:
    liver = 'structures=["liver_lesion"]'
    done("evaluate", "synthetic", "synthetic", "--out", "perfect", "--set", liver, cwd=work)
    done("evaluate", "synthetic", "synthetic", "--out", "replayed", "--set", liver, cwd=work)
    assert '"dsc"' in (work / "perfect/summary.json").read_text()
    done("compare", "perfect", "replayed", "--out", "comparison", cwd=work)
    page = (work / "comparison/report.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)


def test_a_prediction_that_changed_is_scored_anew(work: Path) -> None:
    folder = work / "predicted" / "insilico_0000" / "segmentations"
    folder.mkdir(parents=True)
    truth = read_case(work / "synthetic/insilico_0000").read_mask("liver_lesion")
    asked = ("evaluate", "synthetic", "predicted", "--out", "scores", "--set", 'structures=["liver_lesion"]')
    found = []
    for data in (np.zeros_like(truth.data), truth.data):
        files.write_volume(Volume(data, truth.geometry), folder / "liver_lesion.nii.gz")
        done(*asked, cwd=work)
        record = json.loads((work / "scores/records.jsonl").read_text())
        found.append(record["result"]["rows"][0]["dsc"])
    assert found == [0, 1]


def test_a_mask_that_was_mended_is_valid_and_one_that_broke_since_is_not(work: Path) -> None:
    shutil.copytree(work / "cohort", work / "hurt")
    mask = work / "hurt/insilico_0000/segmentations/liver.nii.gz"
    whole = mask.read_bytes()
    for content, code in ((whole[:300], 1), (whole, 0), (whole[:300], 1)):
        mask.write_bytes(content)
        result = synthoma("validate", "hurt", "--out", "hurt_report", cwd=work)
        assert result.returncode == code, result.stdout + result.stderr


def test_every_module_of_the_command_gives_it_what_it_holds() -> None:
    from synthoma.cli import main

    modules = {path.stem for path in (ROOT / "src/synthoma/cli").glob("*.py")} - {"__init__", "app", "main", "preview"}
    assert {room.__name__.rpartition(".")[2] for room in main.ROOMS} == modules
