"""What a follow-up leaves on disk: a case a date, the series as plain data, and a table that links its lesions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from synthoma import disk, files
from synthoma.cases import Case
from synthoma.datasets.writing import write_files
from synthoma.engine.records import CaseRecord
from synthoma.errors import CaseError, FileError
from synthoma.followup.motion import field
from synthoma.followup.recipe import FollowRecipe
from synthoma.followup.series import Series, draw_series, make_date
from synthoma.names import file_name
from synthoma.synthesis.store.outputs import MAPS
from synthoma.tables import write_table

WRITES = ("full", "plans")
SERIES, LESIONS = "series.json", "lesions.csv"
FIELDS = ("displacement_right.nii.gz", "displacement_front.nii.gz", "displacement_up.nii.gz")


def follow_case(case: Case, recipe: FollowRecipe, seed: int, out: Path | str, write: str = "full") -> dict[str, Any]:
    """Draws a series for one case and writes its dates under `out`; the series and its table as JSON data.

    write: `full`, a folder OUT/CASE_tN a date in the AbdomenAtlas layout; `plans`, nothing, since the series is enough.
    """
    return write_series(case, draw_series(case, recipe, seed), out, write)


def write_series(
    case: Case, series: Series, out: Path | str, write: str = "full", allow_modules: Sequence[str] = ()
) -> dict[str, Any]:
    """The dates of a series, written as by `follow_case`: the same bytes always."""
    rows, notes = [], []
    for date in range(len(series.days)):
        made = make_date(case, series, date, allow_modules)
        rows += made.rows
        notes += [
            f"{made.case.id}: lesion {row['lesion']} has room for {100 * row['volume_ratio']:.0f} % of its volume"
            for row in made.rows
            if row["volume_ratio"] is not None and row["volume_ratio"] < 0.9
        ]
        if write == "full":
            _write_date(case, series, date, made, Path(out))
    return {"series": series.as_dict(), "rows": rows, "notes": notes}


def _write_date(case: Case, series: Series, date: int, made: Any, out: Path) -> None:
    folder = out / file_name(made.case.id)
    if isinstance(case.image, Path) and case.image.resolve().is_relative_to(folder.resolve()):
        raise CaseError("the result would lie in the data it is made from", case=case.id, fix="choose another --out")
    with disk.atomic_folder(folder) as part:
        provenance = {
            "dataset": case.dataset,
            "healthy": case.id,
            "scan_digest": series.scan_digest,
            "day": series.days[date],
            "scan": series.scans[date].as_dict(),
            "lesions_over_time": made.rows,
        }
        write_files(made.case, part, list(made.case.masks), provenance)
        files.write_volume(made.instances, part / MAPS["instances"])
        if date:
            for volume, name in zip(field(made.case.read_geometry(), series.scans[date].motion), FIELDS, strict=True):
                files.write_volume(volume, part / name)


def finish_follow(records: Iterable[CaseRecord], out: Path | str, data: Path | str) -> dict[str, Any]:
    """Writes the series of all cases done, where their healthy scans lie, and the table; counts for the summary."""
    out = Path(out)
    results = [record.result for record in records if record.status == "done"]
    rows = [row for result in results for row in result["rows"]]
    place = Path(os.path.relpath(os.path.abspath(data), os.path.abspath(out))).as_posix()
    disk.write_json(out / SERIES, {"data": place, "series": [result["series"] for result in results]})
    if rows:
        write_table(rows, out / LESIONS)
    return {"patients": len(results), "lesions": len({(row["patient"], row["lesion"]) for row in rows})}


def read_series(path: Path | str) -> dict[str, Series]:
    """The series of a follow-up by case: of its folder, or its `series.json`. `FileError` for what is none."""
    path = Path(path)
    path = path / SERIES if path.is_dir() else path
    data = disk.read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("series"), list):
        raise FileError(f"{path} holds no series of a follow-up", fix="name the output folder of follow")
    found = [Series.from_dict(entry) for entry in data["series"]]
    return {series.case: series for series in found}
