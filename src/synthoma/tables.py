"""Rows of plain data as Parquet or CSV files, and numbers that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthoma import disk

Row = dict[str, Any]
_FORMULA = ("=", "+", "-", "@")  # what begins a formula in spreadsheets


def plain(value: Any) -> Any:
    """JSON data: None for a number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(rows: Sequence[Row], path: Path) -> None:
    """The rows as Parquet, or as CSV where the path ends so; columns are all that any row has.

    In CSV, text that a spreadsheet would take for a formula begins with an apostrophe; numbers stay numbers.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".csv":
        rows = [{name: _no_formula(value) for name, value in row.items()} for row in rows]
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    for place, column in enumerate(table.schema):
        if pa.types.is_null(column.type):
            table = table.set_column(place, column.name, table.column(place).cast(pa.float64()))
    with disk.atomic(path) as part:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, part)
        else:
            pyarrow.parquet.write_table(table, part, compression="zstd")


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(_FORMULA) else value
