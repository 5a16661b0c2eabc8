"""The same patient at several dates: volumes as planned, the same numbers, other noise, replayed bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from synthesis.phantoms import ellipsoid_case, fine, plan_of
from synthoma.cases import Case
from synthoma.commands.following import follow
from synthoma.components import connected_components
from synthoma.datasets.writing import write_case
from synthoma.errors import CaseError, FileError, RecipeError
from synthoma.followup.history import draw_courses
from synthoma.followup.laws import gompertz
from synthoma.followup.outputs import read_series
from synthoma.followup.picture import show_series
from synthoma.followup.recipe import FollowRecipe, RescanRecipe
from synthoma.followup.rescan import Rescan, rescan
from synthoma.followup.series import Series, draw_series, make_date
from synthoma.reading import open_dataset
from synthoma.recipe import read_recipe
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.scan import Noise
from synthoma.volume import Volume

TUMORS = SynthesisRecipe(lesions=(2, 2), diameter_mm=(10, 14), mass_effect_share=0.0)
SMALL = RescanRecipe(shift_mm=2.0, turn_deg=1.0, breathing_mm=(-2.0, 2.0))
GROWING = FollowRecipe(synthesis=TUMORS, days=(0, 60, 120), course={"growth": 1.0}, new_share=0.0,
                       doubling_days=(60, 90), scan=SMALL)  # fmt: skip


def patient(**more: object) -> Case:
    return ellipsoid_case(fine(84), (38, 38, 38), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("generator", ["rules", "growth"])
def test_volumes_follow_the_planned_curve_within_three_percent(generator: str) -> None:
    case, recipe = patient(), GROWING.with_changes(synthesis=TUMORS.with_changes(generator=generator))
    series = draw_series(case, recipe, 1)
    numbers = set()
    for date, day in enumerate(recipe.days):
        made = make_date(case, series, date)
        for row, course in zip(made.rows, series.courses, strict=True):
            planned = gompertz(course.plan.volume_mm3, course.doubling_days, day) / 1000
            assert row["planned_ml"] == pytest.approx(planned, abs=1e-3)
            assert row["volume_ml"] == pytest.approx(planned, rel=0.03)
            center = series.scans[date].motion.target(np.array(course.plan.center_mm))
            own = made.instances.data == course.lesion
            found = made.instances.geometry.to_mm(np.argwhere(own).mean(axis=0))
            assert np.linalg.norm(found - center) < 5, "the same number is the same lesion at every date"
            assert connected_components(own).max() == 1
        numbers.add(tuple(np.unique(made.instances.data)))
        assert np.array_equal(made.case.read_mask("liver_lesion").data, made.instances.data > 0)
        assert made.case.attributes["day"] == day
        assert made.case.patient == case.patient
    assert numbers == {(0, 1, 2)}


def test_a_series_is_made_again_from_plain_data_bit_for_bit() -> None:
    case = patient()
    series = draw_series(case, GROWING, 2)
    again = Series.from_dict(json.loads(json.dumps(series.as_dict())))
    assert again == series
    for date in (0, 2):
        one, other = make_date(case, series, date), make_date(case, again, date)
        assert np.array_equal(one.case.read_image().data, other.case.read_image().data)
        assert np.array_equal(one.instances.data, other.instances.data)
    with pytest.raises(CaseError, match="not the one that the series was drawn for"):
        make_date(patient(seed=5), series, 0)


def test_a_second_scan_has_other_noise_of_the_same_texture_and_the_same_edges() -> None:
    case = patient(noise_hu=15.0)
    ct = case.read_image()
    noise = Noise.at(ct, (0.0, 0.0, 0.0))
    other = rescan(ct, Rescan(fresh_noise=True, noise_seed=4), noise)
    inner = tuple(slice(32, 52) for _ in range(3))
    a, b = (volume.data[inner].astype(float) for volume in (ct, other))
    a, b = a - a.mean(), b - b.mean()
    assert b.std() == pytest.approx(a.std(), rel=0.1)
    for axis in range(3):
        x, y = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(None, -1),)
        assert (b[x] * b[y]).mean() / b.var() == pytest.approx((a[x] * a[y]).mean() / a.var(), abs=0.12)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.35
    border = np.abs(np.linalg.norm(ct.geometry.points_mm(), axis=-1) - 38) < 1
    assert np.abs(ct.data[border].astype(float) - other.data[border]).mean() < 10
    assert other.data.dtype == np.int16


def test_a_second_scan_keeps_its_edges_as_sharp_as_they_were() -> None:
    noisy, sharp = patient(noise_hu=15.0, hu=180.0).read_image(), patient(noise_hu=0.0, hu=180.0).read_image()
    other = rescan(noisy, Rescan(fresh_noise=True, noise_seed=4), Noise.at(noisy, (0.0, 0.0, 0.0)))
    border = np.abs(np.linalg.norm(noisy.geometry.points_mm(), axis=-1) - 38) < 1.5

    def error(volume: Volume) -> float:
        return float(np.abs(volume.data[border].astype(float) - sharp.data[border]).mean())

    assert error(other) < 1.3 * error(noisy)


def test_thicker_slices_and_a_shift_of_hu_reach_the_masks_and_the_scan() -> None:
    case = patient(noise_hu=0.0)
    recipe = GROWING.with_changes(
        scan=SMALL.with_changes(slice_mm=(3.0, 3.0), shift_hu=(10.0, 10.0), fresh_noise=False)
    )
    series = draw_series(case, recipe, 1)
    made = make_date(case, series, 1)
    grid = made.case.read_geometry()
    assert grid.spacing_mm[2] == pytest.approx(3.0)
    assert made.case.read_mask("liver").geometry == grid == made.instances.geometry
    liver = made.case.read_mask("liver").data & ~made.case.read_mask("liver_lesion").data
    assert np.median(made.case.read_image().data[liver]) == pytest.approx(115, abs=1)


def test_responding_tumors_shrink_and_fade_and_new_ones_appear() -> None:
    plans = [plan_of(20.0), plan_of(16.0, seed=2), plan_of(14.0, seed=3)]
    recipe = FollowRecipe(course={"response": 1.0}, response=(1.0, 1.0), new_share=0.0)
    for course in draw_courses(plans, recipe, np.random.default_rng(0)):
        assert list(course.volumes_mm3) == sorted(course.volumes_mm3, reverse=True)
        assert course.volumes_mm3[-1] == 0
        assert course.plan_at(len(recipe.days) - 1) is None
        assert course.contrast_hu[-1] < course.contrast_hu[1] < 0
        later = course.plan_at(1)
        assert later is not None
        assert later.details["core_hu"] < 0
    new = draw_courses(plans, recipe.with_changes(new_share=1.0), np.random.default_rng(0))
    assert [course.volumes_mm3[0] > 0 for course in new] == [True, False, False]
    assert all(course.volumes_mm3[-1] > 0 for course in new[1:])


def test_dates_that_do_not_ascend_and_unknown_phases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="days begin with 0 and ascend, not 0, 90, 60"):
        read_recipe(FollowRecipe, None, ["days=[0,90,60]"])
    case = patient()
    unknown = Case(case.id, case.image, {"liver": case.masks["liver"]}, attributes={"phase": "yesterday"})
    with pytest.raises(CaseError, match="the contrast phase is unknown"):
        draw_series(unknown, GROWING, 0)
    (tmp_path / "series.json").write_text("{}")
    damaged = draw_series(case, GROWING, 1).as_dict()
    damaged["scans"][1]["slice_mm"] = -3
    with pytest.raises(CaseError, match=r"damaged; found scans.1.slice_mm: Input should be greater"):
        Series.from_dict(damaged)
    with pytest.raises(CaseError, match="lists that do not match the dates"):
        Series.from_dict(draw_series(case, GROWING, 1).as_dict() | {"days": [0.0, 9.0]})
    with pytest.raises(FileError, match="holds no series of a follow-up"):
        read_series(tmp_path)


def test_a_followed_data_set_is_a_data_set_with_one_patient_and_is_made_again(tmp_path: Path) -> None:
    case = ellipsoid_case(fine(60), (27, 27, 27))
    write_case(case, tmp_path / "data" / case.id)
    recipe = GROWING.with_changes(days=(0, 60), synthesis=TUMORS.with_changes(lesions=(1, 1)))
    done = follow(recipe, tmp_path / "data", tmp_path / "out")
    assert not done.failed
    cases = open_dataset(tmp_path / "out").cases
    assert [found.id for found in cases] == ["phantom_t0", "phantom_t1"]
    assert {found.patient for found in cases} == {"phantom"}
    assert [found.attributes["day"] for found in cases] == [0, 60]
    assert (tmp_path / "out/lesions.csv").read_text().count("\n") == 3
    show_series(tmp_path / "out", "phantom", tmp_path / "series.png")
    assert (tmp_path / "series.png").stat().st_size > 10_000
    with pytest.raises(CaseError, match="no lesion 7"):
        show_series(tmp_path / "out", "phantom", tmp_path / "series.png", 7)
    follow(tmp_path / "out", tmp_path / "data", tmp_path / "again")
    for name in ("phantom_t0/ct.nii.gz", "phantom_t1/ct.nii.gz", "phantom_t1/tumor_instances.nii.gz", "lesions.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    follow(recipe, tmp_path / "data", tmp_path / "plans", write="plans")
    assert read_series(tmp_path / "plans") == read_series(tmp_path / "out")
    assert not list((tmp_path / "plans").glob("phantom_t*"))
