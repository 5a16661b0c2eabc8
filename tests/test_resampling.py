"""Resampling against plain references, on anisotropic and oblique grids."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grids import ANISOTROPIC, centers_mm, geometries, hu, oblique, value_at
from synthoma.volume import PADDING_HU, Geometry, Volume


def linear_reference(ct: Volume, target: Geometry, fill: float) -> np.ndarray:
    """Trilinear values point by point, in double precision, clamped within the outer half voxel."""
    at = ct.geometry.to_ijk(centers_mm(target))
    size = np.asarray(ct.data.shape)
    inside = ((at > -0.5) & (at < size - 0.5)).all(axis=-1)
    at = np.clip(at, 0, size - 1)
    low = np.minimum(np.floor(at).astype(int), size - 1)
    result = np.zeros(target.shape)
    for corner in itertools.product((0, 1), repeat=3):
        index = np.minimum(low + corner, size - 1)
        share = np.prod(np.where(corner, at - low, 1 - (at - low)), axis=-1)
        result += share * ct.data[tuple(np.moveaxis(index, -1, 0))]
    return np.where(inside, result, fill)


def off_the_faces(source: Geometry, target: Geometry, margin: float = 1e-3) -> np.ndarray:
    """Target voxels whose centers do not lie on a face between source voxels, where rounding decides."""
    at = source.to_ijk(centers_mm(target)) + 0.5
    return (np.abs(at - np.rint(at)) > margin).all(axis=-1)


def parallel_target(source: Geometry, seed: int) -> Geometry:
    """A grid along the source's axes, reordered, flipped, shifted and of other spacings."""
    rng = np.random.default_rng(seed)
    order, scale = rng.permutation(3), rng.uniform(0.3, 2.5, 3) * rng.choice([-1, 1], 3)
    affine = source.affine.copy()
    affine[:3, :3] = source.affine[:3, order] * scale
    affine[:3, 3] = source.to_mm(rng.uniform(0, 1, 3) * source.shape)
    return Geometry(tuple(rng.integers(2, 9, 3)), affine)


PAIRS = st.tuples(geometries(), st.integers(0, 10**6), st.booleans()).map(
    lambda drawn: (drawn[0], parallel_target(drawn[0], drawn[1]) if drawn[2] else near(drawn[0], drawn[1]))
)


def near(source: Geometry, seed: int, scale: float = 1.0) -> Geometry:
    """An oblique grid whose middle is the source's."""
    grid = oblique(seed, (6, 5, 4))
    grid = Geometry(grid.shape, grid.affine @ np.diag([scale] * 3 + [1]))
    affine = grid.affine.copy()
    middle = source.to_mm((np.asarray(source.shape) - 1) / 2)
    affine[:3, 3] += middle - grid.to_mm((np.asarray(grid.shape) - 1) / 2)
    return Geometry(grid.shape, affine)


@given(PAIRS, st.sampled_from(["C", "F"]))
@settings(max_examples=200)
def test_linear_is_what_trilinear_interpolation_says(pair: tuple[Geometry, Geometry], order: str) -> None:
    source, target = pair
    ct = hu(source)
    ct = Volume(np.asarray(ct.data, np.float32, order=order), source)
    here = off_the_faces(source, target)
    found = ct.to(target).data
    assert found.dtype == np.float32
    assert np.allclose(found[here], linear_reference(ct, target, PADDING_HU)[here], atol=0.05)


@given(PAIRS)
def test_int16_is_kept_and_rounded(pair: tuple[Geometry, Geometry]) -> None:
    source, target = pair
    ct = hu(source)
    here = off_the_faces(source, target)
    found = ct.to(target).data
    assert found.dtype == np.int16
    assert np.abs(found - linear_reference(ct, target, PADDING_HU))[here].max(initial=0) <= 0.501


@given(PAIRS, st.sampled_from(["C", "F"]))
def test_nearest_is_the_voxel_a_point_falls_in(pair: tuple[Geometry, Geometry], order: str) -> None:
    source, target = pair
    labels = np.asarray(np.random.default_rng(0).integers(1, 250, source.shape), np.uint8, order=order)
    at = np.rint(source.to_ijk(centers_mm(target))).astype(int)
    inside = ((at >= 0) & (at < source.shape)).all(axis=-1)
    at = np.clip(at, 0, np.asarray(source.shape) - 1)
    expected = np.where(inside, labels[tuple(np.moveaxis(at, -1, 0))], 0)
    here = off_the_faces(source, target)
    found = Volume(labels, source).to(target).data
    assert np.array_equal(found[here], expected[here])


@pytest.mark.parametrize("source", [ANISOTROPIC, oblique(5)])
def test_a_volume_on_its_own_grid_is_itself(source: Geometry) -> None:
    ct = hu(source)
    shifted = source.affine.copy()
    shifted[:3, 3] += 1e-7  # not equal, so that it really is resampled
    assert np.array_equal(ct.to(Geometry(source.shape, shifted)).data, ct.data)


