"""A case with tumors: the same bytes always and everywhere, nothing touched that should not be, every verdict kept."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from phantoms import FAT, GRIDS, KIDNEY, LIVER, ellipsoid_case, fine, noise, plan_of, rho, slanted

from synthoma.cases import Case
from synthoma.errors import CaseError, GeometryError
from synthoma.synthesis.pipeline import Synthesis, insert_tumors, replay_plans
from synthoma.synthesis.recipe import JudgeRecipe, SynthesisRecipe
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Geometry, Volume

FEW = SynthesisRecipe(lesions=(2, 3), diameter_mm=(9, 18))


def abdomen(geometry: Geometry | None = None, **masks: Volume) -> Case:
    """A liver and a kidney in fat."""
    geometry = geometry or fine((120, 64, 64))
    liver = rho(geometry, (27, 27, 27), (-28, 0, 0)) < 1
    kidney = rho(geometry, (15, 16, 24), (33, 0, 0)) < 1
    hu = np.select([liver, kidney], [LIVER, KIDNEY], FAT) + noise(geometry, 11.0)
    ct = Volume(np.asfortranarray(np.rint(hu).astype(np.int16)), geometry)
    parts = {"liver": Volume(liver, geometry), "kidney_left": Volume(kidney, geometry)}
    return Case("abdomen", ct, {**parts, **masks}, attributes={"phase": "portal"})


def hash_of(*arrays: np.ndarray) -> str:
    return hashlib.blake2b(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def digest(result: Synthesis) -> str:
    """Of every voxel, every mask and every plan."""
    found = hashlib.blake2b(np.ascontiguousarray(result.ct.data).tobytes(), digest_size=12)
    found.update(np.ascontiguousarray(result.instances().data).tobytes())
    found.update(repr([(t.plan.as_dict(), t.digest) for t in result.inserted]).encode())
    return found.hexdigest()


def changed(case: Case, result: Synthesis) -> np.ndarray:
    return np.asarray(result.ct.data != case.read_image().data)


ORDERS = [
    "".join(names) for turned in itertools.permutations(("RL", "AP", "SI")) for names in itertools.product(*turned)
]


def test_the_way_a_file_stores_its_axes_changes_no_tumor() -> None:
    case = abdomen(slanted((100, 58, 58)))
    recipe = SynthesisRecipe(organs=("liver", "kidney"), lesions=(1, 2), diameter_mm=(8, 14), mass_effect_share=0.7)

    def turned(volume: Volume, axes: str, order: Literal["C", "F"]) -> Volume:
        volume = volume.reorient(axes)
        return Volume(np.array(volume.data, order=order), volume.geometry)

    found = set()
    for number, axes in enumerate(ORDERS):
        order: Literal["C", "F"] = "CF"[number % 2]  # type: ignore[assignment]
        masks = {name: turned(mask, axes, order) for name, mask in case.each_mask()}
        other = insert_tumors(replace(case, image=turned(case.read_image(), axes, order), masks=masks), recipe, 3)
        assert other.ct.geometry.axes == axes
        first = other.stored_box(other.inserted[0].box)
        assert (other.instances().data[first.slices] == 1).sum() == other.inserted[0].mask.sum()
        upright = other.ct.reorient("RAS").data, other.tumors("liver").reorient("RAS").data
        found.add((hash_of(*upright), *(tumor.digest for tumor in other.inserted)))
    assert len(ORDERS) == 48
    assert len(found) == 1
    assert len(next(iter(found))) >= 3


@pytest.mark.parametrize("grid", GRIDS)
def test_tumors_are_put_in_and_nothing_else_changes(grid: str) -> None:
    case = abdomen(GRIDS[grid]((120, 64, 64)))
    before = case.read_image().data.copy()
    result = insert_tumors(case, FEW.with_changes(mass_effect_share=0.0), 1)
    assert 1 <= len(result.inserted) <= 3
    assert np.array_equal(case.read_image().data, before), "the case stays as it is"
    outside = np.ones(before.shape, bool)
    for tumor in result.inserted:
        assert tumor.verdict.accepted
        assert tumor.verdict.scores["volume_ratio"] == pytest.approx(1, abs=0.4)
        outside[tumor.box.slices] = False
    assert not changed(case, result)[outside].any()
    labels = result.instances().data
    assert set(np.unique(labels)) == set(range(len(result.inserted) + 1))
    assert np.array_equal(labels > 0, result.tumors("liver").data)
    assert changed(case, result)[labels > 0].mean() > 0.9
    assert result.ct.data.dtype == np.int16
    assert result.phase == "portal"


def test_before_undoes_every_tumor() -> None:
    case = abdomen()
    result = insert_tumors(case, FEW.with_changes(mass_effect_share=1.0), 3)
    data = result.ct.data.copy()
    for tumor in reversed(result.inserted):
        assert np.array_equal(data[tumor.changed.slices], tumor.after)
        data[tumor.changed.slices] = tumor.before
    assert np.array_equal(data, case.read_image().data)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    case = abdomen()
    one = insert_tumors(case, FEW, 7)
    assert digest(one) == digest(insert_tumors(abdomen(), FEW, 7))
    assert digest(one) != digest(insert_tumors(case, FEW, 8))
    assert digest(one) != digest(insert_tumors(replace(case, id="other"), FEW, 7))


@pytest.mark.parametrize("displacement", [0.0, 1.0])
def test_a_replay_is_the_original(displacement: float) -> None:
    case = abdomen()
    recipe = SynthesisRecipe(
        organs=("liver", "kidney"), lesions=(1, 3), diameter_mm=(8, 16), mass_effect_share=displacement
    )
    result = insert_tumors(case, recipe, 2)
    again = replay_plans(case, [TumorPlan.from_dict(tumor.plan.as_dict()) for tumor in result.inserted])
    assert np.array_equal(again.ct.data, result.ct.data)
    assert [tumor.digest for tumor in again.inserted] == [tumor.digest for tumor in result.inserted]
    assert again.scan_digest == result.scan_digest


def test_two_organs_get_their_own_tumors_whatever_else_is_asked_for() -> None:
    case = abdomen()
    both = insert_tumors(case, FEW.with_changes(organs=("liver", "kidney")), 4)
    alone = insert_tumors(case, FEW, 4)
    assert {tumor.plan.organ for tumor in both.inserted} == {"liver", "kidney"}
    assert [t.plan for t in both.inserted if t.plan.organ == "liver"] == [t.plan for t in alone.inserted]
    x = case.read_image().geometry.to_mm(np.argwhere(both.tumors("kidney").data))[:, 0]
    assert x.min() > 5


def test_float_scans_stay_float() -> None:
    case = ellipsoid_case(fine(64), (27, 27, 27), image=np.float32)
    result = insert_tumors(case, FEW, 1)
    assert result.ct.data.dtype == np.float32
    outside = np.ones(result.ct.data.shape, bool)
    for tumor in result.inserted:
        outside[tumor.changed.slices] = False
    assert not changed(case, result)[outside].any()


def test_real_tumors_keep_their_voxels_and_their_label() -> None:
    geometry = fine(70)
    real = Volume(rho(geometry, (9, 8, 8), (-8, 4, 0)) < 1, geometry)
    case = ellipsoid_case(geometry, (30, 30, 30), liver_lesion=real)
    recipe = SynthesisRecipe(lesions=(4, 5), diameter_mm=(8, 14), mass_effect_share=1.0, displacement_mm=(2, 3))
    placed = 0
    for seed in range(4):
        result = insert_tumors(case, recipe, seed)
        placed += len(result.inserted)
        assert not changed(case, result)[real.data].any()
        assert not (result.tumors("liver").data & real.data).any()
        assert np.array_equal(result.moved(real).data, real.data)
    assert placed > 8


def test_what_nobody_annotated_is_no_place_for_a_tumor() -> None:
    geometry = fine(70)
    ignored = Volume(rho(geometry, (40, 14, 40), (0, 24, 0)) < 1, geometry)
    case = ellipsoid_case(geometry, (30, 30, 30), ignore=ignored)
    recipe = SynthesisRecipe(lesions=(4, 5), diameter_mm=(8, 14), mass_effect_share=1.0, displacement_mm=(2, 3))
    free = ellipsoid_case(geometry, (30, 30, 30))
    assert any(changed(free, insert_tumors(free, recipe, seed))[ignored.data].any() for seed in range(4))
    for seed in range(4):
        result = insert_tumors(case, recipe, seed)
        assert result.inserted
        assert not changed(case, result)[ignored.data].any()


def test_tumors_do_not_grow_into_other_structures() -> None:
    geometry = fine((90, 64, 64))
    stomach = Volume(rho(geometry, (20, 26, 26), (28, 0, 0)) < 1, geometry)
    case = ellipsoid_case(geometry, (12, 14, 26), "kidney_left", KIDNEY, stomach=stomach)
    for seed in range(4):
        result = insert_tumors(
            case, SynthesisRecipe(organs=("kidney",), diameter_mm=(14, 20), mass_effect_share=0.0), seed
        )
        kidney = case.read_mask("kidney_left").data
        assert not changed(case, result)[stomach.data & ~kidney].any()


def test_a_push_moves_masks_with_the_scan() -> None:
    case = abdomen()
    recipe = SynthesisRecipe(lesions=(1, 1), diameter_mm=(20, 22), mass_effect_share=1.0, displacement_mm=(3, 3))
    result = next(
        found
        for found in (insert_tumors(case, recipe, seed) for seed in range(9))
        if found.inserted[0].plan.displacement_mm
    )
    liver = case.read_mask("liver")
    moved = result.moved(liver)
    assert moved.data.sum() >= liver.data.sum()
    assert not (result.tumors("liver").data & ~moved.data).sum() > 0.1 * result.tumors("liver").data.sum()
    # liver tissue, tumor included, still is where the moved mask says
    inside = moved.data & ~result.tumors("liver").data
    assert result.ct.data[inside].mean() > LIVER - 15
    nothing = Volume(np.zeros_like(liver.data), liver.geometry)
    assert result.moved(nothing) is nothing


def test_rejected_tumors_are_redrawn_and_kept_with_their_reason() -> None:
    case = abdomen()
    strict = SynthesisRecipe(
        lesions=(2, 2), diameter_mm=(10, 14), retries=3, judge=JudgeRecipe(contrast_to_noise=4.0), mass_effect_share=0.0
    )
    result = insert_tumors(case, strict, 11)
    assert result.rejected
    for attempt in result.rejected:
        assert not attempt.verdict.accepted
        assert "contrast-to-noise" in attempt.verdict.reason
        assert attempt.number <= 3
    for tumor in result.inserted:
        assert tumor.verdict.scores["contrast_to_noise"] >= 4
        before = [a.number for a in result.rejected if a.index == tumor.index]
        assert before == list(range(tumor.number))
    # a rejected tumor's displacement is undone as well
    never = strict.with_changes(
        contrast_hu=(0.0, 0.0), judge=JudgeRecipe(contrast_to_noise=20.0), mass_effect_share=1.0
    )
    refused = insert_tumors(case, never, 1)
    assert len(refused.rejected) == 8
    assert any(attempt.plan.displacement_mm for attempt in refused.rejected)
    assert not refused.inserted
    (why,) = refused.notes
    assert why.startswith("no tumor in the liver: all 8 plans were rejected, 8 of them like this: contrast-to-noise is")
    assert not changed(case, refused).any()


def test_what_cannot_be_done_is_a_note_beside_what_can() -> None:
    result = insert_tumors(abdomen(), FEW.with_changes(organs=("liver", "pancreas")), 1)
    assert result.inserted
    assert result.notes == ("the pancreas is not annotated",)


def refused(case: Case, recipe: SynthesisRecipe = FEW) -> str:
    with pytest.raises((CaseError, GeometryError)) as refusal:
        insert_tumors(case, recipe)
    return str(refusal.value)


def test_bad_cases_are_sentences_that_name_the_case() -> None:
    case, geometry = abdomen(), fine((120, 64, 64))
    empty = Volume(np.zeros(geometry.shape, bool), geometry)
    other = Volume(np.zeros((5, 5, 5), bool), fine(5))
    assert refused(case, SynthesisRecipe(organs=("uterus",))).startswith("abdomen: the uterus is not annotated")
    assert refused(replace(case, masks={"liver": empty})).startswith("abdomen: the mask of the liver is empty")
    assert "abdomen" in refused(replace(case, masks={**case.masks, "spleen": other}))
    assert "in Python: .to(ct.geometry)" in refused(replace(case, masks={"liver": other}))
    assert "phase is unknown; found lunar, expected" in refused(replace(case, attributes={"phase": "lunar"}))
    small = ellipsoid_case(fine(40), (6, 6, 6))
    assert "tumor" in refused_or_rejected(small, SynthesisRecipe(diameter_mm=(60, 60), lesions=(1, 1)))
    with pytest.raises(CaseError, match="the pancreas is not annotated"):
        replay_plans(case, [plan_of(organ="pancreas")])


def refused_or_rejected(case: Case, recipe: SynthesisRecipe) -> str:
    """What is said of a tumor too large for its organ: an error, or the reason of its rejection."""
    try:
        result = insert_tumors(case, recipe)
    except CaseError as error:
        return str(error)
    assert not result.inserted
    return "tumor: " + result.rejected[0].verdict.reason


def test_an_organ_cut_by_the_field_of_view_is_allowed_and_noted() -> None:
    geometry = fine((60, 60, 30))
    result = insert_tumors(ellipsoid_case(geometry, (26, 26, 60)), FEW, 1)
    assert result.inserted
    assert result.notes == ("the liver is cut by the field of view",)


def test_one_kidney_mask_of_both_is_enough() -> None:
    case = abdomen()
    kits = Case("kits", case.image, {"kidney": case.masks["kidney_left"]}, attributes={"phase": "portal"})
    result = insert_tumors(kits, FEW.with_changes(organs=("kidney",)), 1)
    assert result.inserted
    assert result.tumors("kidney").data.any()


def test_an_empty_replay_is_the_case() -> None:
    case = abdomen()
    assert np.array_equal(replay_plans(case, []).ct.data, case.read_image().data)


def run_elsewhere(**environment: str) -> str:
    """The digest of one small synthesis in another process, under other instructions or threads."""
    here = Path(__file__).parent
    code = f"""
