"""Slices on screen: sides, proportions and borders, measured in pixels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from grids import oblique
from synthoma.errors import CaseError
from synthoma.slices import (
    BEYOND,
    NO_VALUE,
    PLANES,
    SOFT_TISSUE,
    WINDOWS,
    Outline,
    Window,
    draw_slice,
    lesion_window,
    position,
)
from synthoma.volume import Box, Geometry, Volume

THICK = Geometry.of((80, 70, 24), (0.8, 0.9, 3.0), "LPS")
TURNED = oblique(4, (60, 44, 70))
GRIDS = {"thick slices": THICK, "oblique": TURNED}
RED = "#ff0000"


def distance_mm(geometry: Geometry, mm: np.ndarray) -> np.ndarray:
    return np.linalg.norm(geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1)) - mm, axis=-1)


def middle_mm(geometry: Geometry) -> np.ndarray:
    return geometry.to_mm(np.asarray(geometry.shape) // 2)


def radius_mm(geometry: Geometry) -> float:
    return 0.3 * float(np.min(np.asarray(geometry.shape) * geometry.spacing_mm))


def ball(geometry: Geometry) -> Volume:
    return Volume(distance_mm(geometry, middle_mm(geometry)) < radius_mm(geometry), geometry)


def as_hu(mask: Volume, inside: int = 1000, outside: int = -1000) -> Volume:
    return Volume(np.where(mask.data, inside, outside).astype(np.int16), mask.geometry)


def drawn(image: Volume, plane: str, outlines: tuple[Outline, ...] = (), **how: object) -> np.ndarray:
    """RGB (400, 400, 3) of a square panel of 50 mm each way (or as told), its letters outside."""
    figure = Figure((6, 6), 100, facecolor="black")
    axes = figure.add_axes((1 / 6, 1 / 6, 4 / 6, 4 / 6))
    options = {"center_mm": middle_mm(image.geometry), "half_mm": 1.7 * radius_mm(image.geometry)} | how
    draw_slice(axes, image, plane, outlines=outlines, **options)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[100:500, 100:500, :3].astype(int)


def like(picture: np.ndarray, color: str, tolerance: int = 60) -> np.ndarray:
    return np.abs(picture - np.round(np.multiply(to_rgb(color), 255))).max(axis=-1) <= tolerance


def extent(pixels: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_ball_is_round_and_in_the_middle_on_any_grid(grid: str, plane: str) -> None:
    mask = ball(GRIDS[grid])
    picture = drawn(as_hu(mask), plane)
    picture[350:, :250] = 0  # the scale bar
    pixels = picture.mean(axis=-1) > 128
    left, right, top, bottom = extent(pixels)
    diameter = 400 / 1.7
    voxel = max(mask.geometry.spacing_mm) / radius_mm(mask.geometry) / 1.7 * 200
    assert right - left == pytest.approx(diameter, abs=voxel + 2)
    assert bottom - top == pytest.approx(diameter, abs=voxel + 2)
    assert pixels.sum() == pytest.approx(np.pi / 4 * diameter**2, rel=0.04)
    assert (left + right) / 2 == pytest.approx(200, abs=voxel / 2 + 2)
    assert (top + bottom) / 2 == pytest.approx(200, abs=voxel / 2 + 2)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LPI", "PIR", "SAL", "IRA"])
def test_right_is_left_anterior_up_or_left_and_head_up_whatever_the_axes(axes: str) -> None:
    spacing = dict(zip("RAS", (1.0, 1.2, 3.0), strict=True))
    named = {"R": "R", "L": "R", "A": "A", "P": "A", "S": "S", "I": "S"}
    counts = {"R": 40, "A": 36, "S": 16}
    shape = [counts[named[letter]] for letter in axes]
    grid = Geometry.of(shape, [spacing[named[letter]] for letter in axes], axes)
    upright = grid.reoriented("RAS")
    data = np.full(upright.shape, -1000, np.int16)
    data[-8:, -6:, -4:] = 1000
    corner = upright.to_mm(np.asarray(upright.shape) - (4, 3, 2))  # right, anterior and up
    for plane in PLANES:
        picture = drawn(Volume(data, upright).reorient(axes), plane, center_mm=corner, half_mm=20)
        assert picture[200, 200].min() > 250, plane
        assert like(picture, BEYOND, 2)[:100, :100].all(), plane
        assert like(picture, "black", 2)[300:, 300:].all(), plane


def test_a_mirrored_scan_gives_the_mirrored_picture() -> None:
    rng = np.random.default_rng(0)
    mask = ball(THICK)
    data = (rng.normal(0, 80, THICK.shape) + 60 * mask.data).astype(np.int16)
    mirrored = Geometry(THICK.shape, np.diag([-1.0, 1, 1, 1]) @ THICK.affine)
    for plane, turn in (("axial", True), ("coronal", True), ("sagittal", False)):
        one = drawn(Volume(data, THICK), plane, (Outline("ball", mask, RED, 1.5),))
        other = drawn(Volume(data, mirrored), plane, (Outline("ball", Volume(mask.data, mirrored), RED, 1.5),))
        twin = other[:, ::-1] if turn else other
        assert np.abs(one - twin)[:330].mean() < 3, plane
        assert not turn or np.abs(one - other)[:330].mean() > 10, plane


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("grid", GRIDS)
def test_the_border_lies_where_the_mask_ends(grid: str, plane: str) -> None:
    mask = ball(GRIDS[grid])
    bright = drawn(as_hu(mask), plane).mean(axis=-1) > 128
    bright[350:, :250] = False
    red = like(drawn(as_hu(mask, 0, 0), plane, (Outline("ball", mask, RED, 1.5),)), RED)
    assert red.sum() > 400
    assert extent(red) == pytest.approx(extent(bright), abs=6)


def test_the_border_of_a_single_voxel_is_seen() -> None:
    data = np.zeros(THICK.shape, bool)
    data[40, 35, 12] = True
    for plane in PLANES:
        red = like(drawn(as_hu(ball(THICK), 0, 0), plane, (Outline("dot", Volume(data, THICK), RED, 1.5),)), RED, 120)
        assert extent(red) == pytest.approx((200,) * 4, abs=3 * 7), plane
        assert red.sum() >= 9, plane


@pytest.mark.parametrize("grid", GRIDS)
def test_a_crop_of_a_mask_draws_the_same_border(grid: str) -> None:
    mask = ball(GRIDS[grid])
    box = Box.around(mask.data)
    assert box is not None
    whole = drawn(as_hu(mask), "coronal", (Outline("ball", mask, RED, 1.5),))
    part = drawn(as_hu(mask), "coronal", (Outline("ball", mask.crop(box), RED, 1.5),))
    assert np.array_equal(whole, part)


def test_only_outlines_that_the_slice_cuts_are_named() -> None:
    data = np.zeros(THICK.shape, bool)
    data[:, :, :3] = True
    outlines = (Outline("ball", ball(THICK), RED, 1), Outline("floor", Volume(data, THICK), RED, 1))
    axes = Figure().add_axes((0, 0, 1, 1))
    assert draw_slice(axes, as_hu(ball(THICK)), "axial", middle_mm(THICK), outlines) == {"ball"}
    assert draw_slice(axes, as_hu(ball(THICK)), "coronal", middle_mm(THICK), outlines) == {"ball", "floor"}


def test_what_lies_beyond_the_scan_is_told_from_air() -> None:
    air = Volume(np.full(THICK.shape, -1000, np.int16), THICK)
    picture = drawn(air, "axial", center_mm=THICK.to_mm((0, 35, 12)), half_mm=20)
    beyond = like(picture, BEYOND, 2)
    assert beyond[:330, :190].all()  # i grows to the patient's left
    assert not beyond[:, 210:].any()


def test_hu_without_a_value_are_blue_and_infinite_ones_as_well() -> None:
    data = np.zeros(THICK.shape, np.float32)
    data[:40], data[:20] = np.nan, np.inf
    picture = drawn(Volume(data, THICK), "axial", half_mm=None)
    assert like(picture, NO_VALUE, 3).mean() == pytest.approx(0.5 * 63 / 64, abs=0.02)


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    black = Volume(np.full((200, 200, 20), -1000, np.int16), Geometry.of((200, 200, 20), (1, 1, 5)))
    for half_mm, length_mm in ((25, 20), (24, 10), (60, 20), (100, 50)):
        picture = drawn(black, "axial", half_mm=half_mm)
        longest = (picture.min(axis=-1) > 200).sum(axis=1).max()
        assert longest == pytest.approx(length_mm * 400 / (2 * half_mm), abs=2)


def test_the_window_says_what_is_black_and_white() -> None:
    hu = np.linspace(-1000, 1000, 80)[:, None, None] + np.zeros(THICK.shape)
    image = Volume(hu.astype(np.int16), THICK)  # grows to the patient's left
    row = drawn(image, "axial", window=Window(1000, 0), half_mm=None)[200, :, 0]
    assert row[:95].max() < 3
    assert row[305:].min() > 252
    assert row[200] == pytest.approx(127, abs=4)
    assert (np.diff(row) >= 0).all()
    assert str(SOFT_TISSUE) == "W 400 L 40"


def test_windows_have_names_or_two_numbers() -> None:
    assert Window.named("liver") == WINDOWS["liver"]
    assert Window.named("300,-20.5") == (300, -20.5)
    for text in ("", "livre", "400", "0,40", "-5,40", "nan,1", "inf,0", "1,2,3"):
        with pytest.raises(CaseError, match=r"no window .* or one of soft_tissue, liver"):
            Window.named(text)


@pytest.mark.parametrize(
    ("contrast", "width", "level"), [(-30, 150, 85), (-60, 300, 70), (10, 120, 105), (-90, 400, 40)]
)
def test_a_lesion_is_shown_in_a_window_that_its_contrast_fills(contrast: int, width: int, level: int) -> None:
    mask = ball(THICK)
    hu = np.full(THICK.shape, 100, np.int16)
    hu[mask.data] += contrast
    hu[:10] = -1000  # what is no soft tissue does not count
    window = lesion_window(Volume(hu, THICK), mask)
    assert window.width_hu == width
    assert window.level_hu == pytest.approx(level, abs=5)


def test_noise_widens_the_window_and_nothing_to_measure_gives_the_usual_one() -> None:
    mask = ball(THICK)
    rough = np.random.default_rng(0).normal(100, 30, THICK.shape).astype(np.int16)
    assert lesion_window(Volume(rough, THICK), mask).width_hu == pytest.approx(240, abs=20)
    assert lesion_window(Volume(np.full(THICK.shape, -1000, np.int16), THICK), mask) == SOFT_TISSUE
    empty = Volume(np.zeros(THICK.shape, bool), THICK)
    assert lesion_window(Volume(rough, THICK), empty) == SOFT_TISSUE


@pytest.mark.parametrize("width", [0, -400, np.nan])
def test_a_window_without_width_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match="wider than 0 HU"):
        drawn(as_hu(ball(THICK)), "axial", window=Window(width, 40))


def test_positions_are_named_by_the_side_they_lie_on() -> None:
    mm = np.array([-12.3, 45.6, -7.8])
    assert [position(plane, mm) for plane in PLANES] == ["I 8 mm", "A 46 mm", "L 12 mm"]
