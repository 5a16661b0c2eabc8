"""Lesions of a mask: how many there are and how long, on thin arrays, oblique grids and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist

from synthoma.cases import find_lesions, longest_axial_mm
from synthoma.components import connected_components
from synthoma.volume import Geometry, Volume


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 1, 1), (1, 3, 3), (3, 3, 1), (3, 1, 3), (3, 3, 3), (1, 9, 9)])
def test_voxels_with_one_between_them_are_lesions_of_their_own_on_the_thinnest_arrays(shape: tuple[int, ...]) -> None:
    mask = np.zeros(shape, bool)
    mask[::2, ::2, ::2] = True
    lesions = find_lesions(Volume(mask, Geometry.of(shape)), "liver")
    assert [lesion.voxels for lesion in lesions] == [1] * int(mask.sum())


def test_components_are_those_of_scipy_for_every_connectivity_and_memory_order() -> None:
    rng = np.random.default_rng(0)
    for shape in itertools.product((1, 2, 5), repeat=3):
        for connectivity, rank in ((6, 1), (18, 2), (26, 3)):
            mask = np.asarray(rng.random(shape) < 0.4, order=rng.choice(["C", "F"]))
            expected, count = ndimage.label(mask, ndimage.generate_binary_structure(3, rank))
            labels = connected_components(mask, connectivity)  # type: ignore[arg-type]
            pairs = set(zip(expected.ravel().tolist(), labels.ravel().tolist(), strict=True)) - {(0, 0)}
            assert len(pairs) == count == labels.max()


def test_the_longest_axial_line_goes_from_corner_to_corner_of_the_voxels() -> None:
    geometry = Geometry.of((20, 20, 8), (1.0, 2.0, 5.0))
    mask = np.zeros(geometry.shape, bool)
    mask[2:14, 3:11, 2] = True  # 12 x 16 mm: a diagonal of 20
    mask[6, 6, 2:7] = True  # a column up and down counts for its slices only
    assert find_lesions(Volume(mask, geometry), "liver")[0].longest_axial_mm == pytest.approx(20.0)
    alone = np.zeros(geometry.shape, bool)
    alone[5, 5, 5] = True
    assert find_lesions(Volume(alone, geometry), "liver")[0].longest_axial_mm == pytest.approx(np.hypot(1, 2))


def test_the_longest_axial_line_is_the_same_however_the_axes_are_stored() -> None:
    rng = np.random.default_rng(3)
    mask = Volume(
        ndimage.gaussian_filter(rng.normal(size=(30, 26, 12)), 2) > 0.02, Geometry.of((30, 26, 12), (0.8, 1, 3))
    )
    longest = [lesion.longest_axial_mm for lesion in find_lesions(mask, "liver")]
    for axes in ("SPR", "ARI", "LSA"):
        assert [lesion.longest_axial_mm for lesion in find_lesions(mask.reorient(axes), "liver")] == pytest.approx(
            longest
        )


def test_the_longest_axial_line_is_that_between_any_two_corners() -> None:
    rng = np.random.default_rng(5)
    affine = np.eye(4)
    affine[:3, :3] = [[0.8, 0.2, 0.0], [0.0, 1.1, 0.1], [0.1, 0.0, 2.0]]  # sheared: no right angles
    for sigma in (0.5, 1.5, 4.0):
        mask = ndimage.gaussian_filter(rng.normal(size=(40, 44, 3)), sigma) > 0
        expected = 0.0
        for k in range(3):
            voxels = np.argwhere(mask[:, :, k])
            corners = np.concatenate([voxels + step for step in ((0, 0), (0, 1), (1, 0), (1, 1))])
            expected = max(expected, float(pdist(corners @ affine[:3, :2].T).max()))
        assert longest_axial_mm(mask, Geometry(mask.shape, affine)) == pytest.approx(expected)
    # a slice is left out only if it cannot hold the longest line: slim pieces in all directions, and triangles
    i, j, angle = *np.ogrid[:50, :50], np.linspace(0, np.pi, 24, endpoint=False)
    along = np.abs((i[..., None] - 25) * np.cos(angle) + (j[..., None] - 25) * np.sin(angle))
    aside = np.abs((j[..., None] - 25) * np.cos(angle) - (i[..., None] - 25) * np.sin(angle))
    for length in rng.uniform(14, 15, (40, 24)):
        mask = (along < length) & (aside < 1)
        mask[..., ::2] = ((i >= 5) & (np.abs(j - 25) < (26 - i + 5) / 1.8))[..., None] & (
            i[..., None] > 20 - length[::2]
        )
        for geometry in (Geometry.of((50, 50, 24), (1.0, 1.0, 2.0)), Geometry(mask.shape, affine)):
            each = [longest_axial_mm(mask[:, :, n : n + 1], geometry) for n in range(24)]
            assert longest_axial_mm(mask, geometry) == max(each)
    assert longest_axial_mm(np.zeros((3, 3, 3), bool), Geometry.of((3, 3, 3))) == 0.0
