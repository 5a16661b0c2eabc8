"""The manifest: a Parquet table with a row for every attempt at a tumor; its plans are the synthetic data set."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from synthoma import disk
from synthoma.cases import Case
from synthoma.datasets.layouts.opening import Dataset
from synthoma.errors import CaseError, FileError, SynthomaError
from synthoma.names import require_plain
from synthoma.synthesis.insertion.insertion import Attempt, Inserted
from synthoma.synthesis.pipeline import Synthesis
from synthoma.synthesis.store import columns
from synthoma.synthesis.store.columns import Row
from synthoma.synthesis.store.comparing import is_learned, sample_of, torch_version
from synthoma.synthesis.store.copies import as_copy
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Volume

MANIFEST = "manifest.parquet"
FORMAT, READABLE = 4, ("1", "2", "3", "4")  # 4: noise told by neighbors; 3: a drift of HU, scans that are made worse
# The largest table that is read: 30,000 scans with a hundred attempts each.
_MOST_ROWS, _MOST_COLUMNS, _MOST_BYTES = 3_000_000, 1_000, 1 << 30

_NO_ATTEMPT = "no tumor was planned"


def rows_of(synthesis: Synthesis, organs: Sequence[str], source: str = "") -> list[Row]:
    """The rows of one case: by organ in the order of `organs`, then by tumor, then by attempt.

    source: the case of the data set that it is a copy of; itself unless told.

    The accepted ones are thus in the order of insertion. Scores that are undefined are None.
    """
    learned = any(is_learned(tumor.plan) for tumor in synthesis.inserted)
    common = {
        "case": synthesis.case,
        "source": source or synthesis.case,
        "scan_digest": synthesis.scan_digest,
        "phase": synthesis.phase,
        "versions": versions() + (torch_version() if learned else ""),
    }
    attempts = sorted(
        (*synthesis.inserted, *synthesis.rejected),
        key=lambda attempt: (organs.index(attempt.plan.organ), attempt.index, attempt.number),
    )
    if not attempts:
        reason = "; ".join(synthesis.notes) or _NO_ATTEMPT
        return [common | _outcome(False, reason, None) | {"plan": None, "scores": {}}]
    return [common | _row(attempt) for attempt in attempts]


def accepted(rows: Iterable[Row]) -> list[Row]:
    """The rows of the tumors that are in the scan."""
    return [row for row in rows if row["accepted"]]


def write_manifest(rows: Iterable[Row], path: Path | str) -> None:
    """The rows as Parquet, whole or not at all; the same rows give the same bytes.

    Numbers are stored as they are, so a plan read back equals the plan written. The rows of a case stay together.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(rows)
    types = columns.column_types(rows)
    schema = pa.schema(
        [pa.field(name, pa.type_for_alias(kind)) for name, kind in types.items()],
        {"synthoma.manifest": str(FORMAT), "synthoma.versions": versions()},
    )
    table = pa.Table.from_pylist([columns.flat(row, types) for row in rows], schema)
    _case_spans(table)
    with disk.atomic(path) as part:
        pq.write_table(table, part, compression="zstd", compression_level=9)


