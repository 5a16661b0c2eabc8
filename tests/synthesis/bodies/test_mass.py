"""Bodies on grids: the planned volume whatever the grid, the same body everywhere, real tumors' shapes."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np
import pytest
from phantoms import GRIDS, clinical, fine, plan_of, slanted

import bench_priors
from synthoma import anatomy
from synthoma.seeds import rng_for
from synthoma.synthesis.bodies import mass, surface
from synthoma.synthesis.bodies.body import Surface, draw_surface
from synthoma.synthesis.location import OrganModel
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Geometry, Volume


@lru_cache
def measured(organ: str) -> OrganModel:
    return bench_priors.plain_organ(organ)


def drawn(organ: str, diameter_mm: float, seed: int, smooth: bool = False) -> TumorPlan:
    """A plan with axes, surface and place as an organ's are drawn."""
    rng = np.random.default_rng(seed)
    axes = mass._axes(anatomy.SHAPES[organ], diameter_mm, rng)
    drawn = draw_surface(measured(organ), diameter_mm, rng)
    return plan_of(
        center_mm=tuple(rng.uniform(-2, 2, 3).tolist()),
        axes_mm=axes,
        orientation=mass._orientation(rng),
        roughness=0.0 if smooth else drawn.roughness,
        spectrum=drawn.spectrum,
        skew=drawn.skew,
        seed=seed,
        edge_mm=float(rng.uniform(0.2, 1.4)),
    )


def alpha_on(plan: TumorPlan, geometry: Geometry) -> Volume:
    """The body's alpha on the whole grid."""
    body = mass.mass(plan, geometry)
    box = body.box.clip(geometry.shape)
    assert box == body.box, "the grid is too small for the test"
    data = np.zeros(geometry.shape, np.float32)
    data[box.slices] = body.alpha
    return Volume(data, geometry)


def log_radius(plan: TumorPlan) -> Array:
    return surface.log_radius_map(plan.seed, Surface.of(plan))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.mark.parametrize("name", GRIDS)
def test_a_smooth_body_has_the_planned_volume_on_any_grid(name: str) -> None:
    for seed in range(25):
        diameter = [16.0, 20.0, 28.0, 40.0, 56.0][seed % 5]
        plan = drawn("liver", diameter, seed, smooth=True)
        label = mass.mass(plan, GRIDS[name](10)).alpha >= 0.5
        assert label.sum() * GRIDS[name](10).voxel_mm3 == pytest.approx(plan.volume_mm3, rel=0.03), (seed, diameter)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("diameter", [16, 20, 30])
def test_a_ball_centered_on_a_voxel_has_the_planned_volume(name: str, diameter: float) -> None:
    # 24 to 96 voxels then lie at the same distance, and go together
    plan, geometry = plan_of(diameter, center_mm=(0, 0, 0)), GRIDS[name](11)
    label = mass.mass(plan, geometry).alpha >= 0.5
    assert label.sum() * geometry.voxel_mm3 == pytest.approx(plan.volume_mm3, rel=0.03)


@pytest.mark.parametrize("name", GRIDS)
def test_a_rough_body_keeps_the_planned_volume(name: str) -> None:
    geometry = GRIDS[name](10)
    for seed in range(12):
        plan = drawn("liver", 30.0, seed)
        label = mass.mass(plan, geometry).alpha >= 0.5
        assert label.sum() * geometry.voxel_mm3 == pytest.approx(plan.volume_mm3, rel=0.07 if "5 mm" in name else 0.03)


def test_the_same_plan_is_the_same_tumor_on_another_grid() -> None:
    for seed in range(2):
        plan = drawn("liver", 26.0, seed)
        extent = 3.2 * max(plan.axes_mm)
        truth = alpha_on(plan, fine(extent))
        for other, least in ((slanted(1.4 * extent), 0.95), (clinical(1.1 * extent), 0.93)):
            alpha = alpha_on(plan, other)
            assert overlap(alpha.to(truth.geometry, fill=0).data >= 0.5, truth.data >= 0.5) > least
            # no label on that grid comes nearer: the fine label, averaged over its voxels, is the same
            best = Volume(truth.data >= 0.5, truth.geometry).to(other, labels="majority").data
            assert overlap(best, alpha.data >= 0.5) > 0.95


def test_a_flipped_grid_sees_the_same_tumor() -> None:
    plan = drawn("liver", 24.0, 4)
    for make in GRIDS.values():
        geometry = make(70)
        for axis in range(3):
            affine = geometry.affine.copy()
            affine[:, 3] = affine @ np.eye(4)[3] + affine[:, axis] * (geometry.shape[axis] - 1)
            affine[:3, axis] *= -1
            flipped = alpha_on(plan, Geometry(geometry.shape, affine)).data
            apart = np.abs(np.flip(flipped, axis) - alpha_on(plan, geometry).data)
            # a direction on the border of two cells of the map may fall into either
            assert apart.max() < 0.03
            assert apart.mean() < 1e-5


def test_an_anatomical_mirror_image_has_the_mirrored_smooth_body() -> None:
    plan = drawn("liver", 24.0, 5, smooth=True)
    w, x, y, z = plan.orientation
    # mirroring left-right turns a rotation about an axis into its inverse about the mirrored axis
    mirrored = dataclasses.replace(
        plan, center_mm=(-plan.center_mm[0], *plan.center_mm[1:]), orientation=(w, x, -y, -z)
    )
    for make in (fine, clinical):
        one, other = alpha_on(plan, make(70)).data, alpha_on(mirrored, make(70)).data
        assert np.abs(one - other[::-1]).max() < 5e-3


