"""`--dry-run`: what would be written, how large and how long, and not a file more than before."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from small_training import tiny_training
from synthesis.patients import RECIPE, write_patients
from synthoma import synthesize
from synthoma.cli.main import run
from synthoma.cli.preview import amount, duration

TRAIN = tiny_training(steps=600)
STUDY = "counts = [1]\nseeds = 2\nshares = [0.5]\n[train]\n" + TRAIN.replace("[network]", "[train.network]").replace(
    "[patches]", "[train.patches]"
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data`, a synthesis of it in `made`, and recipes."""
    folder = tmp_path_factory.mktemp("preview")
    write_patients(folder / "data", "ill", "plain", "oblique")
    recipe = RECIPE.with_changes(organs=("kidney",), lesions=(1, 1))
    synthesize(recipe, folder / "data", folder / "made")
    (folder / "kidney.toml").write_text(recipe.to_toml())
    (folder / "tiny.toml").write_text(TRAIN)
    (folder / "study.toml").write_text(STUDY)
    return folder


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        run(words)
    both = capsys.readouterr()
    return int(end.value.code or 0), both.err + both.out


COMMANDS = {
    "synthesize kidney.toml --data data --out out --copies 3": r"^9 cases would be written to .*out: about .* MB, in",
    "replay made/manifest.parquet --data data --out out": r"^3 cases would be written",
    "convert data --to abdomenatlas --out out": r"^3 cases would be written .* kB, in about [\d.]+ s\.",
    "cohort one --set cases=7 --set spacing_mm=10 --out out": r"^7 cases would be written .* judged by insilico_0000",
    "segment model data --device cpu --out out": r"^3 cases would be written",
    "train tiny.toml --data data --device cpu --out out": r"^3 cases would be prepared .* 600 steps on 3 of them in",
    "scale study.toml --data data --device cpu --out out": r"^4 trainings of 600 steps would be done on up to . cases",
}


@pytest.mark.parametrize("words", COMMANDS)
def test_a_dry_run_tells_and_writes_nothing(
    words: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if words.startswith("segment"):
        trained, said = told(capsys, "train", "tiny.toml", "--data", "data", "--out", "model", "--device", "cpu",
                             "--set", "steps=1")  # fmt: skip
        assert trained == 0, said
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    code, said = told(capsys, *words.split(), "--dry-run")
    assert code == 0, said
    assert re.search(COMMANDS[words], said, re.MULTILINE | re.DOTALL), said
    assert said.splitlines()[-1] == "Nothing was written."
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before
    assert not list(tmp_path.glob("synthoma-*"))


def test_the_size_told_is_the_size_written(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(work)
    words = ("convert", "data", "--to", "nnunet", "--out", str(tmp_path / "out"), "--set", "structures=liver")
    _, said = told(capsys, *words, "--dry-run")
    kilobytes = float(re.search(r"about ([\d.]+) kB, in", said)[1])
    assert told(capsys, *words)[0] == 0
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.nii.gz"))
    assert kilobytes == pytest.approx(written / 1e3, rel=0.15)


def test_a_dry_run_of_what_cannot_be_done_says_so(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    words = ("synthesize", "kidney.toml", "--data", "data", "--out", "out", "--dry-run", "--set", "organs=pancreas")
    code, said = told(capsys, *words)
    assert (code, said.splitlines()[-1]) == (1, "Nothing was written. None of the first 3 of 3 cases can be done.")
    assert "no case has pancreas annotated" in said


def test_sizes_and_times_are_said_in_words() -> None:
    assert [amount(size) for size in (3, 35e6, 1.24e9, 40e9)] == ["1 kB", "35 MB", "1.2 GB", "40 GB"]
    assert [duration(seconds) for seconds in (0.31, 12, 200)] == ["0.31 s", "12 s", "0:03:20"]
