"""A case reads its masks on its scan's grid, whatever order of axes their files have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grids import ANISOTROPIC, hu, oblique
from synthoma import files
from synthoma.bounded import EMPTY, Bounded
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
    expected = {"body": labels.data > 0, "bone": labels.data == 2, "memory": labels.data > 0}
    bounded = list(case.each_bounded())
    assert [name for name, _ in bounded] == list(masks)
    for name, mask in [*bounded, *case.each_bounded(["memory", "body"])]:
        assert np.array_equal(mask.whole.data, expected[name]), name
        assert mask.grid.matches(grid), name
        assert mask.box == Box.around(expected[name]), name


@pytest.mark.parametrize("other", [ANISOTROPIC.crop(Box((0, 0, 0), (9, 7, 4))), ANISOTROPIC.resampled(1.0)])
def test_a_mask_on_another_grid_is_refused_before_its_voxels_are_read(tmp_path: Path, other: Geometry) -> None:
    files.write_volume(hu(ANISOTROPIC), tmp_path / "ct.nii")
    files.write_volume(Volume(np.zeros(other.shape, bool), other), tmp_path / "liver.nii")
    whole = (tmp_path / "liver.nii").read_bytes()
    (tmp_path / "liver.nii").write_bytes(whole[:352])  # a header and nothing behind it
    with pytest.raises(GeometryError, match="c: the liver mask's grid differs"):
        Case("c", tmp_path / "ct.nii", {"liver": tmp_path / "liver.nii"}).read_mask("liver")
    with pytest.raises(GeometryError, match="c: the liver mask's grid differs"):
        list(Case("c", tmp_path / "ct.nii", {"liver": tmp_path / "liver.nii"}).each_bounded())


def test_only_the_box_of_a_mask_is_held() -> None:
    grid = Geometry.of((40, 50, 60), 1.0)
    data = np.zeros(grid.shape, bool)
    data[3:7, 10:20, 30:34] = True
    empty = Volume(np.zeros(grid.shape, bool), grid)
    case = Case("c", Volume(np.zeros(grid.shape, np.int16), grid), {"liver": Volume(data, grid), "spleen": empty})
    masks = dict(case.each_bounded())
    assert masks["liver"].box == Box((3, 10, 30), (7, 20, 34))
    assert masks["spleen"].box == EMPTY
    for mask in masks.values():
        base = mask.data if mask.data.base is None else mask.data.base
        assert base.nbytes <= 4 * 10 * 4


def test_a_function_that_tells_its_mask_as_a_box_is_asked_for_that() -> None:
    grid = Geometry.of((8, 9, 10), 1.0)
    box = Box((1, 2, 3), (4, 5, 6))

    class Told:
        def __call__(self) -> Volume:
            raise AssertionError("the whole mask was asked for")

        def bounded(self) -> Bounded:
            return Bounded(grid.reoriented("LAS"), grid.turned_box(box, "LAS"), np.ones(box.shape, bool))

    case = Case("c", Volume(np.zeros(grid.shape, np.int16), grid), {"liver": Told()})
    ((name, mask),) = case.each_bounded()
    assert (name, mask.box, mask.grid) == ("liver", box, grid)