def manifest_at(path: Path) -> Manifest:
    """As `read_manifest` of a file, which a process reads once, and again when it has changed."""
    path = path.absolute()  # the same name in another folder is another manifest
    return _manifest_at(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _manifest_at(path: Path, changed: int) -> Manifest:
    del changed
    return read_manifest(path)


def read_manifest(path: Path | str) -> Manifest:
    """The manifest in a file, or in the output folder of a synthesis.

    Raises `FileError` if there is none, if it is something else, damaged, larger than any synthesis, or of a format
    that this version does not know.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    path = path / MANIFEST if path.is_dir() else path
    if not path.is_file():
        raise FileError(f"no manifest {path}", expected=f"the {MANIFEST} that a finished synthesis leaves")
    try:
        with pq.ParquetFile(path) as file:
            _require_size(path, file.metadata)
            table = file.read()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} is no Parquet file", found=str(error), fix="copy it again") from error
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    found = about.get("synthoma.manifest")
    if found is None:
        raise FileError(f"{path} is no manifest of synthoma", found=f"a table of {', '.join(table.column_names[:5])}")
    if found not in READABLE:
        raise FileError(
            f"{path} is a manifest of another format",
            found=f"format {found}, written by {about.get('synthoma.versions', 'an unknown version')}",
            expected=f"format {' or '.join(READABLE)}, which {versions()} reads",
            fix="replay it with the version that wrote it",
        )
    _require_columns(path, table)
    return Manifest(path, table)


class Listed(NamedTuple):
    """A tumor in a scan. number: 1, 2, ... within the case, in the order they were put in."""

    case: str
    number: int
    organ: str
    equivalent_diameter_mm: float


@dataclass(frozen=True, eq=False)
class Manifest:
    """What became of every case of a synthesis. path: where it was read from. table: pyarrow, a row an attempt."""

    path: Path
    table: Any

    @property
    def cases(self) -> tuple[str, ...]:
        """The ids of all cases, in the order of the data set; those without tumors too."""
        return tuple(self._spans)

    def __contains__(self, case: str) -> bool:
        return case in self._spans

    def __len__(self) -> int:
        return len(self._spans)

    def rows(self, case: str) -> list[Row]:
        """Every attempt in a case, in order; `CaseError` if the manifest does not know the case."""
        if case not in self._spans:
            known = list(itertools.islice(self._spans, 5))
            raise CaseError(
                f"{self.path} has no plans for it", case=case, found=f"{len(self)} cases: {', '.join(known)}, ..."
            )
        start, count = self._spans[case]
        try:
            return [columns.deep(flat) for flat in self.table.slice(start, count).to_pylist()]
        except (AttributeError, CaseError, LookupError, TypeError, ValueError) as error:
            what = error.what if isinstance(error, CaseError) else repr(error)
            raise FileError(
                f"{self.path} is damaged, or was changed by hand", found=f"in case {case}, {what}", fix="copy it again"
            ) from error

    def plans(self, case: str) -> list[TumorPlan]:
        """The plans of the tumors in a case, in the order they were put in."""
        return [TumorPlan.from_dict(row["plan"]) for row in accepted(self.rows(case))]

    def tumors(self) -> Iterator[Listed]:
        """Every tumor that is in a scan, in the order of the table."""
        diameter = next((name for name in columns.DIAMETERS if name in self.table.column_names), "")
        if not diameter:
            return  # nothing was ever measured: no case has a tumor
        names = ["case", "organ", diameter, "accepted"]
        count: Counter[str] = Counter()
        for batch in self.table.select(names).to_batches():
            for case, organ, diameter_mm, there in zip(*(column.to_pylist() for column in batch), strict=True):
                if there:
                    count[case] += 1
                    yield Listed(case, count[case], organ, diameter_mm)

    def source(self, case: str) -> str:
        """The case of the data set that a case was made from; itself for one that the manifest does not know."""
        if "source" not in self.table.column_names or case not in self._spans:
            return case
        return self.table["source"][self._spans[case][0]].as_py() or case

    def copies(self, source: str) -> tuple[str, ...]:
        """The cases that were made from a case of the data set, in the manifest's order; () for none."""
        return self._copies.get(source, ())

    def cases_in(self, dataset: Dataset) -> list[Case]:
        """The cases of the manifest as the data set has them, in the manifest's order.

        One that is missing or broken there is a stand-in whose scan, when read, is the error that says so.
        """
        return [self.case_in(dataset, case) for case in self.cases]

    def case_in(self, dataset: Dataset, case: str) -> Case:
        """One of them."""
        source = self.source(case)
        found = _case_in(dataset, source)
        return found if source == case else as_copy(found, case)

    @cached_property
    def _copies(self) -> dict[str, tuple[str, ...]]:
        copies: dict[str, tuple[str, ...]] = {}
        for case in self.cases:
            source = self.source(case)
            copies[source] = (*copies.get(source, ()), case)
        return copies

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        return _case_spans(self.table)


@dataclass(frozen=True)
class Refusal:
    """A source of voxels that is not there: reading it raises `error`."""

    error: SynthomaError

    def __call__(self) -> Volume:
        raise self.error


@cache
def versions() -> str:
    """What can change a voxel of a rendered tumor, as one string."""
    return ", ".join(f"{package} {metadata.version(package)}" for package in ("synthoma", "numpy", "scipy"))


def _case_in(dataset: Dataset, case: str) -> Case:
    try:
        return dataset[case]
    except CaseError:
        first = ", ".join(found.id for found in dataset.cases[:5])
        error: SynthomaError = CaseError(
            "the manifest has plans for it, but the data set has no such case",
            case=case,
            found=f"{len(dataset)} cases in {dataset.root}: {first}{', ...' if len(dataset) > 5 else ''}",
            fix="give the data set that the plans were made on",
        )
    except SynthomaError as fault:
        error = fault
    return Case(case, Refusal(error))


def _require_size(path: Path, about: Any) -> None:
    """`FileError` for a table that is larger than any synthesis, told from its footer before its rows are read."""
    size = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
    if about.num_rows > _MOST_ROWS or about.num_columns > _MOST_COLUMNS or size > _MOST_BYTES:
        raise FileError(
            f"{path} is too large for a manifest",
            found=f"{about.num_rows:,} rows, {about.num_columns:,} columns, {size:,} bytes",
            expected=f"at most {_MOST_ROWS:,} rows, {_MOST_COLUMNS:,} columns, {_MOST_BYTES:,} bytes",
            fix="split the data set, and synthesize each part into a folder of its own",
        )


def _require_columns(path: Path, table: Any) -> None:
    """`FileError` unless the table has the columns of its format, each of its type, and plain names as cases."""
    import pyarrow as pa

    is_kind = {
        "string": pa.types.is_string,
        "bool": pa.types.is_boolean,
        "double": pa.types.is_floating,
        "int32": pa.types.is_integer,
        "int64": pa.types.is_integer,
    }
    for name, kind in columns.columns_of(table.column_names).items():
        count = table.column_names.count(name)
        found = str(table.schema.field(name).type) if count == 1 else f"{count} columns of that name"
        if count != 1 or not (is_kind[kind](table.schema.field(name).type) or found == "null"):
            raise FileError(
                f"{path} is damaged, or was changed by hand", found=f"column {name}: {found}", expected=kind,
                fix="copy it again",
            )  # fmt: skip
    try:
        names = ["case", "source"] if "source" in table.column_names else ["case"]
        for name in names:
            for case in table[name].unique().to_pylist():
                require_plain(case, "the id of a case")
        _case_spans(table)
    except ValueError as error:
        raise FileError(f"{path} is damaged, or was changed by hand", found=str(error), fix="copy it again") from error


def _row(attempt: Attempt) -> Row:
    verdict = attempt.verdict
    digest, sample = (attempt.digest, sample_of(attempt)) if isinstance(attempt, Inserted) else (None, {})
    scores = {name: value if value == value else None for name, value in verdict.scores.items()}
    outcome = _outcome(verdict.accepted, verdict.reason, digest, attempt.index, attempt.number)
    return outcome | sample | {"plan": json.loads(_json(attempt.plan.as_dict())), "scores": scores}


def _outcome(
    accepted: bool, reason: str, digest: str | None, index: int | None = None, number: int | None = None
) -> Row:
    return {"index": index, "number": number, "accepted": accepted, "reason": reason, "digest": digest}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _case_spans(table: Any) -> dict[str, tuple[int, int]]:
    """First row and number of rows of each case; `ValueError` if the rows of a case are apart."""
    spans: dict[str, tuple[int, int]] = {}
    first = 0
    for case, group in itertools.groupby(table.column("case").to_pylist()):
        if case in spans:
            raise ValueError(f"rows of {case} come apart; the rows of a case belong together")
        count = sum(1 for _ in group)
        spans[case] = first, count
        first += count
    return spans
