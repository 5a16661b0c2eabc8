"""The manifest: plans as drawn, one file of the same bytes, and errors that say which version is at fault."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import ellipsoid_case, fine, plan_of

from synthesis.patients import OBLIQUE, RECIPE, patient, write_patients
from synthoma.datasets.layouts.opening import open_dataset
from synthoma.errors import CaseError, FileError
from synthoma.synthesis.pipeline import insert_tumors, replay_plans
from synthoma.synthesis.recipe import JudgeRecipe
from synthoma.synthesis.store.columns import Row
from synthoma.synthesis.store.manifest import (
    Manifest,
    accepted,
    read_manifest,
    rows_of,
    versions,
    write_manifest,
)
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Geometry, Volume

number = st.floats(allow_nan=False, allow_infinity=False)
data = st.recursive(
    st.none() | st.booleans() | st.integers() | number | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def between(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


@st.composite
def plans(draw: st.DrawFn) -> TumorPlan:
    """Any plan with numbers that a tumor can have, sensible or not."""
    places = st.tuples(*[between(-1e4, 1e4)] * 3)
    turned = np.array(draw(st.tuples(*[between(-1, 1)] * 4))) + (2.0, 0, 0, 0)
    shortest = draw(between(1e-3, 300))
    return TumorPlan(
        organ=draw(st.sampled_from(["liver", "colon"])),
        center_mm=draw(places),
        axes_mm=(shortest, draw(between(shortest, 300)), 300.0),
        orientation=tuple((turned / np.linalg.norm(turned)).tolist()),
        volume_mm3=draw(between(1e-3, 3e7)),
        radius_mm=draw(between(1e-3, 500)),
        base_hu=draw(between(-2000, 5000)),
        contrast_hu=draw(between(-2000, 5000)),
        edge_mm=draw(between(0, 300)),
        blur_mm=draw(between(0, 300)),
        noise_hu=draw(between(0, 1000)),
        noise_from_mm=draw(places),
        seed=draw(st.integers(0, 2**63 - 1)),
        noise_by=draw(st.sampled_from(["voxel", "neighbors"])),
        displacement_mm=draw(between(0, 0.89)) * shortest,
        displacement_reach=draw(between(1.001, 10)),
        generator=draw(st.text()),
        details=draw(st.dictionaries(st.text(), data, max_size=3)),
    )


def row_of(plan: TumorPlan | None, case: str = "c1", **changes: Any) -> Row:
    row = {
        "case": case, "source": case, "scan_digest": "0" * 16, "phase": "portal", "versions": versions(),
        "index": 0, "number": 0,
        "accepted": plan is not None, "reason": "", "digest": "f" * 16, "plan": plan and plan.as_dict(),
        "scores": {"equivalent_diameter_mm": 12.3456, "contrast_hu": None} if plan else {},
    }  # fmt: skip
    return json.loads(json.dumps(row | changes))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(plans())
def test_any_plan_survives_json(plan: TumorPlan) -> None:
    assert TumorPlan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("organ", "../liver"),
        ("center_mm", [0, 0]),
        ("center_mm", [math.nan, 0, 0]),
        ("axes_mm", [1e9, 10, 10]),
        ("axes_mm", [-3, 10, 10]),
        ("orientation", [5.0, 0, 0, 0]),
        ("volume_mm3", 0),
        ("radius_mm", math.inf),
        ("contrast_hu", "dark"),
        ("seed", -1),
        ("displacement_mm", 50),
        ("displacement_reach", 1.0),
        ("noise_by", "chance"),
        ("details", [1]),
    ],
)
def test_absurd_plans_are_refused(key: str, value: Any) -> None:
    plan = plan_of(20.0, axes_mm=(10.0, 10.0, 10.0)).as_dict()
    with pytest.raises(CaseError, match="the plan of a tumor"):
        TumorPlan.from_dict(plan | {key: value})


@pytest.mark.parametrize("key", ["roughness", "texture_mm", "core_share", "calcifications", "form"])
def test_absurd_details_are_refused_by_their_generator(key: str) -> None:
    case = ellipsoid_case(fine(30), (13, 13, 13))
    plan = dataclasses.replace(
        plan_of(10.0), details={key: [[[0, 0, 0], 1, 1]] * 101 if key == "calcifications" else 1e9}
    )
    with pytest.raises(CaseError, match=f"wrong {key}"):
        replay_plans(case, [plan])


def test_a_plan_too_large_for_memory_is_refused() -> None:
    case = ellipsoid_case(fine(30), (13, 13, 13))
    tiny = Geometry.of((30, 30, 30), 0.02)
    case = dataclasses.replace(
        case, image=Volume(case.read_image().data, tiny), masks={"liver": Volume(case.read_mask("liver").data, tiny)}
    )
    with pytest.raises(CaseError, match="too large for voxels"):
        replay_plans(case, [plan_of(100.0)])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(plans(), min_size=1, max_size=4))
def test_any_plan_survives_the_table_exactly(drawn: list[TumorPlan]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_manifest([row_of(plan) for plan in drawn], Path(folder) / "m.parquet")
        found = read_manifest(Path(folder) / "m.parquet")
    assert found.plans("c1") == drawn
    assert found.rows("c1") == [row_of(plan) for plan in drawn]


@pytest.mark.parametrize("geometry", [None, OBLIQUE], ids=["upright", "oblique"])
def test_rows_are_what_synthesis_did_in_the_order_it_did_it(geometry: Any, tmp_path: Path) -> None:
    case = patient("p", *([geometry] if geometry else []))
    done = insert_tumors(case, RECIPE, seed=4)
    rows = rows_of(done, RECIPE.organs)
    write_manifest(rows, tmp_path / "m.parquet")
    table = read_manifest(tmp_path / "m.parquet")
    assert table.rows("p") == rows
    assert table.plans("p") == [tumor.plan for tumor in done.inserted]
    for row, tumor in zip(accepted(rows), done.inserted, strict=True):
        assert (row["digest"], row["scan_digest"], row["phase"]) == (tumor.digest, done.scan_digest, "portal")
        assert row["scores"] == tumor.verdict.scores


def test_rejected_attempts_are_rows_with_their_reason() -> None:
    strict = RECIPE.with_changes(judge=JudgeRecipe(contrast_to_noise=4.0), retries=2, contrast_hu=(-60.0, -30.0))
    done = insert_tumors(patient("p"), strict, seed=1)
    rows = rows_of(done, strict.organs)
    assert len(done.rejected) > 0
    assert len(rows) == len(done.inserted) + len(done.rejected)
    refused = [row for row in rows if not row["accepted"]]
    assert all("contrast-to-noise is" in row["reason"] and row["digest"] is None and row["plan"] for row in refused)
    assert {row["number"] for row in rows} == {0, 1, 2}
    assert [(row["plan"]["organ"], row["index"], row["number"]) for row in rows] == sorted(
        [(row["plan"]["organ"], row["index"], row["number"]) for row in rows],
        key=lambda key: (key[0] != "liver", key[1:]),
    )


def test_a_case_without_tumors_is_a_case_of_the_manifest(tmp_path: Path) -> None:
    none = RECIPE.with_changes(probability=0.0)
    rows = rows_of(insert_tumors(patient("p"), none), none.organs)
    write_manifest([*rows, row_of(None, "q"), *map(row_of, [])], tmp_path / "m.parquet")
    table = read_manifest(tmp_path / "m.parquet")
    assert table.cases == ("p", "q")
    assert table.plans("p") == []
    assert [(row["accepted"], row["plan"], row["reason"]) for row in table.rows("p")] == [
        (False, None, "no tumor was planned")
    ]
    assert list(table.tumors()) == []


def test_tumors_are_numbered_within_their_case(tmp_path: Path) -> None:
    plan = insert_tumors(patient("p"), RECIPE, seed=4).inserted[0].plan
    rows = [row_of(plan), row_of(plan, accepted=False), row_of(plan), row_of(None, "c2"), row_of(plan, "c3")]
    write_manifest(rows, tmp_path / "m.parquet")
    table = read_manifest(tmp_path / "m.parquet")
    assert [(tumor.case, tumor.number) for tumor in table.tumors()] == [("c1", 1), ("c1", 2), ("c3", 1)]
    assert {(tumor.organ, tumor.equivalent_diameter_mm) for tumor in table.tumors()} == {("liver", 12.3456)}


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = rows_of(insert_tumors(patient("p"), RECIPE, seed=4), RECIPE.organs)
    for name in "ab":
        write_manifest(rows, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rows_of_a_case_that_come_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="c1 come apart"):
        write_manifest([row_of(None), row_of(None, "c2"), row_of(None)], tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def large_manifest(cases: int, path: Path) -> int:
    """A manifest of plans as drawn, 2 to 5 tumors and a rejected attempt a case; its size in bytes."""
    drawn = [tumor.plan for seed in range(2) for tumor in insert_tumors(patient("p"), RECIPE, seed).inserted]
    rng = np.random.default_rng(0)
    rows = []
    for case in range(cases):
        for attempt in range(rng.integers(3, 7)):
            plan = drawn[rng.integers(len(drawn))].as_dict()
            for part in (plan, plan["details"]):
                for name, value in part.items():
                    if isinstance(value, float) and value:
                        part[name] = round(value * rng.uniform(0.5, 2), 3)
            vectors = {
                name: rng.normal(0, 90, 3).round(3).tolist() for name in ("center_mm", "axes_mm", "noise_from_mm")
            }
            plan |= vectors | {"orientation": rng.standard_normal(4).tolist(), "seed": int(rng.integers(2**63))}
            scores = {f"score_{number}": round(float(rng.uniform(0, 100)), 4) for number in range(8)}
            fixed = {"scan_digest": f"{case * 0x9E3779B97F4A7C15 % 2**64:016x}", "digest": rng.bytes(8).hex()}
            row = {
                "case": f"BDMAP_{case:08d}",
                "source": f"BDMAP_{case:08d}",
                "phase": "portal",
                "versions": versions(),
                "index": attempt,
                "number": 0,
            }
            rows.append(row | fixed | {"accepted": attempt > 0, "reason": "", "plan": plan, "scores": scores})
    write_manifest(rows, path)
    return path.stat().st_size


def test_30000_scans_take_under_50_mb(tmp_path: Path) -> None:
    few, many = large_manifest(50, tmp_path / "few.parquet"), large_manifest(250, tmp_path / "many.parquet")
    assert few + (many - few) / 200 * 30_000 < 50e6


def test_another_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    write_manifest([row_of(None)], tmp_path / "m.parquet")
    about = {"synthoma.manifest": "7", "synthoma.versions": "synthoma 9.9"}
    pq.write_table(pq.read_table(tmp_path / "m.parquet").replace_schema_metadata(about), tmp_path / "m.parquet")
    with pytest.raises(
        FileError, match=r"found format 7, written by synthoma 9.9, expected format 1.*; replay it with"
    ):
        read_manifest(tmp_path / "m.parquet")


def test_plans_of_older_manifests_tell_noise_voxel_by_voxel(tmp_path: Path) -> None:
    plan = TumorPlan.from_dict(plan_of(20.0).as_dict() | {"noise_by": "neighbors"})
    write_manifest([row_of(plan)], tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet").plans("c1")[0].noise_by == "neighbors"
    table = pq.read_table(tmp_path / "m.parquet").drop_columns(["noise_by"])
    about = {"synthoma.manifest": "3", "synthoma.versions": "synthoma 0.1.0"}
    pq.write_table(table.replace_schema_metadata(about), tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet").plans("c1")[0] == dataclasses.replace(plan, noise_by="voxel")


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "other.parquet": "is no manifest of synthoma; found a table of a",
        "text.parquet": "is no Parquet file",
        "none.parquet": "no manifest .*; expected the manifest.parquet",
        "folder": "no manifest .*folder/manifest.parquet",
    }.items():
        with pytest.raises(FileError, match=message):
            read_manifest(tmp_path / name)


def two_cases(folder: Path) -> Manifest:
    write_manifest([row_of(None, "plain"), row_of(None, "gone")], folder / "m.parquet")
    return read_manifest(folder / "m.parquet")


def test_a_case_that_the_data_set_lacks_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    dataset = open_dataset(write_patients(tmp_path / "data", "plain", "ill"))
    there, gone = two_cases(tmp_path).cases_in(dataset)
    assert there.read_image().data.shape == (80, 80, 40)
    with pytest.raises(
        CaseError, match=r"gone: the manifest has plans for it, .* found 2 cases in .*: ill, plain; give"
    ):
        gone.read_image()


def test_a_case_that_is_broken_is_its_fault_when_it_is_read(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "plain", "ill")
    (data / "gone").mkdir()
    gone = two_cases(tmp_path).cases_in(open_dataset(data))[1]
    with pytest.raises(Exception, match="gone: the case's folder is empty"):
        gone.read_image()


def test_a_case_that_the_manifest_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"ill: .* has no plans for it; found 2 cases: plain, gone"):
        two_cases(tmp_path).rows("ill")
