"""A lesion over time as a picture: one row a date, three planes through it, its border drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synthoma import files
from synthoma.datasets.layouts import opening
from synthoma.errors import CaseError
from synthoma.followup.outputs import read_series
from synthoma.names import file_name
from synthoma.slices import PLANES, Outline, Window, draw_slice, lesion_window
from synthoma.synthesis.store.outputs import MAPS
from synthoma.volume import Volume

COLOR, GROUND, TEXT = "#ff3b30", "#16181c", "#d5d8dc"
_SIDE = 2.6  # inches


def is_follow(folder: Path | str, case: str) -> bool:
    """Whether a folder is the output of a follow-up that holds this case, with its scans."""
    folder = Path(folder)
    return (folder / f"{file_name(case)}_t0").is_dir() and (folder / "series.json").is_file()


def show_series(
    folder: Path | str, case: str, out: Path | str, lesion: int | None = None, window: Window | None = None
) -> None:
    """Writes the picture of one lesion of a followed case.

    lesion: its number; the largest at any date unless told. Each row is centered where the lesion is, or was at the
    date before; all rows have the same scale and the window of the first row that shows the lesion. Raises `CaseError`
    for a case or a lesion that is not there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = read_series(folder)
    if case not in found:
        raise CaseError(f"no series of {case}", expected=f"one of {', '.join(found)}")
    series = found[case]
    courses = {course.lesion: course for course in series.courses}
    number = lesion or max(courses, key=lambda n: max(courses[n].volumes_mm3))
    if number not in courses:
        raise CaseError(f"no lesion {number}", case=case, expected=f"1 to {len(courses)}")
    course, dates = courses[number], range(len(series.days))
    largest = max(course.volumes_mm3)
    half_mm = float(np.clip(1.6 * (6 * largest / np.pi) ** (1 / 3), 25, 90))
    figure = Figure((3 * _SIDE, len(dates) * (_SIDE + 0.25)), 110, facecolor=GROUND)
    for date in dates:
        healthy = opening.read_case(Path(folder) / file_name(series.case_at(date)))
        image = healthy.read_image()
        label = files.read_labels(Path(folder) / file_name(series.case_at(date)) / MAPS["instances"])
        mask = Volume(label.data == number, label.geometry)
        center = series.scans[date].motion.target(np.asarray(course.plan.center_mm))
        if mask.data.any():
            center = label.geometry.to_mm(np.argwhere(mask.data).mean(axis=0))
            window = window or lesion_window(image, mask)
        top = 1 - (date + 1) / len(dates)
        for column, plane in enumerate(PLANES):
            width, height = 1 / 3, 1 / len(dates)
            axes = figure.add_axes((column * width + 0.02, top + 0.08 * height, width - 0.04, 0.76 * height))
            outlines = [Outline("lesion", mask, COLOR, 1.0)] if mask.data.any() else []
            draw_slice(axes, image, plane, center, outlines, window or Window(400, 40), half_mm)
        ml = float(mask.data.sum()) * label.geometry.voxel_mm3 / 1000
        title = f"day {series.days[date]:g}: lesion {number}, {ml:.1f} ml" if ml else f"day {series.days[date]:g}: none"
        figure.text(0.02, top + 0.93 * height, title, color=TEXT, fontsize=9)
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})  # type: ignore[no-untyped-call]
