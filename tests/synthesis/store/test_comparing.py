"""Replays: bit for bit, or, where a network made the tissue, to 1 HU, and it is written down how they were compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from generators.tiny import tiny_file
from phantoms import ellipsoid_case, fine

from synthoma.commands.tumors import replay, synthesize
from synthoma.datasets.writing import write_case
from synthoma.reading import read_case
from synthoma.synthesis.generators.learned import LearnedGenerator
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.store.manifest import read_manifest
from synthoma.synthesis.tumor import Tumor


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Plans of two tumors by a network."""
    write_case(ellipsoid_case(fine(80), (38, 38, 38)), tmp_path / "data" / "one")
    recipe = SynthesisRecipe(lesions=(2, 2), diameter_mm=(12, 18), mass_effect_share=0, generator=tiny_file(tmp_path))
    synthesize(recipe, tmp_path / "data", tmp_path / "made", write="plans")
    return tmp_path


def otherwise(monkeypatch: pytest.MonkeyPatch, hu: float, shift: int = 0) -> None:
    """As on another machine: tissue comes out this much brighter; the mask moves by so many voxels."""
    render = LearnedGenerator.render

    def changed(self, ct, organ, plan):  # type: ignore[no-untyped-def]
        tumor = render(self, ct, organ, plan)
        box = tumor.box.shift((shift, 0, 0))
        return Tumor(plan, box, tumor.alpha, tumor.hu + np.float32(hu), tumor.follows_organ, tumor.measure)

    monkeypatch.setattr(LearnedGenerator, "render", changed)


def test_a_replay_on_the_same_machine_is_compared_voxel_by_voxel(made: Path) -> None:
    before = read_manifest(made / "made")
    assert all(len(row["hu_sample"]) > 100 and "torch" in row["versions"] for row in before.rows("one"))
    done = replay(made / "made", made / "data", made / "again", write="plans")
    assert [record.status for record in done.records] == ["done"]
    rows = read_manifest(made / "again").rows("one")
    assert {row["compared"] for row in rows} == {"voxel by voxel"}
    assert [row["digest"] for row in rows] == [row["digest"] for row in before.rows("one")]


def test_a_last_digit_is_accepted_told_and_written_down(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    otherwise(monkeypatch, 0.7)
    done = replay(made / "made", made / "data", made / "again", write="overlay")
    assert [record.status for record in done.records] == ["done"]
    assert done.records[0].result["notes"] == [
        "2 of 2 tumors are the same to 1 HU in 64 voxels, the mask voxel by voxel; the others voxel by voxel"
    ]
    rows, before = (read_manifest(made / folder).rows("one") for folder in ("again", "made"))
    assert {row["compared"] for row in rows} == {"to 1 HU in 64 voxels, the mask voxel by voxel"}
    assert all(row["digest"] != old["digest"] for row, old in zip(rows, before, strict=True))
    assert read_case(made / "again" / "one", made / "data").read_image().data.any()  # its overlay is its own
    assert read_case(made / "made" / "one", made / "data").read_image().data.any()


@pytest.mark.parametrize(("hu", "shift", "message"), [(3.0, 0, "3 HU apart in 64 voxels"), (0.0, 1, "another mask")])
def test_more_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch, hu: float, shift: int, message: str) -> None:
    otherwise(monkeypatch, hu, shift)
    done = replay(made / "made", made / "data", made / "again", write="plans")
    assert [record.status for record in done.records] == ["failed"]
    assert "comes out otherwise than when it was made" in done.records[0].error
    assert message in done.records[0].error


def test_rules_hold_no_sample_and_are_never_compared_loosely(tmp_path: Path) -> None:
    write_case(ellipsoid_case(fine(80), (38, 38, 38)), tmp_path / "data" / "one")
    synthesize(SynthesisRecipe(lesions=(1, 1)), tmp_path / "data", tmp_path / "made", write="plans")
    assert "hu_sample" not in read_manifest(tmp_path / "made").table.column_names
    replay(tmp_path / "made", tmp_path / "data", tmp_path / "again", write="plans")
    names = ("made", "again")
    first, second = ((tmp_path / name / "manifest.parquet").read_bytes() for name in names)
    assert first == second
