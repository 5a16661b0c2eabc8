"""From a scan to masks on its own grid: oblique grids, tiles, memory, mirrored looks, tumors in organs, bad input."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from scipy import ndimage
from stubs import TUMOR_HU, ball, dice, phantom, smooth_model, spec, threshold_model

from grids import oblique
from synthoma.errors import CaseError, RecipeError, RunError
from synthoma.learning.models import Model
from synthoma.recipe import read_recipe
from synthoma.segmentation import field
from synthoma.segmentation.infer import SegmentRecipe, each_structure, estimate_memory, predict, segment
from synthoma.volume import Geometry, Volume

SPACING_MM = np.array([0.9, 1.1, 2.5])


def oblique_scan_grid(seed: int) -> Geometry:
    """Turned any way, with flips, 100 mm or so wide."""
    turned = oblique(seed)
    affine = turned.affine.copy()
    affine[:3, :3] *= SPACING_MM / np.array(turned.spacing_mm)
    return Geometry((110, 90, 40), affine)


GRIDS = [Geometry.of((110, 90, 40), SPACING_MM, axes) for axes in ("RAS", "LPS", "ASR")]
GRIDS += [oblique_scan_grid(seed) for seed in range(4)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_ball_comes_back_as_the_ball_on_exactly_the_scans_grid(grid: Geometry) -> None:
    center = grid.to_mm((np.asarray(grid.shape) - 1) / 2 + (5, -4, 2))
    organ, tumor = ball(grid, center, 38), ball(grid, center, 18)
    hu = np.where(tumor, TUMOR_HU, np.where(organ, 100, 0)).astype(np.int16)
    found = segment(threshold_model(), Volume(hu, grid), device="cpu")
    assert found.masks["liver"].geometry == grid
    assert dice(organ, found.masks["liver"].data) > 0.95
    assert dice(tumor, found.masks["liver_lesion"].data) > 0.95
    (lesion,) = found.tumors["liver_lesion"].lesions
    assert np.linalg.norm(np.array(lesion.lesion.center_mm) - center) < 1
    assert lesion.score > 0.9


def test_a_mirrored_scan_gives_the_mirrored_masks() -> None:
    grid = oblique_scan_grid(1)
    rng = np.random.default_rng(0)
    hu = rng.integers(-300, 300, grid.shape).astype(np.int16)
    ct = Volume(hu, grid)
    mirrored = ct.reorient("".join({"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}[a] for a in grid.axes))
    recipe = SegmentRecipe(smallest_mm3=0, part_share=0)
    one = segment(threshold_model(), ct, recipe, "cpu").masks["liver"]
    other = segment(threshold_model(), mirrored, recipe, "cpu").masks["liver"].reorient(grid.axes)
    assert 0.1 < one.data.mean() < 0.9
    np.testing.assert_array_equal(one.data, other.data)


def test_the_tile_layout_changes_nothing_for_a_network_that_answers_voxel_by_voxel() -> None:
    ct, _, _ = phantom(GRIDS[0], 38, 18)
    expected = predict(threshold_model((64, 64, 64)), ct, device="cpu").levels
    for patch in [(16, 16, 16), (16, 32, 8), (64, 8, 24)]:
        for overlap in (0, 0.5, 0.75):
            recipe = SegmentRecipe(patch=patch, overlap=overlap, batch=3)
            found = predict(threshold_model(), ct, recipe, "cpu").levels
            assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_network_sees_the_scan_at_the_spacing_it_was_trained_at() -> None:
    ct, _, _ = phantom(Geometry.of((36, 36, 30), (1.0, 1.0, 2.0), "LPS"), 14, 7)
    model = threshold_model((16, 16, 16), spacing_mm=3.0)
    seen: list[np.ndarray] = []
    model.net.register_forward_hook(lambda net, inputs, output: seen.append(inputs[0].numpy().copy()))
    found = predict(model, ct, SegmentRecipe(patch=(12, 12, 20)), "cpu")
    expected = ct.reorient("RAS").to(ct.geometry.reoriented("RAS").resampled(3.0))
    assert found.grid == expected.geometry
    assert found.grid.spacing_mm == (3.0, 3.0, 3.0)
    low, high = model.spec.window_hu
    assert len(seen) == 1
    np.testing.assert_allclose(seen[0][0, 0], (expected.data - low) / (high - low), atol=1e-6)


def test_batches_of_windows_and_the_order_of_axes_change_nothing_beyond_rounding() -> None:
    rng = np.random.default_rng(0)
    ct = Volume(rng.integers(-180, 290, (40, 30, 25)).astype(np.int16), Geometry.of((40, 30, 25), 1.0))
    expected = predict(smooth_model(), ct, SegmentRecipe(batch=1), "cpu").levels
    for batch in (2, 7):
        found = predict(smooth_model(), ct, SegmentRecipe(batch=batch), "cpu").levels
        assert np.abs(found.astype(int) - expected).max() <= 1
    # the same voxels stored in another order are the same scan, and slabs run along the same axis of the body
    turned = predict(smooth_model(), ct.reorient("SAL"), SegmentRecipe(), "cpu").levels
    np.testing.assert_array_equal(turned, expected)


def test_black_windows_are_looked_at_once_and_say_what_they_would_have_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field, "LEAST_AIR_MM2", np.inf)  # what is said of air is looked at
    hu = np.full((96, 32, 32), -1000, np.int16)
    hu[:10, 10:20, 10:20] = hu[-10:, 5:9, 3:9] = 100
    ct = Volume(hu, Geometry.of(hu.shape, 1.0))
    found = predict(smooth_model(), ct, SegmentRecipe(overlap=0), "cpu")
    model = smooth_model()
    seen: list[int] = []
    model.net.register_forward_hook(lambda net, inputs, output: seen.append(len(inputs[0])))
    lit = np.array(hu)
    lit[0, 0, 0] = lit[-1, -1, -1] = -199  # so that windows lie over the whole scan
    lit[:, ::8, ::8] = np.maximum(lit[:, ::8, ::8], -199)  # hardly above black, in every window
    every = predict(model, Volume(lit, ct.geometry), SegmentRecipe(overlap=0), "cpu")
    assert every.windows == sum(seen)
    assert found.windows < every.windows
    # windows begin where the body does; there the two may differ by what a network sees at a window's border
    body = (slice(None), slice(0, 96), slice(8, 16), slice(8, 16))
    assert np.abs(found.levels[body].astype(int) - every.levels[body]).mean() < 4


def test_looking_at_mirror_images_too_gives_their_mean() -> None:
    rng = np.random.default_rng(0)
    ct = Volume(rng.integers(-190, 290, (16, 16, 16)).astype(np.int16), Geometry.of((16, 16, 16), 1.0))

    def levels(data: np.ndarray, **settings: object) -> np.ndarray:
        recipe = SegmentRecipe.model_validate(settings)
        return predict(smooth_model(), Volume(data, ct.geometry), recipe, "cpu").levels.astype(float)

    expected = (levels(ct.data) + levels(ct.data[::-1])[:, ::-1]) / 2
    assert np.abs(levels(ct.data, flips=["R"]) - expected).max() <= 1
    assert np.abs(levels(ct.data) - expected).max() > 2
    both = levels(ct.data, flips=["A", "S"])
    assert np.abs(levels(ct.data[:, ::-1], flips=["A", "S"])[:, :, ::-1] - both).max() <= 1


@pytest.mark.parametrize("shape", [(40, 40, 2), (3, 50, 1), (1, 1, 1)])
def test_scans_smaller_than_a_window_are_segmented(shape: tuple[int, int, int]) -> None:
    grid = Geometry.of(shape, (2.0, 2.0, 5.0))
    hu = np.full(shape, 100, np.int16)
    found = segment(threshold_model(), Volume(hu, grid), device="cpu")
    assert found.masks["liver"].data.all()
    assert not found.masks["liver_lesion"].data.any()


def test_a_scan_of_air_has_empty_masks_and_no_window_is_looked_at() -> None:
    grid = Geometry.of((30, 30, 30), 2.0)
    found = segment(threshold_model(), Volume(np.full(grid.shape, -1000, np.int16), grid), device="cpu")
    assert found.prediction.windows == 0
    assert not found.masks["liver"].data.any()
    assert found.tumors["liver_lesion"].lesions == ()


def test_the_memory_of_a_long_scan_is_that_of_its_levels_and_a_slab() -> None:
    model = threshold_model((16, 16, 16), 2.0)
    peaks = []
    for length in (100, 400):
        ct = Volume(np.full((60, 60, length), 100, np.int16), Geometry.of((60, 60, length), 2.0))
        predict(model, ct, device="cpu")
        tracemalloc.start()
        prediction = predict(model, ct, device="cpu")
        peaks.append(tracemalloc.get_traced_memory()[1] - ct.data.size * 2 - prediction.levels.nbytes)
        tracemalloc.stop()
    # besides the levels (and the mask of the body) nothing grows with the length
    assert peaks[1] < peaks[0] + 60 * 60 * 300 * 2


def test_the_accumulator_is_one_window_thick_whatever_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    largest: list[int] = []
    plain = torch.Tensor.new_zeros

    def noted(self: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        largest.append(int(np.prod(size)))
        return plain(self, size)

    monkeypatch.setattr(torch.Tensor, "new_zeros", noted)
    for length in (40, 400):
        ct = Volume(np.full((20, 20, length), 100, np.int16), Geometry.of((20, 20, length), 3.0))
        predict(threshold_model((16, 16, 16)), ct, device="cpu")
    assert largest == [2 * 20 * 20 * 16] * 2


def test_the_estimate_grows_with_the_scan_and_is_a_sentence() -> None:
    small, large = (estimate_memory(spec((32, 32, 32), 1.0), Geometry.of((64, 64, n), 1.0)) for n in (100, 1000))
    assert large.resampled == 10 * small.resampled == 64 * 64 * 1000 * 2
    assert large.slab == small.slab
    assert large.network == small.network > 32**3 * 4
    assert "GB" in str(large)
    assert "network" in str(large)


def two_balls() -> tuple[Volume, np.ndarray, np.ndarray]:
    """An organ with a tumor inside, and as bright a ball 60 mm off; the scan, the tumor, the ball."""
    grid = Geometry.of((120, 60, 60), 2.0)
    center = np.array([50.0, 60, 60])
    organ, tumor = ball(grid, center, 40), ball(grid, center, 12)
    far = ball(grid, center + (130, 0, 0), 14)
    hu = np.where(tumor | far, TUMOR_HU, np.where(organ, 100, -100)).astype(np.int16)
    return Volume(hu, grid), tumor, far


def test_tumors_are_kept_to_the_predicted_organ_on_request() -> None:
    ct, tumor, far = two_balls()
    free = segment(threshold_model(spacing_mm=2), ct, SegmentRecipe(part_share=0), "cpu")
    assert len(free.tumors["liver_lesion"].lesions) == 2
    recipe = SegmentRecipe(inside_organ="predicted", part_share=0.2)
    held = segment(threshold_model(spacing_mm=2), ct, recipe, "cpu")
    assert not (held.masks["liver"].data & far).any()
    np.testing.assert_array_equal(held.masks["liver_lesion"].data, tumor)


def test_a_lesion_as_dark_as_water_is_a_cyst_where_the_recipe_says_so() -> None:
    grid = Geometry.of((60, 40, 20), (1.0, 1.0, 2.0))
    hu = np.full(grid.shape, 100, np.int16)
    hu[5:15, 5:15, 5:12] = 40
    hu[30:40, 5:15, 5:12] = 5
    model = threshold_model(spacing_mm=2, steepness=-20)  # whatever is darker than 150 HU is a tumor, 100 HU hardly
    ct = Volume(hu, grid)
    recipe = SegmentRecipe(threshold=0.97, candidates=0.95)
    assert len(segment(model, ct, recipe, "cpu").tumors["liver_lesion"].lesions) == 2
    without = recipe.with_changes(least_hu={"liver_lesion": 20.0})
    tumors = segment(model, ct, without, "cpu").tumors["liver_lesion"]
    (left,) = tumors.lesions
    assert left.lesion.center_mm[0] == pytest.approx(grid.to_mm([9.5, 9.5, 8.0])[0], abs=1)
    assert 64 < tumors.scores.data[35, 10, 8] < 128  # a candidate still
    (cyst,) = tumors.cysts
    assert cyst.lesion.center_mm[0] == pytest.approx(grid.to_mm([34.5, 9.5, 8.0])[0], abs=1)
    assert cyst.hu == 5
    brighter = Volume(np.where(hu < 50, 50, hu).astype(np.int16), grid)
    tumors = segment(model, brighter, without, "cpu").tumors["liver_lesion"]
    assert (len(tumors.lesions), tumors.cysts) == (2, ())
    with pytest.raises(RecipeError, match="a least HU for spleen_lesion"):
        segment(model, ct, SegmentRecipe(least_hu={"spleen_lesion": 20.0}), "cpu")


def test_nothing_is_found_in_the_air_around_a_patient_and_gas_within_is_left() -> None:
    grid = Geometry.of((90, 80, 12), 1.0)
    i, j, _ = np.indices(grid.shape)
    hu = np.full(grid.shape, -1000, np.int16)
    hu[np.hypot(i - 45, j - 40) < 33] = 50
    hu[40:50, 30:36] = -900  # gas in a bowel
    hu[(i > 70) & (j > 66)] = 40  # a cushion, which is none
    found = predict(steady_model(), Volume(hu, grid), SegmentRecipe(), "cpu").levels
    around = (hu == -1000) & (np.hypot(i - 45, j - 40) >= 33)
    assert not found[:, around].any()
    assert (found[:, ~around] > 128).all()
    small = Volume(hu[44:64, 34:64], Geometry.of((20, 30, 12), 1.0))  # cut through the body: its gas is at the border
    assert (predict(steady_model(), small, SegmentRecipe(), "cpu").levels > 128).all()


def steady_model() -> Model:
    """A network that calls everything an organ and a tumor, air as well."""
    model = threshold_model(spacing_mm=1.0)
    with torch.no_grad():
        model.net.weight.zero_()
        model.net.bias.fill_(3.0)
    return model


def test_tumors_are_kept_to_the_given_organ_and_its_margin() -> None:
    ct, tumor, _far = two_balls()
    given = {"liver": Volume(ball(ct.geometry, np.array([50.0, 60, 60]), 8), ct.geometry)}
    away_mm = ndimage.distance_transform_edt(~given["liver"].data, ct.geometry.spacing_mm)
    for margin_mm in (0, 2, 3.5, 20):
        recipe = SegmentRecipe(inside_organ="given", margin_mm=margin_mm)
        mask = segment(threshold_model(spacing_mm=2), ct, recipe, "cpu", given.__getitem__).masks["liver_lesion"]
        np.testing.assert_array_equal(mask.data, tumor & (away_mm <= margin_mm))
    with pytest.raises(CaseError, match="no mask of the liver is given"):
        segment(threshold_model(spacing_mm=2), ct, SegmentRecipe(inside_organ="given"), "cpu")


def test_a_tumor_that_the_organ_leaves_out_is_inside_it() -> None:
    ct, tumor, _ = two_balls()
    recipe = SegmentRecipe(inside_organ="given", margin_mm=0)
    masks = segment(threshold_model(spacing_mm=2), ct, recipe, "cpu", lambda _: hollow(ct)).masks
    np.testing.assert_array_equal(masks["liver_lesion"].data, tumor)


def hollow(ct: Volume) -> Volume:
    """The organ of `two_balls` without its tumor."""
    return Volume(ct.data == 100, ct.geometry)


def test_small_lesions_are_no_lesions_but_stay_candidates() -> None:
    grid = Geometry.of((40, 40, 40), 1.0)
    hu = np.full(grid.shape, 100, np.int16)
    hu[5:8, 5:8, 5:8] = hu[20, 20, 20] = TUMOR_HU
    model = threshold_model(spacing_mm=1, steepness=10)
    tumors = segment(model, Volume(hu, grid), SegmentRecipe(smallest_mm3=27), "cpu").tumors["liver_lesion"]
    assert [entry.lesion.voxels for entry in tumors.lesions] == [27]
    # faint surroundings (HU 100 is above the candidates' threshold) hold the speck together with everything else
    assert tumors.scores.data[20, 20, 20] == 127
    assert tumors.scores.data[6, 6, 6] > 127


def test_what_is_not_sure_enough_is_no_lesion_but_stays_a_candidate() -> None:
    grid = Geometry.of((40, 40, 40), 1.0)
    hu = np.full(grid.shape, 50, np.int16)
    hu[4:12, 4:12, 4:12] = hu[24:32, 24:32, 24:32] = 160
    hu[24:32, 4:12, 4:12] = 165
    hu[8, 8, 8] = 200
    ct, model = Volume(hu, grid), threshold_model(spacing_mm=1, steepness=20)
    sure = segment(model, ct, SegmentRecipe(peak=0.8), "cpu").tumors["liver_lesion"]
    assert [(entry.lesion.voxels, entry.score > 0.8) for entry in sure.lesions] == [(512, True)]
    assert sure.scores.data[5, 5, 5] > 127
    assert 127 > sure.scores.data[28, 8, 8] > sure.scores.data[28, 28, 28] > 64  # the surer one ranks higher
    for same in (SegmentRecipe(), SegmentRecipe(peak=0.5), SegmentRecipe(peaks={"liver_lesion": 0.3}, peak=0.8)):
        assert len(segment(model, ct, same, "cpu").tumors["liver_lesion"].lesions) == 3
    with pytest.raises(RecipeError, match="a peak for spleen_lesion"):
        segment(model, ct, SegmentRecipe(peaks={"spleen_lesion": 0.3}), "cpu")
    with pytest.raises(RecipeError, match="a smallest lesion for spleen_lesion"):
        segment(model, ct, SegmentRecipe(smallest_each_mm3={"spleen_lesion": 30.0}), "cpu")


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.9])
def test_scores_reach_one_half_exactly_where_the_threshold_is_reached(threshold: float) -> None:
    rng = np.random.default_rng(0)
    ct = Volume(rng.integers(-190, 290, (24, 24, 24)).astype(np.int16), Geometry.of((24, 24, 24), 1.0))
    model = threshold_model(spacing_mm=1, steepness=8)
    recipe = SegmentRecipe(thresholds={"liver_lesion": threshold}, smallest_mm3=0, candidates=0.02)
    prediction = predict(model, ct, recipe, "cpu")
    tumors = dict(each_structure(prediction, ct.geometry, recipe))["liver_lesion"]
    reached = prediction.levels[1] >= threshold * 255
    assert 0 < reached.mean() < 1
    np.testing.assert_array_equal(tumors.mask.data, reached)
    np.testing.assert_array_equal(tumors.scores.data >= 128, reached)
    order = np.argsort(prediction.levels[1], axis=None)
    assert (np.diff(tumors.scores.data.reshape(-1)[order].astype(int)) >= 0).all()


def test_half_precision_says_the_same_to_two_digits() -> None:
    rng = np.random.default_rng(0)
    ct = Volume(rng.integers(-190, 290, (20, 20, 20)).astype(np.int16), Geometry.of((20, 20, 20), 1.0))
    full, half = (
        predict(smooth_model(), ct, SegmentRecipe(precision=name), "cpu").levels.astype(int)
        for name in ("fp32", "bf16")
    )
    assert 0 < np.abs(full - half).max() <= 3


def test_nan_and_empty_scans_are_refused() -> None:
    grid = Geometry.of((8, 8, 8), 1.0)
    hu = np.zeros(grid.shape, np.float32)
    hu[1, 2, 3] = np.nan
    with pytest.raises(CaseError, match="NaN"):
        predict(threshold_model(), Volume(hu, grid), device="cpu")
    with pytest.raises(CaseError, match="no voxels"):
        predict(threshold_model(), Volume(np.zeros((0, 4, 4), np.int16), Geometry.of((0, 4, 4), 1.0)), device="cpu")


def test_float_hu_are_segmented_as_whole_ones() -> None:
    ct, _, _ = phantom(GRIDS[3], 30, 12)
    floats = Volume(ct.data.astype(np.float32), ct.geometry)
    one, other = (predict(threshold_model(), volume, device="cpu").levels for volume in (ct, floats))
    np.testing.assert_array_equal(one, other)


def test_a_device_that_is_not_there_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ct, _, _ = phantom(GRIDS[0], 30, 12)
    with pytest.raises(RunError, match="--device cpu"):
        predict(threshold_model(), ct, device="cuda")


def test_too_little_memory_names_what_to_lower() -> None:
    class Greedy(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")

    ct, _, _ = phantom(GRIDS[0], 30, 12)
    with pytest.raises(RunError, match="lower batch or patch"):
        predict(Model(Greedy(), spec((32, 32, 32), 3.0)), ct, device="cpu")


def test_a_network_that_overflows_is_not_turned_into_masks() -> None:
    class Broken(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.full((len(image), 2, *image.shape[2:]), float("nan"))

    ct, _, _ = phantom(GRIDS[0], 30, 12)
    with pytest.raises(RunError, match="not finite"):
        predict(Model(Broken(), spec((32, 32, 32), 3.0)), ct, device="cpu")


def test_recipes_that_do_not_fit_the_model_are_refused() -> None:
    ct, _, _ = phantom(GRIDS[0], 30, 12)
    for override, words in [
        ("thresholds.spleen=0.5", "spleen, which the model does not know"),
        ("patch=[33, 32, 32]", "multiples of 2"),
    ]:
        with pytest.raises(RecipeError, match=words):
            predict(threshold_model(), ct, read_recipe(SegmentRecipe, None, [override]), "cpu")
    for override in ("overlap=1", "threshold=0", 'flips=["X"]', 'flips=["R", "R"]', "thresholds.liver=2"):
        with pytest.raises(RecipeError):
            read_recipe(SegmentRecipe, None, [override])
    lone = spec((32, 32, 32), 3.0).with_changes(classes=("liver_lesion", "spleen"))
    with pytest.raises(RecipeError, match="does not predict the organ of liver_lesion"):
        predict(Model(threshold_model().net, lone), ct, SegmentRecipe(inside_organ="predicted"), "cpu")
