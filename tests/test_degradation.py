"""Worse scans: sizes are in mm on every grid, however the scan is stored."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from grids import centers_mm
from synthoma.degradation import Degradation, degrade, thicker_slices
from synthoma.volume import Geometry, Volume

FLAT = (0.8, 1.0, 2.5)


def tilted(shape: tuple[int, int, int] = (24, 20, 18)) -> Geometry:
    """Oblique by 20 degrees around the patient's long axis."""
    turn = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, :3] = affine[:3, :3] * FLAT
    return Geometry(shape, affine)


def noisy(geometry: Geometry, kind: type = np.float32) -> Volume:
    hu = np.random.default_rng(0).normal(40, 60, geometry.shape)
    return Volume(hu.round().astype(kind), geometry)


def test_asked_for_nothing_a_scan_is_itself() -> None:
    ct = noisy(Geometry.of((8, 9, 7), FLAT))
    assert degrade(ct, Degradation(noise_seed=3)) is ct
    np.testing.assert_array_equal(degrade(ct, Degradation(slice_mm=2.0)).data, ct.data)
    assert thicker_slices(ct, 2.0) is ct


@pytest.mark.parametrize("geometry", [Geometry.of((24, 20, 18), FLAT), tilted()], ids=["upright", "oblique"])
def test_blur_is_gaussian_in_mm(geometry: Geometry) -> None:
    ct = noisy(geometry)
    expected = ndimage.gaussian_filter(ct.data, [1.2 / s for s in FLAT], mode="nearest", truncate=3.0)
    np.testing.assert_allclose(degrade(ct, Degradation(blur_mm=1.2)).data, expected, atol=1.5)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "IRP", "ASL"])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_how_a_scan_is_stored_changes_nothing(axes: str, kind: type) -> None:
    how = Degradation(slice_mm=5.0, blur_mm=0.7, noise_hu=9.0, noise_mm=0.8, noise_seed=5, shift_hu=-3.0, view_mm=15.0)
    ct = noisy(tilted(), kind)
    worse = degrade(ct.reorient(axes), how)
    assert (worse.data.dtype, worse.geometry) == (kind, ct.geometry.reoriented(axes))
    np.testing.assert_array_equal(worse.reorient("RAS").data, degrade(ct, how).data)
    thick = thicker_slices(ct.reorient(axes), 5.0)
    assert thick.geometry.axes == axes
    np.testing.assert_array_equal(thick.reorient("RAS").data, thicker_slices(ct, 5.0).data)


@pytest.mark.parametrize("noise_mm", [0.0, 1.5])
def test_noise_has_its_sd_up_to_the_edge_and_its_correlation(noise_mm: float) -> None:
    flat = Volume(np.full((60, 60, 40), 40, np.float32), Geometry.of((60, 60, 40), (1.0, 1.0, 2.0)))
    noise = degrade(flat, Degradation(noise_hu=20, noise_mm=noise_mm, noise_seed=1)).data - 40
    assert noise.std() == pytest.approx(20, rel=0.05)
    assert noise[:2].std() == pytest.approx(20, rel=0.15)
    neighbors = np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]
    # white noise blurred with SD s correlates as exp(-d^2 / 4 s^2)
    assert neighbors == pytest.approx(np.exp(-1 / (4 * noise_mm**2)) if noise_mm else 0, abs=0.03)


def test_thicker_slices_keep_the_field_of_view_and_what_is_linear() -> None:
    geometry = tilted()
    ramp = Volume((centers_mm(geometry) @ [3.0, -2.0, 1.5]).astype(np.float32), geometry)
    thick = thicker_slices(ramp, 7.0)
    assert thick.geometry.shape == (24, 20, 6)
    assert thick.geometry.spacing_mm == pytest.approx((0.8, 1.0, 7.5))
    np.testing.assert_allclose(thick.data, centers_mm(thick.geometry) @ [3.0, -2.0, 1.5], atol=1e-3)
    outer = [[-0.5] * 3, np.array(geometry.shape) - 0.5]
    same = [[-0.5] * 3, np.array(thick.geometry.shape) - 0.5]
    np.testing.assert_allclose(thick.geometry.to_mm(same), geometry.to_mm(outer))


def test_slices_on_the_own_grid_average_along_the_patient_only() -> None:
    hu = np.random.default_rng(0).normal(40, 30, (20, 24, 48)).astype(np.float32)
    worse = degrade(Volume(hu, Geometry.of(hu.shape, 1.5)), Degradation(slice_mm=6.0)).data
    assert 0.3 * 30 < worse.std() < 0.5 * 30  # four slices in one, less between two
    across = np.repeat(hu[:, :, :1], 48, axis=2)
    np.testing.assert_allclose(
        degrade(Volume(across, Geometry.of(hu.shape, 1.5)), Degradation(slice_mm=6.0)).data, across, atol=1e-3
    )


def test_outside_the_circle_a_scanner_sees_nothing() -> None:
    ct = Volume(np.zeros((51, 41, 3), np.int16), Geometry.of((51, 41, 3), (1.0, 2.0, 5.0)))
    seen = degrade(ct, Degradation(view_mm=30.0)).data == 0
    assert seen.any(axis=2).sum() * 2.0 == pytest.approx(np.pi * 15**2, rel=0.03)
    assert seen[10:41, 20].all()
    assert not seen[9, 20].any()
    np.testing.assert_array_equal(degrade(ct, Degradation(view_mm=30.0)).data[~seen], -1024)


def test_hu_are_shifted_and_stay_int16() -> None:
    ct = Volume(np.array([32760, 0, -32768], np.int16).reshape(1, 1, 3), Geometry.of((1, 1, 3), 1.0))
    assert degrade(ct, Degradation(shift_hu=9.6)).data.ravel().tolist() == [32767, 10, -32758]