import sys
sys.path[:0] = [{str(here)!r}, {str(here.parents[1] / "benchmarks")!r}]
from test_pipeline import abdomen, digest, elsewhere
print(elsewhere())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()[-1]


def elsewhere() -> str:
    """Digest of a synthesis that uses all there is: two organs, pushes, rims, cores, specks, replaced fat."""
    case = abdomen()
    result = insert_tumors(
        case, SynthesisRecipe(organs=("liver", "kidney"), lesions=(2, 3), diameter_mm=(9, 20), mass_effect_share=1.0), 5
    )
    plan = plan_of(
        30.0,
        (1, 0.8, 0.7),
        center_mm=(-28.0, 4.0, 2.0),
        roughness=0.12,
        texture_hu=9.0,
        rim_hu=25.0,
        rim_mm=3.0,
        core_hu=-20.0,
        core_share=0.5,
        displacement_mm=2.0,
        noise_from_mm=(-28.0, 0.0, 0.0),
        calcifications=[[[0.2, 0.1, -0.3], 1.5, 400.0]],
    )
    in_floats = insert_tumors(ellipsoid_case(fine(50), (20, 20, 20), image=np.float32), FEW, 2)
    return digest(result) + digest(replay_plans(case, [plan])) + digest(in_floats)


def cpu_features() -> list[str]:
    """What numpy dispatches on and this CPU has, that can be switched off."""
    from numpy._core._multiarray_umath import __cpu_baseline__, __cpu_dispatch__, __cpu_features__

    return [name for name in __cpu_dispatch__ if __cpu_features__.get(name) and name not in __cpu_baseline__]


