"""Augmentation: the geometry is exact, the intensities are what the recipe says, and nothing is left to chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from synthoma.learning.augmentation import (
    Augmentation,
    AugmentationRecipe,
    draw_augmentation,
    resample,
    row_major,
    source_box,
    to_image,
)
from synthoma.volume import Box

WINDOW = (-175.0, 250.0)
CUBIC, FLAT = (1.5, 1.5, 1.5), (0.8, 1.0, 2.5)
SHAPE = (20, 24, 16)
BOX = Box((100, 50, 30), (120, 74, 46))
CHANCES = [name for name in AugmentationRecipe.model_fields if name.endswith("probability")]


def ramp(box: Box, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """HU that rise evenly with the position in mm: linear interpolation gives them back exactly."""
    i, j, k = (np.arange(low, high) * s for low, high, s in zip(*box, spacing_mm, strict=True))
    return (3.0 * i[:, None, None] - 2.0 * j[:, None] + 1.5 * k).astype(np.float32)


def positions_mm(drawn: Augmentation, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Where each voxel of a patch on BOX comes from: turned and scaled around the middle of the box."""
    spacing = np.asarray(spacing_mm)
    middle = (np.asarray(BOX.lower) + np.asarray(BOX.upper) - 1) / 2 * spacing
    offsets = np.moveaxis(np.indices(SHAPE), 0, -1) * spacing + np.asarray(BOX.lower) * spacing - middle
    a, b = (axis for axis in range(3) if axis != drawn.axis)
    angle = np.deg2rad(drawn.rotation_deg)
    turned = offsets.copy()
    turned[..., a] = np.cos(angle) * offsets[..., a] - np.sin(angle) * offsets[..., b]
    turned[..., b] = np.sin(angle) * offsets[..., a] + np.cos(angle) * offsets[..., b]
    return turned / drawn.scale + middle


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing_mm", [CUBIC, FLAT])
@pytest.mark.parametrize(("angle", "scale"), [(17.0, 1.0), (0.0, 1.3), (-25.0, 0.8), (90.0, 1.0)])
def test_rotation_and_scaling_are_exact_in_mm(
    axis: int, spacing_mm: tuple[float, float, float], angle: float, scale: float
) -> None:
    drawn = Augmentation(axis=axis, rotation_deg=angle, scale=scale)
    source = source_box(drawn, BOX, spacing_mm)
    hu, labels = ramp(source, spacing_mm), (ramp(source, spacing_mm) > 150).astype(np.uint8)
    turned, turned_labels = resample(hu, labels, drawn, SHAPE, spacing_mm)
    expected = positions_mm(drawn, spacing_mm) @ [3.0, -2.0, 1.5]
    # OpenCV before version 5 places samples to 1/32 of a voxel
    np.testing.assert_allclose(turned, expected, atol=0.4)
    clear = np.abs(expected - 150) > 8
    np.testing.assert_array_equal(turned_labels[clear], expected[clear] > 150)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_turn_moves_whole_voxels(axis: int) -> None:
    shape = (12, 12, 12)
    box = Box((0, 0, 0), shape)
    hu = np.random.default_rng(0).integers(-200, 300, shape).astype(np.int16)
    labels = (hu > 0).astype(np.uint8)
    drawn = Augmentation(axis=axis, rotation_deg=90.0)
    assert source_box(drawn, box, CUBIC) == box
    turned, turned_labels = resample(np.asfortranarray(hu), labels, drawn, shape, CUBIC)
    a, b = (other for other in range(3) if other != axis)
    np.testing.assert_allclose(turned, np.rot90(hu, -1, (a, b)), atol=1e-3)
    np.testing.assert_array_equal(turned_labels, np.rot90(labels, -1, (a, b)))


