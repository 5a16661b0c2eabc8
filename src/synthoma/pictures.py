"""A case or a lesion as a PNG a radiologist would accept: windowed slices with contours, in mm and labeled.

Pictures follow the radiological convention: the patient's right on the left, anterior up in axial slices, head up
and anterior on the left in the others. A grid turned against the patient is shown along its own axes, which the
caption says; a sheared one (gantry tilt) is drawn as if its axes were perpendicular. Bytes depend on the input
only, given one matplotlib.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from synthoma import anatomy
from synthoma.cases import Case, Lesion, find_lesions
from synthoma.disk import atomic
from synthoma.errors import CaseError, FileError
from synthoma.slices import (
    PLANES,
    SCREEN,
    SOFT_TISSUE,
    TEXT,
    Outline,
    Window,
    draw_slice,
    font,
    lesion_window,
    position,
)
from synthoma.volume import Array, Box, Geometry, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What tumors are called in data sets beside `*_lesion`
TUMOR_WORDS = ("tumor", "tumour", "lesion", "cancer", "carcinoma", "sarcoma", "metasta", "neoplas", "gtv")
TUMOR_COLOR, TRUTH_COLOR = "#ff3b30", "#3ddc84"
# Muted, and distinct where organs touch
ORGAN_COLORS = {
    "liver": "#e0c060", "spleen": "#c08be0", "kidney_left": "#45c4cf", "kidney_right": "#7fd6a4",
    "pancreas": "#f0a878", "stomach": "#86b6f2", "duodenum": "#5b8fd0", "intestine": "#9aa0d8", "colon": "#a8b04a",
    "esophagus": "#d6e07a", "gall_bladder": "#58b368", "aorta": "#e58fb0", "postcava": "#7079e6",
    "portal_vein_and_splenic_vein": "#a5dcff", "bladder": "#e8e29a", "uterus": "#e39be6",
}  # fmt: skip
OTHER_COLORS = ("#a9b4c2", "#c9b79c", "#b79fc0", "#9dbfa8")
BACKGROUND, FAINT = "#16181c", "#8a9099"

DPI = 100
LINE = 18  # px a line of text takes
EDGE = 20  # px around a panel, for its letters
CASE_WIDTH, CASE_HEIGHT, CASE_LEAST = 1500, 800, 900  # px: a case's panels at most, its figure at least
TITLE = 150  # px a panel's title takes
LESION_PANEL, GALLERY_PANEL = 300, 220  # px
GALLERY_COLUMNS = 8


Place = Path | str | BinaryIO  # where a picture goes: a file, or a stream of bytes
Item = tuple[str, Volume, Volume, Volume]  # title, before, after, mask
Rows = dict[str, tuple[Volume, tuple[Outline, ...]]]  # what a row of a grid is called -> what it shows


def show_case(case: Case, path: Place, window: Window = SOFT_TISSUE) -> None:
    """Three planes through a case, as a PNG: organs in thin muted lines, tumors in red.

    The planes meet in the center of the largest tumor; without tumors they are those that cut the organs best,
    without masks those through the body's center. All three have one scale. Masks are read one at a time; of each,
    its box is kept. NaN are shown in blue. Raises `GeometryError` if a mask lies on another grid.
    """
    _require_png(path)
    with case.named():
        image = case.read_image()
        if 0 in image.geometry.shape:
            raise CaseError("the scan has no voxels", found=image.geometry)
        outlines = _outlines(case, image)
    center_mm = _snapped(image.geometry, _center_mm(image, outlines))
    boxes = _arranged(image.geometry)
    content, bottom = max(left + w for left, _, w, _ in boxes) + EDGE, max(top + h for _, top, _, h in boxes) + EDGE
    width = max(content, CASE_LEAST)
    entry = 50 + 7 * max((len(outline.name) for outline in outlines), default=0)
    columns = max(1, (width - EDGE) // entry)
    legend = bottom + LINE
    caption = legend + -(-len(outlines) // columns) * LINE + LINE // 2
    facts = _facts(case.id, image.geometry, window)
    sheet = _Sheet(width, caption + len(facts) * LINE)
    cut: set[str] = set()
    for plane, (left, top, panel_width, panel_height) in zip(PLANES, boxes, strict=True):
        left += (width - content) // 2
        panel = sheet.panel(left, top, panel_width, panel_height)
        cut |= draw_slice(panel, image, plane, center_mm, outlines, window)
        sheet.write(left, top - EDGE - LINE // 2, f"{plane}  {position(plane, center_mm)}")
    for number, outline in enumerate(outlines):
        row, column = divmod(number, columns)
        sheet.key(EDGE + column * entry, legend + row * LINE, outline, outline.name in cut)
    for number, fact in enumerate(facts):
        sheet.write(EDGE, caption + number * LINE, fact, FAINT)
    sheet.save(path)


def show_lesion(
    before: Volume, after: Volume, mask: Volume, path: Place, caption: str = "", window: Window | None = None
) -> None:
    """A lesion in three planes, as a PNG: the scan before, after, and after with the mask's border in red.

    Centered on the largest lesion of the mask; beyond the scan is dark gray. window: the one of `lesion_window` unless
    told. All three volumes share one grid, else `GeometryError`; `CaseError` if the mask is empty.
    """
    lesion, outline, view = _view(before, after, mask)
    window = window or lesion_window(after, mask)
    rows: Rows = {"before": (before, ()), "after": (after, ()), "label": (after, (outline,))}
    columns = [_Column(f"{plane}  {position(plane, view.center_mm)}", plane, view, rows, window) for plane in PLANES]
    size = f"diameter {lesion.equivalent_diameter_mm:.1f} mm   {lesion.volume_ml:.2f} ml"
    captions = [caption] * bool(caption) + _facts(size, before.geometry, window)
    _save_grid(path, columns, LESION_PANEL, captions)


def show_gallery(items: Sequence[Item], path: Place, caption: str = "", window: Window | None = None) -> None:
    """Lesions in the axial plane, as a PNG: for each the scan before, after, and after with its border in red.

    items: title, before, after, mask; as in `show_lesion`. They stand side by side, `GALLERY_COLUMNS` in a row; each
    has its own scale, scale bar and window.
    """
    if not items:
        raise ValueError("a gallery needs an item")
    columns = []
    for title, before, after, mask in items:
        _, outline, view = _view(before, after, mask)
        rows: Rows = {"before": (before, ()), "after": (after, ()), "label": (after, (outline,))}
        columns.append(_Column(title, "axial", view, rows, window or lesion_window(after, mask)))
    windows = {str(column.window) for column in columns}
    line = f"axial   {windows.pop() if len(windows) == 1 else 'each in the window below it'}"
    _save_grid(path, columns, GALLERY_PANEL, [caption] * bool(caption) + [line], len(windows) > 0)


def show_patches(items: Sequence[tuple[str, Volume, Volume, Volume]], path: Place) -> None:
    """Training patches side by side, as a PNG: each alone, with the truth in green, with the prediction in red.

    items: title, image, true mask, predicted mask on one grid each. The axial slice with most of the truth shows, or
    of the prediction, or the middle one.
    """
    if not items:
        raise ValueError("a picture of patches needs one")
    columns = []
    for title, image, truth, predicted in items:
        view = _patch_view(image, truth, predicted)
        wanted = Outline("truth", truth, TRUTH_COLOR, 1.2)
        given = Outline("prediction", predicted, TUMOR_COLOR, 1.2)
        rows: Rows = {"patch": (image, ()), "truth": (image, (wanted,)), "prediction": (image, (given,))}
        columns.append(_Column(title, "axial", view, rows, SOFT_TISSUE))
    _save_grid(path, columns, GALLERY_PANEL, [f"axial   {SOFT_TISSUE}"])


def as_png(show: Callable[[BinaryIO], None]) -> bytes:
    """The bytes of a picture, as a notebook shows it: `as_png(lambda file: show_case(case, file))`."""
    file = io.BytesIO()
    show(file)
    return file.getvalue()


def _outlines(case: Case, image: Volume) -> list[Outline]:
    """The masks that are not empty, tumors last so that they are drawn on top."""
    organs, tumors = [], []
    for name, mask in case.each_mask():
        image.require_same_grid(mask, f"mask of {name}")
        part = _boxed(mask, image.geometry)
        if part is None:
            continue
        if _is_tumor(name):
            tumors.append(Outline(name, part, TUMOR_COLOR, 1.5))
        else:
            organs.append(Outline(name, part, _muted_color(name), 0.8))
    return organs + tumors


def _is_tumor(structure: str) -> bool:
    return anatomy.is_lesion(structure) or any(word in structure for word in TUMOR_WORDS)


def _muted_color(structure: str) -> str:
    """The structure's color, the same in every picture."""
    return ORGAN_COLORS.get(structure) or OTHER_COLORS[zlib.crc32(structure.encode()) % len(OTHER_COLORS)]


