"""One slice of a scan as imaging shows it: windowed, in mm, with borders, letters and a scale bar.

The radiological convention: the patient's right on the left, anterior up in axial slices, head up and anterior on
the left in the others. A grid turned against the patient is shown along its own axes; a sheared one (gantry tilt) is
drawn as if its axes were perpendicular.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from synthoma.errors import CaseError
from synthoma.volume import Array, Box, Geometry, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# On a grid with these axes a plane's two indices grow to the right and down the screen, as imaging wants them.
SCREEN = "LPI"
# plane -> the axes of that grid that run across, down and through it
PLANES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
SIDES = ("RL", "AP", "SI")  # the patient's sides where each of these axes begins and ends

TEXT, BEYOND, NO_VALUE = "#d5d8dc", "#0f1114", "#2b3a63"
FLAT = 50  # px; panels less high have no scale bar


class Window(NamedTuple):
    """The HU shown from black to white."""

    width_hu: float
    level_hu: float

    @property
    def range_hu(self) -> tuple[float, float]:
        """What is black and what is white; `ValueError` if the window has no width."""
        if not self.width_hu > 0:
            raise ValueError(f"a window is wider than 0 HU, got {self.width_hu}")
        return self.level_hu - self.width_hu / 2, self.level_hu + self.width_hu / 2

    def __str__(self) -> str:
        return f"W {self.width_hu:g} L {self.level_hu:g}"

    @classmethod
    def named(cls, text: str) -> Window:
        """The window of a name in `WINDOWS`, or of `WIDTH,LEVEL`; `CaseError` that lists the names otherwise."""
        if text in WINDOWS:
            return WINDOWS[text]
        width, _, level = text.partition(",")
        try:
            window = cls(float(width), float(level))
        except ValueError:
            window = cls(0, 0)
        if not (0 < window.width_hu <= 1e5 and abs(window.level_hu) <= 1e5):
            raise CaseError(f"no window {text!r}", expected=f"WIDTH,LEVEL in HU, or one of {', '.join(WINDOWS)}")
        return window


SOFT_TISSUE = Window(400, 40)
# What radiologists set for them
WINDOWS = {
    "soft_tissue": SOFT_TISSUE,
    "liver": Window(150, 90),
    "mediastinum": Window(350, 50),
    "lung": Window(1500, -600),
    "bone": Window(1800, 400),
}
_LEAST_WIDTH, _RING_MM = 120.0, 8.0


def lesion_window(image: Volume, mask: Volume) -> Window:
    """A window in which a lesion and its surroundings differ: between their medians, and 5 contrasts wide or more.

    At least 120 HU and 8 SD of the noise wide, at most as wide as the soft-tissue window, which is also the answer
    where nothing can be measured.
    """
    from scipy import ndimage

    image.require_same_grid(mask)
    steps = [max(1, round(_RING_MM / spacing)) for spacing in image.geometry.spacing_mm]
    box = Box.around(mask.data)
    if box is None:
        return SOFT_TISSUE
    part = box.grow([step + 1 for step in steps]).clip(image.geometry.shape).slices
    inside, hu = mask.data[part] != 0, image.data[part]
    ring = ndimage.maximum_filter(inside, [2 * step + 1 for step in steps]) & ~inside
    ring &= (hu > -50) & (hu < 300)
    if ring.sum() < 20:
        return SOFT_TISSUE
    lesion, around = float(np.median(hu[inside])), float(np.median(hu[ring]))
    noise_hu = 1.4826 * float(np.median(np.abs(hu[ring] - around)))
    width = max(5 * abs(lesion - around), 8 * noise_hu, _LEAST_WIDTH)
    if not width < SOFT_TISSUE.width_hu:
        return SOFT_TISSUE
    return Window(round(width, -1), round((lesion + around) / 2, -1))


class Outline(NamedTuple):
    """A mask to draw the border of. mask: on the image's grid or a crop of it; width: of the line in points."""

    name: str
    mask: Volume
    color: str
    width: float


def draw_slice(
    axes: Axes,
    image: Volume,
    plane: str,
    center_mm: ArrayLike,
    outlines: Sequence[Outline] = (),
    window: Window = SOFT_TISSUE,
    half_mm: float | None = None,
) -> set[str]:
    """Draw the slice nearest to a position, with borders, letters and a scale bar; the names of the outlines cut.

    plane: of `PLANES`. center_mm: RAS+. half_mm: half a side of the square shown around `center_mm`, which may reach
    beyond the scan; without it the whole slice is shown. A unit of `axes` is 1 mm, across and down.
    """
    from matplotlib.collections import LineCollection

    across, down, through = PLANES[plane]
    shown = image.reorient(SCREEN)
    grid = shown.geometry
    center = grid.to_ijk(center_mm)
    index = int(np.clip(np.rint(center[through]), 0, grid.shape[through] - 1))
    if half_mm is None:
        spans = [
            (-grid.spacing_mm[axis] / 2, (grid.shape[axis] - 0.5) * grid.spacing_mm[axis]) for axis in (across, down)
        ]
    else:
        middles = [center[axis] * grid.spacing_mm[axis] for axis in (across, down)]
        spans = [(middle - half_mm, middle + half_mm) for middle in middles]
    _draw_hu(axes, shown, plane, index, spans, window)
    axes.set(xlim=spans[0], ylim=spans[1][::-1], xticks=[], yticks=[], facecolor=BEYOND, aspect="equal")
    axes.spines[:].set_visible(False)
    cut = set()
    for outline in outlines:
        border = _border(outline.mask, grid, plane, index)
        if border:
            axes.add_collection(LineCollection(border, colors=outline.color, linewidths=outline.width), autolim=False)
            cut.add(outline.name)
    _letter(axes, plane)
    _scale_bar(axes, spans[0][1] - spans[0][0])
    return cut


