"""Banks: tumors of a learned generator are rendered once, and pasted without it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from generators.tiny import tiny_file
from online.test_online import WHOLE, Cached, part_of
from patients import RECIPE, write_patients

from synthoma import anatomy
from synthoma.reading import open_dataset
from synthoma.synthesis.online.online import Fixed
from synthoma.synthesis.pipeline import replay_plans
from synthoma.synthesis.store.manifest import write_manifest
from synthoma.synthesis.store.outputs import synthesize_case
from synthoma.volume import Box


def test_a_bank_gives_the_voxels_it_was_made_of_without_the_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_patients(tmp_path / "data", "plain")
    case = dataclasses.replace(open_dataset(data)["plain"], attributes={"healthy": True, "phase": "portal"})
    model = tiny_file(tmp_path, "diffusion")
    recipe = RECIPE.with_changes(organs=("liver",), lesions=(3, 3), generator=model)
    rows = synthesize_case(case, recipe, 0, tmp_path / "out", "plans")["rows"]
    write_manifest(rows, tmp_path / "out" / "manifest.parquet")
    fixed = Fixed(tmp_path / "out")
    entry = Cached(case, fixed)
    offline = replay_plans(case, [tumor.plan for tumor in fixed.draw(entry, 0)])
    assert len(offline.inserted) >= 2
    Path(model).unlink()  # nobody asks for it any more
    drawn = fixed.draw(entry, 1)
    hu, labels = fixed.render(entry, WHOLE, drawn)
    assert np.array_equal(hu, part_of(offline.ct.data, WHOLE, -1024))
    made = labels == anatomy.STRUCTURES["liver_lesion"]
    assert np.array_equal(made, part_of(offline.tumors("liver").data, WHOLE, 0))
    small = Box((20, 20, 10), (60, 70, 30))
    assert np.array_equal(fixed.render(entry, small, drawn)[0], part_of(offline.ct.data, small, -1024))


def test_a_bank_of_the_same_name_elsewhere_or_made_anew_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_patients(tmp_path / "data", "plain")
    case = dataclasses.replace(open_dataset(data)["plain"], attributes={"healthy": True, "phase": "portal"})
    recipe = RECIPE.with_changes(organs=("liver",), lesions=(2, 2))

    def centers(folder: str, seed: int) -> list[tuple[float, float, float]]:
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        rows = synthesize_case(case, recipe, seed, Path("bank"), "plans")["rows"]
        write_manifest(rows, Path("bank/manifest.parquet"))
        fixed = Fixed(Path("bank"))
        return [tumor.center_mm for tumor in fixed.draw(Cached(case, fixed), 0)]

    here, elsewhere, anew = centers("a", 0), centers("b", 1), centers("b", 2)
    assert here
    assert here != elsewhere
    assert elsewhere != anew
