"""Points trained for real: a study in less than a minute, and one that goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from cohorts import cohort

from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import RecipeError
from synthoma.runs import read_run
from synthoma.scaling.point import arm_training, complete_training, free_device
from synthoma.scaling.recipe import Arm, StudyRecipe
from synthoma.scaling.study import run_study

TINY = {
    "steps": 12,
    "batch": 1,
    "network": {"width": 4, "depth": 2},
    "patches": {"size": [16, 16, 16], "spacing_mm": 6.0, "per_epoch": 6},
    "synthesis": {"diameter_mm": [14, 28]},
    "segment": {"overlap": 0.1},
    "checkpoint_every": 3,
}
RECIPE = StudyRecipe(counts=(2,), seeds=1, train=TINY, examples=1, fit={"resamples": 100})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return cohort(tmp_path_factory.mktemp("cohort"), annotated=2, healthy=1, tested=1, ood=1)


@pytest.fixture(scope="module")
def study(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "run"
    assert [record.error for record in run_study(RECIPE, data, out)] == ["", ""]
    return out


def test_a_study_of_two_points_trains_scores_and_tells(study: Path) -> None:
    points = sorted((study / "points").iterdir())
    assert [point.name for point in points] == ["n0002_s0_real", "n0002_s0_rules-50"]
    for point in points:
        assert read_run(point).status == "done"
        assert (point / "model.safetensors").exists()
        assert len(list((point / "examples").glob("*.nii.gz"))) == 2
    assert read_run(study).summary["answer"] in (study / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)  # two processes load torch, on a busy machine slowly
def test_two_processes_train_the_same_points(study: Path, data: Dataset, tmp_path: Path) -> None:
    run_study(RECIPE, data, tmp_path / "run", workers=2)
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == (study / "records.jsonl").read_bytes()


def test_a_point_goes_on_at_its_last_checkpoint(
    study: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthoma.segmentation import train

    steps: list[int] = []
    rate = train.rate_at

    def stopped(step, *rest):  # type: ignore[no-untyped-def]
        steps.append(step)
        if step == 7 and 11 in steps:
            raise KeyboardInterrupt  # in the second point, after its checkpoint at step 6
        return rate(step, *rest)

    monkeypatch.setattr(train, "rate_at", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_study(RECIPE, data, tmp_path / "run")
    assert read_run(tmp_path / "run" / "points" / "n0002_s0_rules-50").status == "interrupted"
    steps.clear()
    monkeypatch.setattr(train, "rate_at", lambda step, *rest: steps.append(step) or rate(step, *rest))
    run_study(RECIPE, data, tmp_path / "run")
    assert sorted(set(steps)) == [6, 7, 8, 9, 10, 11]
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == (study / "records.jsonl").read_bytes()


def test_arms_differ_in_their_synthetic_tumors_alone() -> None:
    whole = complete_training(TINY, StudyRecipe().arms())
    real, mixed = arm_training(whole, Arm()), arm_training(whole, Arm(0.25, "rules"))
    assert "synthesis" not in real
    assert mixed["synthesis"]["generator"] == "rules"
    assert mixed["patches"]["synthetic_share"] == 0.25
    for name in real.keys() - {"patches"}:
        assert real[name] == mixed[name]


def test_what_the_training_does_not_know_is_refused_before_any_point() -> None:
    with pytest.raises(RecipeError, match=r"train: unknown key stepz"):
        complete_training({"stepz": 3}, [Arm()])
    with pytest.raises(RecipeError, match=r"train\.synthesis: unknown key diameter"):
        complete_training({"synthesis": {"diameter": 3}}, StudyRecipe().arms())


def test_one_device_is_shared(tmp_path: Path) -> None:
    with free_device("cpu", tmp_path) as first, free_device("cpu", tmp_path) as second:
        assert first == second == "cpu"


def test_each_point_has_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with free_device("cuda", tmp_path) as first:
        with free_device("auto", tmp_path) as second:
            assert {first, second} == {"cuda:0", "cuda:1"}
        with free_device("cuda", tmp_path) as third:
            assert third == second
        monkeypatch.setattr("synthoma.scaling.point.host_key", lambda: "another")
        with free_device("cuda", tmp_path) as elsewhere:
            assert elsewhere == "cuda:0", "another machine of a shared folder has GPUs of its own"