def _draw_hu(
    axes: Axes, shown: Volume, plane: str, index: int, spans: Sequence[tuple[float, float]], window: Window
) -> None:
    """The part of a slice within `spans`, across and down, in mm from the first voxel's center."""
    from matplotlib import colormaps

    parts, edges = [], []
    for axis, span in zip(PLANES[plane], spans, strict=False):
        spacing, size = shown.geometry.spacing_mm[axis], shown.geometry.shape[axis]
        lower, upper = np.clip([np.floor(span[0] / spacing), np.ceil(span[1] / spacing) + 1], 0, size).astype(int)
        parts.append(slice(lower, upper))
        edges.append(((lower - 0.5) * spacing, (upper - 0.5) * spacing))
    hu = _cut(shown.data, plane, index)[parts[1], parts[0]]
    black, white = window.range_hu
    # HU far beyond the window would ring around edges
    values = np.ma.masked_invalid(hu.astype(np.float32)).clip(black - window.width_hu, white + window.width_hu)
    axes.imshow(
        values, colormaps["gray"].with_extremes(bad=NO_VALUE), vmin=black, vmax=white,
        extent=(*edges[0], *edges[1][::-1]), origin="upper", interpolation="bilinear", resample=True,
    )  # fmt: skip


def position(plane: str, mm: Array) -> str:
    """Where a slice lies, as scanners print it: `S 123 mm`."""
    axis = PLANES[plane][2]
    return f"{SIDES[axis][int(mm[axis] < 0)]} {abs(mm[axis]):.0f} mm"


def _cut(data: Array, plane: str, index: int) -> Array:
    """A slice (down, across) of an array on a `SCREEN` grid."""
    # not np.take, which copies the whole of an array that is turned
    return data[(slice(None),) * PLANES[plane][2] + (index,)].T


def _border(mask: Volume, grid: Geometry, plane: str, index: int) -> list[Array]:
    """Closed lines (N, 2), in mm from the first voxel's center of a `SCREEN` grid, around a mask in one slice."""
    from contourpy import contour_generator

    across, down, through = PLANES[plane]
    part = mask.reorient(SCREEN)
    first = np.rint(grid.to_ijk(part.geometry.affine[:3, 3])).astype(int)
    place = index - int(first[through])
    if not 0 <= place < part.data.shape[through]:
        return []
    # each voxel as 2 x 2, so that corners are cut by a quarter of a voxel and a thin wall keeps its width
    inside = np.pad(_cut(part.data, plane, place) != 0, 1).repeat(2, axis=0).repeat(2, axis=1)
    lines = contour_generator(z=inside.astype(np.float32)).lines(0.5)
    spacing, origin = np.asarray(grid.spacing_mm)[[across, down]], first[[across, down]] - 1.25
    return [_smoothed((np.asarray(line) / 2 + origin) * spacing, spacing.max()) for line in lines]


def _smoothed(line: Array, voxel_mm: float) -> Array:
    """A closed line without the stairs of its voxels: details shorter than about a voxel go, size stays.

    A Gaussian along the line, applied so that it hardly shrinks: twice, the second time to what the first took.
    """
    from scipy.ndimage import gaussian_filter1d

    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    count = max(16, int(np.ceil(lengths[-1] / voxel_mm * 8)))
    at = np.arange(count) / count * lengths[-1]
    even = np.stack([np.interp(at, lengths, line[:, axis]) for axis in range(2)], axis=1)
    sigma = min(voxel_mm / lengths[-1], 1 / 12) * count
    blurred = gaussian_filter1d(even, sigma, axis=0, mode="wrap")
    kept = blurred + gaussian_filter1d(even - blurred, sigma, axis=0, mode="wrap")
    return np.concatenate([kept, kept[:1]])


def _letter(axes: Axes, plane: str) -> None:
    """The patient's sides around a panel."""
    across, down, _ = PLANES[plane]
    sides = (
        (SIDES[across][0], (0.0, 0.5), (-4, 0), "right", "center"),
        (SIDES[across][1], (1.0, 0.5), (4, 0), "left", "center"),
        (SIDES[down][0], (0.5, 1.0), (0, 2), "center", "bottom"),
        (SIDES[down][1], (0.5, 0.0), (0, -2), "center", "top"),
    )
    for letter, at, offset, horizontal, vertical in sides:
        axes.annotate(
            letter, at, offset, "axes fraction", "offset points", ha=horizontal, va=vertical, color=TEXT, **font(9)
        )  # fmt: skip


def _scale_bar(axes: Axes, width_mm: float) -> None:
    """A round length, at most 0.4 of the panel, in its lower left corner; none in a panel too flat for it."""
    from matplotlib.patheffects import withStroke

    if axes.bbox.height < FLAT:
        return
    length = max((mm for mm in (1, 2, 5, 10, 20, 50) if mm <= 0.4 * width_mm), default=0.5)
    start, end = 0.04, 0.04 + length / width_mm
    style: dict[str, Any] = {"color": "white", "path_effects": [withStroke(linewidth=3, foreground="black")]}
    axes.plot([start, end], [0.04] * 2, linewidth=2, solid_capstyle="butt", transform=axes.transAxes, **style)
    axes.annotate(
        f"{length} mm", ((start + end) / 2, 0.04), (0, 3), "axes fraction", "offset points",
        ha="center", va="bottom", **style, **font(8),
    )  # fmt: skip


def font(size: float) -> dict[str, Any]:
    """Text that no matplotlibrc and no `$` in a case's id can change."""
    return {"fontsize": size, "fontfamily": "DejaVu Sans", "usetex": False, "parse_math": False}
