"""A mask as the box around it is the mask: read anywhere, changed, turned, and written in the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grids import ANISOTROPIC, oblique
from synthoma import files
from synthoma.bounded import EMPTY, Bounded, zeros_like
from synthoma.errors import GeometryError
from synthoma.volume import Array, Box, Geometry, Volume

GRID = Geometry.of((9, 8, 7), (1, 2, 3), "LPS")
BOXES = [Box.whole(GRID.shape), Box((3, 3, 3), (5, 5, 5)), Box((0, 0, 0), (3, 8, 7)), Box((8, 7, 6), (9, 8, 7))]


def mask_of(seed: int = 0) -> Volume:
    data = np.zeros(GRID.shape, bool)
    data[2:7, 1:6, 2:5] = np.random.default_rng(seed).random((5, 5, 3)) < 0.5
    return Volume(data, GRID)


EMPTY_MASK = Volume(np.zeros(GRID.shape, bool), GRID)


@pytest.mark.parametrize("mask", [mask_of(), EMPTY_MASK], ids=["some", "none"])
@pytest.mark.parametrize("axes", ["LPS", "RAS", "SLA", "PIR"])
def test_a_bounded_mask_is_the_whole_one_wherever_it_is_asked(mask: Volume, axes: str) -> None:
    turned = mask.reorient(axes)
    bounded = Bounded.of(mask).reorient(axes)
    assert bounded.grid == turned.geometry
    assert bounded.box == (Box.around(turned.data) or EMPTY)
    np.testing.assert_array_equal(bounded.whole.data, turned.data)
    for box in BOXES:
        box = GRID.turned_box(box, axes)
        np.testing.assert_array_equal(bounded.on(box), turned.data[box.slices])
    np.testing.assert_array_equal(bounded.onto(GRID).whole.data, mask.data)


def test_a_copy_holds_its_box_only_and_a_view_all() -> None:
    mask = mask_of()
    view, copy = Bounded.of(mask), Bounded.cut_from(mask)
    assert np.shares_memory(view.data, mask.data)
    assert not np.shares_memory(copy.data, mask.data)
    np.testing.assert_array_equal(copy.data, view.data)


@pytest.mark.parametrize("mask", [mask_of(), EMPTY_MASK], ids=["some", "none"])
@pytest.mark.parametrize("box", BOXES)
def test_a_changed_part_leaves_the_rest_and_the_mask_before(mask: Volume, box: Box) -> None:
    before = Bounded.of(mask)
    part = np.random.default_rng(1).random(box.shape) < 0.5
    expected = mask.data.copy()
    expected[box.slices] = part
    np.testing.assert_array_equal(before.changed(box, part).whole.data, expected)
    np.testing.assert_array_equal(before.whole.data, mask.data)


def test_another_grid_is_refused() -> None:
    with pytest.raises(GeometryError, match="the liver's grid differs"):
        Bounded.of(mask_of()).onto(GRID.crop(Box((0, 0, 0), (9, 8, 6))), "liver")


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii", "mask.nrrd"])
@pytest.mark.parametrize("grid", [ANISOTROPIC, oblique(2), Geometry.of((300, 256, 230), 1.0)])
def test_a_bounded_mask_is_written_in_the_bytes_of_the_whole_one(tmp_path: Path, name: str, grid: Geometry) -> None:
    whole = np.zeros(grid.shape, bool, order="F")
    inner = whole[1:-1, 2:-1, 1:-1]
    inner[...] = np.random.default_rng(0).random(inner.shape) < 0.1
    for number, mask in enumerate((whole, np.zeros_like(whole))):
        files.write_volume(Volume(mask, grid), tmp_path / f"whole{number}" / name)
        files.write_mask(Bounded.of(Volume(mask, grid)), tmp_path / f"bounded{number}" / name)
        one, other = (tmp_path / f"{kind}{number}" / name for kind in ("whole", "bounded"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5, 6), np.int16),
        np.zeros((4, 5, 6), np.int16, order="F")[::-1],
        np.zeros((6, 4, 5), np.int16).transpose(1, 2, 0)[:, ::-1, ::-1],
    ],
)
def test_zeros_lie_in_memory_as_what_they_stand_beside(array: Array) -> None:
    made = zeros_like(array, array.shape)
    assert (made.shape, made.dtype, made.strides) == (array.shape, array.dtype, array.strides)
    other = zeros_like(array, (2, 3, 4), np.uint8)
    assert (other.shape, other.dtype) == ((2, 3, 4), np.uint8)
    assert np.sign(other.strides).tolist() == np.sign(array.strides).tolist()
    assert not other.any()
