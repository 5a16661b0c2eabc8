"""Pictures of cases and lesions: what is in them, and what a bad input gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from grids import oblique
from synthoma.cases import Case
from synthoma.errors import CaseError, FileError, GeometryError
from synthoma.pictures import TUMOR_COLOR, show_case, show_gallery, show_lesion, show_patches
from synthoma.slices import NO_VALUE
from synthoma.volume import Box, Geometry, Volume
from test_slices import distance_mm, extent, like

THICK = Geometry.of((90, 80, 26), (1.5, 1.5, 5.0), "LPS")
GRIDS = {"thick slices": THICK, "oblique": oblique(4, (60, 44, 70))}
LIVER = "#e0c060"


def at(geometry: Geometry, share: tuple[float, float, float]) -> np.ndarray:
    return geometry.to_mm(np.floor(np.multiply(geometry.shape, share)))


def ball(geometry: Geometry, share: tuple[float, float, float], part: float) -> Volume:
    """A ball around a place of the grid; its radius is a part of the smallest side."""
    radius = part * float(np.min(np.asarray(geometry.shape) * geometry.spacing_mm))
    return Volume(distance_mm(geometry, at(geometry, share)) < radius, geometry)


def body(geometry: Geometry) -> Volume:
    inside = ball(geometry, (0.5, 0.5, 0.5), 0.45).data
    return Volume(np.where(inside, 40, -1000).astype(np.int16), geometry)


def case_on(geometry: Geometry, **more: Volume) -> Case:
    return Case("one", body(geometry), {"liver": ball(geometry, (0.4, 0.5, 0.5), 0.3), **more})


def pixels(path: Path) -> np.ndarray:
    return np.round(imread(path)[..., :3] * 255).astype(int)


def shown(case: Case, folder: Path) -> np.ndarray:
    show_case(case, folder / "case.png")
    return pixels(folder / "case.png")


@pytest.mark.parametrize("grid", GRIDS)
def test_organs_are_outlined_muted_and_tumors_red(grid: str, tmp_path: Path) -> None:
    geometry = GRIDS[grid]
    healthy = shown(case_on(geometry), tmp_path)
    assert like(healthy, LIVER).sum() > 300
    assert not like(healthy, TUMOR_COLOR).any()
    ill = shown(case_on(geometry, liver_lesion=ball(geometry, (0.4, 0.5, 0.5), 0.1)), tmp_path)
    assert like(ill, TUMOR_COLOR).sum() > 200


@pytest.mark.parametrize("name", ["kidney_lesion", "sarcoma", "gtv_1", "metastases"])
def test_tumors_are_known_by_whatever_name(name: str, tmp_path: Path) -> None:
    picture = shown(case_on(THICK, **{name: ball(THICK, (0.4, 0.5, 0.5), 0.1)}), tmp_path)
    assert like(picture, TUMOR_COLOR).sum() > 200


@pytest.mark.parametrize("grid", GRIDS)
def test_the_planes_meet_in_the_largest_tumor(grid: str, tmp_path: Path) -> None:
    geometry = GRIDS[grid]
    large, small = ball(geometry, (0.25, 0.6, 0.7), 0.08), ball(geometry, (0.8, 0.2, 0.2), 0.04)
    together = Volume(large.data | small.data, geometry)
    with_both = shown(case_on(geometry, liver_lesion=together), tmp_path)
    with_one = shown(case_on(geometry, liver_lesion=large), tmp_path)
    assert np.array_equal(with_both, with_one)
    elsewhere = shown(case_on(geometry, liver_lesion=small), tmp_path)
    assert not np.array_equal(with_one, elsewhere)


def test_without_tumors_the_planes_cut_the_organs(tmp_path: Path) -> None:
    case = Case("corner", body(THICK), {"liver": ball(THICK, (0.2, 0.3, 0.8), 0.1), "spleen": empty(THICK)})
    picture = like(shown(case, tmp_path), LIVER)[:-60]  # less the legend
    assert all(third.any() for third in np.array_split(picture, 3, axis=1))


def empty(geometry: Geometry) -> Volume:
    return Volume(np.zeros(geometry.shape, bool), geometry)


def test_the_same_case_gives_the_same_bytes_whatever_matplotlib_is_told(tmp_path: Path) -> None:
    case = case_on(THICK, liver_lesion=ball(THICK, (0.4, 0.5, 0.5), 0.1))
    show_case(case, tmp_path / "a.png")
    told = {
        "axes.grid": True, "font.size": 30, "font.family": "serif", "savefig.bbox": "tight", "savefig.dpi": 50,
        "axes.facecolor": "white", "image.origin": "lower", "image.interpolation": "nearest", "text.color": "green",
    }  # fmt: skip
    with matplotlib.rc_context(told):
        show_case(case, tmp_path / "b.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert b"matplotlib" not in content.lower()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_case_without_masks_is_shown_through_its_body(tmp_path: Path) -> None:
    inside = ball(THICK, (0.2, 0.3, 0.8), 0.1).data
    image = Volume(np.where(inside, 1000, -1000).astype(np.int16), THICK)
    assert (shown(Case("bare", image), tmp_path).min(axis=-1) > 250).sum() > 3000


@pytest.mark.parametrize("shape", [(40, 30, 1), (1, 30, 20), (40, 1, 20), (1, 1, 1), (2, 3, 400)])
def test_flat_and_tiny_scans_are_shown(shape: tuple[int, int, int], tmp_path: Path) -> None:
    geometry = Geometry.of(shape, (1.0, 1.0, 4.0))
    image = Volume(np.full(shape, 1000, np.int16), geometry)
    picture = shown(Case("flat", image, {"liver": Volume(np.ones(shape, bool), geometry)}), tmp_path)
    assert like(picture, LIVER, 90).any()
    assert max(picture.shape) < 2000


def test_a_scan_without_values_is_shown_in_blue(tmp_path: Path) -> None:
    image = Volume(np.full(THICK.shape, np.nan, np.float32), THICK)
    assert like(shown(Case("nan", image), tmp_path), NO_VALUE, 3).mean() > 0.3


def test_ids_with_signs_of_formulas_are_text(tmp_path: Path) -> None:
    shown(Case(r"cost_$5^{", body(THICK)), tmp_path)


def test_a_scan_without_voxels_is_refused(tmp_path: Path) -> None:
    image = Volume(np.zeros((5, 5, 0), np.int16), Geometry.of((5, 5, 0)))
    with pytest.raises(CaseError, match="none_here: the scan has no voxels"):
        show_case(Case("none_here", image), tmp_path / "case.png")


def test_a_mask_on_another_grid_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="one: the spleen mask's grid differs"):
        show_case(case_on(THICK, spleen=ball(GRIDS["oblique"], (0.5,) * 3, 0.2)), tmp_path / "case.png")
    assert not list(tmp_path.iterdir())


def test_only_png_is_written_and_only_where_one_may(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"pictures are PNG.*\.png"):
        show_case(case_on(THICK), tmp_path / "case.jpg")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot write"):
        show_case(case_on(THICK), tmp_path / "file" / "case.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("share", [(0.5, 0.5, 0.5), (0.0, 0.5, 0.99), (0.99, 0.0, 0.0)])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_lesion_is_centered_even_at_the_scan_s_face(grid: str, share: tuple, tmp_path: Path) -> None:
    geometry = GRIDS[grid]
    mask = ball(geometry, share, 0.1)
    show_lesion(body(geometry), body(geometry), mask, tmp_path / "lesion.png", caption="a lesion")
    red = like(pixels(tmp_path / "lesion.png"), TUMOR_COLOR)
    assert not red[:700].any(), "before and after carry no border"
    for column in range(3):
        left, right, top, bottom = extent(red[698:, 38 + 340 * column :][:, :300])
        assert left <= 170, share
        assert right >= 130, share
        assert bottom - top > 10, share


def test_a_large_lesion_gets_a_larger_field_of_view(tmp_path: Path) -> None:
    widths = []
    for part in (0.05, 0.2, 0.4):
        mask = ball(THICK, (0.5, 0.5, 0.5), part)
        show_lesion(body(THICK), body(THICK), mask, tmp_path / "lesion.png")
        left, right, *_ = extent(like(pixels(tmp_path / "lesion.png"), TUMOR_COLOR)[698:, 38:338])
        widths.append(right - left)
    assert widths[0] < widths[1] == pytest.approx(100, abs=6)  # a third of the panel
    assert widths[2] == pytest.approx(100, abs=6)


def test_a_lesion_needs_one_grid_and_a_mask_that_is_not_empty(tmp_path: Path) -> None:
    mask = ball(THICK, (0.5, 0.5, 0.5), 0.2)
    part = body(THICK).crop(Box((0, 0, 0), (90, 80, 25)))
    with pytest.raises(GeometryError, match="scan with the lesion's grid differs"):
        show_lesion(body(THICK), part, mask, tmp_path / "lesion.png")
    with pytest.raises(GeometryError, match="mask's grid differs"):
        show_lesion(part, part, mask, tmp_path / "lesion.png")
    with pytest.raises(CaseError, match="no lesion to show; found an empty mask"):
        show_lesion(body(THICK), body(THICK), empty(THICK), tmp_path / "lesion.png")
    assert not list(tmp_path.iterdir())


def test_a_gallery_has_a_column_an_item_with_the_border_below(tmp_path: Path) -> None:
    places = [(geometry, (share, 0.5, 0.5)) for share in (0.4, 0.45, 0.5, 0.55, 0.6) for geometry in GRIDS.values()]
    items = [("title", body(grid), body(grid), ball(grid, share, 0.1)) for grid, share in places[:9]]
    show_gallery(items, tmp_path / "gallery.png")
    picture = pixels(tmp_path / "gallery.png")
    red = like(picture, TUMOR_COLOR)
    assert picture.shape[1] == 18 + 8 * 260  # eight in a row, the ninth below
    for number in range(9):
        top, left = number // 8 * (18 + 3 * 260 + 18), 18 + number % 8 * 260
        assert not red[top : top + 530, left : left + 260].any(), "before and after carry no border"
        assert red[top + 540 :, left : left + 260][:250].any(), number
    with pytest.raises(ValueError, match="needs an item"):
        show_gallery([], tmp_path / "gallery.png")


def test_matplotlib_is_imported_when_needed_and_its_global_state_never(tmp_path: Path) -> None:
    script = f"""