def _boxed(mask: Volume, geometry: Geometry) -> Volume | None:
    """A copy of the smallest box that holds the mask, so that the whole one can be forgotten; None if it is empty."""
    box = Box.around(mask.data)
    return Volume(mask.data[box.slices] != 0, geometry.crop(box)) if box else None


def _center_mm(image: Volume, outlines: Sequence[Outline]) -> Array:
    """Where a case is worth looking at, RAS+."""
    tumors = [find_lesions(outline.mask, outline.name)[0] for outline in outlines if _is_tumor(outline.name)]
    if tumors:
        return np.asarray(max(tumors, key=lambda lesion: lesion.volume_ml).center_mm)
    if outlines:
        return image.geometry.to_mm([_fullest(image.geometry, outlines, axis) for axis in range(3)])
    steps = [-(-n // 64) for n in image.geometry.shape]
    body = np.argwhere(image.data[tuple(slice(None, None, step) for step in steps)] > -300)
    middle = body.mean(axis=0) * steps if len(body) else (np.asarray(image.geometry.shape) - 1) / 2
    return image.geometry.to_mm(middle)


def _fullest(geometry: Geometry, outlines: Sequence[Outline], axis: int) -> int:
    """The slice in which the organs reach most of their largest area, summed over organs."""
    shares = np.zeros(geometry.shape[axis])
    for outline in outlines:
        areas = outline.mask.data.sum(axis=tuple(other for other in range(3) if other != axis))
        first = round(float(geometry.to_ijk(outline.mask.geometry.affine[:3, 3])[axis]))
        shares[first : first + len(areas)] += areas / areas.max()
    return int(shares.argmax())


def _snapped(geometry: Geometry, mm: ArrayLike) -> Array:
    """The voxel center nearest to a position."""
    return geometry.to_mm(np.clip(np.rint(geometry.to_ijk(mm)), 0, np.asarray(geometry.shape) - 1))


class _View(NamedTuple):
    """Where to look: the square of `half_mm` to each side of `center_mm`."""

    center_mm: Array
    half_mm: float


class _LesionView(NamedTuple):
    """Where to look at a lesion, and its border."""

    lesion: Lesion
    outline: Outline
    view: _View


def _patch_view(image: Volume, truth: Volume, predicted: Volume) -> _View:
    """All of the patch, in the axial slice with most to see."""
    image.require_same_grid(truth, "truth")
    image.require_same_grid(predicted, "prediction")
    grid = image.geometry
    axis = grid.axes.translate(str.maketrans("RLAPSI", "001122")).index("2")
    others = tuple(other for other in range(3) if other != axis)
    center = (np.asarray(grid.shape) - 1) / 2
    shown = truth if truth.data.any() else predicted
    if shown.data.any():
        center[axis] = int(shown.data.sum(axis=others).argmax())
    half_mm = max(grid.shape[other] * grid.spacing_mm[other] for other in others) / 2
    return _View(_snapped(grid, grid.to_mm(center)), half_mm)


def _view(before: Volume, after: Volume, mask: Volume) -> _LesionView:
    """The view of the mask's largest lesion, with room around it."""
    before.require_same_grid(after, "scan with the lesion")
    before.require_same_grid(mask)
    part = _boxed(mask, before.geometry)
    if part is None:
        raise CaseError("no lesion to show", found="an empty mask")
    lesions = find_lesions(part, "")
    extent_mm = max(n * spacing for n, spacing in zip(lesions[0].box.shape, mask.geometry.spacing_mm, strict=True))
    center_mm = _snapped(mask.geometry, lesions[0].center_mm)
    view = _View(center_mm, max(25.0, 1.5 * extent_mm))
    return _LesionView(lesions[0], Outline("label", part, TUMOR_COLOR, 1.2), view)


class _Column(NamedTuple):
    """A column of a grid of panels."""

    title: str
    plane: str
    view: _View
    rows: Rows
    window: Window


def _save_grid(
    path: Place, columns: Sequence[_Column], panel: int, captions: list[str], name_windows: bool = False
) -> None:
    """Columns side by side, all with the same rows, in square panels of `panel` px; a block below for further columns.

    name_windows: writes each column's window below it.
    """
    _require_png(path)
    cell, rows = panel + 2 * EDGE, list(columns[0].rows)
    block = LINE + len(rows) * cell + LINE * name_windows
    across = min(len(columns), GALLERY_COLUMNS)
    bottom = -(-len(columns) // across) * block
    sheet = _Sheet(LINE + across * cell, bottom + len(captions) * LINE + LINE // 2)
    for number, column in enumerate(columns):
        left, top = LINE + number % across * cell + EDGE, number // across * block
        sheet.write(left, top + LINE // 2, column.title)
        for row, (image, outlines) in enumerate(column.rows.values()):
            axes = sheet.panel(left, top + LINE + row * cell + EDGE, panel, panel)
            draw_slice(axes, image, column.plane, column.view.center_mm, outlines, column.window, column.view.half_mm)
        if name_windows:
            sheet.write(left, top + LINE + len(rows) * cell, str(column.window), FAINT)
    for top in range(0, bottom, block):
        for row, name in enumerate(rows):
            sheet.write(LINE // 2, top + LINE + row * cell + cell // 2, name, align="center", rotation=90)
    for number, caption in enumerate(captions):
        sheet.write(LINE + EDGE, bottom + number * LINE + LINE // 2, caption, FAINT)
    sheet.save(path)


def _arranged(geometry: Geometry) -> list[tuple[int, int, int, int]]:
    """Left, top, width and height in px of a scan's three panels: in a row, or two stacked if that is larger."""
    grid = geometry.reoriented(SCREEN)
    extent = np.asarray(grid.shape) * grid.spacing_mm
    sizes = [(extent[across], extent[down]) for across, down, _ in PLANES.values()]
    (x, y), (_, z), _ = sizes
    in_row = min(CASE_WIDTH / (2 * x + y), CASE_HEIGHT / max(y, z))
    stacked = min(CASE_WIDTH / (x + max(x, y)), CASE_HEIGHT / max(y, 2 * z))
    scale = max(in_row, stacked)
    (w, _), (v, g), _ = panels = [(max(1, round(a * scale)), max(1, round(d * scale))) for a, d in sizes]
    left, top = EDGE, LINE + EDGE
    right = left + max(w, TITLE) + 2 * EDGE
    third = (right, top + g + LINE + 2 * EDGE) if stacked > in_row else (right + max(v, TITLE) + 2 * EDGE, top)
    return [(*at, *size) for at, size in zip([(left, top), (right, top), third], panels, strict=True)]


def _facts(what: str, geometry: Geometry, window: Window) -> list[str]:
    """Lines that say what is shown how, one more for a grid turned against the patient."""
    grid = geometry.reoriented("RAS")
    cosines = np.diag(grid.affine[:3, :3]) / grid.spacing_mm
    tilt = float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).max())
    note = f"oblique grid, shown along its own axes (up to {tilt:.0f} degrees from the patient's)"
    return [f"{what}   {geometry}   {window}"] + [note] * (tilt >= 0.5)


def _require_png(path: Place) -> None:
    if isinstance(path, Path | str) and Path(path).suffix.lower() != ".png":
        raise FileError(f"pictures are PNG, not {path}", fix="let the name end in .png")


class _Sheet:
    """A dark figure measured in pixels from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure((width / DPI, height / DPI), DPI, facecolor=BACKGROUND)

    def panel(self, left: int, top: int, width: int, height: int) -> Axes:
        """Axes for one slice."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def write(self, x: float, y: float, text: str, color: str = TEXT, align: str = "left", rotation: float = 0) -> None:
        """A line of text whose middle is at height `y`."""
        at = x / self.width, 1 - y / self.height
        self.figure.text(*at, text, color=color, ha=align, va="center", rotation=rotation, **font(9))

    def key(self, x: float, y: float, outline: Outline, cut: bool) -> None:
        """An entry of the legend, faint for what no slice cuts."""
        from matplotlib.lines import Line2D

        ends, height = [x / self.width, (x + 18) / self.width], [1 - y / self.height] * 2
        self.figure.add_artist(
            Line2D(ends, height, color=outline.color, linewidth=2 * outline.width, alpha=1.0 if cut else 0.3)
        )
        self.write(x + 26, y, outline.name, TEXT if cut else FAINT)

    def save(self, path: Place) -> None:
        """The figure as PNG; a file is whole or not at all."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        with atomic(path) if isinstance(path, Path | str) else nullcontext(path) as part:
            # without `Software` the bytes do not name the matplotlib that made them
            FigureCanvasAgg(self.figure).print_png(part, metadata={"Software": None})  # type: ignore[no-untyped-call]
