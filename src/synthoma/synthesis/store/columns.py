"""A row of the manifest as flat columns, and back; rows of older formats too."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from synthoma.synthesis.generators.details import read_first_format

# One attempt as JSON data, as a worker reports it: case, source (the case of the data set that it was made from),
# scan_digest, phase, versions, index, number, accepted, reason, digest, plan (`TumorPlan.as_dict`) and scores; some
# have what `_OPTIONAL` names. A case without any attempt has one row without a plan.
Row = dict[str, Any]

# Columns of a row itself; those of the plan follow, then what was measured as `measured_NAME`.
_OWN = {
    "case": "string",
    "source": "string",
    "scan_digest": "string",
    "phase": "string",
    "versions": "string",
    "index": "int32",
    "number": "int32",
    "accepted": "bool",
    "reason": "string",
    "digest": "string",
}
# Columns that a table has if one of its rows does: what replays are compared with, and how one was compared.
_OPTIONAL = {"mask_digest": "string", "hu_sample": "string", "compared": "string"}
# Columns of the plan, which follow; a vector has a column for each of its parts: `center_mm_x`, ...
_PLAN = {
    "organ": "string",
    "center_mm": "xyz",
    "axes_mm": "xyz",
    "orientation": "wxyz",
    "volume_mm3": "double",
    "radius_mm": "double",
    "base_hu": "double",
    "contrast_hu": "double",
    "edge_mm": "double",
    "blur_mm": "double",
    "noise_hu": "double",
    "noise_from_mm": "xyz",
    "seed": "int64",
    "displacement_mm": "double",
    "displacement_reach": "double",
    "relaxed": "int64",
    "generator": "string",
}
# Columns of the plan that older tables lack, whose plans have the default then; they follow, as in the plan itself.
_LATER_PLAN = {"noise_by": "string"}
# The generator's details follow as `details_NAME`, if all rows have text, or all numbers, under a name; the others are
# one column of JSON text.
_DETAILS, _DETAIL = "details", "details_"
_SIMPLE = {str: "string", int: "int64", float: "double"}
# Those of the first format, whose plans were those of the rules.
_FIRST_PLAN = {
    "organ": "string", "form": "string", "center_mm": "xyz", "axes_mm": "xyz", "orientation": "wxyz",
    "roughness": "double", "spectrum": "double", "skew": "double", "base_hu": "double", "contrast_hu": "double",
    "texture_hu": "double", "texture_mm": "double", "edge_mm": "double", "blur_mm": "double", "noise_hu": "double",
    "noise_from_mm": "xyz", "seed": "int64", "rim_hu": "double", "rim_mm": "double", "core_hu": "double",
    "core_share": "double", "push_mm": "double", "push_reach": "double", "calcifications": "json",
    "relaxed": "int64", "generator": "string", "details": "json",
}  # fmt: skip
_VECTORS = ("xyz", "wxyz")
_MEASURED = "measured_"
DEGRADED = "degraded"  # how the scan is made worse once the tumors are in, as JSON text; a column where any scan is
DIAMETERS = (f"{_MEASURED}equivalent_diameter_mm", f"{_MEASURED}diameter_mm")  # today, and in the first format


def column_types(rows: Sequence[Row]) -> dict[str, str]:
    """Column -> type of the table that holds these rows."""
    kinds: dict[str, set[type]] = {}
    for row in rows:
        for name, value in (row["plan"] or {}).get(_DETAILS, {}).items():
            fits = not isinstance(value, int) or abs(value) < 2**63
            kinds.setdefault(name, set()).add(type(value) if fits else object)
    simple = {
        f"{_DETAIL}{name}": _SIMPLE[next(iter(found))]
        for name, found in sorted(kinds.items())
        if len(found) == 1 and found <= set(_SIMPLE)
    }
    scores = dict.fromkeys(name for row in rows for name in row["scores"])
    worse = {DEGRADED: "string"} if any(row.get(DEGRADED) for row in rows) else {}
    measured = {f"{_MEASURED}{name}": "double" for name in scores}
    optional = {name: kind for name, kind in _OPTIONAL.items() if any(row.get(name) for row in rows)}
    return _OWN | optional | worse | _plan_columns(_PLAN | _LATER_PLAN) | {_DETAILS: "string"} | simple | measured


def flat(row: Row, types: Mapping[str, str]) -> dict[str, Any]:
    """A row as flat columns of these types."""
    columns = {name: row[name] for name in _OWN} | {name: row.get(name) for name in _OPTIONAL if name in types}
    if row.get(DEGRADED):
        columns[DEGRADED] = json.dumps(row[DEGRADED], separators=(",", ":"), allow_nan=False)
    columns |= {f"{_MEASURED}{name}": value for name, value in row["scores"].items()}
    plan = row["plan"]
    if plan is None:
        return columns
    for name, kind in (_PLAN | _LATER_PLAN).items():
        if kind in _VECTORS:
            columns |= {f"{name}_{part}": entry for part, entry in zip(kind, plan[name], strict=True)}
        else:
            columns[name] = plan[name]
    details = plan[_DETAILS]
    columns |= {f"{_DETAIL}{name}": value for name, value in details.items() if f"{_DETAIL}{name}" in types}
    others = {name: value for name, value in details.items() if f"{_DETAIL}{name}" not in types}
    columns[_DETAILS] = json.dumps(others, separators=(",", ":"), allow_nan=False) if others else None
    return columns


def deep(columns: Mapping[str, Any]) -> Row:
    """The row that `flat` took apart, of any format that is read."""
    row: Row = {name: columns[name] for name in _OWN | _OPTIONAL if name in columns}
    row.setdefault("source", row["case"])
    if columns.get(DEGRADED) is not None:
        row[DEGRADED] = read_json_text(columns[DEGRADED])
    if columns["organ"] is None:
        return row | {"plan": None, "scores": {}}
    first = "form" in columns
    plan: dict[str, Any] = {}
    for name, kind in (_FIRST_PLAN if first else _PLAN).items():
        if kind in _VECTORS:
            plan[name] = [columns[f"{name}_{part}"] for part in kind]
        else:
            plan[name] = read_json_text(columns[name]) if kind == "json" else columns[name]
    plan |= {name: columns[name] for name in _LATER_PLAN if name in columns}
    if not first:
        details = read_json_text(columns[_DETAILS]) if columns[_DETAILS] else {}
        for name, value in columns.items():
            if name.startswith(_DETAIL) and value is not None:
                details[name.removeprefix(_DETAIL)] = value
        plan[_DETAILS] = dict(sorted(details.items()))
    measured = {name: value for name, value in columns.items() if name.startswith(_MEASURED)}
    today, before = DIAMETERS
    if before in measured:
        measured[today] = measured.pop(before)
    scores = {name.removeprefix(_MEASURED): value for name, value in measured.items()}
    return row | {"plan": read_first_format(plan).as_dict() if first else plan, "scores": scores}


def read_json_text(text: str) -> Any:
    """The data of a JSON text; `ValueError` if it is none, or nested deeper than it can be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("text nested too deep") from None


def columns_of(names: Collection[str]) -> dict[str, str]:
    """Column -> type of all that a table with these columns should have, in the format that it is in."""
    first = "form" in names
    measured = {name: "double" for name in names if name.startswith(_MEASURED)}
    own = {name: kind for name, kind in _OWN.items() if not (first and name == "source")}
    own |= {name: kind for name, kind in _OPTIONAL.items() if name in names}
    own |= {DEGRADED: "string"} if DEGRADED in names else {}
    own |= {name: kind for name, kind in _LATER_PLAN.items() if name in names}
    return own | _plan_columns(_FIRST_PLAN if first else _PLAN | {_DETAILS: "string"}) | measured


def _plan_columns(plan: Mapping[str, str]) -> dict[str, str]:
    """Column -> type of a plan's fields."""
    columns: dict[str, str] = {}
    for name, kind in plan.items():
        if kind in _VECTORS:
            columns |= {f"{name}_{part}": "double" for part in kind}
        else:
            columns[name] = "string" if kind == "json" else kind
    return columns
