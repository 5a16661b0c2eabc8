"""The compiled kernels give the bytes of their numpy twins, on any grid, at the scan's border, and for empty boxes."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from phantoms import GRIDS, ellipsoid_case, plan_of, rho
from scipy import ndimage

from synthoma.cases import Case
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.insertion.insertion import Inserted, insert
from synthoma.synthesis.kernels import choice, compiled, compiling, masks, reference, sums, surfaces, voxels
from synthoma.synthesis.kernels.reference import Frame, Shades
from synthoma.synthesis.pipeline import open_scene
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Geometry, Volume

SHAPES = [(30, 25, 12), (1, 5, 7), (9, 1, 3), (6, 7, 1), (23, 24, 25)]


@pytest.fixture(autouse=True)
def _chosen_anew() -> Iterator[None]:
    choice.kernels.cache_clear()
    yield
    choice.kernels.cache_clear()


def same(name: str, *given: Any) -> Any:
    """What the numpy twin gives, once the compiled kernel has been found to give the same bytes."""
    expected, found = getattr(reference, name)(*given), getattr(compiled, name)(*given)
    several = expected if isinstance(expected, tuple) else (expected,)
    for one, other in zip(several, found if isinstance(found, tuple) else (found,), strict=True):
        assert type(one) is type(other)
        if isinstance(one, np.ndarray):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            assert one.tobytes("F") == other.tobytes("F"), f"{name}: {int((one != other).sum())} of {one.size} differ"
        else:
            assert one == other
    return expected


def blobs(shape: Sequence[int], share: float, seed: int = 0) -> Array:
    """A mask with about this share, in lumps, and single voxels added and taken away."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    mask = smooth > np.quantile(smooth, 1 - share)
    return np.asfortranarray(mask ^ (rng.random(shape) < 0.03))


def floats(shape: Sequence[int], seed: int = 0) -> Array:
    return np.asfortranarray(np.random.default_rng(seed).normal(40, 30, shape).astype(np.float32))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_masks_near_pieces_and_holes_are_those_of_the_twin(shape: tuple[int, int, int], share: float) -> None:
    mask = blobs(shape, share)
    if share in (0.0, 1.0):
        mask = np.full(shape, bool(share), order="F")
    # distances that equal the radius are in it; 0.75 twice is 1.5
    for spacing, radius in (((0.8, 0.8, 2.0), 1.5), ((0.8, 0.8, 1.98), 2.0), ((0.5, 0.7, 0.75), 1.5), ((5, 1, 1), 2.0)):
        same("near", mask, spacing, radius)
    largest = reference.largest_piece(mask)
    if largest is None:
        assert compiled.largest_piece(mask) is None
    else:
        same("largest_piece", mask)
    same("without_holes", mask)
    same("without_holes_in_slices", mask, mask.any(axis=(0, 1)))


@pytest.mark.parametrize("shape", [*SHAPES, (130, 9, 8), (64, 9, 5)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9, 1.0])
def test_room_gaps_and_margins_are_those_of_the_twin(shape: tuple[int, int, int], share: float) -> None:
    mask = blobs(shape, share) if 0 < share < 1 else np.full(shape, bool(share), order="F")
    for spacing, radius in (((0.8, 0.8, 2.0), 1.5), ((0.8, 0.8, 1.98), 2.0), ((5, 1, 1), 2.0)):
        same("room_of", mask, blobs(shape, 0.1, seed=1), (2, 1, 3), spacing, radius)
        same("enclosed", mask, spacing, radius)
    same("widened", mask, (2, 3, 1))
    same("widened", mask[::-1, :, ::-1], (70, 0, 1))


def test_rows_are_looked_through_again_only_for_another_array() -> None:
    alpha = np.asfortranarray(blobs((9, 4, 3), 0.4).astype(np.float32))
    expected = [np.flatnonzero(row) for row in alpha.T.reshape(12, 9)]
    found = compiling.spans(alpha)
    for n, places in enumerate(expected):
        first, behind = found[2 * n : 2 * n + 2].tolist()
        assert behind - first == (places[-1] + 1 - places[0] if len(places) else 0)
        assert not len(places) or first == 9 * n + places[0]
    assert compiling.spans(alpha) is found
    assert compiling.spans(alpha.copy(order="F")) is not found


