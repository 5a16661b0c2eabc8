"""Windows far from what a first look finds are left out, and nothing near it changes by a bit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import ndimage
from stubs import TUMOR_HU, ball, smooth_model, spec, threshold_model

from synthoma.learning.calibration import Calibration
from synthoma.learning.models import Model
from synthoma.segmentation import nearness
from synthoma.segmentation.infer import SegmentRecipe, estimate_memory, predict
from synthoma.segmentation.nearness import find_region, sparse
from synthoma.segmentation.windows import Windows
from synthoma.volume import Box, Geometry, Triple, Volume


class Surrounded(torch.nn.Module):
    """Organ above 50 HU and tumor above 150 HU, faintly changed by all there is in a window, as real networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.norm = threshold_model().net, torch.nn.InstanceNorm3d(1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image) + self.norm(image)


def body(spacing_mm: float = 2.0, organ_hu: int = 100) -> Volume:
    """A long body of soft tissue with noise, a ball of organ with a tumor at one end of it."""
    grid = Geometry.of((56, 48, 110), spacing_mm)
    hu = np.random.default_rng(0).integers(-180, 0, grid.shape).astype(np.int16)
    hu[ball(grid, grid.to_mm(np.array([24.0, 25, 30])), 22)] = organ_hu
    hu[ball(grid, grid.to_mm(np.array([20.0, 22, 30])), 7)] = TUMOR_HU if organ_hu > 50 else organ_hu
    return Volume(hu, grid)


def surrounded() -> Model:
    return Model(Surrounded().eval(), spec((16, 16, 16), 2.0))


@pytest.mark.parametrize("overlap", [0.5, 0.6])
def test_near_what_is_found_every_level_is_what_it_was_and_beyond_it_there_is_nothing(overlap: float) -> None:
    ct, model = body(), surrounded()
    every = predict(model, ct, SegmentRecipe(overlap=overlap), "cpu")
    some = predict(model, ct, SegmentRecipe(overlap=overlap, near_mm=10), "cpu")
    away_mm = ndimage.distance_transform_edt(every.levels.max(0) < 128, every.grid.spacing_mm)
    near = away_mm <= 10
    assert (every.levels[:, near] > 0).any()
    np.testing.assert_array_equal(some.levels[:, near], every.levels[:, near])
    inside = (some.levels > 0).any(0)
    np.testing.assert_array_equal(some.levels[:, inside], every.levels[:, inside])
    assert not some.levels[:, away_mm > 10 + 3 * 2 * 2 * np.sqrt(3)].any()
    assert every.left_out == 0
    assert some.windows + some.left_out == every.windows
    assert some.left_out > every.windows / 4


