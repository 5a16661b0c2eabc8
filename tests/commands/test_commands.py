"""The commands as functions: the same folders as on the command line, and what became of every case."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import synthoma
from synthesis.patients import RECIPE, content, write_patients
from synthoma.cli.main import app
from synthoma.commands.outcome import Outcome
from synthoma.commands.realism import realism
from synthoma.errors import CaseError, MissingExtraError, RecipeError, SynthomaError

SMALL = RECIPE.with_changes(organs=("kidney",), lesions=(1, 1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patients(tmp_path_factory.mktemp("commands") / "data", "plain", "ill")


def run(*words: str | Path) -> int:
    try:
        app([str(word) for word in words], standalone_mode=False)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_python_and_the_command_line_leave_the_same_files(data: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('organs = ["kidney"]\nlesions = [1, 1]\ndiameter_mm = [6.0, 16.0]\n')
    words = ("--data", data, "--out", tmp_path / "said", "--copies", "2", "--write", "plans")
    assert run("synthesize", tmp_path / "recipe.toml", *words) == 0
    done = synthoma.synthesize(tmp_path / "recipe.toml", data, tmp_path / "called", copies=2, write="plans")
    assert done.out == tmp_path / "called"
    assert not done.failed
    assert len(done.records) == 4
    said, called = content(tmp_path / "said"), content(tmp_path / "called")
    assert said.keys() == called.keys()
    assert said["manifest.parquet"] == called["manifest.parquet"]
    again = synthoma.replay(tmp_path / "said", data, tmp_path / "again", write="overlay")
    assert [record.status for record in again.records] == ["done"] * 4


def test_a_synthesis_is_evaluated_against_itself_and_compared(data: Path, tmp_path: Path) -> None:
    synthoma.synthesize(SMALL, data, tmp_path / "made")
    for name in "ab":
        done = synthoma.evaluate(tmp_path / "made", tmp_path / "made", tmp_path / name)
        assert done.summary["counts"]["cases"] == 2
    comparison = synthoma.compare(tmp_path / "a", tmp_path / "b", tmp_path / "compared")
    assert {difference.metric for difference in comparison.differences} >= {"dsc"}
    assert (tmp_path / "compared" / "report.html").is_file()


def test_an_outcome_says_how_many_failed(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (scan,) = (tmp_path / "data" / "plain").glob("ct*")
    scan.write_bytes(scan.read_bytes()[:500])
    done = synthoma.synthesize(SMALL, tmp_path / "data", tmp_path / "out", write="plans")
    assert set(done.failed) == {"plain"}
    assert repr(done) == f"<Outcome 1 cases done, 1 failed: {tmp_path / 'out'}>"
    assert repr(Outcome(Path("x"), [])) == "<Outcome 0 cases done, 0 failed: x>"


@pytest.mark.parametrize(
    ("asked", "how", "said"),
    [
        ({"organs": ("pancreas",)}, {}, "no case has pancreas annotated; found .*kidney"),
        ({"generator": "nowhere:Class"}, {}, "the generator nowhere:Class cannot be loaded"),
        ({"generator": "rule"}, {}, "no generator 'rule'; expected one of rules"),
        ({}, {"write": "some"}, "cannot write 'some'"),
        ({}, {"maps": ["instance"]}, "no label maps instance"),
    ],
)
def test_what_no_case_can_be_done_with_is_said_before_a_folder_is_claimed(
    data: Path, tmp_path: Path, asked: dict[str, object], how: dict[str, object], said: str
) -> None:
    with pytest.raises(SynthomaError, match=said):
        synthoma.synthesize(SMALL.with_changes(**asked), data, tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_an_unknown_recipe_is_named_with_the_known_ones(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe livre; expected a TOML file, or one of colon"):
        synthoma.synthesize("livre", data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_front_door_has_what_it_says() -> None:
    assert {"synthesize", "replay", "train", "segment", "evaluate", "compare", "scale"} <= set(synthoma.__all__)
    for name in synthoma.__all__:
        assert getattr(synthoma, name).__name__ == name


def test_realism_compares_the_tumors_that_were_put_in(data: Path, tmp_path: Path) -> None:
    recipe = RECIPE.with_changes(organs=("liver",), lesions=(2, 2))
    synthoma.synthesize(recipe, data, tmp_path / "made", copies=2, write="overlay")
    done = realism(data, tmp_path / "made", tmp_path / "run")
    table = pq.read_table(tmp_path / "run" / "lesions.parquet").to_pylist()
    sides = [row["side"] for row in table]
    assert sides.count("real") == 2  # the ill one's own
    assert sides.count("synthetic") == 8  # and not the real ones in the same masks
    assert "too few" in done.summary["verdict"]
    with pytest.raises(CaseError, match="no case of the synthetic data set has masks of tumors"):
        realism(data, write_patients(tmp_path / "healthy", "plain"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_files_that_may_not_grow_fail_their_case_and_the_rest_is_done_when_they_may(data: Path, tmp_path: Path) -> None:
    words = ["synthesize", "kidney", "--data", str(data), "--out", str(tmp_path / "out")]
    limited = f"ulimit -f 8; exec {shlex.join([sys.executable, '-m', 'synthoma', *words])}"
    told = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode in (1, 2), told.stderr
    assert "found File too large; choose another --out, where files may be this large" in told.stderr
    assert "Traceback" not in told.stderr
    assert not list((tmp_path / "out").rglob("ct.nii.gz"))
    assert run(*words) == 0
    assert len(list((tmp_path / "out").rglob("ct.nii.gz"))) == 2


def test_realism_asks_for_what_it_needs_before_a_folder_is_claimed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'synthoma\[realism\]'"):
        realism(data, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