def test_other_instructions_and_threads_give_the_same_bytes() -> None:
    here = elsewhere()
    assert run_elsewhere(OPENBLAS_NUM_THREADS="1") == here
    assert run_elsewhere(OPENBLAS_NUM_THREADS="2", OPENBLAS_CORETYPE="Prescott") == here
    features = cpu_features()
    if not features:
        pytest.skip("this CPU has nothing to switch off")
    assert run_elsewhere(NPY_DISABLE_CPU_FEATURES=" ".join(features), OPENBLAS_CORETYPE="Nehalem") == here


def test_a_structure_that_covers_the_organ_does_not_stop_its_tumors() -> None:
    case = ellipsoid_case(fine(60), (26, 26, 26), "liver")
    liver = case.read_mask("liver")
    body = Volume(np.ones_like(liver.data), liver.geometry)
    for masks in ({"liver": liver, "body": body}, {"body": body, "liver": liver}):
        made = insert_tumors(
            replace(case, masks=masks), SynthesisRecipe(lesions=(1, 1), diameter_mm=(14, 14), phase="portal"), 1
        )
        assert len(made.inserted) == 1


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_a_scan_that_was_scaled_gets_no_tumors(top: float) -> None:
    case = abdomen(fine((140, 160, 160)))
    hu = case.read_image().data.astype(np.float32)
    scaled = top * (hu - hu.min()) / (hu.max() - hu.min())
    case = replace(case, image=Volume(scaled, case.read_image().geometry))
    with pytest.raises(CaseError, match=r"abdomen: the scan is not in HU; found all values from .*, expected air"):
        insert_tumors(case, FEW, 1)