def test_the_source_holds_every_voxel_of_a_patch() -> None:
    for axis in range(3):
        for angle, scale in ((10.0, 1.0), (45.0, 0.7), (90.0, 1.0), (0.0, 0.5), (20.0, 1.8)):
            drawn = Augmentation(axis=axis, rotation_deg=angle, scale=scale)
            source = source_box(drawn, BOX, FLAT)
            hu, labels = np.zeros(source.shape, np.int16), np.ones(source.shape, np.uint8)
            turned, turned_labels = resample(hu, labels, drawn, SHAPE, FLAT)
            assert turned.min() == 0
            assert turned_labels.min() == 1


def test_flips_mirror_image_and_labels_alike() -> None:
    hu = np.random.default_rng(0).integers(-200, 300, SHAPE).astype(np.int16)
    labels = (hu > 0).astype(np.uint8)
    flipped, flipped_labels = resample(hu, labels, Augmentation(flips=(True, False, True)), SHAPE, FLAT)
    np.testing.assert_array_equal(flipped, hu[::-1, :, ::-1])
    np.testing.assert_array_equal(flipped_labels, labels[::-1, :, ::-1])


def test_without_augmentation_the_image_is_the_window() -> None:
    hu = np.asfortranarray(np.random.default_rng(0).integers(-1024, 2000, SHAPE).astype(np.int16))
    image = to_image(hu, Augmentation(), WINDOW, FLAT)
    np.testing.assert_allclose(image, np.clip((hu + 175) / 425, 0, 1), atol=1e-6)
    assert (image.dtype, image.flags.c_contiguous) == (np.float32, True)


def test_contrast_and_shift_are_those_of_hu_before_the_window() -> None:
    hu = np.linspace(-170, 240, 16 * 20 * 24).reshape(SHAPE).astype(np.float32)
    drawn = Augmentation(contrast=0.8, shift_hu=12)
    expected = (0.8 * (hu - 37.5) + 37.5 + 12 + 175) / 425
    np.testing.assert_allclose(to_image(hu, drawn, WINDOW, FLAT), np.clip(expected, 0, 1), atol=1e-6)


def test_gamma_bends_the_window() -> None:
    hu = np.full(SHAPE, 37, np.int16)
    image = to_image(hu, Augmentation(gamma=1.5), WINDOW, FLAT)
    np.testing.assert_allclose(image, ((37 + 175) / 425) ** 1.5, rtol=1e-5)


