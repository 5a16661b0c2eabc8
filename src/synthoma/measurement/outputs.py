"""What a measurement leaves on disk: JSON and CSV of all patients, and a page for each that reads like a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from synthoma import disk
from synthoma.engine.records import CaseRecord
from synthoma.measurement.findings import describe
from synthoma.names import file_name
from synthoma.reports.page import number, page, table
from synthoma.tables import write_table

LESIONS, DATES, RESULT = "lesions.csv", "dates.csv", "measurement.json"
_COLUMNS = {
    "case": "case",
    "structure": "mask",
    "index": "component",
    "lesion": "lesion",
    "slice_index": "slice",
    "longest_mm": "longest mm",
    "perpendicular_mm": "across mm",
    "volume_ml": "ml",
    "mean_hu": "HU",
    "contrast_hu": "contrast HU",
    "surface_mm": "to surface mm",
    "vessel_mm": "to vessel mm",
    "center_mm": "center RAS+ mm",
}


def write_page(result: Mapping[str, Any], folder: Path) -> Path:
    """The page of one patient: findings in sentences, then the figures with where in which mask they are from."""
    parts = []
    for title, sentences in describe(result):
        parts.append(f"<h2>{escape(title)}</h2>" + "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences))
    rows = [[escape(_cell(lesion[key])) for key in _COLUMNS] for lesion in result["lesions"]]
    parts.append("<h2>Figures</h2>" + table(list(_COLUMNS.values()), rows, range(2, len(_COLUMNS) - 1)))
    parts.append(
        '<p class="muted">Diameters lie in one axial slice, between outer corners of voxels. A component is a connected'
        " part of the mask, counted by falling volume; a slice is counted from 0 along the axis nearest to head and"
        " feet. Not a medical device.</p>"
    )
    path = folder / "pages" / f"{file_name(result['patient'])}.html"
    disk.write_text(path, page(f"Findings: {result['patient']}", parts))
    return path


def _cell(value: Any) -> str:
    """Plain data as it is read in a table."""
    if isinstance(value, list):
        return ("; " if value and isinstance(value[0], list | str) else ", ").join(_cell(entry) for entry in value)
    return number(value, 1) if isinstance(value, float) or value is None else str(value)


def finish_measurement(records: Iterable[CaseRecord], out: Path) -> dict[str, Any]:
    """Writes the tables of all patients done; counts for the run's summary."""
    results = [record.result for record in records if record.status == "done"]
    lesions = [_plain_row(row) for result in results for row in result["lesions"]]
    dates = [
        {"patient": result["patient"], "case": case, "day": day} | _plain_row(response)
        for result in results
        for case, day, response in zip(result["cases"], result["days"], result["response"], strict=False)
    ]
    disk.write_json(out / RESULT, results)
    for name, rows in ((LESIONS, lesions), (DATES, dates)):
        if rows:
            write_table(rows, out / name)
        else:
            (out / name).unlink(missing_ok=True)
    return {"patients": len(results), "lesions": len(lesions), "series": sum(bool(r["response"]) for r in results)}


def _plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose lists are text, for CSV."""
    return {key: _cell(value) if isinstance(value, list) else value for key, value in row.items()}
