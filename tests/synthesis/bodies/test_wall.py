"""Wall tumors on phantoms: tubes of known radius, straight and bent, on thin, thick and oblique slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from phantoms import plan_of
from scipy import ndimage

from grids import centers_mm
from synthoma.errors import CaseError
from synthoma.seeds import rng_for
from synthoma.synthesis.bodies import wall
from synthoma.synthesis.bodies.body import Body, Placement, Surface, rounded_surface
from synthoma.synthesis.bodies.extent import Wanted, axes_of
from synthoma.synthesis.generators.rules import Rules
from synthoma.synthesis.insertion.blending import blend
from synthoma.synthesis.location import OrganModel, measure_organ
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.tumor import Request, Tumor, TumorPlan
from synthoma.volume import Array, Box, Geometry, Volume

RADIUS, BEND = 16.0, 48.0
Organ = Callable[[Array], tuple[Array, Array]]


def centered(shape: tuple[int, int, int], spacing: tuple[float, float, float], turn: bool = False) -> Geometry:
    matrix = np.diag(spacing)
    if turn:
        rng = np.random.default_rng(5)
        matrix = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ np.diag([-1, 1, 1]) @ matrix
    affine = np.eye(4)
    affine[:3, :3] = matrix
    # off the centers of voxels, so that no phantom has its border on them
    affine[:3, 3] = (0, 0.21, 0.37) - matrix @ ((np.asarray(shape) - 1) / 2)
    return Geometry(shape, affine)


GRIDS = {
    "1 mm": centered((80, 80, 120), (1.0, 1.0, 1.0)),
    "0.7x0.7x5 mm": centered((110, 110, 26), (0.7, 0.7, 5.0)),
    "oblique": centered((130, 130, 76), (0.9, 1.0, 1.8), turn=True),
}


def straight(points: Array) -> tuple[Array, Array]:
    """Arc length along and distance from the middle line of a tube along z."""
    return points[..., 2], np.hypot(points[..., 0], points[..., 1])


def bent(points: Array) -> tuple[Array, Array]:
    """The same for a tube that turns round a center at x = BEND."""
    x, z = points[..., 0] - BEND, points[..., 2]
    return BEND * np.arctan2(z, -x), np.hypot(np.hypot(x, z) - BEND, points[..., 1])


def mask(grid: Geometry, organ: Organ = straight, half_length: float = 500.0) -> Volume:
    along, away = organ(centers_mm(grid))
    return Volume((away <= RADIUS) & (np.abs(along) <= half_length), grid)


def plan(axes: tuple[float, float, float] = (22.0, 24.0, 9.0), **changes: object) -> TumorPlan:
    """A tumor at (-RADIUS, 0, 0), where all tubes have their wall, growing toward +x along +z."""
    settings: dict[str, Any] = {
        "organ": "colon",
        "form": "wall",
        "center_mm": (-RADIUS, 0.0, 0.0),
        "axes_mm": axes,
        # columns z, y, x would be left-handed: around is -y
        "orientation": rotation_of(np.array([[0, 0, 1.0], [0, -1, 0], [1, 0, 0]]).T),
        "spectrum": 2.9,
        "base_hu": 60.0,
        "contrast_hu": 20.0,
        "texture_mm": 3.0,
        "edge_mm": 0.3,
        "blur_mm": 0.6,
        "noise_hu": 10.0,
        "seed": 4,
    }
    return plan_of(**settings | changes)


def rotation_of(matrix: Array) -> tuple[float, float, float, float]:
    from scipy.spatial.transform import Rotation

    assert np.isclose(np.linalg.det(matrix), 1)
    x, y, z, w = Rotation.from_matrix(matrix).as_quat().tolist()
    return w, x, y, z


CLOSED = (18.0, 1.2 * np.pi * RADIUS, 1.5 * RADIUS)
ANNULAR = (18.0, 1.25 * np.pi * RADIUS, 9.0)


def painted(body: Body, grid: Geometry) -> Array:
    """alpha on the whole grid."""
    result = np.zeros(grid.shape, np.float32)
    box = body.box.clip(grid.shape)
    part = tuple(
        slice(low - start, high - start) for low, high, start in zip(box.lower, box.upper, body.box.lower, strict=True)
    )
    result[box.slices] = body.alpha[part]
    return result


def lumen_left(body: Body) -> float:
    return body.measure(body.box, body.alpha)["lumen_left"]


def placed(organ_model: OrganModel, diameter_mm: float, rng: np.random.Generator) -> Placement:
    return wall.place(organ_model, Request(SynthesisRecipe(), diameter_mm), Surface("wall"), rng)


def dice(one: Array, other: Array) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_the_phantom_plan_points_into_the_lumen() -> None:
    turn = plan().rotation
    assert np.allclose(turn[:, 0], (0, 0, 1))
    assert np.allclose(turn[:, 2], (1, 0, 0))


@pytest.mark.parametrize("organ", [straight, bent])
@pytest.mark.parametrize("name", GRIDS)
def test_an_eccentric_tumor_lies_on_the_wall_as_thick_and_long_as_planned(name: str, organ: Organ) -> None:
    grid, tumor = GRIDS[name], plan()
    hollow = mask(grid, organ)
    body = wall.make(tumor, grid, hollow)
    label = painted(body, grid) >= 0.5
    points = centers_mm(grid)
    along, away = organ(points)
    step = max(grid.spacing_mm)
    assert body.measure(body.box, body.alpha)["on_wall"] == 1
    assert away[label].max() < RADIUS + 2.5
    assert (away[label] <= RADIUS).mean() > 0.85
    assert RADIUS - away[label].min() == pytest.approx(9.0, abs=1.5)
    # stretched for its volume, but a patch of about this length on one side of the organ
    assert 0.6 * 22 < along[label].max() < 1.5 * 22 + step
    assert abs(along[label].max() + along[label].min()) < 0.75 * step + 1.5
    opposite = points[..., 0] > 0.6 * RADIUS
    assert not (label & opposite & (np.abs(along) < 10)).any()


@pytest.mark.parametrize("axes", [(22.0, 24.0, 9.0), ANNULAR, (8.0, 7.0, 5.0)])
def test_the_same_plan_has_its_volume_on_every_grid_and_overlaps(axes: tuple[float, float, float]) -> None:
    tumor = plan(axes, roughness=0.15)
    reference = GRIDS["1 mm"]
    alphas = {}
    for name, grid in GRIDS.items():
        alpha = painted(wall.make(tumor, grid, mask(grid)), grid)
        voxels = (alpha >= 0.5).sum()
        assert voxels * grid.voxel_mm3 == pytest.approx(tumor.volume_mm3, rel=0.1, abs=2 * grid.voxel_mm3), name
        alphas[name] = Volume(alpha, grid).to(reference, fill=0).data >= 0.5
    for name in ("0.7x0.7x5 mm", "oblique"):
        assert dice(alphas["1 mm"], alphas[name]) > (0.9 if axes[0] > 10 else 0.8), name


@pytest.mark.parametrize("name", GRIDS)
def test_an_annular_tumor_goes_all_the_way_round_and_leaves_the_planned_lumen(name: str) -> None:
    grid, tumor = GRIDS[name], plan(ANNULAR)
    hollow = mask(grid)
    body = wall.make(tumor, grid, hollow)
    label = painted(body, grid) >= 0.5
    points = centers_mm(grid)
    along, away = straight(points)
    here = (np.abs(along) < 5) & label
    turns = np.degrees(np.arctan2(points[..., 1], points[..., 0]))[here]
    assert np.histogram(turns, 24, (-180, 180))[0].min() > 0
    planned = ((RADIUS - 9) / RADIUS) ** 2
    assert body.measure(body.box, body.alpha)["lumen_left"] == pytest.approx(planned, abs=0.1)
    assert not label[(away < 3) & (np.abs(along) < 30)].any()


@pytest.mark.parametrize("name", GRIDS)
def test_a_tumor_shorter_than_the_steps_along_the_organ_is_measured_too(name: str) -> None:
    grid = GRIDS[name]
    line = wall._trace(plan((2.0, 10.0, 4.0)), mask(grid))
    line = dataclasses.replace(line, rows_mm=line.rows_mm + 0.3)  # no row within the tumor's length
    empty = np.zeros(grid.shape, bool)
    assert wall.lumen_left(line, 0.1, grid, Box((0, 0, 0), grid.shape), empty) == 1


@pytest.mark.parametrize("name", GRIDS)
def test_a_tumor_that_its_organ_is_too_narrow_for_bulges_outward(name: str) -> None:
    grid = GRIDS[name]
    hollow, reached = mask(grid), {}
    away = straight(centers_mm(grid))[1]
    for outside in (0.0, 0.4):
        drawn = plan((14.0, 22.0, 15.0), outside=outside)
        label = painted(wall.make(drawn, grid, hollow), grid) >= 0.5
        assert label.sum() * grid.voxel_mm3 == pytest.approx(drawn.volume_mm3, rel=0.1)
        reached[outside] = RADIUS - away[label].min(), away[label].max() - RADIUS
    step = 0.5 * max(grid.spacing_mm[:2]) + 0.6
    assert reached[0.0] == pytest.approx((15.0, 1.5), abs=step + 0.5)
    assert reached[0.4] == pytest.approx((0.6 * 15.0, 0.4 * 15.0 + 0.9), abs=step + 0.5)


@pytest.mark.parametrize("name", GRIDS)
def test_a_closing_tumor_closes_the_lumen_and_an_eccentric_one_does_not(name: str) -> None:
    grid = GRIDS[name]
    hollow = mask(grid)
    closing, eccentric = plan(CLOSED), plan()
    assert lumen_left(wall.make(closing, grid, hollow)) < 0.02
    assert lumen_left(wall.make(eccentric, grid, hollow)) > 0.5


def test_the_cut_and_flipped_mask_gives_the_same_tumor() -> None:
    grid, tumor = centered((80, 80, 120), (0.99, 1.0, 1.01)), plan(roughness=0.2)
    hollow = mask(grid, bent)
    whole = painted(wall.make(tumor, grid, hollow), grid)
    part = hollow.crop(grid.box_around(tumor.center_mm, wall.reach_mm(tumor)))
    assert np.array_equal(whole, painted(wall.make(tumor, grid, part), grid))
    turned = hollow.reorient("LPI")
    other = painted(wall.make(tumor, turned.geometry, turned), turned.geometry)
    assert np.abs(Volume(other, turned.geometry).reorient("RAS").data - whole).max() < 0.06


def test_a_mirrored_scan_has_the_mirrored_tumor() -> None:
    # organ and plan turned by 30 degrees round z, then mirrored at x = 0
    grid = GRIDS["1 mm"]
    turn = np.array([[np.cos(0.5), -np.sin(0.5), 0], [np.sin(0.5), np.cos(0.5), 0], [0, 0, 1]])
    flip = np.diag([-1.0, 1, 1])
    results = []
    for move in (turn, flip @ turn):
        first = plan()
        frame = move @ first.rotation @ (np.eye(3) if np.linalg.det(move) > 0 else np.diag([1.0, -1, 1]))
        x, y, z = (move @ first.center_mm).tolist()
        moved = plan(center_mm=(x, y, z), orientation=rotation_of(frame))
        _, away = bent(centers_mm(grid) @ move)
        results.append(painted(wall.make(moved, grid, Volume(away <= RADIUS, grid)), grid))
    assert np.abs(results[0] - results[1][::-1]).max() < 0.05
    assert results[0].max() == 1


def test_the_tumor_ends_with_the_organ_and_does_not_plug_its_end() -> None:
    grid, tumor = GRIDS["1 mm"], plan(ANNULAR)
    hollow = mask(grid, straight, half_length=10.0)
    label = painted(wall.make(tumor, grid, hollow), grid) >= 0.5
    along, away = straight(centers_mm(grid))
    assert np.abs(along[label]).max() < 10 + 3
    assert not label[away < 4].any()
    assert label[(np.abs(along) < 8) & (away > 11) & (away < 15)].mean() > 0.95


def test_an_organ_cut_by_the_field_of_view_goes_on_behind_it() -> None:
    grid, tumor = GRIDS["1 mm"], plan(ANNULAR)
    whole = painted(wall.make(tumor, grid, mask(grid)), grid)
    # the face lies 6 mm from the tumor's center
    near = grid.crop(grid.box_around((0, 0, 0), 500)._replace(lower=(0, 0, 54)))
    cut = painted(wall.make(tumor, near, mask(near)), near)
    assert np.abs(cut - whole[:, :, 54:]).max() < 0.2
    assert dice(cut >= 0.5, whole[:, :, 54:] >= 0.5) > 0.97


def test_another_loop_beside_the_organ_is_left_alone() -> None:
    grid, tumor = GRIDS["1 mm"], plan((15.0, 14.0, 8.0))
    points = centers_mm(grid)
    own = straight(points)[1] <= RADIUS
    other = np.hypot(points[..., 0] + 2 * RADIUS + 3, points[..., 1]) <= RADIUS
    label = painted(wall.make(tumor, grid, Volume(own | other, grid)), grid) >= 0.5
    assert label.any()
    assert not (label & other).any()


def test_gas_and_tumor_meet_at_a_border_as_sharp_as_the_scanner() -> None:
    grid, tumor = GRIDS["1 mm"], plan(ANNULAR)
    away = straight(centers_mm(grid))[1]
    hu = np.where(away <= RADIUS - 2.5, -1000, np.where(away <= RADIUS, 60, -100)).astype(np.int16)
    ct = Volume(hu, grid)
    body = wall.make(tumor, grid, mask(grid))
    tissue = np.full(body.alpha.shape, 80, np.float32)
    after = blend(ct, Tumor(tumor, body.box, body.alpha, tissue))
    i, j, k = (int(n) for n in np.rint(grid.to_ijk((0, 0, 0))) - body.box.lower)
    # from the middle of the organ's wall to the middle of the lumen
    line = after[i - int(RADIUS - 1) : i + 1, j, k].astype(float)
    wide = ((line > -1000 + 0.1 * 1080) & (line < -1000 + 0.9 * 1080)).sum()
    assert line[-1] == -1000
    assert line.max() > 60
    # SD of blur, border and voxel: 0.73 mm, so 10 to 90 % in 1.9 mm
    assert wide <= 3


def scanned(fine: Array, step: int, blur_voxels: float) -> Array:
    """HU of a fine grid as a scanner shows them: blurred, and the mean over step^3 voxels."""
    i, j, k = (n // step for n in fine.shape)
    blurred = ndimage.gaussian_filter(fine.astype(np.float32), blur_voxels)
    return np.asarray(np.rint(blurred.reshape(i, step, j, step, k, step).mean(axis=(1, 3, 5))), np.int16)


@pytest.mark.parametrize("axes", [(9.0, 10.0, 6.0), (8.0, 1.2 * np.pi * RADIUS, 7.0)])
@pytest.mark.parametrize(("spacing", "step"), [(0.8, 2), (2.0, 4), (3.0, 6)])
def test_a_tumor_in_gas_looks_as_if_it_had_been_scanned(
    spacing: float, step: int, axes: tuple[float, float, float]
) -> None:
    scanner_mm = 0.6
    count = step * int(60 / spacing)
    size = spacing / step
    fine = centered((count, count, count), (size, size, size))
    away = straight(centers_mm(fine))[1]
    healthy = np.where(away <= RADIUS - 2.5, -1000.0, np.where(away <= RADIUS, 60.0, -100.0))
    hard = plan(axes, edge_mm=0.0, blur_mm=0.0, lumen="sharp")
    organ = Volume(away <= RADIUS, fine)  # for both: another mask would move the border
    tumor = painted(wall.make(hard, fine, organ), fine) >= 0.5
    truth = scanned(np.where(tumor, 80.0, healthy), step, scanner_mm / size)

    affine = fine.affine @ np.diag([step, step, step, 1.0])
    affine[:3, 3] += fine.affine[:3, :3] @ np.full(3, (step - 1) / 2)
    grid = Geometry((count // step,) * 3, affine)
    ct = Volume(scanned(healthy, step, scanner_mm / size), grid)
    blur_mm = float(np.hypot(scanner_mm, spacing / np.sqrt(12)))  # as it is measured at the skin
    darker = {}
    for lumen in ("soft", "sharp"):
        drawn = plan(axes, edge_mm=1.2, blur_mm=blur_mm, lumen=lumen)
        body = wall.make(drawn, grid, organ)
        tissue = np.full(body.alpha.shape, 80, np.float32)
        made = Tumor(drawn, body.box, body.alpha, tissue).within(grid.shape)
        # without noise, which is as it is in any tumor
        before = ct.data[made.box.slices].astype(float)
        after = before + made.alpha * (made.hu - before)
        replaces_gas = made.mask & (before < -800)
        assert replaces_gas.sum() > 10
        assert after[made.mask].min() > -500
        darker[lumen] = float((truth[made.box.slices] - after)[replaces_gas].mean())
    assert abs(darker["sharp"]) < 30
    assert darker["soft"] > 40  # of older plans, whose border to gas is that to infiltrated tissue


def test_radius_and_depth_agree_with_the_label() -> None:
    grid, tumor = GRIDS["oblique"], plan(roughness=0.1)
    bare, full = (wall.make(tumor, grid, mask(grid), inside) for inside in (False, True))
    assert np.array_equal(bare.alpha, full.alpha)
    assert not bare.radius.any()
    label = full.alpha >= 0.5
    assert (full.radius[label] <= 1.0).mean() > 0.98
    assert (full.depth_mm[label] >= 0).mean() > 0.98
    assert full.depth_mm.max() < 12
    assert full.radius[full.alpha == 0].min() > 1


def test_a_plan_away_from_the_organ_is_refused() -> None:
    grid = GRIDS["1 mm"]
    nothing = Volume(np.zeros(grid.shape, bool), grid)
    with pytest.raises(CaseError, match="wall"):
        wall.make(plan(), grid, nothing)


@pytest.mark.parametrize("organ", [straight, bent])
@pytest.mark.parametrize("name", GRIDS)
def test_frames_sit_on_the_surface_along_the_organ(name: str, organ: Organ) -> None:
    grid = GRIDS[name]
    organ_model = measure_organ(*scan(grid, organ), "colon", "portal", 0.7, "phantom")
    for index in range(5):
        frame = placed(organ_model, 24.0, rng_for(index, "frame"))
        turn = dataclasses.replace(plan(), orientation=frame.orientation).rotation
        center = np.asarray(frame.center_mm)
        away, inner = organ(center)[1], organ(center + 3 * turn[:, 2])[1]
        assert abs(away - RADIUS) < 1.0 + 0.5 * min(grid.spacing_mm)
        assert inner - away == pytest.approx(-3, abs=0.8)
        ahead = organ(center + 4 * turn[:, 0])[1]
        assert abs(ahead - away) < 1.5
        assert np.prod(frame.axes_mm) == pytest.approx(24**3 / 4)
        assert frame == placed(organ_model, 24.0, rng_for(index, "frame"))


def test_small_tumors_are_polyps_and_large_ones_mostly_rings() -> None:
    organ_model = measure_organ(*scan(GRIDS["1 mm"], straight), "colon", "portal", 0.7, "phantom")
    rings = {}
    for diameter in (10.0, 45.0):
        frames = [placed(organ_model, diameter, rng_for(index, "share")) for index in range(12)]
        rings[diameter] = np.mean([frame.axes_mm[1] >= np.pi * RADIUS for frame in frames])
        assert all(3 <= frame.axes_mm[2] <= 2 * RADIUS and frame.axes_mm[0] <= 45 for frame in frames)
    assert rings[10.0] == 0
    assert rings[45.0] > 0.5


def test_what_a_tumor_is_to_be_is_drawn_once_and_not_again_for_each_place(monkeypatch: pytest.MonkeyPatch) -> None:
    organ_model = measure_organ(*scan(GRIDS["1 mm"], straight), "colon", "portal", 0.7, "phantom")
    drawn, looked = [], []

    def draw(rng: np.random.Generator) -> Wanted:
        drawn.append(0)
        return Wanted(*rng.standard_normal(2).tolist(), *rng.random(4).tolist())

    def room(*_: Any) -> float:
        looked.append(0)
        return 0.6  # never enough to end the search

    monkeypatch.setattr(Wanted, "draw", draw)
    monkeypatch.setattr(wall, "_room", room)
    placed(organ_model, 30.0, rng_for(0, "once"))
    assert len(drawn) == 1 < len(looked)


@pytest.mark.parametrize("radius_mm", [6.0, 11.0, 22.0])
def test_no_ring_is_a_membrane_across_the_lumen(radius_mm: float) -> None:
    rng, diameters = np.random.default_rng(2), np.linspace(8, 60, 1500)
    found = [axes_of(diameter, radius_mm, Wanted.draw(rng)) for diameter in diameters]
    axes, outside = np.array([axes for axes, _ in found]), np.array([share for _, share in found])
    ring, inside = axes[:, 1] > np.pi * radius_mm, axes[:, 2] * (1 - outside)
    assert ring.sum() > 100
    assert (axes[ring, 0] >= 0.69 * np.minimum(inside[ring], radius_mm)).all()
    assert 0.1 < (inside[ring] >= 1.39 * radius_mm).mean() < 0.9
    assert np.allclose(axes.prod(axis=1), diameters**3 / 4)
    # what lies outside is what the organ has no room for
    assert not outside[axes[:, 2] < 0.45 * radius_mm].any()
    assert outside.max() > 0.2
    assert ((outside >= 0) & (outside < 0.75)).all()


def test_drawn_walls_have_a_sharp_border_to_the_lumen_and_masses_say_nothing_of_it() -> None:
    organ_model = measure_organ(*scan(GRIDS["1 mm"], straight), "colon", "portal", 0.7, "phantom")
    request = Request(SynthesisRecipe(), 20.0)
    assert Surface.of(Rules().draw(organ_model, request, rng_for(3))).lumen == "sharp"
    large = [Rules().draw(organ_model, Request(SynthesisRecipe(), 45.0), rng_for(seed)) for seed in range(6)]
    assert max(Surface.of(drawn).outside for drawn in large) > 0.1
    assert Surface.of(TumorPlan.from_dict(plan().as_dict())).lumen == "soft"
    assert "lumen" not in rounded_surface(Surface("mass"))


def test_most_of_a_tumor_lies_within_the_field_of_view() -> None:
    organ_model = measure_organ(*scan(GRIDS["1 mm"], straight), "colon", "portal", 0.7, "phantom")
    for index in range(12):
        frame = placed(organ_model, 36.0, rng_for(index, "view"))
        assert abs(frame.center_mm[2]) + 0.4 * frame.axes_mm[0] < 61


def test_an_organ_too_small_for_the_tumor_is_refused() -> None:
    grid = GRIDS["1 mm"]
    ct, _ = scan(grid, straight)
    points = centers_mm(grid)
    organ_model = measure_organ(
        ct, {"colon": Volume(np.linalg.norm(points, axis=-1) < 6, grid)}, "colon", "portal", 0.7, "bead"
    )
    with pytest.raises(CaseError, match="bead: no wall for a tumor of 30 mm in the colon"):
        placed(organ_model, 30.0, rng_for(0, "frame"))


def scan(grid: Geometry, organ: Organ) -> tuple[Volume, dict[str, Volume]]:
    """A tube of gas with a wall of 2.5 mm in fat, beside some muscle."""
    points = centers_mm(grid)
    away = organ(points)[1]
    hu = np.where(away <= RADIUS - 2.5, -1000, np.where(away <= RADIUS, 60, -100))
    hu[points[..., 1] > RADIUS + 4] = 50
    noise = np.random.default_rng(1).normal(0, 8, grid.shape)
    return Volume((hu + noise).astype(np.int16), grid), {"colon": mask(grid, organ)}


@pytest.mark.parametrize("seed", range(6))
def test_a_lumen_closed_at_both_ends_leaves_no_cavity(seed: int) -> None:
    almost = plan((26.0, 1.25 * np.pi * RADIUS, 0.97 * RADIUS), roughness=0.25, seed=seed)
    grid = GRIDS["1 mm"]
    label = painted(wall.make(almost, grid, mask(grid)), grid) >= 0.5
    assert not (ndimage.binary_fill_holes(label) & ~label).any()
