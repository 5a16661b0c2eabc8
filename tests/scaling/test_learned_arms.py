"""Arms of learned generators and a critic, trained for real in tiny networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cohorts import cohort
from test_point import TINY

from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import CaseError, RecipeError
from synthoma.learning.models import load_model
from synthoma.learning.tissue import load_generator
from synthoma.recipe import make_recipe
from synthoma.runs import read_run
from synthoma.scaling import networks
from synthoma.scaling.networks import complete_generators, require_arms
from synthoma.scaling.point import Plan, complete_training
from synthoma.scaling.recipe import Arm, PointTask, StudyRecipe
from synthoma.scaling.study import run_study
from synthoma.scaling.subsets import find_sides
from synthoma.synthesis.store.manifest import read_manifest

SMALL = {
    "crops": {"size": 16, "spacing_mm": 5.0},
    "network": {"features": [8, 8]},
    "steps": 2, "batch": 1, "checkpoint_every": 1, "pictures_every": 0,
}  # fmt: skip
RECIPE = StudyRecipe(
    counts=(2,), seeds=1, train={**TINY, "steps": 4}, examples=0, fit={"resamples": 100},
    generators=("adversarial", "diffusion"), filters=("critic",), copies=2, critic={"keep": 0.0, "steps": 2},
    learned={
        "adversarial": SMALL | {"discriminator": {"name": "unet", "width": 4, "depth": 2}},
        "diffusion": SMALL | {"sampling_steps": 5},
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return cohort(tmp_path_factory.mktemp("cohort"), annotated=2, healthy=2, tested=1, ood=1)


@pytest.fixture(scope="module")
def study(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "run"
    assert [record.error for record in run_study(RECIPE, data, out)] == ["", "", ""]
    return out


def test_a_generator_learns_from_its_point_s_cases_and_no_others(study: Path) -> None:
    for kind in ("adversarial", "diffusion"):
        (folder,) = (study / "generators").glob(f"*{kind}")
        model = load_generator(folder / "generator.safetensors")
        point = read_run(study / "points" / f"n0002_s0_{kind}-50-critic")
        assert model.spec.kind == kind
        assert model.record["data"]["cases"] == point.recipe["training"] == ["sick0", "sick1", "well0", "well1"]
        assert model.record["data"]["held_back"] == []
        assert point.summary["tumors"]["generator"] == model.digest


def test_a_critic_judges_in_no_scan_that_it_was_trained_on(study: Path) -> None:
    folds = [load_model(path).record["data"]["training"] for path in sorted((study / "critics").glob("*/model.*"))]
    assert sorted(folds) == [["sick0", "sick1", "well0"], ["sick0", "sick1", "well1"]]
    for bank in (study / "banks").glob("n*"):
        scores = [row["scores"].get("critic") for case in ("well0", "well1") for row in read_manifest(bank).rows(case)]
        assert any(score is not None for score in scores)


def test_arms_paste_tumors_of_their_own_generator_into_the_same_hosts(study: Path) -> None:
    plans = {}
    for kind in ("adversarial", "diffusion"):
        manifest = read_manifest(study / "banks" / f"n0002_s0_{kind}-critic")
        assert manifest.cases == ("well0", "well0_copy02", "well1", "well1_copy02")
        plans[kind] = [plan for case in manifest.cases for plan in manifest.plans(case)]
        assert {Path(plan.generator).parent.name for plan in plans[kind]} == {f"n0002_s0_{kind}"}
        model = load_model(study / "points" / f"n0002_s0_{kind}-50-critic" / "model.safetensors")
        assert model.record["recipe"]["synthesis"] == {"manifest": str(manifest.path.parent)}
    sizes = [[plan.equivalent_diameter_mm for plan in some] for some in plans.values()]
    assert len(sizes[0]) > 2
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_records_and_the_report_name_arms_and_what_the_critic_kept(study: Path) -> None:
    records = [json.loads(line)["result"] for line in (study / "records.jsonl").read_text().splitlines()]
    arms = {record["arm"]: record["tumors"] for record in records}
    assert list(arms) == [
        "real only", "with synthetic tumors, adversarial, critic", "with synthetic tumors, diffusion, critic",
    ]  # fmt: skip
    assert arms["real only"] == {}
    for arm, told in list(arms.items())[1:]:
        assert 0 < told["tumors"] <= told["kept"] <= told["judged"]
        page = (study / "report.html").read_text()
        assert arm in page
        assert f"<td>{told['kept']} of {told['judged']}, " in page


def test_what_arms_share_is_made_once_and_only_the_rest_is_done_on_resume(
    study: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("made again")

    before = (study / "records.jsonl").read_text().splitlines()
    (study / "records.jsonl").write_text("\n".join(before[:2]) + "\n")
    monkeypatch.setattr("synthoma.training.generators.train_generator", refuse)
    monkeypatch.setattr(networks, "_fill", refuse)
    run_study(RECIPE, data, study)
    assert (study / "records.jsonl").read_text().splitlines() == before


def test_a_critic_that_keeps_nothing_fails_its_arms_alone(study: Path, data: Dataset) -> None:
    # a share that no tumor of so few voxels has
    recipe = RECIPE.with_changes(
        train=complete_training(RECIPE.train, RECIPE.arms()),
        critic={"keep": 0.1234567, "at_most": 0.1234567, "steps": 2},
    )
    recipe = recipe.with_changes(learned=complete_generators(recipe))
    cases = {case.id: case for case in data}
    plan = Plan(study, data.root, recipe, cases, find_sides(data, recipe), {}, "cpu", 0, networks.train_network)
    task = PointTask(Arm(0.5, "rules", "critic"), 2, 0)
    with pytest.raises(CaseError, match=r"the bank of this arm would hold no tumor.*lower critic\.keep"):
        networks.arm_tumors(task, plan, "cpu")
    table, told = networks.arm_tumors(replace(task, arm=Arm(0.5, "rules", "none")), plan, "cpu")
    assert Path(table["manifest"]).name == "n0002_s0_rules-none"
    assert told["tumors"] > 0
    assert "judged" not in told


def test_a_generator_that_has_seen_a_test_case_is_refused(study: Path, data: Dataset) -> None:
    (path,) = (study / "generators").glob("*diffusion/generator.safetensors")
    recipe = StudyRecipe(counts=(2,), generators=(str(path),))
    sides = find_sides(data, recipe)
    require_arms(recipe, sides)
    with pytest.raises(CaseError, match=r"learned from cases that are tested on; found sick0"):
        require_arms(recipe, replace(sides, tests={"test": ("sick0",)}))
    with pytest.raises(RecipeError, match="no generator 'rulez'"):
        require_arms(StudyRecipe(generators=("rulez",)), sides)


def test_a_critic_needs_hosts_of_two_patients(data: Dataset) -> None:
    recipe = StudyRecipe(counts=(2,), filters=("critic",), copies=1, healthy=1)
    with pytest.raises(CaseError, match=r"divided between two of them; found 1 cases.*two patients"):
        require_arms(recipe, find_sides(data, recipe))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"filters": ["critic"]}, "give copies, such as 4"),
        ({"learned": {"diffusion": {}}}, "learned.diffusion is the recipe of no generator of rules"),
        ({"counts": [0, 2], "generators": ["diffusion"], "learned": {"diffusion": {}}}, "take 0 out of counts"),
    ],
)
def test_arms_that_cannot_be_made_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(StudyRecipe, wrong)


def test_a_table_of_a_generator_is_a_generator_recipe() -> None:
    recipe = StudyRecipe(
        generators=("own",), learned={"own": {"kind": "diffusion", "stepz": 3}}, train={"organs": ["kidney"]}
    )
    with pytest.raises(RecipeError, match=r"learned\.own: unknown key stepz"):
        complete_generators(recipe)
    recipe = recipe.with_changes(learned={"own": {"kind": "adversarial"}})
    assert complete_generators(recipe)["own"]["fakes"]["organs"] == ["kidney"]
    with pytest.raises(RecipeError, match="no kind 'own' of generator"):
        complete_generators(recipe.with_changes(learned={"own": {}}))
