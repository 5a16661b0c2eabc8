"""Masks survive the way to the browser and back, on every grid a scan can lie on."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest

from synthoma.errors import FileError, GeometryError
from synthoma.review import frames
from synthoma.volume import Geometry, Volume

AXES = [
    "".join(letters) for order in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*order)
]


def marked(geometry: Geometry) -> Volume:
    """Labels without any symmetry: a flipped or turned copy differs."""
    labels = np.zeros(geometry.shape, np.uint8)
    labels[1:3, 1, 2] = 7
    labels[1, 1:4, 2] = 7
    labels[3, 4, 3] = 200
    return Volume(labels, geometry)


def oblique() -> Geometry:
    """Axes turned by 20 degrees about the head-foot axis and 10 about the left-right one, one of them flipped."""
    a, b = np.radians([20, 10])
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag([-0.8, 0.7, 2.5])
    affine[:3, 3] = 11, -20, 300
    return Geometry((5, 6, 7), affine)


@pytest.mark.parametrize("axes", AXES)
def test_a_mask_comes_back_voxel_for_voxel_on_every_axis_order(axes: str) -> None:
    geometry = Geometry.of((5, 6, 7), (0.8, 0.7, 2.5), axes)
    labels = marked(geometry)
    box, packed = frames.pack(labels)
    back = frames.unpack(box, packed, geometry)
    np.testing.assert_array_equal(back.data, labels.data)
    np.testing.assert_array_equal(back.geometry.affine, geometry.affine)


def test_all_48_axis_orders_are_tried() -> None:
    assert len(set(AXES)) == 48


def test_a_mask_comes_back_on_an_oblique_grid() -> None:
    labels = marked(oblique())
    box, packed = frames.pack(labels)
    np.testing.assert_array_equal(frames.unpack(box, packed, oblique()).data, labels.data)
    assert frames.describe(oblique())["angle_degrees"] == pytest.approx(20, abs=3)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SRA", "IPL"])
def test_the_screen_shows_the_right_of_the_patient_first_and_the_front_above(axes: str) -> None:
    """The voxel at the right, the front and the feet is the first byte pair."""
    geometry = Geometry.of((3, 4, 5), 1.0, axes)
    points = geometry.points_mm() @ np.array([1, 10, 100])  # right is +x, front is +y, head is +z
    first = (geometry.points_mm() * [1, 1, -1]).sum(axis=-1).argmax()
    scan = Volume(points.astype(np.int16), geometry)
    voxels = np.frombuffer(b"".join(frames.scan_bytes(scan)), "<i2")
    assert voxels[0] == scan.data.ravel()[first]
    assert voxels[1] - voxels[0] == -1  # one voxel to the left of the patient
    assert len(voxels) == scan.data.size


def test_every_scan_is_shown_as_whole_hu_of_12_bits() -> None:
    shown = frames.hu_int16(np.array([[[np.nan, -3000.0, 40.4, 40.6, 9000.0, np.inf]]], np.float32))
    assert shown.ravel().tolist() == [-1024, -1024, 40, 41, 3071, 3071]
    assert frames.hu_int16(np.array([[[-2000, 5]]], np.int16)).ravel().tolist() == [-1024, 5]


def test_an_empty_mask_is_six_zeros() -> None:
    geometry = Geometry.of((3, 4, 5))
    box, packed = frames.pack(Volume(np.zeros(geometry.shape, np.uint8), geometry))
    assert (box, packed) == ([0] * 6, b"")
    assert not frames.unpack(box, packed, geometry).data.any()


@pytest.mark.parametrize(
    ("box", "packed"),
    [
        ([0, 0, 0, 2, 2, 2], zlib.compress(bytes(7))),
        ([0, 0, 0, 2, 2, 2], zlib.compress(bytes(9))),
        ([0, 0, 0, 2, 2, 2], zlib.compress(bytes(8))[:-3]),
        ([0, 0, 0, 2, 2, 2], b"no zlib at all"),
        ([0, 0, 0, 2, 2, 2], zlib.compress(bytes(50_000_000))),
        ([2, 0, 0, 2, 2, 2], zlib.compress(bytes(8))),
        ([-1, 0, 0, 2, 2, 2], zlib.compress(bytes(8))),
        ([0, 0, 0, 2, 2, 0], b""),
        ([0, 0, 0, 2, 2], zlib.compress(bytes(8))),
    ],
)
def test_a_damaged_mask_is_refused(box: list[int], packed: bytes) -> None:
    with pytest.raises((FileError, GeometryError)):
        frames.unpack(box, packed, Geometry.of((3, 4, 5)))


def test_filled_slices_move_evenly_from_one_disc_to_the_other() -> None:
    x, y = np.indices((40, 40)) - 20
    mask = np.zeros((40, 40, 9), bool)
    mask[:, :, 2] = x**2 + y**2 < 4**2
    mask[:, :, 6] = x**2 + y**2 < 12**2
    filled = frames.fill_between(mask)
    radii = np.sqrt(filled.sum(axis=(0, 1)) / np.pi)
    np.testing.assert_allclose(radii[[2, 3, 4, 5, 6]], [4, 6, 8, 10, 12], atol=0.4)
    assert not filled[:, :, [0, 1, 7, 8]].any()
    np.testing.assert_array_equal(filled[:, :, [2, 6]], mask[:, :, [2, 6]])