def test_moving_the_plan_by_whole_voxels_moves_the_body() -> None:
    for make in GRIDS.values():
        geometry = make(80)
        plan = drawn("kidney", 22.0, 6)
        step = np.array([3, -2, 1])
        moved = dataclasses.replace(plan, center_mm=tuple(np.add(plan.center_mm, geometry.affine[:3, :3] @ step)))
        one, other = alpha_on(plan, geometry).data, alpha_on(moved, geometry).data
        assert np.abs(np.roll(one, step, (0, 1, 2)) - other).max() < 5e-3


def test_alpha_is_a_share_and_rises_from_nothing_to_all() -> None:
    for make in GRIDS.values():
        alpha = alpha_on(drawn("liver", 30.0, 7), make(100)).data
        assert alpha.dtype == np.float32
        assert alpha.min() == 0
        assert alpha.max() == 1
        assert ((alpha > 0.05) & (alpha < 0.95)).any()


def test_a_wider_border_is_wider_and_keeps_the_volume() -> None:
    geometry = fine(40)
    sharp, soft = (mass.mass(plan_of(24.0, edge_mm=edge), geometry).alpha for edge in (0.2, 2.0))
    border = [int(((alpha > 0.1) & (alpha < 0.9)).sum()) for alpha in (sharp, soft)]
    assert border[1] > 2 * border[0]
    assert (sharp >= 0.5).sum() == pytest.approx((soft >= 0.5).sum(), rel=0.01)
    # 10-90 % of a Gaussian border are 2.563 SD: of the plan's edge, the scanner's blur and the voxel
    width = border[1] / (4 * np.pi * 12**2)
    assert width == pytest.approx(2.563 * np.sqrt(2.0**2 + 0.7**2 + 1 / 12), rel=0.08)


def test_radius_and_depth_are_those_of_a_ball() -> None:
    plan, geometry = plan_of(30.0), fine(44)
    body = mass.mass(plan, geometry, need_inside=True)
    points = geometry.crop(body.box).to_mm(np.moveaxis(np.indices(body.box.shape), 0, -1))
    distance = np.linalg.norm(points, axis=-1)
    inside = (distance < 14) & (distance > 2)
    assert np.abs(body.radius - distance / 15)[inside].max() < 0.02
    assert np.abs(body.depth_mm - (15 - distance))[inside].max() < 0.3


def test_the_harmonics_are_orthonormal() -> None:
    basis, degrees = surface._harmonics(80)
    x, y, z = surface.map_directions(80)
    weight = (np.abs(x) + np.abs(y) + np.abs(z)) ** 3
    gram = (basis * weight) @ basis.T * (4 * np.pi / weight.sum())
    assert len(degrees) == sum(2 * degree + 1 for degree in surface.DEGREES)
    # the map's outer edge counts twice here, hence the tolerance
    assert np.abs(gram - np.eye(len(gram))).max() < 0.15


def test_a_quarter_of_the_map_tells_all_of_the_surface() -> None:
    basis, degrees = surface._harmonics(surface._MAP)
    of_degree = np.array([float(degree) ** -3.0 for degree in surface.DEGREES])
    scale = np.sqrt(of_degree / of_degree.sum())[degrees - 3] * np.sqrt(4 * np.pi / (2 * degrees + 1))
    for seed in range(5):
        weights = rng_for(seed, "surface").standard_normal(len(degrees)) * scale
        found = log_radius(plan_of(seed=seed, roughness=0.2, skew=0.0, spectrum=3.0))
        assert np.abs(found.ravel() - 0.2 * weights @ basis).max() < 1e-14


def test_the_surface_has_the_planned_amplitude_and_spectrum() -> None:
    tables = np.array([log_radius(plan_of(seed=s, roughness=0.1, skew=0.0, spectrum=3.0)) for s in range(80)])
    assert tables.mean() == pytest.approx(0, abs=0.005)
    assert np.sqrt((tables**2).mean()) == pytest.approx(0.1, rel=0.06)
    smooth, rough = (
        np.mean([np.abs(np.diff(log_radius(plan_of(seed=s, roughness=0.1, spectrum=p)))).mean() for s in range(20)])
        for p in (4.5, 2.0)
    )
    assert rough > 1.5 * smooth
    assert np.array_equal(log_radius(plan_of(roughness=0.0)), np.zeros_like(tables[0]))


@pytest.mark.parametrize(("organ", "limit"), [("liver", 0.3), ("kidney", 0.3), ("pancreas", 0.42), ("uterus", 0.4)])
def test_shapes_have_the_percentiles_of_real_tumors(organ: str, limit: float) -> None:
    # 200 each are in benchmarks/bench_priors.py; 30 vary by 0.15. An ellipsoid is at 0.8-1.0.
    ours = bench_priors.shapes(organ, 30, largest_mm=42)
    for measure, real in bench_priors.REAL[organ].items():
        if measure in ours:
            assert bench_priors.distance(ours[measure], real) < limit, measure


def test_smooth_ellipsoids_would_be_told_from_real_tumors() -> None:
    found = [
        bench_priors.measure(bench_priors.whole_mask(drawn("liver", 20.0, seed, smooth=True))) for seed in range(8)
    ]
    for measure in ("sphericity", "solidity", "roughness"):
        ours = np.array([row[measure] for row in found])
        assert bench_priors.distance(ours, bench_priors.REAL["liver"][measure]) > 0.4, measure


def test_measures_of_a_ball_are_known() -> None:
    found = bench_priors.measure(bench_priors.whole_mask(plan_of(30.0)))
    assert found["sphericity"] == pytest.approx(1, abs=0.02)
    assert found["solidity"] == pytest.approx(1, abs=0.02)
    assert found["roughness"] < 0.02
    assert found["c/a"] == pytest.approx(1, abs=0.02)
