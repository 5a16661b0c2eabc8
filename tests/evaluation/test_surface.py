"""Surfaces: agreement with the reference, and what must not change them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masks import FLAT, balls, blob_pair, box, turned

from grids import geometries
from synthoma.evaluation import surface
from synthoma.evaluation.planes import region_of
from synthoma.evaluation.surface import SurfaceScores, score_surfaces
from synthoma.evaluation.surfels import areas_mm2, codes
from synthoma.volume import Geometry, Volume

TOLERANCES = (1.0, 2.0, 3.0)
# Values of surface-distance 0.1 for `blob_pair(seed)`: NSD at the tolerances, HD95, ASSD over both surfaces' area.
GOLDEN = json.loads((Path(__file__).parent / "surface_distance_golden.json").read_text())


def scores(first: Volume, second: Volume, **settings: object) -> SurfaceScores:
    return score_surfaces(region_of(first), region_of(second), TOLERANCES, **settings)  # type: ignore[arg-type]


def pair(seed: int) -> tuple[Volume, Volume]:
    first, second, spacing = blob_pair(seed)
    geometry = Geometry.of(first.shape, spacing)
    return Volume(first, geometry), Volume(second, geometry)


def reference(seed: int) -> list[float]:
    """The same five numbers from surface-distance; run over the seeds, it made the golden file."""
    package = pytest.importorskip("surface_distance", reason="surface-distance is not installed (extra dev)")
    first, second, spacing = blob_pair(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = package.compute_surface_distances(first, second, spacing)
    values = [package.compute_surface_dice_at_tolerance(found, tolerance) for tolerance in TOLERANCES]
    areas = found["surfel_areas_gt"], found["surfel_areas_pred"]
    there, back = found["distances_gt_to_pred"], found["distances_pred_to_gt"]
    mean = (there @ areas[0] + back @ areas[1]) / (areas[0].sum() + areas[1].sum())
    return [float(value) for value in (*values, package.compute_robust_hausdorff(found, 95), mean)]


def five(found: SurfaceScores) -> list[float]:
    return [*found.nsd.values(), found.hd95_mm, found.assd_mm]


@pytest.mark.parametrize("seed", sorted(map(int, GOLDEN)))
def test_surfaces_agree_with_the_golden_values_of_surface_distance(seed: int) -> None:
    assert five(scores(*pair(seed))) == pytest.approx(GOLDEN[str(seed)], abs=1e-6)


def test_surfaces_agree_with_surface_distance_on_200_random_pairs() -> None:
    seeds = [seed for seed in range(220) if all(mask.any() for mask in blob_pair(seed)[:2])][:200]
    for seed in seeds:
        assert five(scores(*pair(seed))) == pytest.approx(reference(seed), abs=1e-6), seed


def test_nsd_agrees_with_the_sub_voxel_one_of_monai() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra bench)")
    metrics = pytest.importorskip("monai.metrics", reason="MONAI is not installed (extra bench)")
    for seed in range(30):
        # MONAI leaves surfaces open at the border
        first, second = (np.pad(mask, 2) for mask in blob_pair(seed)[:2])
        if not (first.any() and second.any()):
            continue
        geometry = Geometry.of(first.shape, blob_pair(seed)[2])
        theirs = metrics.compute_surface_dice(
            *(torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (second, first)),
            class_thresholds=[2.0], include_background=True, spacing=geometry.spacing_mm, use_subvoxels=True,
        )  # fmt: skip
        assert scores(Volume(first, geometry), Volume(second, geometry)).nsd[2.0] == pytest.approx(
            float(theirs), abs=1e-5
        )


def test_one_empty_mask_has_nsd_0_and_no_distance() -> None:
    some, none = balls(FLAT, ((0.5, 0.5, 0.5), 12)), Volume(np.zeros(FLAT.shape, bool), FLAT)
    for first, second in ((some, none), (none, some)):
        found = scores(first, second)
        assert set(found.nsd.values()) == {0.0}
        assert np.isnan([found.hd95_mm, found.assd_mm]).all()


def test_two_empty_masks_have_nothing_to_score() -> None:
    none = Volume(np.zeros(FLAT.shape, bool), FLAT)
    assert np.isnan(five(scores(none, none))).all()


@pytest.mark.parametrize("geometry", [FLAT, turned()], ids=["anisotropic", "oblique"])
def test_equal_masks_are_at_no_distance(geometry: Geometry) -> None:
    mask = balls(geometry, ((0.4, 0.5, 0.5), 12), ((0.8, 0.8, 0.8), 4))
    assert five(scores(mask, mask)) == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("geometry", [FLAT, turned()], ids=["anisotropic", "oblique"])
def test_a_slab_moved_by_two_voxels_is_that_far_away(geometry: Geometry) -> None:
    # slabs across the whole grid but for their rims: 2 x 0.8 mm apart
    first, second = box(geometry, (10, 0, 0), (14, 36, 18)), box(geometry, (12, 0, 0), (16, 36, 18))
    found = scores(first, second)
    assert found.hd95_mm == pytest.approx(1.6)
    assert found.nsd[2.0] == 1.0
    assert found.nsd[1.0] < 0.35


def test_turning_the_grid_changes_nothing() -> None:
    places = (((0.4, 0.5, 0.5), 12), ((0.8, 0.8, 0.8), 4)), (((0.45, 0.5, 0.5), 11), ((0.2, 0.8, 0.8), 4))
    upright = scores(*(balls(FLAT, *place) for place in places))
    oblique = turned()
    masks = [Volume(balls(FLAT, *place).data, oblique) for place in places]
    assert five(scores(*masks)) == pytest.approx(five(upright), abs=1e-9)


def test_a_tolerance_of_whole_voxels_is_kept_on_headers_rounded_to_float32() -> None:
    exact = Geometry.of((30, 20, 20), 0.7)
    rounded = Geometry(exact.shape, exact.affine.astype(np.float32) * (1 - 3e-8))
    for geometry in (exact, rounded):
        first, second = box(geometry, (5, 5, 5), (15, 15, 15)), box(geometry, (8, 5, 5), (18, 15, 15))
        at = score_surfaces(region_of(first), region_of(second), (2.1,)).nsd[2.1]
        assert at == pytest.approx(1.0)


@given(st.integers(0, 10**6))
def test_swapping_the_masks_changes_nothing(seed: int) -> None:
    first, second = pair(seed)
    assert five(scores(first, second)) == pytest.approx(five(scores(second, first)), abs=1e-9, nan_ok=True)


@given(st.integers(0, 10**6), st.sampled_from(["LAS", "RPI", "ARS", "SPL"]))
def test_turning_index_axes_changes_nothing_but_the_cut_of_saddles(seed: int, axes: str) -> None:
    # marching cubes divide saddles one way or the other; a mirror may swap the two
    first, second = pair(seed)
    before = scores(first, second)
    after = scores(first.reorient(axes), second.reorient(axes))
    assert five(after) == pytest.approx(five(before), rel=0.08, abs=0.05, nan_ok=True)


@given(st.integers(0, 10**6), st.tuples(*[st.integers(0, 4)] * 3))
def test_moving_both_masks_changes_nothing(seed: int, shift: tuple[int, int, int]) -> None:
    first, second = pair(seed)
    moved = []
    for mask in (first, second):
        data = np.pad(mask.data, [(by, 5 - by) for by in shift])
        moved.append(Volume(data, Geometry.of(data.shape, mask.geometry.spacing_mm)))
    assert five(scores(*moved)) == pytest.approx(five(scores(first, second)), abs=1e-9, nan_ok=True)


def test_a_finer_grid_changes_little() -> None:
    first, second = balls(FLAT, ((0.45, 0.5, 0.5), 14)), balls(FLAT, ((0.55, 0.5, 0.5), 12))
    finer = FLAT.resampled([spacing / 2 for spacing in FLAT.spacing_mm])
    coarse, fine = scores(first, second), scores(first.to(finer), second.to(finer))
    assert fine.assd_mm == pytest.approx(coarse.assd_mm, abs=0.4)
    assert fine.nsd[3.0] == pytest.approx(coarse.nsd[3.0], abs=0.15)


@pytest.mark.parametrize("axis", range(3))
def test_mirroring_smooth_masks_changes_the_third_digit_at_most(axis: int) -> None:
    first, second = balls(FLAT, ((0.45, 0.5, 0.5), 14)), balls(FLAT, ((0.55, 0.45, 0.5), 12))
    mirrored = [Volume(np.flip(mask.data, axis), FLAT) for mask in (first, second)]
    assert five(scores(*mirrored)) == pytest.approx(five(scores(first, second)), abs=0.005)


def test_parts_far_apart_are_scored_as_one_mask() -> None:
    near, far = balls(FLAT, ((0.2, 0.2, 0.3), 8)), balls(FLAT, ((0.2, 0.2, 0.3), 8), ((0.85, 0.85, 0.8), 5))
    found = scores(near, far)
    gap = np.linalg.norm((np.array([0.65, 0.65, 0.5]) * (np.array(FLAT.shape) - 1)) * FLAT.spacing_mm)
    assert found.nsd[3.0] < 1
    assert gap - 8 < found.hd95_mm < gap + 4


@given(geometries(shear=True))
def test_a_flat_face_has_its_area_on_any_grid(geometry: Geometry) -> None:
    # the plane between two voxel layers, code 240 (the lower half along the first axis)
    a, b = geometry.affine[:3, 1], geometry.affine[:3, 2]
    assert areas_mm2(geometry)[240] == pytest.approx(np.linalg.norm(np.cross(a, b)))


def test_a_ball_has_about_its_surface() -> None:
    geometry = Geometry.of((60, 60, 60), (1.0, 1.0, 1.0))
    mask = balls(geometry, ((0.5, 0.5, 0.5), 40))
    area = areas_mm2(geometry)[codes(np.asarray(mask.data))].sum()
    # known of marching cubes on binary masks: some percent too much
    assert area == pytest.approx(np.pi * 40**2, rel=0.12)


@pytest.mark.parametrize("seed", [2, 9, 43, 61])
def test_distances_by_transform_are_those_of_the_tree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    geometry = Geometry.of((50, 46, 30), rng.uniform(0.6, 2.5, 3))
    first = balls(geometry, ((0.3, 0.4, 0.4), 16))
    speck = rng.random(geometry.shape) < (0.0005 if seed % 2 else 0.02)
    second = Volume(speck | balls(geometry, ((0.9, 0.8, 0.9), 7)).data, geometry)
    by_tree = five(scores(first, second)), five(scores(first, second, distances=False))
    asked = []
    monkeypatch.setattr(surface, "_CHEAP", 0.0)
    monkeypatch.setattr(surface, "_ASK", 1.0)
    monkeypatch.setattr(surface, "_LOOK", 1.0)
    monkeypatch.setattr(surface, "_NEAR_MM", 3.0)
    monkeypatch.setattr(surface, "_by_tree", lambda *given: asked.append(given))
    assert five(scores(first, second)) == pytest.approx(by_tree[0], abs=3e-5)
    assert five(scores(first, second, distances=False)) == pytest.approx(by_tree[1], abs=3e-5, nan_ok=True)
    assert not asked


def test_the_percentile_of_millions_is_that_of_sorting_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    distances, areas = np.round(rng.gamma(1.0, 5.0, 20_000), 2), rng.uniform(0, 2, 20_000)
    expected = [surface._percentile(distances, areas, share) for share in (0.0, 0.5, 0.95, 1.0)]
    monkeypatch.setattr(surface, "_MANY", 10)
    assert [surface._percentile(distances, areas, share) for share in (0.0, 0.5, 0.95, 1.0)] == expected


def test_a_surface_that_touches_ignored_voxels_counts_nowhere() -> None:
    truth, predicted = box(FLAT, (5, 5, 5), (15, 15, 10)), box(FLAT, (5, 5, 5), (25, 15, 10))
    ignored = region_of(box(FLAT, (15, 0, 0), (40, 36, 18)))
    cut = region_of(predicted).without(ignored)
    found = score_surfaces(region_of(truth), cut, TOLERANCES, ignored=ignored)
    assert five(found) == [1.0, 1.0, 1.0, 0.0, 0.0]
    smaller = score_surfaces(region_of(box(FLAT, (5, 5, 5), (13, 15, 10))), cut, (1.0,), ignored=ignored)
    # the smaller one's own end is 1.6 mm away from a cut that has no weight
    assert 0.8 < smaller.nsd[1.0] < 1.0
    nothing = region_of(box(FLAT, (0, 0, 0), (40, 36, 18)))
    assert np.isnan(five(score_surfaces(region_of(truth), cut, TOLERANCES, ignored=nothing))).all()
