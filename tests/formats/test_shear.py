"""Axes a little off 90 degrees: what we write opens in ITK, and what ITK does not open is told."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from grids import ANISOTROPIC, hu, oblique
from synthoma import files
from synthoma.errors import GeometryError
from synthoma.formats import shear
from synthoma.volume import Geometry, Volume

SHAPE = (96, 80, 32)


def leaning(cosine: float, turned: bool = False, shape: tuple[int, int, int] = SHAPE) -> Geometry:
    """A grid whose first axis leans towards the third by this cosine."""
    affine = (oblique(4) if turned else Geometry.of(shape, (4, 4, 5), "LPS")).affine.copy()
    affine[:3, 0] += cosine * affine[:3, 2] / np.linalg.norm(affine[:3, 2]) * np.linalg.norm(affine[:3, 0])
    return Geometry(shape, affine)


def save(path: Path, geometry: Geometry, qform_code: int) -> Path:
    """A file as other tools write it: the sform as it is, with or without a qform beside it."""
    image = nibabel.Nifti1Image(np.zeros(geometry.shape, np.int16), geometry.affine)
    image.set_sform(geometry.affine, 1)
    image.set_qform(geometry.affine, 1)
    image.header["qform_code"] = qform_code
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nrrd", "ct.mha"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("cosine", [1e-7, 3e-5, 9e-5, 1.2e-4, 1e-3])
def test_what_leans_a_little_is_squared_and_opens_in_itk(
    tmp_path: Path, cosine: float, turned: bool, name: str
) -> None:
    sitk = pytest.importorskip("SimpleITK")
    grid = leaning(cosine, turned)
    data = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    files.write_volume(Volume(data, grid), tmp_path / name)
    image = sitk.ReadImage(str(tmp_path / name))
    assert np.array_equal(sitk.GetArrayFromImage(image).T, data)
    direction = np.reshape(image.GetDirection(), (3, 3))
    assert np.allclose(direction.T @ direction, np.eye(3), atol=1e-4)
    found = files.read_geometry(tmp_path / name)
    assert found.largest_cosine < 1e-4
    assert np.allclose(found.spacing_mm, grid.spacing_mm, rtol=1e-5)
    assert found.corner_distance_mm(grid) < 0.5
    lps = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in SHAPE])
    assert np.allclose(np.multiply(lps, (-1, -1, 1)), grid.to_mm((np.array(SHAPE) - 1) / 2), atol=1e-2)


@pytest.mark.parametrize("name", ["ct.nii", "ct.nrrd"])
def test_what_leans_by_more_than_half_a_voxel_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    grid = leaning(0.1)
    told = r"its axes are off 90 degrees, which SimpleITK and nnU-Net do not open; found 5\.7 degrees, \d+ mm"
    with pytest.raises(GeometryError, match=told):
        files.write_volume(hu(grid), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cosine", [9e-5, 1.2e-4, 1e-3, 0.1])
@pytest.mark.parametrize("qform_code", [0, 1])
def test_the_doubt_comes_just_where_itk_does_not_open(tmp_path: Path, cosine: float, qform_code: int) -> None:
    sitk = pytest.importorskip("SimpleITK")
    path = save(tmp_path / "ct.nii", leaning(cosine, shape=(9, 7, 5)), qform_code)
    try:
        sitk.ReadImage(str(path))
        opens = True
    except RuntimeError:
        opens = False
    assert opens == (qform_code == 1 or cosine < 1e-4)
    assert opens == (not any("SimpleITK and nnU-Net do not open" in doubt for doubt in files.affine_doubts(path)))
    assert files.read_geometry(path).matches(leaning(cosine, shape=(9, 7, 5)), 1e-3)


def test_an_upright_or_oblique_grid_is_left_as_it_is() -> None:
    for grid in (ANISOTROPIC, oblique(1), oblique(5)):
        assert shear.writable(grid, Path("x")) is grid


def test_a_scan_that_leans_and_the_mask_written_for_it_are_on_one_grid(tmp_path: Path) -> None:
    grid = Geometry((300, 9, 40), leaning(2e-3, shape=(300, 9, 40)).affine @ np.diag([0.2, 0.2, 0.2, 1]))
    files.write_volume(Volume(np.ones(grid.shape, np.uint8), grid), tmp_path / "m.nii")
    found = files.read_geometry(tmp_path / "m.nii")
    assert 0.1 < found.corner_distance_mm(grid) < 0.2
    grid.require_same(found)
    assert Volume(np.ones(grid.shape, bool), found).on(grid).geometry == grid
    other = Geometry(grid.shape, 2 * grid.squared.affine - grid.affine)  # leans the other way
    assert not other.matches(grid)