@pytest.mark.parametrize("contrast", [1.0, 0.5])
def test_noise_has_the_sd_of_the_recipe_whatever_the_contrast(contrast: float) -> None:
    hu = np.full((48, 48, 48), 40, np.int16)
    drawn = Augmentation(noise_hu=20, noise_seed=3, contrast=contrast)
    image = to_image(hu, drawn, WINDOW, CUBIC)
    assert image.std() * 425 == pytest.approx(20, rel=0.02)
    np.testing.assert_array_equal(image, to_image(hu, drawn, WINDOW, CUBIC))
    other = to_image(hu, Augmentation(noise_hu=20, noise_seed=4, contrast=contrast), WINDOW, CUBIC)
    assert abs(np.corrcoef(image.ravel(), other.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("spacing_mm", [CUBIC, FLAT])
def test_blur_is_gaussian_in_mm(spacing_mm: tuple[float, float, float]) -> None:
    hu = np.random.default_rng(0).normal(40, 60, (32, 30, 28)).astype(np.float32)
    image = to_image(hu, Augmentation(blur_mm=1.2), (-1000, 1000), spacing_mm) * 2000 - 1000
    expected = ndimage.gaussian_filter(hu, [1.2 / s for s in spacing_mm], mode="nearest", truncate=3.0)
    np.testing.assert_allclose(image, expected, atol=1.5)


def test_thick_slices_average_along_the_last_axis_only() -> None:
    across = np.random.default_rng(0).normal(40, 30, (20, 24, 1)).astype(np.float32) * np.ones((1, 1, 48), np.float32)
    image = to_image(across, Augmentation(slice_mm=6.0), (-1000, 1000), CUBIC) * 2000 - 1000
    np.testing.assert_allclose(image, across, atol=1e-2)
    grain = np.random.default_rng(0).normal(40, 30, (20, 24, 48)).astype(np.float32)
    image = to_image(grain, Augmentation(slice_mm=6.0), (-1000, 1000), CUBIC) * 2000 - 1000
    assert 0.3 * 30 < image.std() < 0.5 * 30  # four slices in one, less between two
    assert to_image(grain, Augmentation(slice_mm=2.0), WINDOW, FLAT).std() == pytest.approx(
        to_image(grain, Augmentation(), WINDOW, FLAT).std()
    )


def test_what_is_given_stays_as_it_is() -> None:
    drawn = Augmentation((True, True, False), 0, 10.0, 0.9, 5.0, 1.0, 1.1, 5.0, 9.0, 1, 1.2)
    source = source_box(drawn, BOX, CUBIC)
    for kind in (np.int16, np.float32):
        hu, labels = ramp(source, CUBIC).astype(kind), np.ones(source.shape, np.uint8)
        before = hu.copy()
        turned, _ = resample(hu, labels, drawn, SHAPE, CUBIC)
        to_image(turned, drawn, WINDOW, CUBIC)
        to_image(hu, drawn, WINDOW, CUBIC)
        np.testing.assert_array_equal(hu, before)


def test_probabilities_of_0_leave_a_patch_as_it_is_and_of_1_change_all() -> None:
    off = AugmentationRecipe(flip=(0, 0, 0), **dict.fromkeys(CHANCES, 0.0))
    on = AugmentationRecipe(flip=(1, 1, 1), **dict.fromkeys(CHANCES, 1.0))
    for seed in range(20):
        drawn = draw_augmentation(off, np.random.default_rng(seed))
        assert drawn == Augmentation(axis=drawn.axis, noise_seed=drawn.noise_seed)
        every = draw_augmentation(on, np.random.default_rng(seed))
        neutral = Augmentation()
        assert every.flips == (True, True, True)
        fields = ("rotation_deg", "scale", "slice_mm", "blur_mm", "contrast", "shift_hu", "noise_hu", "gamma")
        assert all(getattr(every, name) != getattr(neutral, name) for name in fields)


def test_draws_keep_to_ranges_and_shares_of_the_recipe() -> None:
    recipe = AugmentationRecipe(noise_probability=0.4, noise_hu=(5, 25), rotation_probability=1, rotation_deg=30)
    drawn = [draw_augmentation(recipe, np.random.default_rng(seed)) for seed in range(1000)]
    noisy = [one.noise_hu for one in drawn if one.noise_hu]
    assert len(noisy) / 1000 == pytest.approx(0.4, abs=0.06)
    assert (5 <= min(noisy) < 6, 24 < max(noisy) <= 25) == (True, True)
    angles = [one.rotation_deg for one in drawn]
    assert (-30 <= min(angles) < -28, 28 < max(angles) <= 30) == (True, True)
    assert np.bincount([one.axis for one in drawn]).min() > 280


def test_turning_one_row_off_leaves_the_other_draws() -> None:
    recipe = AugmentationRecipe(**dict.fromkeys(CHANCES, 1.0))
    with_noise = draw_augmentation(recipe, np.random.default_rng(1))
    without = draw_augmentation(recipe.with_changes(noise_probability=0), np.random.default_rng(1))
    assert without.noise_hu == 0
    assert (with_noise.gamma, with_noise.flips, with_noise.scale) == (without.gamma, without.flips, without.scale)


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float32])
def test_a_row_major_copy_holds_the_same_voxels(kind: type) -> None:
    rng = np.random.default_rng(0)
    for shape in ((5, 6, 7), (1, 4, 3), (8, 1, 1), (96, 2, 33)):
        values = np.asfortranarray(rng.integers(0, 200, shape).astype(kind))
        views = [values, values[::-1], values[:, ::-1, ::-1], values[::2], np.ascontiguousarray(values)[:, :, ::-1]]
        for view in views:
            found = row_major(view, np.float32)
            assert np.array_equal(found, view)
            assert found.dtype == np.float32
            assert found.flags.c_contiguous
