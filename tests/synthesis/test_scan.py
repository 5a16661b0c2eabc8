"""What a scan tells of itself: the contrast phase and the scanner's blur."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from phantoms import GRIDS, fine, noise, rho
from scipy import ndimage

from synthoma import files
from synthoma.bounded import Bounded
from synthoma.errors import CaseError
from synthoma.synthesis.scan import contrast_phase, noise_sample, scanner_blur_mm
from synthoma.volume import Volume


def scan_of(**hu: float) -> tuple[Volume, dict[str, Volume]]:
    """A scan whose structures are blocks of these HU."""
    geometry = fine((30, 12, 12 * len(hu)))
    data = np.full(geometry.shape, 40, np.int16)
    masks = {}
    for number, (name, value) in enumerate(hu.items()):
        block = np.zeros(geometry.shape, bool)
        block[:, :, 12 * number : 12 * number + 12] = True
        data[block] = value
        masks[name] = Volume(block, geometry)
    return Volume(data, geometry), masks


@pytest.mark.parametrize(
    ("hu", "phase"),
    [
        ({"aorta": 45, "kidney_left": 32, "liver": 58}, "unenhanced"),
        ({"aorta": 320, "kidney_left": 160, "liver": 65}, "arterial"),
        ({"aorta": 185, "liver": 80}, "arterial"),
        ({"aorta": 150, "kidney_right": 190, "liver": 110}, "portal"),
        ({"kidney_left": 150, "liver": 65}, "arterial"),
        ({"kidney_left": 185, "liver": 108}, "portal"),
        ({"spleen": 115, "liver": 100}, "portal"),
        ({"spleen": 48}, "unenhanced"),
        ({"liver": 105}, "portal"),
        ({"liver": 55}, "unenhanced"),
        ({"kidney": 190, "liver": 105}, "portal"),
        ({"kidney": 33}, "unenhanced"),
    ],
)
def test_the_phase_follows_from_annotated_organs(hu: dict[str, float], phase: str) -> None:
    ct, masks = scan_of(**hu)
    assert contrast_phase(ct, masks) == phase
    assert contrast_phase(ct, {name: Bounded.of(mask) for name, mask in masks.items()}) == phase


def test_a_phase_that_cannot_be_told_is_a_sentence() -> None:
    ct, masks = scan_of(colon=40)
    empty = {"liver": Volume(np.zeros(ct.data.shape, bool), ct.geometry)}
    for found in (masks, {}, empty):
        with pytest.raises(CaseError, match="set phase in the recipe or the catalog: unenhanced, arterial, portal"):
            contrast_phase(ct, found, "p1")
    with pytest.raises(CaseError, match="found masks of liver; liver without a voxel, expected voxels of one of aorta"):
        contrast_phase(ct, empty, "p1")


@pytest.mark.parametrize(
    ("case", "phase"), [("chaos", "portal"), ("crlm_1004", "portal"), ("totalseg_3mm", "unenhanced")]
)
def test_the_phase_of_real_scans(case: str, phase: str, real_data: Path) -> None:
    ct = files.read_image(real_data / case / "ct.nii.gz")
    masks = {}
    for name in ("aorta", "liver", "kidney_left", "spleen"):
        path = real_data / case / "segmentations" / f"{name}.nii.gz"
        if path.exists():
            mask = files.read_labels(path)
            masks[name] = Volume(mask.data != 0, mask.geometry)
    assert contrast_phase(ct, masks) == phase
    for name in masks:
        # any one of them is enough here
        assert contrast_phase(ct, {name: masks[name]}) == phase, name


@pytest.mark.parametrize("blur_mm", [0.5, 0.8, 1.3])
def test_the_blur_is_read_from_the_skin(blur_mm: float) -> None:
    geometry = GRIDS["1 mm"]((120, 120, 12))
    body = np.where(rho(geometry, (45, 40, 1e6)) < 1, 40.0, -1000.0)
    # a voxel shows the mean over itself, then the scanner's blur
    sharp = ndimage.gaussian_filter(body, (blur_mm, blur_mm, 0)) + np.random.default_rng(0).normal(0, 4, geometry.shape)
    found = scanner_blur_mm(Volume(np.rint(sharp).astype(np.int16), geometry))
    assert found == pytest.approx(np.hypot(blur_mm, 0.25), abs=0.2)


def test_skin_that_is_met_at_an_angle_does_not_widen_the_blur() -> None:
    geometry = GRIDS["1 mm"]((120, 120, 12))
    x, y, _ = np.moveaxis(geometry.points_mm(), -1, 0)
    diamond = np.where(np.abs(x) + np.abs(y) < 48, 40.0, -1000.0)  # every line meets it at 45 degrees, twice as wide
    cut = np.where(np.maximum(np.abs(x), np.abs(y)) < 34, diamond, -1000.0)  # but where its corners are cut
    found = [
        scanner_blur_mm(Volume(np.rint(ndimage.gaussian_filter(body, (1.0, 1.0, 0))).astype(np.int16), geometry))
        for body in (diamond, cut)
    ]
    assert found == pytest.approx([np.sqrt(2 * (1 + 1 / 12)), np.hypot(1, 0.25)], abs=0.12)


def test_without_skin_in_view_the_blur_is_a_usual_one() -> None:
    for value in (40, -1000):
        assert scanner_blur_mm(Volume(np.full((40, 40, 12), value, np.int16), fine((40, 40, 12)))) == 0.75
    assert scanner_blur_mm(Volume(np.full((4, 4, 1), 40, np.int16), fine((4, 4, 1)))) == 0.75


def test_noise_of_a_place_forgets_a_slope() -> None:
    geometry = fine(40)
    rough = noise(geometry, 10.0)
    slope = geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1)) @ np.array([2.0, -1.0, 0.5])
    ct = Volume(np.rint(50 + rough + slope).astype(np.int16), geometry)
    assert noise_sample(ct, (0, 0, 0)).std() == pytest.approx(10, rel=0.08)
    # at the scan's corner the block moves inside
    assert noise_sample(ct, (-30, 30, 30)).shape == noise_sample(ct, (0, 0, 0)).shape