def test_a_window_says_the_same_alone_as_among_others() -> None:
    """All batches give the same bits, or leaving out windows would change the others'."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv3d(1, 12, 3, padding=1), torch.nn.InstanceNorm3d(12), torch.nn.PReLU()]
    model = Model(torch.nn.Sequential(*layers, torch.nn.Conv3d(12, 2, 3, padding=1)), spec((16, 16, 16), 2.0))
    hu = np.random.default_rng(0).integers(-190, 290, (16, 16, 40)).astype(np.int16)
    alone = predict(model, Volume(hu[:, :, :16], Geometry.of((16, 16, 16), 2.0)), device="cpu")
    among = predict(model, Volume(hu, Geometry.of(hu.shape, 2.0)), device="cpu")
    assert (alone.windows, among.windows) == (1, 4)
    np.testing.assert_array_equal(alone.levels[..., :8], among.levels[..., :8])


def test_every_window_is_looked_at_if_the_first_look_finds_nothing() -> None:
    ct, model = body(organ_hu=0), surrounded()
    every, some = (predict(model, ct, SegmentRecipe(near_mm=near), "cpu") for near in (None, 10))
    np.testing.assert_array_equal(some.levels, every.levels)
    assert every.levels.any()
    assert some.left_out == 0


def test_tumors_are_found_where_organs_are_and_by_models_without_organs_from_their_candidates_on() -> None:
    grid = Geometry.of((16, 16, 120), 2.0)
    hu = np.zeros(grid.shape, np.int16)
    hu[:, :, :6] = 60
    hu[6:10, 6:10, 100:104] = 145  # organ, and by .35 a tumor
    ct, model, recipe = Volume(hu, grid), threshold_model((16, 16, 16), spacing_mm=2.0), SegmentRecipe(near_mm=4)
    both = predict(model, ct, recipe, "cpu")
    assert both.left_out > 0
    assert (both.levels[0, :, :, :6] > 0).all()  # the organ at the other end
    assert (both.levels[1, 6:10, 6:10, 100:104] > 25).all()
    net = torch.nn.Conv3d(1, 1, 1)
    net.load_state_dict({name: value[1:] for name, value in model.net.state_dict().items()})
    tumors = Model(net, model.spec.with_changes(classes=("liver_lesion",)))
    faint = predict(tumors, ct, recipe, "cpu")
    assert (faint.levels[0, 6:10, 6:10, 100:104] > 25).all()
    assert faint.left_out > both.left_out  # nothing at the other end
    assert predict(tumors, ct, recipe.with_changes(candidates=0.5), "cpu").left_out == 0  # nothing anywhere


def test_found_is_meant_after_calibration() -> None:
    hu = np.zeros((16, 16, 120), np.int16)
    hu[:, :, :10] = 40  # .23 of being organ before, .35 or .36 after
    model = threshold_model((16, 16, 16), spacing_mm=2.0)
    ct, recipe = Volume(hu, Geometry.of(hu.shape, 2.0)), SegmentRecipe(near_mm=4, threshold=0.3)
    assert predict(model, ct, recipe, "cpu").left_out == 0  # nothing
    for scaling in ({"temperatures": {"liver": 2.0}}, {"temperatures": {}, "shifts": {"liver": 0.63}}):
        known = Calibration(data="none", cases=1, errors={}, points={}, **scaling)
        about = model.spec.with_changes(calibration=known)
        assert predict(Model(model.net, about), ct, recipe, "cpu").left_out > 0


@pytest.mark.parametrize("overlap", [0, 0.3, 0.5, 0.75])
def test_the_first_look_covers_the_grid_with_as_few_windows_as_can_be(overlap: float) -> None:
    for n in range(5, 120):
        windows = Windows((n, 16, 9), (16, 16, 16), overlap)
        chosen = sparse(windows)
        covered = np.zeros(n, bool)
        for start in (windows.starts[0][index] for index in chosen[0]):
            covered[max(start, 0) : start + 16] = True
        assert covered.all()
        fewest = next(
            count
            for count in range(1, len(windows.starts[0]) + 1)
            if any(_covers(some, n) for some in itertools.combinations(windows.starts[0], count))
        ) if len(windows.starts[0]) <= 9 else len(chosen[0])  # fmt: skip
        assert len(chosen[0]) == fewest


def _covers(starts: Sequence[int], n: int) -> bool:
    return starts[0] <= 0 and starts[-1] + 16 >= n and all(b - a <= 16 for a, b in itertools.pairwise(starts))


def test_windows_are_wanted_if_they_touch_the_region_and_a_region_is_no_larger_than_it_says() -> None:
    windows = Windows((41, 35, 90), (16, 16, 16), 0.5)
    at, spacing_mm = (33, 4, 61), (2.0, 1.0, 1.5)

    def look(corners: Sequence[Triple]) -> list[torch.Tensor]:
        answers = []
        for corner in corners:
            said = torch.zeros(1, 16, 16, 16)
            inside = [a - c for a, c in zip(at, corner, strict=True)]
            if all(0 <= i < 16 for i in inside):
                said[(0, *inside)] = 1
            answers.append(said)
        return answers

    region, known = find_region(windows, look, 3, [128], 12.0, spacing_mm)
    assert region is not None
    assert known
    assert all(region.wanted[place] for place in known)
    voxels = region.voxels(Box((0, 0, 0), windows.shape))
    away_mm = np.linalg.norm((np.moveaxis(np.indices(windows.shape), 0, -1) - at) * spacing_mm, axis=-1)
    assert voxels[away_mm <= 12].all()
    assert not voxels[away_mm > 12 + 2 * 2 * np.linalg.norm(spacing_mm)].any()
    part = Box((30, 3, 55), (41, 10, 70))
    np.testing.assert_array_equal(region.voxels(part), voxels[part.slices])
    for place in np.ndindex(*windows.counts):
        corner = windows.corner(place)
        covered = voxels[tuple(slice(low, low + 16) for low in corner)]
        assert region.wanted[place] >= covered.any()


def test_answers_that_do_not_fit_are_looked_at_again_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    ct, model, recipe = body(), surrounded(), SegmentRecipe(near_mm=10)
    kept = predict(model, ct, recipe, "cpu")
    monkeypatch.setattr(nearness, "KEPT_BYTES", 3 * 2 * 16**3 * 4)
    again = predict(model, ct, recipe, "cpu")
    np.testing.assert_array_equal(again.levels, kept.levels)
    assert again.windows > kept.windows
    assert again.left_out == kept.left_out


def test_the_estimate_of_memory_counts_what_is_kept() -> None:
    grid = Geometry.of((64, 64, 64), 3.0)
    plain, near = (estimate_memory(smooth_model().spec, grid, SegmentRecipe(near_mm=mm), "cpu") for mm in (None, 9))
    assert plain.first_look == 0
    assert near.bytes - plain.bytes == near.first_look > 0