def test_a_kernel_reads_any_layout_and_writes_into_none() -> None:
    mask = blobs((20, 21, 22), 0.5)
    turned = np.ascontiguousarray(mask)[::-1, :, 2:]
    turned.flags.writeable = False
    for name, given in (("without_holes", ()), ("near", ((1, 1, 1), 2.0))):
        before = turned.copy()
        same(name, turned, *given)
        assert (turned == before).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_sums_and_means_of_hu_are_those_of_the_twin(shape: tuple[int, int, int], kind: type) -> None:
    hu = np.asfortranarray(np.random.default_rng(1).normal(0, 400, shape).astype(kind))
    fat, hard = same("between", hu, (-200.0, 0.0), (-300.0, 350.0))
    if np.prod(shape) > 1000:
        assert fat.any()
        assert hard.any()
        assert not (fat & hard).any()
    for share in (0.0, 0.6, 1.0):
        same("softened", np.asfortranarray(np.clip(floats(shape) / 40 - 0.5, 0, 1)), blobs(shape, share))
    for block in ((1, 1, 1), (3, 3, 1), (2, 4, 5)):
        mean = same("block_sums", hu, block) / np.float32(np.prod(block))
        for window in ((3, 3, 3), (5, 5, 1), (1, 3, 7)):
            same("means_of_plain", mean, 40.0, np.float32(150.5), window)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_noise_and_blending_are_those_of_the_twin(shape: tuple[int, int, int], kind: type) -> None:
    rng, blocks = np.random.default_rng(2), (4, 3, 2)
    before = np.asfortranarray(rng.normal(0, 400, shape).astype(kind))
    alpha = np.asfortranarray(np.clip(rng.normal(0.4, 0.6, shape), 0, 1).astype(np.float32))
    trust = np.asfortranarray(np.clip(rng.normal(0.5, 1, blocks), 0, 1).astype(np.float32))
    at = [
        (rng.integers(0, max(n - 1, 1), size), rng.random(size).astype(np.float32))
        for size, n in zip(shape, blocks, strict=True)
    ]
    own = same("own_noise", before, alpha, floats(blocks), at)
    tumor, sure = alpha > 0, np.ones(blocks, np.float32)
    np.testing.assert_array_equal(same("mixed_noise", before, alpha, floats(blocks), sure, at, floats((5, 4, 3))), own)
    mixed = same("mixed_noise", before, alpha, floats(blocks), trust, at, floats((5, 4, 3)))
    assert (mixed != own)[tumor].any()
    for part in (own, mixed):
        assert not part[~tumor].any()
    after = same("blended", before, alpha, floats(shape, 3), own, (-1024.0, 300.0))
    assert (after[~tumor] == before[~tumor]).all()
    # a voxel beyond the limits is left alone as well where there is no tumor
    assert (after[tumor] <= 300).all()


