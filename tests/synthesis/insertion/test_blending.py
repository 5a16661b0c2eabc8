"""A tumor in a scan: untouched outside, the scan's own grain inside, its contrast as planned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from phantoms import FAT, GRIDS, LIVER, fine, grid, noise, plan_of
from scipy import ndimage

from synthoma import files
from synthoma.synthesis.generators.rules import Rules
from synthoma.synthesis.insertion import blending
from synthoma.synthesis.location import find_site, measure_organ
from synthoma.synthesis.scan import Noise
from synthoma.synthesis.tumor import Tumor
from synthoma.volume import Array, Box, Geometry, Volume


def even_organ(geometry: Geometry, sd: float = 15.0, image: type = np.int16, seed: int = 0) -> tuple[Volume, Volume]:
    """A scan that is all liver, with CT-like noise, and its mask."""
    hu = LIVER + noise(geometry, sd, seed)
    ct = Volume(np.asfortranarray((np.rint(hu) if image is np.int16 else hu).astype(image)), geometry)
    return ct, Volume(np.ones(geometry.shape, bool), geometry)


def grain_of(values: Array, inside: Array) -> Array:
    """SD of the values inside, and their autocorrelation at lags 1-3 along each axis."""
    rest = values - values[inside].mean()
    figures = [rest[inside].std()]
    for axis in range(3):
        for lag in (1, 2, 3):
            one = (slice(None),) * axis + (slice(lag, None),)
            other = (slice(None),) * axis + (slice(None, -lag),)
            both = inside[one] & inside[other]
            if both.sum() > 300:
                figures.append((rest[one][both] * rest[other][both]).mean() / rest[inside].var())
    return np.array(figures)


def assert_same_grain(before: Array, after: Array, inside: Array, apart: float = 0.1) -> None:
    """SD within 10 %, autocorrelation within 0.1 (10 % of the variance) at lags 1-3 along each axis."""
    own, new = grain_of(before, inside), grain_of(after, inside)
    assert new[0] == pytest.approx(own[0], rel=0.1)
    assert np.abs(new[1:] - own[1:]).max() < apart


@pytest.mark.parametrize("image", [np.int16, np.float32])
@pytest.mark.parametrize("grid", GRIDS)
def test_voxels_outside_the_tumor_are_bit_identical(grid: str, image: type) -> None:
    ct, organ = even_organ(GRIDS[grid](50), image=image)
    untouched = ct.data.copy()
    tumor = Rules().render(ct, organ, plan_of(20.0, (1, 0.8, 0.7), roughness=0.1, texture_hu=6.0))
    after = blending.blend(ct, tumor)
    before = ct.data[tumor.box.slices]
    assert after.dtype == image
    assert (tumor.alpha == 0).any()
    assert np.array_equal(after[tumor.alpha == 0], before[tumor.alpha == 0])
    assert (after != before)[tumor.alpha > 0.9].mean() > 0.9
    assert np.array_equal(ct.data, untouched), "the scan itself may not change"
    assert np.array_equal(tumor.mask, tumor.alpha >= 0.5)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_grain_inside_is_the_organs_own(grid: str) -> None:
    ct, organ = even_organ(GRIDS[grid](64), 16.0)
    tumor = Rules().render(ct, organ, plan_of(42.0, noise_hu=16.0))
    assert_same_grain(ct.data[tumor.box.slices].astype(float), blending.blend(ct, tumor) - tumor.hu, tumor.alpha == 1)


@pytest.mark.parametrize("sd", [6.0, 40.0])
def test_the_grain_is_kept_at_low_and_high_dose(sd: float) -> None:
    ct, organ = even_organ(fine(56), sd)
    tumor = Rules().render(ct, organ, plan_of(36.0, noise_hu=sd))
    assert_same_grain(ct.data[tumor.box.slices].astype(float), blending.blend(ct, tumor) - tumor.hu, tumor.alpha == 1)


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (3.0, 3.0, 3.0), (1.8, 1.8, 1.2)])
def test_large_noise_of_large_voxels_is_no_vessel(spacing_mm: tuple[float, float, float]) -> None:
    geometry = grid(spacing_mm, 88)
    ct, organ = even_organ(geometry, 16.0)
    plan = plan_of(52.0, noise_hu=16.0)
    kept = {}
    for noise_by in ("voxel", "neighbors"):
        tumor = Rules().render(ct, organ, dataclasses.replace(plan, noise_by=noise_by))
        within, box = tumor.alpha == 1, tumor.box
        inside = (blending.noise_inside(ct, tumor), ct.data[box.slices] - np.float32(LIVER))
        made, own = (values[within] for values in inside)
        kept[noise_by] = made.std() / own.std(), np.corrcoef(made, own)[0, 1]
    assert kept["neighbors"][0] == pytest.approx(1, abs=0.05)
    assert kept["neighbors"][1] > 0.93, "the scan's own noise"
    assert kept["voxel"][1] < kept["neighbors"][1] - 0.05, "as old plans have it"


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
@pytest.mark.parametrize("flipped", [False, True])
def test_the_noise_inside_does_not_depend_on_where_the_scan_ends(cut: int, flipped: bool) -> None:
    geometry = grid((1.7, 1.3, 2.5), (64, 84, 80))  # two voxels a block along the second axis
    ct, organ = even_organ(geometry, sd=40.0)  # half of the blocks pass for vessels
    tumor = Rules().render(ct, organ, dataclasses.replace(plan_of(14.0, (1, 1, 1)), noise_by="neighbors"))
    learned = Noise.at(ct, tumor.plan.noise_from_mm)
    whole = blending.noise_inside(ct, tumor, learned)
    room = tumor.box.lower[1] if flipped else geometry.shape[1] - tumor.box.upper[1]
    gone = room - 7 - cut  # inside of what is looked at, outside of what can matter
    assert gone > 0
    width, length, height = geometry.shape
    kept = Box((0, gone if flipped else 0, 0), (width, length if flipped else length - gone, height))
    part = Volume(np.asfortranarray(ct.data[kept.slices]), geometry.crop(kept))
    moved = dataclasses.replace(tumor, box=tumor.box.shift([-at for at in kept.lower]))
    assert np.array_equal(blending.noise_inside(part, moved, learned), whole)


def test_where_fat_or_a_vessel_is_replaced_the_grain_is_learned_and_no_seam_is_left() -> None:
    geometry = fine(60)
    own = noise(geometry, 14.0)
    points = geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))
    hu = np.where(points[..., 0] > 8, FAT, LIVER)
    vessel = np.hypot(points[..., 0] + 6, points[..., 1])
    hu[vessel < 4] += 60
    ct = Volume(np.rint(ndimage.gaussian_filter(hu.astype(float), 0.7) + own).astype(np.int16), geometry)
    plan = plan_of(44.0, noise_hu=14.0, noise_from_mm=(-18.0, 15.0, 15.0))
    tumor = Rules().render(ct, Volume(np.ones(geometry.shape, bool), geometry), plan)
    rest = blending.blend(ct, tumor) - tumor.hu
    x, vessel, inside = points[tumor.box.slices][..., 0], vessel[tumor.box.slices], tumor.alpha == 1
    # learned from 20 mm: known less well
    assert_same_grain(own[tumor.box.slices], rest, inside & (x > 11), 0.15)
    assert rest[inside].std() == pytest.approx(14, rel=0.1)
    for start in range(2, 14):
        assert abs(rest[inside & (x > start) & (x < start + 1.1)].mean()) < 8, "a margin where the organ ended"
    for radius in range(1, 8):
        assert abs(rest[inside & (np.abs(vessel - radius) < 0.6)].mean()) < 5, "a ghost of the vessel"


@pytest.mark.parametrize("grid", GRIDS)
def test_the_contrast_to_the_organ_is_the_planned_one(grid: str) -> None:
    ct, organ = even_organ(GRIDS[grid](44), 12.0)
    for contrast in (-60.0, -5.0, 45.0):
        for diameter in (12.0, 24.0):
            tumor = Rules().render(ct, organ, plan_of(diameter, contrast_hu=contrast, texture_hu=5.0, noise_hu=12.0))
            after = blending.blend(ct, tumor)
            inside = tumor.alpha > 0.95 if diameter > 20 else tumor.alpha > 0.8
            # the mean of that many voxels of noise varies by itself
            spread = 12 * 2.5 / np.sqrt(max(inside.sum(), 1))
            assert after[inside].mean() - LIVER == pytest.approx(
                contrast, abs=2 + spread + 0.1 * abs(contrast) * (diameter < 20)
            )


def test_hu_stay_within_what_a_scanner_stores_unless_the_scan_left_it_before() -> None:
    ct, organ = even_organ(fine(30), 5.0)
    tumor = Rules().render(ct, organ, plan_of(16.0, contrast_hu=-3000.0))
    assert blending.blend(ct, tumor).min() == -1024
    deep = Volume(np.full(ct.data.shape, -2000, np.int16), ct.geometry)
    assert blending.blend(deep, tumor).min() == -2000


def test_a_tumor_of_no_voxel_changes_nothing() -> None:
    ct, organ = even_organ(fine(30))
    tumor = Rules().render(ct, organ, plan_of(12.0))
    empty = Tumor(tumor.plan, tumor.box, np.zeros_like(tumor.alpha), tumor.hu)
    assert np.array_equal(blending.blend(ct, empty), ct.data[tumor.box.slices])


@pytest.mark.parametrize("case", ["chaos", "crlm_1004"])
def test_the_noise_of_real_livers_is_kept(case: str, real_data: Path) -> None:
    ct = files.read_image(real_data / case / "ct.nii.gz")
    liver = files.read_labels(real_data / case / "segmentations" / "liver.nii.gz")
    mask = Volume(liver.data != 0, liver.geometry)
    organ_model = measure_organ(ct, {"liver": mask}, "liver", "portal", 0.7)
    for seed in range(2):
        center = find_site(organ_model, (18.0, 99.0), 17.0, (), 0.0, np.random.default_rng(seed)).center_mm
        plan = plan_of(
            34.0,
            center_mm=center,
            base_hu=organ_model.base_hu,
            noise_hu=organ_model.noise_hu,
            noise_from_mm=organ_model.noise_from_mm,
        )
        tumor = Rules().render(ct, mask, plan)
        before = ct.data[tumor.box.slices].astype(float)
        grain = blending.blend(ct, tumor) - tumor.hu
        # vessels are no grain, and are to go: compare where the liver is plain tissue, what varies over under 3 mm
        voxels = 1 / np.array(ct.geometry.spacing_mm)
        plain = (tumor.alpha == 1) & (np.abs(ndimage.gaussian_filter(before, 1.5 * voxels) - organ_model.base_hu) < 12)
        assert plain.sum() > 2000
        fast = [values - ndimage.gaussian_filter(values, 3 * voxels) for values in (before, grain)]
        assert_same_grain(*fast, plain)
        assert grain[tumor.alpha == 1].mean() == pytest.approx(0, abs=3)


@pytest.mark.parametrize("block", [(1, 1, 1), (3, 3, 1), (2, 5, 4)])
@pytest.mark.parametrize("move", [(0, 0, 0), (4, 7, 3), (-2, 9, -5)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (13, 8, 6), (24, 25, 9)])
def test_the_blocks_that_a_tumor_touches_are_found_wherever_its_box_lies(
    shape: tuple[int, int, int], move: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    """Every block with a sampled voxel of the tumor, and its neighbors; the outermost ones for what lies beyond."""
    rng, box, blocks = np.random.default_rng(0), Box((5, 6, 7), tuple(np.add((5, 6, 7), shape))), (6, 5, 4)
    outer = Box(tuple(np.subtract(box.lower, move)), tuple(np.subtract(box.lower, move) + np.multiply(blocks, block)))
    for share in (0.0, 0.02, 1.0):
        alpha = np.asfortranarray((rng.random(shape) < share).astype(np.float32))
        expected = np.zeros(blocks, bool)
        for at in np.argwhere(alpha):
            if not (at % block).any():
                index = np.clip((at + move) // block, 0, np.subtract(blocks, 1))
                expected[tuple(slice(max(n - 1, 0), n + 2) for n in index)] = True
        tumor, found = Tumor(plan_of(), box, alpha, alpha), np.zeros(blocks, bool)
        for place in np.ndindex(blocks):
            alone = np.zeros(blocks, bool)
            alone[place] = True
            found[place] = blending._meets(alone, tumor, outer, block)
        assert np.array_equal(found, expected)