import sys
from synthoma.pictures import show_case
assert "matplotlib" not in sys.modules and "scipy" not in sys.modules
import numpy as np
from synthoma.cases import Case
from synthoma.volume import Geometry, Volume
show_case(Case("x", Volume(np.zeros((9, 9, 9), np.int16), Geometry.of((9, 9, 9)))), {str(tmp_path / "x.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_real_liver_lies_on_the_left_of_the_picture_and_the_spleen_on_the_right(
    real_data: Path, tmp_path: Path
) -> None:
    centers = []
    for organ in ("liver", "spleen"):
        folder = real_data / "crlm_1004"
        masks = {"tumor": folder / "segmentations" / f"{organ}.nii.gz"}  # so that it is red
        picture = shown(Case("crlm_1004", folder / "ct.nii.gz", masks), tmp_path)
        centers.append(np.argwhere(like(picture[38:788, 20:770], TUMOR_COLOR))[:, 1].mean())
    assert centers[0] < 300
    assert centers[1] > 450


def test_patches_are_shown_beside_truth_and_prediction_empty_ones_too(tmp_path: Path) -> None:
    grid = Geometry.of((20, 16, 12), 2.0)
    hu = Volume(np.zeros(grid.shape, np.float32), grid)
    some = np.zeros(grid.shape, bool)
    some[4:9, 4:9, 7:9] = True
    none, part = Volume(np.zeros(grid.shape, bool), grid), Volume(some, grid)
    show_patches([("found", hu, part, part), ("none", hu, none, none)], tmp_path / "both.png")
    show_patches([("found", hu, part, part)], tmp_path / "one.png")
    show_patches([("missed", hu, part, none)], tmp_path / "missed.png")
    assert (tmp_path / "both.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "missed.png").read_bytes()
    with pytest.raises(ValueError, match="needs one"):
        show_patches([], tmp_path / "nothing.png")
