"""RTSTRUCT: contours to masks on the grid of the CT, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.contours import Contour, circle, closed, flat, write_structures
from formats.series import edit
from grids import hu, oblique
from synthoma import files
from synthoma.errors import FileError, GeometryError, SynthomaError
from synthoma.formats import dicom_write, rtstruct
from synthoma.formats.dicom_outlines import OutlineMask
from synthoma.volume import Array, Geometry, Volume

pydicom = pytest.importorskip("pydicom")

GRID = Geometry.of((64, 56, 9), (0.7, 0.9, 3.0), "LPS")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    dicom_write.write_series(hu(GRID), tmp_path / "ct", "P1")
    return tmp_path / "ct"


def read(scan: Path, regions: dict[str, list[Contour]]) -> dict[str, Volume]:
    """The regions as masks, after a way through a file."""
    write_structures(regions, scan, scan / "rs.dcm")
    outlines, grid = files.list_outlines(scan, scan)
    return {one.label: OutlineMask(one.path, (one.number,), grid)() for one in outlines}


def middle(k: float, grid: Geometry = GRID) -> Array:
    return grid.to_mm(((grid.shape[0] - 1) / 2, (grid.shape[1] - 1) / 2, k))


@pytest.mark.parametrize("radius_mm", [4.0, 9.0, 15.0])
def test_the_area_of_a_disk_is_that_of_its_circle(scan: Path, radius_mm: float) -> None:
    moves = np.random.default_rng(0).uniform(-1, 1, (40, 3)) * (1, 1, 0)
    disks = {f"disk_{n}": closed(circle(middle(4) + move, radius_mm)) for n, move in enumerate(moves)}
    areas_mm2 = [mask.data[:, :, 4].sum() * 0.7 * 0.9 for mask in read(scan, disks).values()]
    # borders that counted as inside would add half a pixel all around: 5 to 20 %
    assert np.mean(areas_mm2) == pytest.approx(np.pi * radius_mm**2, rel=0.005)
    assert areas_mm2 == pytest.approx([np.pi * radius_mm**2] * 40, rel=0.2 / radius_mm)


def test_contours_inside_contours_are_holes_in_either_direction(scan: Path) -> None:
    rings = {
        "a": closed(circle(middle(4), 15), circle(middle(4), 8), circle(middle(4), 3)),
        "b": closed(circle(middle(4), 15), circle(middle(4), 8, clockwise=True), circle(middle(4), 3)),
    }
    found = read(scan, rings)
    area_mm2 = found["a"].data.sum() * 0.7 * 0.9
    assert area_mm2 == pytest.approx(np.pi * (15**2 - 8**2 + 3**2), rel=0.01)
    assert np.array_equal(found["a"].data, found["b"].data)


def test_a_keyhole_is_the_ring_it_was_drawn_for(scan: Path) -> None:
    outer, inner = circle(middle(4), 15), circle(middle(4), 8, clockwise=True)
    keyhole = np.vstack([outer, outer[:1], inner, inner[:1]])
    found = read(scan, {"ring": closed(outer, inner), "keyhole": closed(keyhole)})
    assert np.array_equal(found["keyhole"].data, found["ring"].data)
    assert not found["keyhole"].data[32, 28, 4]


def test_regions_that_share_a_border_share_no_voxel_and_leave_none_out() -> None:
    left = np.array([[2.0, 2], [7, 2], [7, 9], [2, 9]])
    right = np.array([[7.0, 2], [12, 2], [12, 9], [7, 9]])
    a, b = (rtstruct.fill_contours([points], (16, 12)) for points in (left, right))
    both = rtstruct.fill_contours([np.array([[2.0, 2], [12, 2], [12, 9], [2, 9]])], (16, 12))
    assert not (a & b).any()
    assert np.array_equal(a | b, both)
    assert (a.sum(), both.sum()) == (5 * 7, 10 * 7)


@given(st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 25)), min_size=3, max_size=9))
def test_a_pixel_is_inside_if_a_ray_from_its_center_meets_the_contour_an_odd_number_of_times(
    points: list[tuple[float, float]],
) -> None:
    polygon = np.array(points)
    found = rtstruct.fill_contours([polygon], (20, 18))
    for i, j in np.ndindex(20, 18):
        crossings = 0
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if min(y0, y1) <= j < max(y0, y1):
                crossings += x0 + (j - y0) * (x1 - x0) / (y1 - y0) <= i
        assert found[i, j] == (crossings % 2 == 1)


def test_contours_on_every_second_slice_are_filled_between_and_not_beyond(scan: Path) -> None:
    cone = closed(*(circle(middle(k), 6.0 + 2 * k) for k in (1, 3, 5)))
    found = read(scan, {"cone": cone})["cone"]
    areas = found.data.sum(axis=(0, 1)) * 0.7 * 0.9
    wanted = [np.pi * (6 + 2 * k) ** 2 for k in range(7)]
    assert areas[1:6] == pytest.approx(wanted[1:6], rel=0.03)
    assert areas[0] == pytest.approx(wanted[1], rel=0.03)  # half a step of the region's contours beyond its ends
    assert areas[6] == pytest.approx(wanted[5], rel=0.03)
    assert not areas[7:].any()


def test_contours_between_slices_and_finer_than_slices_are_met_halfway(scan: Path) -> None:
    fine = closed(*(circle(middle(k), 5.0 + 2 * k) for k in np.arange(2.1, 5.0, 0.2)))
    found = read(scan, {"fine": fine})["fine"]
    areas = found.data.sum(axis=(0, 1)) * 0.7 * 0.9
    assert areas[3:5] == pytest.approx([np.pi * (5 + 2 * k) ** 2 for k in (3, 4)], rel=0.03)
    assert not areas[:2].any()
    assert not areas[6:].any()


@pytest.mark.parametrize("drawn", [(0, 1, 2, 6, 7), (0, 1, 2, 4, 5)], ids=["12 mm", "two steps"])
def test_a_gap_between_two_parts_of_a_region_stays_empty(scan: Path, drawn: tuple[int, ...]) -> None:
    parts = closed(*(circle(middle(k), 9) for k in drawn))
    found = read(scan, {"parts": parts})["parts"]
    assert found.data.any(axis=(0, 1)).tolist() == [k in drawn for k in range(GRID.shape[2])]


@pytest.mark.parametrize("seed", range(4))
def test_contours_fall_on_the_voxels_they_were_drawn_around_on_oblique_grids(tmp_path: Path, seed: int) -> None:
    dicom_write.write_series(hu(oblique(seed, (30, 26, 5))), tmp_path / "ct", "P1")
    grid = files.read_geometry(tmp_path / "ct")
    found = read(tmp_path / "ct", {"box": closed(flat(grid, [(3.5, 4.5), (20.5, 4.5), (20.5, 11.5), (3.5, 11.5)], 2))})
    wanted = np.zeros(grid.shape, bool)
    wanted[4:21, 5:12, 2] = True
    assert np.array_equal(found["box"].data, wanted)


def test_a_region_that_reaches_over_the_edge_of_the_scan_is_cut_there(scan: Path) -> None:
    found = read(scan, {"body": closed(flat(GRID, [(-20, -20), (10.5, -20), (10.5, 80), (-20, 80)], 3))})["body"]
    assert found.data.sum() == found.data[:11, :, 3].sum() == 11 * 56


def test_regions_without_an_area_are_left_out_with_a_word(scan: Path, caplog: pytest.LogCaptureFixture) -> None:
    point = [("POINT", middle(4)[None])]
    line = [("OPEN_PLANAR", circle(middle(4), 5)[:90])]
    with caplog.at_level(logging.WARNING):
        found = read(scan, {"isocenter": point, "catheter": line, "planned": [], "liver": closed(circle(middle(4), 9))})
    assert list(found) == ["liver"]
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "isocenter is left out: it has no closed contour, only POINT",
        "catheter is left out: it has no closed contour, only OPEN_PLANAR",
    ]


@pytest.mark.parametrize(
    ("contours", "told"),
    [
        (closed(circle(middle(4), 5)) + [("OPEN_PLANAR", circle(middle(5), 5)[:90])], "nothing; found OPEN_PLANAR"),
        (closed(circle(middle(4), 9)[:, [0, 2, 1]]), "not lie in the plane of a slice; found points 18.0 mm apart"),
        (closed(circle(middle(40), 5)), r"lies outside of the scan; found voxel .*40.0 of"),
        (closed(circle(middle(4) + (300, 0, 0), 5)), "lies outside of the scan"),
        (closed(circle(middle(4), 5)[:2]), "has a contour of 2 points; expected 3 or more"),
        (closed(circle(middle(4), 1e9)), "a point where no scan is"),
    ],
)  # fmt: skip
def test_contours_that_make_no_mask_are_refused_by_name(scan: Path, contours: list[Contour], told: str) -> None:
    with pytest.raises(SynthomaError, match=told) as caught:
        read(scan, {"liver": contours})
    assert "rs.dcm: liver" in str(caught.value)


def test_contours_in_another_frame_of_reference_are_refused(scan: Path) -> None:
    write_structures({"liver": closed(circle(middle(4), 9))}, scan, scan / "rs.dcm", frame="1.2.3")
    with pytest.raises(GeometryError, match=r"rs.dcm is in another frame of reference than the CT; found 1\.2\.3"):
        files.list_outlines(scan, scan)


def test_numbers_that_are_none_are_refused_and_a_cut_file_is_no_crash(scan: Path) -> None:
    write_structures({"liver": closed(circle(middle(4), 9, 12))}, scan, scan / "rs.dcm")
    whole = (scan / "rs.dcm").read_bytes()
    number = f"{-middle(4)[0] - 9:.4f}".encode()
    assert whole.count(number) == 1
    (scan / "rs.dcm").write_bytes(whole.replace(number, b"x" * len(number)))
    with pytest.raises(FileError, match="damaged DICOM header; found could not convert"):
        read_alone(scan)
    for length in range(200, len(whole), 97):
        (scan / "rs.dcm").write_bytes(whole[:length])
        try:
            read_alone(scan)
        except SynthomaError:
            continue


def read_alone(scan: Path) -> list[Volume]:
    outlines, grid = files.list_outlines(scan, scan)
    return [OutlineMask(one.path, (one.number,), grid)() for one in outlines]


def test_a_structure_set_that_refers_to_nothing_is_of_the_series_in_its_frame(scan: Path) -> None:
    write_structures({"liver": closed(circle(middle(4), 9))}, scan, scan / "rs.dcm", refers=False)
    edit(scan, lambda image: setattr(image, "FrameOfReferenceUID", image.get("FrameOfReferenceUID", "")), "rs.dcm")
    with pytest.raises(FileError, match="was drawn on a series that is not here; found series unknown"):
        files.list_outlines(scan, scan)
    frame = pydicom.dcmread(scan / "00000.dcm").FrameOfReferenceUID
    edit(scan, lambda image: setattr(image, "FrameOfReferenceUID", frame), "rs.dcm")
    assert len(read_alone(scan)) == 1
