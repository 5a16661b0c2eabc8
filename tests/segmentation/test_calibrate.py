"""Operating points: chosen by the false alarms they cost, kept in the model, and used by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stubs import ball, spec, threshold_model

from synthoma.cases import Case
from synthoma.commands.scans import find_negatives, segment
from synthoma.datasets.writing import write_case
from synthoma.errors import CaseError, RecipeError
from synthoma.learning.calibration import Calibration, OperatingPoint, rescaled
from synthoma.learning.models import Model, load_model, save_model
from synthoma.learning.negatives import read_negatives
from synthoma.learning.networks import build_network
from synthoma.segmentation.infer import SegmentRecipe, predict
from synthoma.segmentation.infer import segment as segment_volume
from synthoma.segmentation.structures import Cut
from synthoma.training.calibration import CalibrateRecipe, calibrate, measure_case
from synthoma.volume import Geometry, Volume

GRID = Geometry.of((48, 40, 40), (3.0, 3.0, 3.0), "RAS")
CERTAIN, FAINT, DECEIVING = 220, 156, 165  # HU: the model says .9998, .67 and .86
PLACES = [(x, y, z) for x in (24.0, 66.0, 108.0) for y in (24.0, 84.0) for z in (30.0, 84.0)]
RECIPE = CalibrateRecipe(thresholds=(0.3, 0.5, 0.8, 0.9), peaks=(0.0,), smallest_mm3=(0.0,))


def case_of(name: str, certain: int, faint: int, deceiving: int, radius_mm: float = 8.0) -> Case:
    """Liver everywhere, with lesions that are easy or hard to see, and balls that only look like one."""
    hu, lesion = np.full(GRID.shape, 100, np.int16, order="F"), np.zeros(GRID.shape, bool, order="F")
    kinds = [CERTAIN] * certain + [FAINT] * faint + [DECEIVING] * deceiving
    for level, place in zip(kinds, PLACES, strict=False):
        inside = ball(GRID, np.array(place), radius_mm if level == DECEIVING else 8.0)
        hu[inside] = level
        lesion |= inside & (level != DECEIVING)
    return Case(name, Volume(hu, GRID), {"liver": Volume(hu > 0, GRID), "liver_lesion": Volume(lesion, GRID)})


def calibration_of(*cases: Case, recipe: CalibrateRecipe = RECIPE) -> Calibration:
    model = threshold_model()
    return calibrate([measure_case(case, model, recipe, "cpu") for case in cases], model.spec.classes, recipe, "balls")


def calibrated(calibration: Calibration) -> Model:
    model = threshold_model()
    return Model(model.net, model.spec.with_changes(calibration=calibration))


def test_each_level_finds_what_its_false_alarms_allow() -> None:
    cases = [case_of("one", 4, 2, 2), case_of("two", 2, 2, 4)]
    found = calibration_of(*cases)
    assert found.cases == 2
    assert (found.points["high"].false_per_scan, found.points["high"].sensitivity) == (3.0, 1.0)
    assert (found.points["balanced"].false_per_scan, found.points["balanced"].sensitivity) == (0.0, 0.6)
    model = calibrated(found)
    counts = {
        level: len(segment_volume(model, cases[0].read_image(), SegmentRecipe(sensitivity=level), "cpu")
                   .tumors["liver_lesion"].lesions)
        for level in ("high", "balanced", "specific")
    }  # fmt: skip
    assert counts == {"high": 8, "balanced": 4, "specific": 4}


def test_what_is_too_small_to_be_a_lesion_goes_first() -> None:
    recipe = RECIPE.with_changes(smallest_mm3=(0.0, 1000.0), thresholds=(0.5, 0.9))
    found = calibration_of(case_of("one", 4, 2, 4, radius_mm=5.0), recipe=recipe)
    assert found.points["balanced"].sensitivity == 1.0
    assert found.points["balanced"].smallest_mm3 == {"liver_lesion": 1000.0}
    lesions = segment_volume(
        calibrated(found), case_of("one", 4, 2, 4, 5.0).read_image(), SegmentRecipe(sensitivity="balanced"), "cpu"
    ).tumors["liver_lesion"].lesions  # fmt: skip
    assert len(lesions) == 6


def rimmed(cores: int, hollow: int, core_mm: float = 4.0) -> Case:
    """Lesions whose rim is faint around a core that is not, and balls as faint as their rims."""
    hu, lesion = np.full(GRID.shape, 100, np.int16, order="F"), np.zeros(GRID.shape, bool, order="F")
    for number, place in enumerate(PLACES[: cores + hollow]):
        inside = ball(GRID, np.array(place), 9.0)
        hu[inside] = FAINT
        if number < cores:
            hu[ball(GRID, np.array(place), core_mm)] = CERTAIN
            lesion |= inside
    return Case("rims", Volume(hu, GRID), {"liver": Volume(hu > 0, GRID), "liver_lesion": Volume(lesion, GRID)})


def test_a_sure_core_keeps_its_faint_rim_and_what_has_none_goes() -> None:
    recipe = RECIPE.with_changes(thresholds=(0.5, 0.9), peaks=(0.0, 0.9))
    case = rimmed(3, 4)
    found = calibration_of(case, recipe=recipe)
    point = found.points["balanced"]
    assert (point.sensitivity, point.false_per_scan) == (1.0, 0.0)
    cut = rescaled(found.scaling("liver_lesion"))[[128, 230]] / 255
    assert (point.thresholds, point.peaks) == ({"liver_lesion": cut[0]}, {"liver_lesion": cut[1]})
    made = segment_volume(calibrated(found), case.read_image(), SegmentRecipe(), "cpu").tumors["liver_lesion"]
    np.testing.assert_array_equal(made.mask.data, case.read_mask("liver_lesion").data)
    without = calibration_of(case, recipe=recipe.with_changes(peaks=(0.0,))).points["balanced"]
    assert without.thresholds == {"liver_lesion": cut[1]}  # cores alone: rims are as faint as the false ones
    assert without.peaks == {}


def test_of_thresholds_that_find_as_much_the_one_that_draws_best_is_taken() -> None:
    recipe = RECIPE.with_changes(thresholds=(0.5, 0.9))
    found = calibration_of(rimmed(3, 0, core_mm=6.0), recipe=recipe)
    cut = rescaled(found.scaling("liver_lesion"))[128] / 255
    assert {point.thresholds["liver_lesion"] for point in found.points.values()} == {cut}
    assert {point.sensitivity for point in found.points.values()} == {1.0}


def test_what_is_darker_than_a_lesion_is_left_out_as_in_segmenting() -> None:
    asked = SegmentRecipe(threshold=0.3, least_hu={"liver_lesion": 160.0})
    recipe, case = RECIPE.with_changes(thresholds=(0.3,), segment=asked), case_of("one", 3, 2, 4)
    row = measure_case(case, threshold_model(), recipe, "cpu")["sets"][0]["liver_lesion"]
    made = segment_volume(threshold_model(), case.read_image(), asked, "cpu").tumors["liver_lesion"]
    assert row["found"][0][0][0] + row["false"][0][0][0] == len(made.lesions) == 7
    assert row["taken"][0][0][0] == made.mask.data.sum()
    found = calibration_of(case, recipe=recipe)
    assert found.points["balanced"].least_hu == {"liver_lesion": 160.0}
    assert SegmentRecipe().at_point(calibrated(found).spec).cut_of("liver_lesion").least_hu == 160.0
    kept = SegmentRecipe(least_hu={"liver_lesion": -50.0}).at_point(calibrated(found).spec)
    assert kept.cut_of("liver_lesion").least_hu == -50.0


@pytest.mark.parametrize("peak", [0.0, 0.7, 0.9])
def test_lesions_with_a_peak_are_counted_as_segmenting_gives_them(peak: float) -> None:
    recipe = RECIPE.with_changes(thresholds=(0.3,), peaks=(peak,))
    for case, count in ((case_of("one", 3, 2, 4), {0.0: 9, 0.7: 7, 0.9: 3}[peak]), (rimmed(2, 3), 2 if peak else 5)):
        row = measure_case(case, threshold_model(), recipe, "cpu")["sets"][0]["liver_lesion"]
        asked = SegmentRecipe(threshold=0.3, peak=peak)
        made = segment_volume(threshold_model(), case.read_image(), asked, "cpu").tumors["liver_lesion"]
        assert row["found"][0][0][0] + row["false"][0][0][0] == len(made.lesions) == count
        assert row["taken"][0][0][0] == made.mask.data.sum()
        truth = case.read_mask("liver_lesion").data
        assert (row["shared"][0][0][0], row["tumor"]) == ((made.mask.data & truth).sum(), truth.sum())


def test_a_calibrated_model_is_asked_for_its_balanced_point_unless_told() -> None:
    point = OperatingPoint(false_per_scan=0, sensitivity=1, thresholds={"liver_lesion": 0.2},
                           peaks={"liver_lesion": 0.7}, smallest_mm3={"liver_lesion": 40.0})  # fmt: skip
    known = Calibration(data="", cases=1, temperatures={}, errors={}, points={"balanced": point, "high": point})
    model = spec((32, 32, 32), 3.0)
    plain, whole = Cut(0.5, 0.0, 15.0), Cut(0.2, 0.7, 40.0)
    assert SegmentRecipe().at_point(model).cut_of("liver_lesion") == plain
    model = model.with_changes(calibration=known)
    twice = SegmentRecipe().at_point(model)
    assert (twice.cut_of("liver_lesion"), twice.threshold_of("liver")) == (whole, 0.5)
    assert twice.at_point(model) == twice
    assert SegmentRecipe(threshold=0.5).at_point(model).cut_of("liver_lesion") == plain
    own = SegmentRecipe(thresholds={"liver_lesion": 0.4}).at_point(model)
    assert own.cut_of("liver_lesion") == Cut(0.4, 0.0, 40.0)
    assert SegmentRecipe(peaks={"liver_lesion": 0.9}).at_point(model).cut_of("liver_lesion") == Cut(0.2, 0.9, 40.0)
    other = known.with_changes(points={"balanced": point.with_changes(peaks={}), "high": point}, usual="high")
    assert SegmentRecipe().at_point(model.with_changes(calibration=other)).cut_of("liver_lesion") == whole
    without = known.with_changes(points={"high": point})
    assert SegmentRecipe().at_point(model.with_changes(calibration=without)).cut_of("liver_lesion") == plain


def test_a_structure_that_nobody_annotated_counts_nowhere() -> None:
    known, organ_only = case_of("one", 4, 2, 2), case_of("two", 4, 2, 2)
    organ_only = Case("two", organ_only.image, {"liver": organ_only.masks["liver"]})
    assert "liver_lesion" not in measure_case(organ_only, threshold_model(), RECIPE, "cpu")["sets"][0]
    alone, both = calibration_of(known), calibration_of(known, organ_only)
    assert alone.points == both.points
    assert alone.scaling("liver_lesion") == both.scaling("liver_lesion")
    with pytest.raises(CaseError, match="no case has a lesion that is annotated"):
        calibration_of(organ_only)
    with pytest.raises(CaseError, match="no structure of the model"):
        measure_case(Case("bare", known.image, {}), threshold_model(), RECIPE, "cpu")


def test_probabilities_are_those_of_the_scaling() -> None:
    """Half of the deceiving balls are lesions: what the network calls .86 is .5 by count, and called so afterwards."""
    deceived = case_of("one", 0, 0, 8)
    lesion = deceived.read_mask("liver").data & False
    for place in PLACES[:4]:
        lesion |= ball(GRID, np.array(place), 8.0)
    case = Case("one", deceived.image, {"liver_lesion": Volume(lesion, GRID)})
    warmed, shifted = calibration_of(case), calibration_of(case, recipe=RECIPE.with_changes(shift=True))
    (before, warm), (_, after) = warmed.errors["liver_lesion"], shifted.errors["liver_lesion"]
    assert after < 0.01 < warm < before
    levels = [
        predict(model, case.read_image(), None, "cpu").levels[1][20, 8, 10] / 255
        for model in (threshold_model(), calibrated(warmed), calibrated(shifted))
    ]
    assert levels[2] == pytest.approx(0.5, abs=0.01)
    assert levels[2] < levels[1] < levels[0]


@pytest.mark.parametrize("threshold", [0.3, 0.9])
@pytest.mark.parametrize("inside", ["no", "given"])
def test_lesions_are_counted_as_segmenting_at_the_threshold_gives_them(threshold: float, inside: str) -> None:
    case = case_of("one", 3, 2, 4)
    liver = np.asfortranarray(np.indices(GRID.shape)[0] < 15)  # four places, and the fifth is its tumor
    case = Case("one", case.image, {**case.masks, "liver": Volume(liver, GRID)})
    settings = SegmentRecipe(inside_organ=inside, margin_mm=0.0)
    recipe = RECIPE.with_changes(thresholds=(threshold,), segment=settings)
    row = measure_case(case, threshold_model(), recipe, "cpu")["sets"][0]["liver_lesion"]
    asked = settings.with_changes(threshold=threshold)
    made = segment_volume(threshold_model(), case.read_image(), asked, "cpu", case.read_organ)
    lesions = made.tumors["liver_lesion"].lesions
    assert row["found"][0][0][0] + row["false"][0][0][0] == len(lesions)
    assert len(lesions) == {("no", 0.3): 9, ("no", 0.9): 3, ("given", 0.3): 5, ("given", 0.9): 3}[inside, threshold]


def test_flips_are_kept_where_they_find_more() -> None:
    recipe = RECIPE.with_changes(flips=((), ("A",)))
    case = case_of("one", 4, 2, 2)
    assert calibration_of(case, recipe=recipe).flips == ()  # as good, and cheaper
    better = measure_case(case, threshold_model(), recipe, "cpu")
    better["sets"][0]["liver_lesion"]["found"] = [[[0]]] * 4
    assert calibrate([better], ("liver", "liver_lesion"), recipe, "").flips == ("A",)
    point = OperatingPoint(false_per_scan=0, sensitivity=1, thresholds={"liver_lesion": 0.7}, smallest_mm3={})
    known = Calibration(data="", cases=1, flips=("A",), temperatures={}, errors={}, points={"balanced": point})
    model = spec((32, 32, 32), 3.0).with_changes(calibration=known)
    asked = SegmentRecipe(sensitivity="balanced").at_point(model)
    assert (asked.flips, asked.threshold_of("liver_lesion"), asked.threshold_of("liver")) == (("A",), 0.7, 0.5)
    own = SegmentRecipe(sensitivity="balanced", flips=("R",), thresholds={"liver_lesion": 0.2}).at_point(model)
    assert (own.flips, own.threshold_of("liver_lesion")) == (("R",), 0.2)


def test_the_usual_level_is_what_the_recipe_says() -> None:
    assert calibration_of(case_of("one", 4, 2, 2)).usual == "balanced"
    assert calibration_of(case_of("one", 4, 2, 2), recipe=RECIPE.with_changes(usual="high")).usual == "high"


def test_a_model_without_operating_points_says_so() -> None:
    scan = case_of("one", 1, 0, 0).read_image()
    with pytest.raises(RecipeError, match=r"no operating point high.*never calibrated"):
        segment_volume(threshold_model(), scan, SegmentRecipe(sensitivity="high"), "cpu")
    only = CalibrateRecipe(**{**RECIPE.model_dump(), "false_per_scan": {"balanced": 1.0}})
    model = calibrated(calibration_of(case_of("one", 4, 2, 2), recipe=only))
    with pytest.raises(RecipeError, match=r"no operating point high.*only balanced"):
        segment_volume(model, scan, SegmentRecipe(sensitivity="high"), "cpu")


def test_a_calibration_travels_with_its_model(tmp_path: Path) -> None:
    found = calibration_of(case_of("one", 4, 2, 2))
    about = spec((32, 32, 32), 3.0).with_changes(calibration=found)
    save_model(tmp_path / "model.safetensors", Model(build_network(about.network, 2), about))
    assert load_model(tmp_path / "model.safetensors").spec.calibration == found
    with pytest.raises(ValueError, match="spleen"):
        about.with_changes(calibration=found.with_changes(temperatures={"spleen": 1.0}))
    with pytest.raises(ValueError, match="spleen"):
        about.with_changes(calibration=found.with_changes(shifts={"spleen": 1.0}))


def test_false_alarms_in_healthy_organs_become_a_file(tmp_path: Path) -> None:
    for case in (case_of("well", 0, 0, 2), case_of("sick", 3, 0, 2)):
        write_case(case, tmp_path / "data" / case.id)
    network = build_network(spec((32, 32, 32), 3.0).network, 2)
    save_model(tmp_path / "model.safetensors", Model(network, spec((32, 32, 32), 3.0)))
    # every voxel of a network with random weights is one lesion or none: what counts is who is asked
    segment(tmp_path / "model.safetensors", tmp_path / "data", tmp_path / "seen", device="cpu",
            recipe=SegmentRecipe(threshold=0.01, smallest_mm3=0))  # fmt: skip
    assert find_negatives(tmp_path / "data", tmp_path / "seen", tmp_path / "negatives.json") > 0
    assert {place.case for place in read_negatives(tmp_path / "negatives.json")} == {"well"}
    find_negatives(tmp_path / "data", tmp_path / "seen", tmp_path / "all.json", ["data"])
    assert {place.case for place in read_negatives(tmp_path / "all.json")} == {"well", "sick"}
