"""Lesions of a trial are paired: one place, one seed, one attribute changed; and nothing is left of them in a host."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hosts import host, write_hosts

from synthoma.commands.trials import trial
from synthoma.errors import CaseError, RecipeError
from synthoma.reading import open_dataset
from synthoma.synthesis.pipeline import replay_plans
from synthoma.synthesis.store.manifest import read_manifest
from synthoma.synthesis.store.outputs import replay_case
from synthoma.synthesis.tumor import TumorPlan
from synthoma.trials.design import read_design
from synthoma.trials.planning import plan_host
from synthoma.trials.recipe import TrialRecipe
from synthoma.volume import Volume

RECIPE = TrialRecipe(levels={"diameter_mm": (8, 16, 24), "contrast_hu": (-60, -30), "edge_mm": (0.5, 2.0)})
# what a diameter is made of
SIZE = {"axes_mm", "volume_mm3", "radius_mm", "details"}


def differing(first: TumorPlan, second: TumorPlan) -> set[str]:
    names = {field.name for field in dataclasses.fields(TumorPlan)}
    return {name for name in names if getattr(first, name) != getattr(second, name)}


def test_plans_of_two_cells_differ_in_the_attributes_of_the_cells_only() -> None:
    made = plan_host(host(1), RECIPE, 3, "unused", "plans")
    plans = {row["case"]: TumorPlan.from_dict(row["plan"]) for row in made["rows"] if row["plan"]}
    cells = {row["case"]: {name: row[name] for name in RECIPE.levels} for row in made["lesions"]}
    assert len(plans) == len(cells) == 12
    fields = {"diameter_mm": SIZE, "contrast_hu": {"contrast_hu"}, "edge_mm": {"edge_mm"}}
    first, *others = plans
    for other in others:
        varied = {name for name in RECIPE.levels if cells[first][name] != cells[other][name]}
        assert differing(plans[first], plans[other]) == set().union(*(fields[name] for name in varied))
    for case, plan in plans.items():
        assert plan.equivalent_diameter_mm == pytest.approx(cells[case]["diameter_mm"], abs=0.01)
        assert plan.contrast_hu == cells[case]["contrast_hu"]
        assert not {"rim_hu", "core_hu", "calcifications"} & plan.details.keys()
        # of the details only the depth of the drift goes with the size
        assert plan.details["drift_mm"] / plan.equivalent_diameter_mm == pytest.approx(
            plans[first].details["drift_mm"] / plans[first].equivalent_diameter_mm, abs=1e-3
        )
    assert len({json.dumps({**plan.details, "drift_mm": 0}) for plan in plans.values()}) == 1


def test_the_scans_of_a_trial_hold_one_lesion_each_as_if_it_were_put_into_the_host_alone(tmp_path: Path) -> None:
    data = write_hosts(tmp_path / "data", 2)
    recipe = TrialRecipe(levels={"diameter_mm": (8, 20), "contrast_hu": (-60,)})
    done = trial(recipe, data, tmp_path / "trial")
    assert not done.failed
    assert done.summary["lesions"] == 4
    hosts, scans, manifest = open_dataset(data), open_dataset(tmp_path / "trial"), read_manifest(tmp_path / "trial")
    assert [case.id for case in scans] == [f"h{n}{end}" for n in (0, 1) for end in ("", "_trial001", "_trial002")]
    for case in scans:
        healthy = hosts[manifest.source(case.id)]
        plans = manifest.plans(case.id)
        assert case.patient == healthy.patient
        if not plans:
            assert np.array_equal(case.read_image().data, healthy.read_image().data)
            continue
        [plan] = plans
        alone = replay_plans(healthy, [plan])
        assert np.array_equal(case.read_image().data, alone.ct.data)
        lesion = case.read_mask("liver_lesion")
        assert lesion.data.sum() * lesion.geometry.voxel_mm3 == pytest.approx(plan.volume_mm3, rel=0.2)


def test_every_place_goes_through_every_cell_and_a_scan_holds_different_ones() -> None:
    recipe = TrialRecipe(levels={"diameter_mm": (6, 8, 10), "contrast_hu": (-60, -30)}, sites=2, gap_mm=5)
    made = plan_host(host(0), recipe, 0, "unused", "plans")
    for site in (0, 1):
        own = {(row["diameter_mm"], row["contrast_hu"]) for row in made["lesions"] if row["site"] == site}
        assert len(own) == 6
    scans = {row["case"] for row in made["lesions"]}
    assert len(scans) == 6
    assert len(made["lesions"]) == 12


def test_a_lesion_without_room_is_left_out_and_counted_with_the_reason(tmp_path: Path) -> None:
    data = write_hosts(tmp_path / "data", 2, small=(1,))
    recipe = TrialRecipe(levels={"diameter_mm": (8, 60), "contrast_hu": (-60,)}, retries=1)
    done = trial(recipe, data, tmp_path / "trial", write="plans")
    design = read_design(tmp_path / "trial")
    assert done.summary["left_out"] == len(design.left_out)
    assert {row["host"] for row in design.left_out} >= {"h1"}
    assert all(row["diameter_mm"] == 60 and row["reason"] for row in design.left_out)
    assert {row["host"] for row in design.lesions if row["diameter_mm"] == 8} == {"h0", "h1"}
    none = TrialRecipe(levels={"diameter_mm": (80, 90), "contrast_hu": (-60,)}, retries=0)
    with pytest.raises(CaseError, match="no room for a lesion in the liver"):
        plan_host(host(1, small=True), none, 0, tmp_path, "plans")


def test_workers_change_no_byte_and_a_second_run_makes_nothing_again(tmp_path: Path) -> None:
    data = write_hosts(tmp_path / "data", 2)
    recipe = TrialRecipe(levels={"diameter_mm": (8, 12), "contrast_hu": (-60,)})
    for name, workers in (("one", 0), ("two", 2)):
        trial(recipe, data, tmp_path / name, workers=workers)
    files = [sorted(path for path in (tmp_path / name).rglob("*.npz")) for name in ("one", "two")]
    assert len(files[0]) == 6
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    designs = [json.loads((tmp_path / name / "design.json").read_text()) for name in ("one", "two")]
    assert designs[0] == designs[1]
    before = [path.stat().st_mtime_ns for path in files[0]]
    trial(recipe, data, tmp_path / "one")
    assert [path.stat().st_mtime_ns for path in files[0]] == before


def test_told_depths_and_distances_to_vessels_move_a_lesion_and_change_nothing_else() -> None:
    case = host(0)
    grid = case.read_geometry()
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    middle = grid.to_mm(np.array(grid.shape) / 2)
    from_axis = np.linalg.norm((index @ grid.affine[:3, :3].T + grid.affine[:3, 3] - middle)[..., :2], axis=-1)
    vessel = Volume(np.asfortranarray((from_axis < 4) & case.read_mask("liver").data), grid)
    case = dataclasses.replace(case, masks={**case.masks, "hepatic_vessel": vessel})
    recipe = TrialRecipe(
        levels={"depth_mm": (12, 20), "vessel_mm": (6, 14)}, base={"diameter_mm": 8, "contrast_hu": -60}, inside=0.5
    )
    made = plan_host(case, recipe, 0, "unused", "plans")
    plans = {row["case"]: TumorPlan.from_dict(row["plan"]) for row in made["rows"] if row["plan"]}
    assert len(made["lesions"]) == 4
    first = next(iter(plans.values()))
    for row in made["lesions"]:
        plan = plans[row["case"]]
        assert differing(first, plan) <= {"center_mm"}
        away = np.array(plan.center_mm) - middle
        assert 38 - np.linalg.norm(away) == pytest.approx(row["depth_mm"], abs=4)
        assert np.linalg.norm(away[:2]) - 4 == pytest.approx(row["vessel_mm"], abs=4)
    nowhere = TrialRecipe(levels={"depth_mm": (12, 60)}, base={"diameter_mm": 8, "contrast_hu": -60})
    (left,) = plan_host(host(0), nowhere, 0, "unused", "plans")["left_out"]
    assert left["depth_mm"] == 60
    assert left["reason"] == "no place of the liver is 60 mm below the surface"


def test_a_scan_made_worse_holds_the_same_lesion_and_is_replayed_so(tmp_path: Path) -> None:
    data = write_hosts(tmp_path / "data", 1)
    recipe = TrialRecipe(
        levels={"noise_hu": (0, 20), "view_cut_mm": (0, 92)}, base={"diameter_mm": 14, "contrast_hu": -60}, design="one"
    )
    done = trial(recipe, data, tmp_path / "trial")
    assert (done.summary["lesions"], done.summary["left_out"], done.summary["planned_scans"]) == (2, 1, 6)
    design, manifest = read_design(tmp_path / "trial"), read_manifest(tmp_path / "trial")
    assert design.left_out[0]["view_cut_mm"] == 92
    assert "0 % of it lies in the field of view" in design.left_out[0]["reason"]
    assert [row["case"] for row in design.untouched] == ["h0", "h0_bare001", "h0_bare002"]
    plain, noisy = (row["case"] for row in sorted(design.lesions, key=lambda row: row["noise_hu"]))
    assert manifest.plans(plain) == manifest.plans(noisy)
    scans = open_dataset(tmp_path / "trial")
    added = scans[noisy].read_image().data.astype(float) - scans[plain].read_image().data
    assert added.std() == pytest.approx(20, rel=0.03)
    assert np.array_equal(scans[noisy].read_mask("liver_lesion").data, scans[plain].read_mask("liver_lesion").data)
    bare = scans["h0_bare001"].read_image().data.astype(float) - scans["h0"].read_image().data
    assert np.array_equal(bare, added)  # the same noise, with a lesion or without
    assert (scans["h0_bare002"].read_image().data == -1024).mean() > 0.9
    healthy = manifest.case_in(open_dataset(data), noisy)
    replay_case(healthy, manifest, tmp_path / "full", "full")
    written = open_dataset(tmp_path / "full")[noisy]
    assert np.array_equal(written.read_image().data, scans[noisy].read_image().data)


def test_grown_lesions_are_those_of_a_trial_too() -> None:
    recipe = TrialRecipe(levels={"diameter_mm": (8, 12)}, base={"contrast_hu": -60}, generator="growth", inside=0.5)
    made = plan_host(host(0), recipe, 0, "unused", "plans")
    plans = [TumorPlan.from_dict(row["plan"]) for row in made["rows"] if row["plan"]]
    assert [plan.generator for plan in plans] == ["growth", "growth"]
    assert differing(*plans) <= {"axes_mm", "volume_mm3", "radius_mm"}
    assert [row["measured_diameter_mm"] for row in made["lesions"]] == pytest.approx([8, 12], rel=0.1)


def test_too_many_scans_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = write_hosts(tmp_path / "data", 1)
    with pytest.raises(RecipeError, match="25 scans"):
        trial(TrialRecipe(most_scans=24), data, tmp_path / "trial")
    assert not (tmp_path / "trial").exists()