def border_areas(alpha: Array) -> float:
    """By both kernels; they sum in another order."""
    areas = [module.border_area_mm2(alpha, (0.8, 0.9, 2.0)) for module in (reference, compiled)]
    assert areas[0] == pytest.approx(areas[1], rel=1e-12)
    return areas[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_area_of_a_border_is_that_of_the_twin(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(2)
    assert border_areas(np.asfortranarray(np.clip(rng.normal(0.4, 0.6, shape), 0, 1).astype(np.float32))) > 0
    assert border_areas(np.zeros(shape, np.float32, order="F")) == 0
    assert border_areas(np.ones(shape, np.float32, order="F")) > 0
    for at in np.ndindex(2, 2, 2):  # one voxel in each corner: its slopes reach outside of the box
        alpha = np.zeros(shape, np.float32, order="F")
        alpha[tuple(np.multiply(at, np.subtract(shape, 1)))] = 0.7
        assert border_areas(alpha) > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_waves_are_summed_in_one_order(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(3)
    k_waves, j_waves = rng.standard_normal((shape[2], 32)), rng.standard_normal((shape[1], 32))
    lines = rng.standard_normal((32, shape[0]))
    alpha = np.asfortranarray(np.clip(rng.normal(0, 1, shape), 0, 1).astype(np.float32))
    field = same("wave_sums", k_waves, j_waves, lines, alpha)
    assert not field[alpha == 0].any()
    same("wave_sums", k_waves, j_waves, lines, np.zeros_like(alpha))


@pytest.mark.parametrize("parts", [(6, 0, 0, 0), (0, 9, 0, 0), (5, 9, 30, -40), (0, 0, 0, -40)])
@pytest.mark.parametrize("shape", SHAPES)
def test_tissue_is_that_of_the_twin(shape: tuple[int, int, int], parts: tuple[float, ...]) -> None:
    texture_hu, drift_hu, rim_hu, core_hu = map(np.float32, parts)
    shades = Shades(texture_hu, drift_hu, np.float32(7.3), rim_hu, np.float32(3.1), core_hu, np.float32(0.6))
    nothing = np.zeros((0, 0, 0), np.float32)
    spread, border = (floats(shape, seed) if hu else nothing for seed, hu in ((1, texture_hu), (2, core_hu)))
    alpha = np.asfortranarray(np.clip(floats(shape, 5) / 40 - 0.6, 0, 1))
    alpha[:, shape[1] // 2] = 0  # rows with nothing in them too
    depth, radius = abs(floats(shape, 3)) / 4, abs(floats(shape, 4)) / 60
    field = same("shaded", alpha, spread, border, depth, radius, shades)
    assert np.ptp(field) > 1 or field.size < 40
    assert len(np.unique(field[alpha == 0])) == 1


@pytest.mark.parametrize("samples", [1, 3])
def test_surfaces_are_those_of_the_twin(samples: int) -> None:
    rng = np.random.default_rng(4)
    for factor in (1, 2, 5):
        same("refined", rng.random((40, 40)), factor)
    directions = [rng.standard_normal((7, 9)).astype(np.float32) for _ in range(3)]
    directions[2][0] = 0  # on the fold
    directions[0][:, 0] = -0.0
    same("map_index", *directions, 79)
    i, j, k = (
        np.linspace(-1.4, 1.4, n).astype(np.float32) * np.eye(3, dtype=np.float32)[:, [n % 3]] for n in (24, 25, 11)
    )
    moves = rng.uniform(-0.1, 0.1, (samples, 3)).astype(np.float32)
    frame = Frame(i, j, k, moves, rng.uniform(0.8, 1.2, (40, 40)).astype(np.float32))
    close = np.float32(1 / 1.06), np.float32(1.06)
    ratio, inside, *_ = same("shell_ratios", frame, np.float32(1.9), np.float32(0.2), close)
    assert inside > 0
    assert np.isposinf(ratio).any()
    blur = 0.02 * np.eye(3) + 0.003
    alpha = same("shares_of", frame, ratio, np.float32(1.02), np.float32(0.3), blur)
    assert ((alpha > 0) & (alpha < 1)).any()
    radius, depth = same("depths_of", frame, ratio, alpha, np.float32(1.02), np.diag([0.01, 0.02, 0.05]))
    assert radius[(alpha > 0) & (ratio > 0)].all()
    assert not radius[alpha == 0].any()
    assert not depth[alpha == 0].any()
    # where nothing of a row lies in the shell, and where all of it does
    for outermost, innermost in ((0.0, 0.0), (0.3, 0.0), (99.0, 0.0), (99.0, 9.0), (1.9, 1.9)):
        same("shell_ratios", frame, np.float32(outermost), np.float32(innermost), close)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_what_is_inside_a_tumor_is_counted_as_by_the_twin(shape: tuple[int, int, int], kind: type) -> None:
    hu = (30 * floats(shape)).astype(kind)
    shares = np.random.default_rng(2).choice([0, 0.1, 0.3, 0.5, 0.9, 0.95, 1], shape).astype(np.float32)
    for alpha in (shares, shares * (shares < 1), shares * (shares < 0.5), shares * 0):
        ours, twin = (module.inside(hu, np.asfortranarray(alpha), (-300.0, 3000.0)) for module in (compiled, reference))
        assert repr(ours) == repr(twin)  # with nan in it


@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 130])
def test_masks_are_the_same_where_rows_fill_whole_words(length: int) -> None:
    for share in (0.1, 0.6, 1.0):
        mask = blobs((length, 9, 6), share)
        mask[[0, -1]] |= blobs((2, 9, 6), 0.5, 1)  # runs that end at both ends of a row
        for spacing in ((0.8, 0.8, 2.0), (0.3, 1.0, 1.0)):
            same("near", mask, spacing, 2.0)
        if reference.largest_piece(mask) is not None:
            same("largest_piece", mask)
        same("without_holes", mask)
        same("without_holes_in_slices", mask, np.arange(6) % 3 > 0)


def rendered(case: Case, plan: TumorPlan) -> Inserted:
    made = insert(open_scene(case, (plan.organ,)), plan, open_generator(plan.generator), 0, 0, None)
    assert isinstance(made, Inserted)
    return made


def tissue_plans(geometry: Geometry) -> list[TumorPlan]:
    """A plain tumor, one with rim, core and specks, one over the organ's border, and one cut by the scan's corner."""
    specks = (((0.2, 0.1, -0.3), 2.0, 400.0),)
    rough = {"roughness": 0.15, "texture_hu": 10.0, "texture_mm": 3.0, "displacement_mm": 1.5}
    inside = {"rim_hu": 20.0, "rim_mm": 3.0, "core_hu": -30.0, "core_share": 0.5, "calcifications": specks}
    corner = tuple(geometry.to_mm(np.asarray(geometry.shape) - 3).tolist())
    return [
        plan_of(18.0),
        plan_of(26.0, (1, 0.8, 0.6), **rough, **inside),
        plan_of(24.0, center_mm=(0.0, 26.0, 0.0), **rough),
        plan_of(16.0, center_mm=corner, roughness=0.1, displacement_mm=1.0),
    ]


@pytest.mark.parametrize("around", [-95.0, 60.0])
@pytest.mark.parametrize("grid", GRIDS)
def test_whole_tumors_are_those_of_the_twin(grid: str, around: float, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = GRIDS[grid](80)
    aorta = Volume(np.asfortranarray(rho(geometry, (6, 6, 60), (0, 34, 0)) < 1), geometry)
    case = ellipsoid_case(geometry, (30, 30, 30), around=around, image=np.float32 if grid == "oblique" else np.int16)
    case = dataclasses.replace(case, masks={**case.masks, "aorta": aorta})
    for plan in tissue_plans(geometry):
        monkeypatch.delenv(choice.SWITCH, raising=False)
        choice.kernels.cache_clear()
        assert choice.kernels() is compiled
        made = rendered(case, plan)
        monkeypatch.setenv(choice.SWITCH, "numpy")
        choice.kernels.cache_clear()
        assert choice.kernels() is reference
        twin = rendered(case, plan)
        assert made.mask.any() == (around < 0 or plan.center_mm[0] == 0)  # a corner in muscle has no room
        assert made.digest == twin.digest
        assert repr(made.verdict) == repr(twin.verdict)  # with nan in it


@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_moved_hu_are_those_of_the_twin(shape: tuple[int, int, int], kind: type) -> None:
    hu = np.asfortranarray((10 * floats(shape)).astype(kind))
    rng = np.random.default_rng(1)
    came_from = np.stack([rng.uniform(0, n - 1, 900).astype(np.float32) for n in shape])
    came_from[:, :50] = came_from[:, :50].round()  # whole voxels, and both ends
    came_from[:, 50], came_from[:, 51] = 0, np.subtract(shape, 1)
    moved = same("moved_hu", hu, came_from)
    np.testing.assert_allclose(moved[50:52], [hu[0, 0, 0], hu[-1, -1, -1]], atol=1e-3)  # noise is carried along whole
    assert same("moved_hu", hu, came_from[:, :0]).size == 0


def test_a_kernel_is_compiled_once_for_each_type_of_scan() -> None:
    case = ellipsoid_case(GRIDS["1 mm"](80), (30, 30, 30), around=60.0)
    for plan in tissue_plans(case.read_image().geometry):
        rendered(case, plan)
    for module in (masks, sums, surfaces, voxels):
        for name, function in vars(module).items():
            signatures = getattr(function, "signatures", [])
            assert len(signatures) <= 2, f"{name}: {signatures}"


def test_without_numba_tumors_are_the_same_and_a_line_says_so() -> None:
    code = """
import logging, sys
logging.basicConfig()
sys.modules["numba"] = None
from synthoma.synthesis.kernels import choice, reference
assert choice.kernels() is reference
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install numba" in done.stderr


def test_numba_is_imported_when_a_tumor_is_rendered_and_not_before() -> None:
    code = """
import sys
import synthoma.cli.app, synthoma.synthesis.pipeline, synthoma.synthesis.generators.rules
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_where_nothing_can_be_kept_kernels_are_compiled_for_the_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = []

    def njit(cache: bool = False, **settings: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function 'twice': no locator available for file 'x.py'")
        made.append(settings)
        return lambda function: function

    monkeypatch.setattr(compiling.numba, "njit", njit)
    with caplog.at_level(logging.DEBUG):
        assert compiling.kernel(abs)(-2) == 2
    assert made
    assert "fastmath" not in made[0]
    assert "no locator" in caplog.text
