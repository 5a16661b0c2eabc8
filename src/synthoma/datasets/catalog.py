"""The cases of a cohort as one Parquet table: a row per case, written once, filtered without reading it all.

In the table a structure is one column, `liver_ml`: null = not annotated, 0 = annotated and absent, more =
present. Tumors have `liver_lesion_count` and `liver_lesion_diameters_mm` (null = not annotated) besides.
"""

from __future__ import annotations

import base64
import bisect
import itertools
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
BATCH = 2_000  # rows in memory at once, about 13 kB each
ROW_GROUP = 5_000
CHUNK = 25  # rows that are read from a part at once
LONGEST_SIDE, LARGEST_SPACING_MM = 100_000, 1_000.0  # of a scan in a catalog that is believed
VOLUME, COUNT, DIAMETERS = "_ml", "_count", "_diameters_mm"


def describe_case(case: Case, base: Path | str | None = None) -> Row:
    """The catalog's row of a case, as JSON data, from one read of its scan and masks.

    base: the folder that paths are noted from, that of the catalog; without it they are absolute. Raises the
    `SynthomaError` of the first file that cannot be read; `validation.check_case` goes on instead.
    """
    found = inspect_case(case)
    for error in found.failed.values():
        raise error
    return row_of(found, base=base)


def row_of(found: Inspection, faults: Iterable[str] = (), base: Path | str | None = None) -> Row:
    """The row of an inspected case; what could not be read is None or missing. faults: codes. base: as above."""
    case, scan = found.case, found.scan
    unread = [name for name in found.failed if name not in ("", "masks")]
    masks = [] if "masks" in found.failed else list(case.masks.items())
    return {
        "id": case.id,
        "patient": case.patient,
        "dataset": case.dataset,
        "image": _noted(case.image, base) if isinstance(case.image, Path) else None,
        "masks": [_mask_entry(name, source, base) for name, source in masks],
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

    path = Path(path)
    folder = os.path.dirname(os.path.abspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk.atomic(path) as part, tempfile.TemporaryDirectory(prefix=".catalog-", dir=folder) as spool:
        parts = _spool((_flat(row, folder) for row in rows), Path(spool))
        _merge(parts, part)


class _Part(NamedTuple):
    """Some rows on disk, sorted by id. ids: as bytes, in order. fields: the columns."""

    path: str
    ids: list[bytes]
    fields: Any

    def between(self, low: bytes, high: bytes) -> Any:
        """The rows from one id to another, as a table; reads little more than those."""
        import pyarrow as pa

        first, last = bisect.bisect_left(self.ids, low), bisect.bisect_right(self.ids, high)
        with pa.OSFile(self.path) as file:
            chunks = pa.ipc.open_file(file)
            wanted = range(first // CHUNK, -(-last // CHUNK) if last > first else first // CHUNK)
            table = pa.Table.from_batches([chunks.get_batch(place) for place in wanted], self.fields)
        return table.slice(first - first // CHUNK * CHUNK, last - first)


def _spool(rows: Iterable[Row], folder: Path) -> list[_Part]:
    """The rows on disk, some in each part."""
    import pyarrow as pa

    parts: list[_Part] = []
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, BATCH)):
        place = str(folder / f"{len(parts)}.arrow")
        batch.sort(key=lambda row: str(row["id"]).encode())
        table = _table(batch)
        with pa.OSFile(place, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, CHUNK)
        parts.append(_Part(place, [str(row["id"]).encode() for row in batch], table.schema))
    return parts


def _merge(parts: list[_Part], path: Path) -> None:
    """The parts as one sorted Parquet file, group after group; `CaseError` for an id that is there twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fixed = _schema()
    more = {field.name: field for part in parts for field in part.fields if field.name not in fixed.names}
    schema = pa.schema([*fixed, *(more[name] for name in sorted(more))], metadata=FORMAT)
    order = sorted(itertools.chain.from_iterable(part.ids for part in parts))
    twice = next((one for one, other in itertools.pairwise(order) if one == other), None)
    if twice is not None:
        raise CaseError("two rows of one case", case=twice.decode(), fix="rename one")
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        if not order:
            writer.write_table(schema.empty_table())
        for start in range(0, len(order), ROW_GROUP):
            group = order[start : start + ROW_GROUP]
            merged = pa.concat_tables([part.between(group[0], group[-1]) for part in parts], promote_options="default")
            for field in schema:
                if field.name not in merged.column_names:
                    merged = merged.append_column(field, pa.nulls(len(merged), field.type))
            writer.write_table(merged.select(schema.names).sort_by("id").cast(schema), ROW_GROUP)


def read_catalog(path: Path | str) -> Catalog:
    """The catalog in a file; reads its footer only. `FileError` if it is none of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise FileError(f"no file {path}", fix="run validate, or cohort")
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileError(
            f"{path} is no Parquet file", found=str(error).split("\n")[0], fix="run validate again"
        ) from error
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
        """Rows as `describe_case` gives them, file paths absolute; a few thousand are in memory at a time.

        Raises `FileError` for a damaged file, and for a row with impossible numbers.
        """
        import pyarrow as pa
        import pyarrow.dataset as ds

        folder = os.path.dirname(os.path.abspath(self.path))
        ours = {"batch_size": BATCH, "batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
        try:
            for batch in ds.dataset(self.path, format="parquet").to_batches(filter=where, **ours):
                for flat in batch.to_pylist():
                    _require_sound(flat)
                    yield _deep(flat, folder)
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise FileError(
                f"{self.path} cannot be read", found=str(error).split("\n")[0] or type(error).__name__,
                fix="run validate, or cohort, again",
            ) from error  # fmt: skip

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


def _mask_entry(structure: str, source: object, base: Path | str | None) -> Row:
    path = source.path if isinstance(source, Label) else source if isinstance(source, Path) else None
    values = list(source.values) if isinstance(source, Label) else None
    return {"structure": structure, "path": None if path is None else _noted(path, base), "values": values}


def _noted(path: Path, base: Path | str | None) -> str:
    """Absolute, or from the base: then it tells nothing of the machine."""
    return os.path.abspath(path) if base is None else str(_relative(os.path.abspath(path), os.path.abspath(base)))


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
    """From the folder, so that the table tells nothing of the machine; one on another drive stays as it is."""
    if path is None or not os.path.isabs(path):
        return path
    try:
        return os.path.relpath(path, folder).replace(os.sep, "/")
    except ValueError:
        return path


def _absolute(path: str | None, folder: str) -> str | None:
    return None if path is None else os.path.normpath(os.path.join(folder, path))


def _require_sound(flat: Row) -> None:
    """`FileError` for a row with numbers that no scan and no label map has."""
    shape, spacing = flat["shape"] or [], flat["spacing_mm"] or []
    values = [value for mask in flat["masks"] for value in mask["values"] or ()]
    for what, found, sound in (
        ("voxels along an axis", shape, all(0 < one <= LONGEST_SIDE for one in shape)),
        ("mm between voxels", spacing, all(0 < one <= LARGEST_SPACING_MM for one in spacing)),
        ("label values", values, all(0 <= one < 2**16 for one in values)),
    ):
        if not sound:
            raise FileError(f"the catalog's row of {flat['id']!r} holds impossible numbers", found=f"{found} {what}")