@given(geometries())
def test_voxels_of_the_target_that_are_voxels_of_the_source_keep_their_value(source: Geometry) -> None:
    ct = hu(source)
    fine = Geometry(tuple(2 * n - 1 for n in source.shape), source.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    assert np.array_equal(value_at(ct.to(fine), centers_mm(source)), ct.data)


@given(PAIRS, st.integers(0, 2))
def test_the_mirrored_scan_gives_the_mirrored_result(pair: tuple[Geometry, Geometry], axis: int) -> None:
    source, target = pair
    mirror = np.eye(4)
    mirror[axis, axis] = -1
    other = Geometry(source.shape, mirror @ source.affine)
    other_target = Geometry(target.shape, mirror @ target.affine)
    here = off_the_faces(source, target)
    plain = hu(source).to(target).data.astype(int)
    mirrored = Volume(hu(source).data, other).to(other_target).data
    assert np.abs(plain - mirrored)[here].max(initial=0) <= 1  # rounding at a half


@given(PAIRS)
def test_the_order_of_the_axes_changes_nothing(pair: tuple[Geometry, Geometry]) -> None:
    source, target = pair
    ct = hu(source)
    here = off_the_faces(source, target)
    turned = ct.reorient("SPR").to(target).data.astype(int)
    assert np.abs(turned - ct.to(target).data)[here].max(initial=0) <= 1


@pytest.mark.parametrize("source", [ANISOTROPIC, oblique(7)])
def test_a_linear_field_stays_linear(source: Geometry) -> None:
    slope = np.array([0.3, -0.2, 0.5])
    field = (centers_mm(source) @ slope).astype(np.float32)
    target = near(source, 3, scale=0.3)
    at = source.to_ijk(centers_mm(target))
    inner = ((at >= 0) & (at <= np.asarray(source.shape) - 1)).all(axis=-1)
    found = Volume(field, source).to(target, fill=0).data
    assert inner.sum() > 20
    assert np.allclose(found[inner], (centers_mm(target) @ slope)[inner], atol=0.01)


def test_beyond_the_field_of_view_lies_padding_or_what_was_asked_for() -> None:
    far = Geometry((2, 2, 2), ANISOTROPIC.affine + np.array([[0, 0, 0, 900.0]] + [[0] * 4] * 3))
    assert (hu(ANISOTROPIC).to(far).data == PADDING_HU).all()
    assert (hu(ANISOTROPIC).to(far, fill=7).data == 7).all()
    assert not Volume(np.ones((9, 7, 5), bool), ANISOTROPIC).to(far).data.any()


def test_the_outer_half_of_the_last_voxel_belongs_to_it() -> None:
    source = Geometry.of((2, 2, 2), 2.0)
    ct = Volume(np.full((2, 2, 2), 40, np.int16), source)
    whole = ct.to(Geometry((4, 4, 4), np.array([[1, 0, 0, -0.5], [0, 1, 0, -0.5], [0, 0, 1, -0.5], [0, 0, 0, 1]])))
    assert (whole.data == 40).all()


@pytest.mark.parametrize("seed", range(4))
def test_majority_is_the_label_that_fills_most_of_a_voxel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fine = Geometry.of((12, 12, 12), (0.5, 0.75, 1.0), "LPS")
    labels = rng.choice([0, 1, 5, 7], (12, 12, 12)).astype(np.uint8)
    coarse = Geometry((4, 3, 6), fine.affine @ np.array([[3, 0, 0, 1], [0, 4, 0, 1.5], [0, 0, 2, 0.5], [0, 0, 0, 1]]))
    found = Volume(labels, fine).to(coarse, labels="majority").data
    blocks = labels.reshape(4, 3, 3, 4, 6, 2).transpose(0, 2, 4, 1, 3, 5).reshape(4, 3, 6, 24)
    counts = np.stack([(blocks == label).sum(axis=-1) for label in (0, 1, 5, 7)], axis=-1)
    # the label found has as many voxels as any, and is the lowest of those
    assert np.array_equal(found, np.array([0, 1, 5, 7])[counts.argmax(axis=-1)])


def test_majority_keeps_a_ball_of_label_at_its_volume() -> None:
    fine = oblique(2, (40, 40, 40))
    fine = Geometry(fine.shape, fine.affine @ np.diag([1 / s for s in fine.spacing_mm] + [1]))
    middle = fine.to_mm((19.5, 19.5, 19.5))
    ball = np.linalg.norm(centers_mm(fine) - middle, axis=-1) < 14
    coarse = Volume(ball, fine).to(fine.resampled((1, 2, 3)), labels="majority")
    assert coarse.data.dtype == bool
    volume = coarse.data.sum() * coarse.geometry.voxel_mm3
    assert volume == pytest.approx(ball.sum() * fine.voxel_mm3, rel=0.05)


def test_nan_stays_where_it_was() -> None:
    data = np.zeros((9, 7, 5), np.float32)
    data[4, 3, 2] = np.nan
    fine = ANISOTROPIC.resampled((0.35, 0.45, 1.5))
    found = np.isnan(Volume(data, ANISOTROPIC).to(fine).data)
    assert found.any()
    far = np.abs(ANISOTROPIC.to_ijk(centers_mm(fine)) - (4, 3, 2)).max(axis=-1) > 1
    assert not found[far].any()
