"""Volumes: a voxel keeps its place in mm whatever is done to the array around it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grids import ANISOTROPIC, centers_mm, geometries, hu, oblique, value_at
from synthoma.errors import GeometryError
from synthoma.volume import Box, Geometry, Volume

AXES = st.tuples(st.permutations(["RL", "AP", "SI"]), st.tuples(*[st.integers(0, 1)] * 3)).map(
    lambda drawn: "".join(pair[side] for pair, side in zip(*drawn, strict=True))
)


@given(geometries(shear=True), AXES)
def test_reorienting_moves_no_voxel_in_space(geometry: Geometry, axes: str) -> None:
    ct = hu(geometry)
    turned = ct.reorient(axes)
    assert np.array_equal(value_at(turned, centers_mm(geometry)), ct.data)


@given(geometries(), AXES)
def test_reorienting_back_restores_the_volume(geometry: Geometry, axes: str) -> None:
    ct = hu(geometry)
    back = ct.reorient(axes).reorient(geometry.axes)
    assert np.array_equal(back.data, ct.data)
    assert back.geometry.matches(geometry, 1e-6)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "IRP", "PIR"])
def test_an_upright_grid_points_as_named_after_reorienting(axes: str) -> None:
    assert hu(ANISOTROPIC).reorient(axes).geometry.axes == axes


@given(geometries(shear=True), st.data())
def test_cropping_moves_no_voxel_in_space(geometry: Geometry, data: st.DataObject) -> None:
    ct = hu(geometry)
    lower = tuple(data.draw(st.integers(0, n - 1)) for n in geometry.shape)
    upper = tuple(data.draw(st.integers(low + 1, n)) for low, n in zip(lower, geometry.shape, strict=True))
    part = ct.crop(Box(lower, upper))
    assert np.array_equal(value_at(ct, centers_mm(part.geometry)), part.data)


@given(geometries(shear=True))
def test_a_cropped_grid_is_the_same_as_one_made_anew(geometry: Geometry) -> None:
    for known in (geometry, Geometry(geometry.shape, geometry.affine)):
        _ = known.spacing_mm, known.axes, known.squared, known.to_ijk((0, 0, 0))
        part = known.crop(Box((-3, 2, 1), (4, 3, 9)))
        anew = Geometry((7, 1, 8), part.affine)
        assert part == anew
        assert not part.affine.flags.writeable
        for name in ("spacing_mm", "voxel_mm3", "axes", "largest_cosine"):
            assert getattr(part, name) == getattr(anew, name)
        assert np.array_equal(part.squared.affine, anew.squared.affine)
        assert np.array_equal(part.to_ijk((1, 2, 3)), anew.to_ijk((1, 2, 3)))


def test_a_crop_that_leaves_the_volume_is_refused() -> None:
    with pytest.raises(GeometryError, match="leaves the volume"):
        hu(ANISOTROPIC).crop(Box((0, 0, 0), (10, 7, 5)))


@given(geometries(), st.floats(0.4, 6.0))
def test_a_resampled_grid_has_the_same_center_and_field_of_view(geometry: Geometry, spacing: float) -> None:
    new = geometry.resampled(spacing)
    middle = geometry.to_mm((np.asarray(geometry.shape) - 1) / 2)
    assert np.allclose(new.to_mm((np.asarray(new.shape) - 1) / 2), middle, atol=1e-6)
    assert np.allclose(new.spacing_mm, spacing)
    extent = np.asarray(geometry.shape) * geometry.spacing_mm
    assert (np.abs(np.asarray(new.shape) * spacing - extent) <= spacing + 1e-6).all()


@given(geometries(shear=True))
def test_indices_survive_the_way_to_mm_and_back(geometry: Geometry) -> None:
    ijk = np.random.default_rng(0).uniform(-5, 20, (10, 3))
    assert np.allclose(geometry.to_ijk(geometry.to_mm(ijk)), ijk, atol=1e-6)


@given(geometries(shear=True))
def test_a_voxel_has_the_volume_of_the_box_its_edges_span(geometry: Geometry) -> None:
    corners = geometry.to_mm([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    edges = corners[1:] - corners[0]
    assert geometry.voxel_mm3 == pytest.approx(abs(np.dot(edges[0], np.cross(edges[1], edges[2]))))


def test_matching_allows_a_tenth_of_a_millimeter_at_the_corners_and_no_more() -> None:
    grid = oblique(3)
    near, far = grid.affine.copy(), grid.affine.copy()
    near[0, 3] += 0.09
    far[0, 3] += 0.11
    assert grid.matches(Geometry(grid.shape, near))
    assert not grid.matches(Geometry(grid.shape, far))
    assert not grid.matches(Geometry((9, 7, 6), grid.affine))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.5])
def test_the_box_around_a_mask_is_the_smallest_that_holds_it(order: str, spread: float) -> None:
    rng = np.random.default_rng(1)
    for n in range(20):
        mask = np.asarray(rng.random((11, 6, 8)) < spread, order=order)
        # against the grain of memory along some axes, as a scan that is turned to RAS
        mask = mask[tuple(slice(None, None, -1 if n >> axis & 1 else 1) for axis in range(3))]
        box = Box.around(mask)
        if not mask.any():
            assert box is None
            continue
        index = np.argwhere(mask)
        assert box == Box(tuple(index.min(axis=0)), tuple(index.max(axis=0) + 1))


def test_a_box_clipped_to_an_array_it_misses_is_empty() -> None:
    assert 0 in Box((20, 0, 0), (25, 3, 3)).clip((9, 7, 5)).shape
    assert Box((-2, 1, 1), (3, 99, 2)).clip((9, 7, 5)) == Box((0, 1, 1), (3, 7, 2))


def test_a_volume_cannot_be_written_to() -> None:
    source = np.zeros((9, 7, 5), np.int16)
    ct = Volume(source, ANISOTROPIC)
    with pytest.raises(ValueError, match="read-only"):
        ct.data[0, 0, 0] = 1
    source[0, 0, 0] = 1  # the owner of the array still may


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint32, np.int8, np.complex64])
def test_types_that_are_neither_hu_nor_labels_are_refused(dtype: type) -> None:
    with pytest.raises(ValueError, match="a volume holds"):
        Volume(np.zeros((9, 7, 5), dtype), ANISOTROPIC)


def test_an_array_of_another_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(GeometryError, match=r"found \(9, 7, 4\), expected \(9, 7, 5\)"):
        Volume(np.zeros((9, 7, 4), np.int16), ANISOTROPIC)


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.diag([1.0, 1, 0, 1]), np.eye(3)])
def test_an_affine_that_cannot_be_one_is_refused(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError):
        Geometry((2, 2, 2), affine)


def test_equal_grids_hash_alike_and_differ_from_others() -> None:
    assert len({oblique(1), oblique(1), oblique(2)}) == 2
    assert oblique(1) != "a grid"


def test_grids_that_differ_are_named_with_their_distance() -> None:
    ct, mask = hu(ANISOTROPIC), Volume(np.zeros((9, 7, 5), bool), Geometry.of((9, 7, 5), (0.7, 0.9, 3)))
    with pytest.raises(GeometryError, match=r"liver's grid differs; found .* RAS, .* expected .* LPS, .*resample"):
        ct.require_same_grid(mask, "liver")


def test_boxes_are_shifted_joined_and_compared() -> None:
    one, other = Box((0, 2, 4), (3, 5, 7)), Box((2, 0, 6), (9, 3, 8))
    assert one.shift((10, -2, 0)) == Box((10, 0, 4), (13, 3, 7))
    assert one.hull(other) == other.hull(one) == Box((0, 0, 4), (9, 5, 8))
    assert one.meets(other)
    assert other.meets(one)
    assert not one.meets(other.shift((1, 0, 0)))  # side by side
    assert not one.meets(Box((1, 3, 5), (1, 4, 6)))  # no voxel at all


@given(geometries(shear=True), AXES)
def test_the_same_voxels_in_another_order_of_axes_come_back_exactly(geometry: Geometry, axes: str) -> None:
    ct = hu(geometry)
    found = ct.reorient(axes).on(geometry)
    assert np.array_equal(found.data, ct.data)
    assert found.geometry == geometry
    assert np.shares_memory(found.data, ct.data)


@given(geometries(), AXES, st.data())
def test_a_box_names_the_same_voxels_in_another_order_of_axes(
    geometry: Geometry, axes: str, data: st.DataObject
) -> None:
    ct = hu(geometry)
    lower = tuple(data.draw(st.integers(0, n - 1)) for n in geometry.shape)
    box = Box(lower, tuple(data.draw(st.integers(low + 1, n)) for low, n in zip(lower, geometry.shape, strict=True)))
    turned = ct.reorient(axes)
    part = turned.crop(geometry.box_on(turned.geometry, box))
    assert np.array_equal(part.on(geometry.crop(box)).data, ct.crop(box).data)


def test_a_grid_turned_by_half_a_right_angle_has_no_letters_to_go_by_but_is_still_the_same() -> None:
    turn = np.array([[1, -1, 0], [1, 1, 0], [0, 0, np.sqrt(2)]]) / np.sqrt(2)
    affine = np.eye(4)
    affine[:3, :3] = turn
    geometry = Geometry((4, 5, 6), affine)
    swapped = Geometry((5, 4, 6), affine[:, [1, 0, 2, 3]])
    ct = hu(geometry)
    assert np.array_equal(Volume(ct.data.transpose(1, 0, 2), swapped).on(geometry).data, ct.data)


def test_a_part_of_a_grid_is_placed_in_it_and_what_reaches_out_is_left_out() -> None:
    mask = Volume(np.ones((3, 2, 4), np.uint8), ANISOTROPIC.crop(Box((7, 1, 2), (10, 3, 6))))
    found = mask.reorient("RAS").on(ANISOTROPIC, partly=True)
    expected = np.zeros(ANISOTROPIC.shape, np.uint8)
    expected[7:, 1:3, 2:] = 1
    assert np.array_equal(found.data, expected)
    with pytest.raises(GeometryError, match="grid differs"):
        mask.on(ANISOTROPIC)


@pytest.mark.parametrize("by", [0.3, 0.35, 0.7, 2.0])
def test_voxels_that_would_have_to_move_are_not_on_the_grid(by: float) -> None:
    affine = ANISOTROPIC.affine.copy()
    affine[0, 3] += by
    moved = Volume(np.zeros(ANISOTROPIC.shape, bool), Geometry(ANISOTROPIC.shape, affine))
    with pytest.raises(GeometryError, match=f"found the same voxels, but corners up to {by:g} mm apart"):
        moved.on(ANISOTROPIC)


def test_a_twin_grid_is_told_by_its_distance_and_never_as_found_x_expected_x() -> None:
    affine = ANISOTROPIC.affine.copy()
    affine[:3, 3] += (2, 2, 2.5)
    with pytest.raises(GeometryError, match=r"found the same voxels, but corners up to 3.77 mm apart"):
        ANISOTROPIC.require_same(Geometry(ANISOTROPIC.shape, affine))


def test_numpy_takes_a_volume_for_its_voxels() -> None:
    ct = hu(ANISOTROPIC)
    assert np.shares_memory(np.asarray(ct), ct.data)
    assert np.array(ct, np.float32).dtype == np.float32
    assert not np.shares_memory(np.array(ct), ct.data)
    assert float(np.mean(ct)) == float(ct.data.mean())


def test_a_repr_fits_a_line_and_tells_shape_spacing_axes_and_kind() -> None:
    ct = hu(ANISOTROPIC)
    assert repr(ct) == "Volume(9x7x5 at 0.7x0.9x3 mm LPS, HU int16)"
    assert repr(ct.geometry) == "Geometry(9x7x5 at 0.7x0.9x3 mm LPS)"
    assert repr(Volume(ct.data > 0, ct.geometry)) == "Volume(9x7x5 at 0.7x0.9x3 mm LPS, mask bool)"
    assert repr(Volume(ct.data.astype(np.uint16), ct.geometry)).endswith("labels uint16)")
