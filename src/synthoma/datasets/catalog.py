"""The cases of a cohort as one Parquet table: a row per case, written once, filtered without reading it all.

In the table a structure is one column, `liver_ml`: null = not annotated, 0 = annotated and absent, more =
present. Tumors have `liver_lesion_count` and `liver_lesion_diameters_mm` (null = not annotated) besides.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import anatomy, disk
from synthoma.cases import Case, Label
from synthoma.datasets.inspection import Inspection, Scan, inspect_case
from synthoma.errors import CaseError, FileError

Row = dict[str, Any]
FORMAT = {b"synthoma.catalog": b"1"}
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
# HU ranges whose share of the scan is noted; air includes the padding.
TISSUES_HU = {"air": (-math.inf, -900), "fat": (-150, -30), "soft": (0, 150), "bone": (200, math.inf)}
BATCH = 10_000
ROW_GROUP = 50_000
VOLUME, COUNT, DIAMETERS = "_ml", "_count", "_diameters_mm"


def describe_case(case: Case) -> Row:
    """The catalog's row of a case, as JSON data, from one read of its scan and masks.

    Raises the `SynthomaError` of the first file that cannot be read; `validation.check_case` goes on instead.
    """
    found = inspect_case(case)
    for error in found.failed.values():
        raise error
    return row_of(found)


def row_of(found: Inspection, faults: Iterable[str] = ()) -> Row:
    """The row of a inspected case; what could not be read is None or missing. faults: codes."""
    case, scan = found.case, found.scan
    unread = [name for name in found.failed if name not in ("", "masks")]
    masks = [] if "masks" in found.failed else list(case.masks.items())
    return {
        "id": case.id,
        "patient": case.patient,
        "dataset": case.dataset,
        "image": os.path.abspath(case.image) if isinstance(case.image, Path) else None,
        "masks": [_mask_entry(name, source) for name, source in masks],
        "shape": list(scan.geometry.shape) if scan else None,
        "spacing_mm": list(scan.geometry.spacing_mm) if scan else None,
        "axes": scan.geometry.axes if scan else None,
        "affine": scan.geometry.affine.ravel().tolist() if scan else None,
        "structures": {
            name: {
                "status": "absent" if one.box is None else "present",
                "volume_ml": round(one.volume_ml, 6),
                "cut": one.cut,
            }
            for name, one in sorted(found.structures.items())
        }
        | {name: {"status": "unreadable"} for name in sorted(unread)},
        "lesions": {
            name: [round(lesion.equivalent_diameter_mm, 3) for lesion in found.lesions.get(name, [])]
            for name in sorted(found.structures)
            if anatomy.is_lesion(name)
        },
        "hu": _hu(scan) if scan else None,
        "phase": _text(case.attributes.get("phase")),
        "attributes": json.loads(json.dumps(dict(case.attributes), default=str)),
        "fingerprint": base64.b64encode(scan.fingerprint).decode() if scan else None,
        "faults": sorted(set(faults)),
    }


def write_catalog(rows: Iterable[Row], path: Path | str) -> None:
    """The rows as one Parquet file, sorted by id; the same rows in any order give the same bytes.

    Files below the catalog's folder are noted relative to it, so that the whole folder can move. Two rows of
    one id are a `CaseError`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = Path(path)
    folder = os.path.dirname(os.path.abspath(path))
    iterator = iter(rows)
    tables = [_table([])]
    while batch := [_flat(row, folder) for row in itertools.islice(iterator, BATCH)]:
        tables.append(_table(batch))
    table = pa.concat_tables(tables, promote_options="default")
    fixed = _schema().names
    table = table.select(fixed + sorted(name for name in table.column_names if name not in fixed))
    order = pc.sort_indices(table, [("id", "ascending")])
    twice = _first_twice(table["id"].take(order))
    if twice is not None:
        raise CaseError("two rows of one case", case=twice, fix="rename one")
    schema = table.schema.with_metadata(FORMAT)
    with disk.atomic(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for start in range(0, max(1, len(table)), ROW_GROUP):
            writer.write_table(table.take(order[start : start + ROW_GROUP]).cast(schema), ROW_GROUP)


def read_catalog(path: Path | str) -> Catalog:
    """The catalog in a file; reads its footer only. `FileError` if it is none of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise FileError(f"no file {path}", fix="run validate, or cohort")
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"{path} is no Parquet file", found=str(error), fix="run validate again") from error
    found = {key: value for key, value in (footer.metadata or {}).items() if key in FORMAT}
    if found != FORMAT:
        raise FileError(f"{path} is not a catalog of this version", found=found or "no mark of ours", expected=FORMAT)
    return Catalog(path, footer.num_rows)


@dataclass(frozen=True)
class Catalog:
    """A catalog on disk. where: a `pyarrow.compute` expression, pushed down to the file, such as
    `(pc.field("liver_lesion_ml") > 0) & (pc.field("dataset") == "msd")`."""

    path: Path
    count: int

    def __len__(self) -> int:
        return self.count

    def table(self, columns: Iterable[str] | None = None, where: Any = None) -> Any:
        """A `pyarrow.Table` of some columns of some rows, sorted by id."""
        import pyarrow as pa
        import pyarrow.dataset as ds

        try:
            return ds.dataset(self.path, format="parquet").to_table(
                columns=None if columns is None else list(columns), filter=where
            )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise FileError(
                f"{self.path} cannot be asked that", found=str(error).split("\n")[0], fix="see its column names"
            ) from error

    def rows(self, where: Any = None) -> Iterator[Row]:
        """Rows as `describe_case` gives them, file paths absolute."""
        folder = os.path.dirname(os.path.abspath(self.path))
        for flat in self.table(where=where).to_pylist():
            yield _deep(flat, folder)

    def cases(self, where: Any = None) -> Iterator[Case]:
        """The cases, to be read when asked; `CaseError` for one that was never on disk."""
        for row in self.rows(where):
            if row["image"] is None or any(mask["path"] is None for mask in row["masks"]):
                raise CaseError("its files are not on disk", case=row["id"], fix="write the cohort first")
            masks = {
                mask["structure"]: Path(mask["path"])
                if mask["values"] is None
                else Label(Path(mask["path"]), tuple(mask["values"]))
                for mask in row["masks"]
            }
            yield Case(row["id"], Path(row["image"]), masks, row["patient"], row["dataset"], row["attributes"])

    def fingerprints(self) -> tuple[list[str], list[bytes]]:
        """Ids and fingerprints of all cases that have one."""
        table = self.table(["id", "fingerprint"])
        pairs = zip(table["id"].to_pylist(), table["fingerprint"].to_pylist(), strict=True)
        known = [(case, data) for case, data in pairs if data]
        return [case for case, _ in known], [data for _, data in known]


def _hu(scan: Scan) -> dict[str, float | None]:
    """Lowest and highest HU; of the sample the percentiles, and the share of tissues."""
    sample = scan.sample
    found: dict[str, float | None] = {"low": _finite(scan.low), "high": _finite(scan.high)}
    values = np.percentile(sample, PERCENTILES).tolist() if sample.size else [math.nan] * len(PERCENTILES)
    found |= {f"p{percent:02d}": _finite(value) for percent, value in zip(PERCENTILES, values, strict=True)}
    for name, (low, high) in TISSUES_HU.items():
        share = np.count_nonzero((sample >= low) & (sample < high)) / sample.size if sample.size else math.nan
        found[name] = _finite(share)
    return found


def _finite(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _mask_entry(structure: str, source: object) -> Row:
    path = source.path if isinstance(source, Label) else source if isinstance(source, Path) else None
    values = list(source.values) if isinstance(source, Label) else None
    return {"structure": structure, "path": None if path is None else os.path.abspath(path), "values": values}


def _schema() -> Any:
    """The columns that every catalog has."""
    import pyarrow as pa

    mask = pa.struct([("structure", pa.string()), ("path", pa.string()), ("values", pa.list_(pa.int32()))])
    texts = ("id", "patient", "dataset", "image", "axes", "phase", "attributes")
    shares = [f"hu_{name}" for name in ("low", "high", *(f"p{p:02d}" for p in PERCENTILES), *TISSUES_HU)]
    return pa.schema(
        [(name, pa.string()) for name in texts]
        + [("masks", pa.list_(mask)), ("shape", pa.list_(pa.int32()))]
        + [(name, pa.list_(pa.float64())) for name in ("spacing_mm", "affine")]
        + [(name, pa.float64()) for name in shares]
        + [(name, pa.list_(pa.string())) for name in ("cut", "unreadable", "faults")]
        + [("fingerprint", pa.large_binary())]
    )


def _table(batch: list[Row]) -> Any:
    """Flat rows as an Arrow table; columns of structures are those that the rows have."""
    import pyarrow as pa

    schema = _schema()
    kinds = {VOLUME: pa.float64(), COUNT: pa.int32(), DIAMETERS: pa.list_(pa.float32())}
    for name in sorted({name for row in batch for name in row} - set(schema.names)):
        kind = next(kind for suffix, kind in kinds.items() if name.endswith(suffix))
        schema = schema.append(pa.field(name, kind))
    return pa.Table.from_pylist(batch, schema=schema)


def _flat(row: Row, folder: str) -> Row:
    """A row of the table."""
    nested = ("structures", "lesions", "hu", "attributes", "fingerprint", "image", "masks")
    flat = {key: value for key, value in row.items() if key not in nested}
    flat["image"] = _relative(row["image"], folder)
    flat["masks"] = [mask | {"path": _relative(mask["path"], folder)} for mask in row["masks"]]
    flat["attributes"] = json.dumps(row["attributes"], sort_keys=True, ensure_ascii=False)
    flat["fingerprint"] = None if row["fingerprint"] is None else base64.b64decode(row["fingerprint"])
    flat |= {f"hu_{name}": value for name, value in (row["hu"] or {}).items()}
    structures: Mapping[str, Row] = row["structures"]
    flat["cut"] = sorted(f"{name} {one['cut']}" for name, one in structures.items() if one.get("cut"))
    flat["unreadable"] = sorted(name for name, one in structures.items() if one["status"] == "unreadable")
    flat |= {name + VOLUME: one["volume_ml"] for name, one in structures.items() if "volume_ml" in one}
    for name, diameters in row["lesions"].items():
        flat |= {name + COUNT: len(diameters), name + DIAMETERS: diameters}
    return flat


def _deep(flat: Row, folder: str) -> Row:
    """The row that `_flat` was made of."""
    row = {key: flat[key] for key in ("id", "patient", "dataset", "shape", "spacing_mm", "axes", "affine")}
    row["image"] = _absolute(flat["image"], folder)
    row["masks"] = [mask | {"path": _absolute(mask["path"], folder)} for mask in flat["masks"]]
    cut = dict(entry.rsplit(" ", 1) for entry in flat["cut"])
    volumes = {
        name.removesuffix(VOLUME): value for name, value in flat.items() if name.endswith(VOLUME) and value is not None
    }
    row["structures"] = {
        name: {"status": "present" if ml > 0 else "absent", "volume_ml": ml, "cut": cut.get(name, "")}
        for name, ml in sorted(volumes.items())
    } | {name: {"status": "unreadable"} for name in flat["unreadable"]}
    row["lesions"] = {
        name.removesuffix(DIAMETERS): value
        for name, value in sorted(flat.items())
        if name.endswith(DIAMETERS) and value is not None
    }
    hu = {name.removeprefix("hu_"): value for name, value in flat.items() if name.startswith("hu_")}
    row["hu"] = hu if row["shape"] is not None else None
    row["phase"], row["attributes"] = flat["phase"], json.loads(flat["attributes"])
    data = flat["fingerprint"]
    row["fingerprint"] = None if data is None else base64.b64encode(data).decode()
    row["faults"] = flat["faults"]
    return row


def _relative(path: str | None, folder: str) -> str | None:
    if path is None or not path.startswith(folder + os.sep):
        return path
    return path[len(folder) + 1 :].replace(os.sep, "/")


def _absolute(path: str | None, folder: str) -> str | None:
    return None if path is None else str(Path(folder, path))


def _first_twice(ids: Any) -> str | None:
    """The first id, of sorted ones, that its neighbor has too."""
    import pyarrow.compute as pc

    if len(ids) < 2:
        return None
    place = pc.index(pc.equal(ids[:-1].combine_chunks(), ids[1:].combine_chunks()), True).as_py()
    return None if place < 0 else str(ids[place].as_py())
