"""A case reads its masks on its scan's grid, whatever order of axes their files have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grids import ANISOTROPIC, hu, oblique
from synthoma import files
from synthoma.cases import Case, Label
from synthoma.errors import GeometryError
from synthoma.volume import Box, Geometry, Volume

BOX = Box((1, 2, 0), (8, 5, 3))


@pytest.mark.parametrize("grid", [ANISOTROPIC, oblique(2)])
@pytest.mark.parametrize("axes", ["RAS", "SLP", "AIR"])
def test_masks_whose_files_turn_the_axes_are_read_on_the_scans_grid(tmp_path: Path, grid: Geometry, axes: str) -> None:
    ct = hu(grid)
    labels = Volume((ct.data > 0) + (ct.data > 1000).astype(np.uint8), grid)
    files.write_volume(ct, tmp_path / "ct.nii.gz")
    files.write_volume(labels.reorient(axes), tmp_path / "labels.nii.gz")
    files.write_volume(Volume(labels.data > 0, grid).reorient(axes), tmp_path / "body.nii")
    masks = {
        "body": tmp_path / "body.nii",
        "bone": Label(tmp_path / "labels.nii.gz", (2,)),
        "memory": Volume(labels.data > 0, grid).reorient(axes),
    }
    case = Case("c", tmp_path / "ct.nii.gz", masks)
    for box in (None, BOX):
        found = case.read_masks(box=box)
        part = labels if box is None else labels.crop(box)
        for name, expected in (("body", part.data > 0), ("bone", part.data == 2), ("memory", part.data > 0)):
            assert np.array_equal(found[name].data, expected), name
            assert found[name].geometry.matches(part.geometry), name


@pytest.mark.parametrize("other", [ANISOTROPIC.crop(Box((0, 0, 0), (9, 7, 4))), ANISOTROPIC.resampled(1.0)])
def test_a_mask_on_another_grid_is_refused_before_its_voxels_are_read(tmp_path: Path, other: Geometry) -> None:
    files.write_volume(hu(ANISOTROPIC), tmp_path / "ct.nii")
    files.write_volume(Volume(np.zeros(other.shape, bool), other), tmp_path / "liver.nii")
    whole = (tmp_path / "liver.nii").read_bytes()
    (tmp_path / "liver.nii").write_bytes(whole[:352])  # a header and nothing behind it
    with pytest.raises(GeometryError, match="c: the liver mask's grid differs"):
        Case("c", tmp_path / "ct.nii", {"liver": tmp_path / "liver.nii"}).read_mask("liver")
