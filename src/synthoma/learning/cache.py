"""The cache: every case once on the training grid, with what patches and online synthesis need beside it.

A folder of entries, shared by runs and recipes. An entry's name carries a digest of what it was made from, so a
scan that changes, or another spacing, is another entry. Half-written entries never count.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from synthoma import anatomy, disk
from synthoma.cases import Case, Label, Lesion, Source
from synthoma.engine.clusters import ClusterRecipe
from synthoma.engine.mapping import map_cases
from synthoma.engine.records import CaseRecord
from synthoma.errors import CaseError, FailedCasesError, FileError
from synthoma.learning.entry import HU, LABELS, POINTS, RECORD, Entry, read_tables, tables_name
from synthoma.learning.gridding import GridMasks, Spacing, find_places, paint, training_grid
from synthoma.learning.storing import CacheError, as_npy, as_store, placed, write
from synthoma.volume import Array, Box, Geometry, Volume

log = logging.getLogger(__name__)

FORMAT = 2  # raise it when the same case would come out otherwise: older entries are then built anew


class Preparing(Protocol):
    """The part of an augment that the cache calls. name: a digest of what `prepare` depends on."""

    @property
    def name(self) -> str: ...

    def prepare(self, ct: Volume, masks: Mapping[str, Volume], case: Case) -> dict[str, Array]:
        """What drawing and rendering tumors in this case takes, once for all; volumes on the training grid."""


def build_cache(
    cases: Iterable[Case],
    folder: Path | str,
    spacing_mm: Spacing,
    augment: Preparing | None = None,
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    allow_failures: int = 0,
) -> list[Entry]:
    """The cached cases, in order.

    What is there and whole is used as it is, a damaged entry is rebuilt, with a warning. Scans are turned to RAS+
    axes and resampled as `Volume.to` does (linear, no smoothing before); masks by majority. spacing_mm: one number
    or three; 0 or None keeps the scan's own. augment: its tables are added; the voxels stay. workers, cluster: as in
    `map_cases`. Raises `FailedCasesError` with the reasons if more than `allow_failures` cases fail, or all; up to
    that many are left out, each with a warning. Raises `CacheError` if the folder cannot be written or is full.
    """
    cases = list(cases)
    place = Path(os.path.abspath(folder))
    task = partial(cache_case, folder=place, spacing_mm=spacing_mm, augment=augment)
    records = map_cases(task, cases, workers=workers, cluster=cluster, title="cache", watch=_refuse_stopped)
    entries, failures = [], {}
    for case, record in zip(cases, records, strict=True):
        if record.status == "failed":
            failures[case.id] = record.error
            log.warning("%s cannot be cached: %s", case.id, record.error)
            continue
        if record.result["damaged"]:
            log.warning("%s: the cache was damaged and is rebuilt: %s", case.id, record.result["damaged"])
        entries.append(read_entry(place / record.result["folder"], case))
    refuse_failures(failures, len(cases), allow_failures)
    return entries


def refuse_failures(failures: Mapping[str, str], cases: int, allowed: int) -> None:
    """`FailedCasesError` if more of so many cases failed than are allowed to, or all. failures: case -> why."""
    if not failures or (len(failures) <= allowed and len(failures) < cases):
        return
    reasons = [why if why.startswith(f"{case}: ") else f"{case}: {why}" for case, why in failures.items()]
    more = f" | and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    raise FailedCasesError(
        f"{len(failures)} of {cases} cases cannot be used: " + " | ".join(reasons[:5]) + more,
        expected=f"at most {allowed}",
        fix=f"mend them, or go on without them: --allow-failures {len(failures)}" if len(failures) < cases else None,
    )


def _refuse_stopped(record: CaseRecord) -> None:
    if "stopped" in record.result:
        raise CacheError(record.result["stopped"])


def cache_case(case: Case, folder: Path, spacing_mm: Spacing, augment: Preparing | None = None) -> dict[str, Any]:
    """One case into the cache: the name of its folder, whether it was built, and what was damaged if anything.

    If the folder cannot be written it is `stopped`, and why: no other case will fare better.
    """
    name = entry_name(case, spacing_mm)
    target = folder / name
    masks = None
    try:
        with _locked(folder, name):
            damaged = check_entry(target)
            if damaged is not None:
                masks = _build(case, target, spacing_mm)
            if augment is not None:
                faulty = _add_tables(case, target, spacing_mm, augment, masks)
                damaged = damaged or faulty
    except CacheError as error:
        return {"stopped": str(error)}
    return {"folder": name, "built": masks is not None, "damaged": damaged or ""}


def entry_name(case: Case, spacing_mm: Spacing) -> str:
    """The folder of a case: its id, and a digest of its sources, the spacing and the cache's format.

    Files go by size and time of change; what is in memory, or made when asked for, by its voxels.
    """
    spacing = None if not spacing_mm else np.broadcast_to(np.asarray(spacing_mm, float), (3,)).tolist()
    with case.named():
        sources = {name: _fingerprint(source) for name, source in case.masks.items()}
        text = json.dumps([FORMAT, case.id, _fingerprint(case.image), sources, spacing], sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', case.id)[:80]}-{digest}"


def check_entry(folder: Path) -> str | None:
    """None for a whole entry; else what is wrong with it, empty if there is none. Every byte is compared."""
    if not folder.exists():
        return ""
    try:
        record = disk.read_json(folder / RECORD)
        if record["digest"] != _digest_of(record):
            return f"{RECORD} has other content than was written"
        for name, (size, digest) in record["files"].items():
            found = (folder / name).stat()
            if found.st_size != size:
                return f"{name} has {found.st_size} bytes instead of {size}"
            if disk.digest(folder / name) != digest:
                return f"{name} has other content than was written"
    except (OSError, FileError, KeyError, TypeError, ValueError, AttributeError) as error:
        return str(error) or type(error).__name__
    return None


def _digest_of(record: Mapping[str, Any]) -> str:
    text = json.dumps({name: value for name, value in record.items() if name != "digest"}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def read_entry(folder: Path, case: Case) -> Entry:
    """The entry of a case in a folder that `check_entry` finds whole."""
    record = disk.read_json(folder / RECORD)
    return Entry(
        case=case.id,
        patient=case.patient,
        dataset=case.dataset,
        geometry=Geometry(tuple(record["shape"]), np.array(record["affine"])),
        annotated=tuple(record["annotated"]),
        attributes=dict(case.attributes),
        folder=folder,
        lesions=tuple(_lesion(row) for row in record["lesions"]),
        spans={place: (start, stop) for place, (start, stop) in record["spans"].items()},
    )


def _build(case: Case, target: Path, spacing_mm: Spacing) -> GridMasks:
    """Write an entry; the masks on its grid, for an augment to look at."""
    ct = case.read_image()
    if ct.data.dtype != np.int16 and not np.isfinite(ct.data).all():
        raise CaseError("the scan holds NaN or infinite HU", case=case.id, fix="replace them by -1024")
    grid = training_grid(ct.geometry, spacing_mm)
    data = ct.reorient("RAS").to(grid).data
    if data.dtype != np.int16:
        data = np.clip(np.rint(data), -32768, 32767).astype(np.int16)
    masks = GridMasks(case, ct.geometry, grid)
    labels = paint(masks, grid)
    lesions, places = find_places(case.id, data, labels, grid)
    stops = np.cumsum([len(points) for points in places.values()]).tolist()
    with placed(target, lambda: check_entry(target) is None) as part:
        part.mkdir()
        files = {HU: as_store(data), LABELS: as_store(labels), POINTS: as_npy(np.concatenate(list(places.values())))}
        record = {
            "format": FORMAT,
            "case": case.id,
            "shape": list(grid.shape),
            "affine": grid.affine.tolist(),
            "annotated": [name for name in case.masks if name != anatomy.IGNORE],
            "lesions": [asdict(lesion) for lesion in lesions],
            "spans": {
                place: (stop - len(points), stop) for (place, points), stop in zip(places.items(), stops, strict=True)
            },
            "files": {name: write(part / name, content) for name, content in files.items()},
        }
        record = json.loads(json.dumps(record))  # tuples become lists, as they are read
        write(part / RECORD, json.dumps(record | {"digest": _digest_of(record)}, indent=1).encode())
    return masks


def _add_tables(
    case: Case, target: Path, spacing_mm: Spacing, augment: Preparing, masks: GridMasks | None
) -> str | None:
    """Write an augment's tables unless they are there; what was wrong with them if they were damaged."""
    path = target / tables_name(augment.name, case.attributes)
    damaged = None
    if path.exists():
        try:
            read_tables(path)
            return None
        except FileError as error:
            damaged = str(error)
    entry = read_entry(target, case)
    if masks is None:
        masks = GridMasks(case, case.read_geometry(), entry.geometry)
    ct = Volume(entry.read_hu(Box.whole(entry.geometry.shape)), entry.geometry)
    tables = augment.prepare(ct, masks, case)
    content = io.BytesIO()
    np.savez(content, **tables)  # type: ignore[arg-type]
    with placed(path) as part:
        write(part, content.getvalue())
    return damaged


def _fingerprint(source: Source) -> Any:
    if isinstance(source, Label):
        return [_fingerprint(source.path), list(source.values)]
    if isinstance(source, Path):
        return _stamps(source)
    volume = source if isinstance(source, Volume) else source()
    digest = hashlib.blake2b(repr((volume.geometry, volume.geometry.affine.tolist())).encode(), digest_size=16)
    turned = volume.data.T if volume.data.flags.f_contiguous else volume.data
    digest.update(np.ascontiguousarray(turned).data)
    return [str(volume.data.dtype), turned is volume.data, digest.hexdigest()]


def _stamps(path: Path) -> list[Any]:
    """Sizes and times of the files that make up an image; empty if there is none, which reading it will say."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    elif path.suffix.lower() in (".mhd", ".nhdr"):  # a header, its voxels in a file beside it
        files = sorted(file for file in path.parent.iterdir() if file.stem == path.stem)
    else:
        files = [path]
    stamps = []
    with suppress(FileNotFoundError):
        stamps = [[file.name, (found := file.stat()).st_size, found.st_mtime_ns] for file in files]
    return stamps


def _lesion(row: dict[str, Any]) -> Lesion:
    box = Box(*(tuple(corner) for corner in row["box"]))
    return Lesion(**row | {"box": box, "center_mm": tuple(row["center_mm"])})


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """One process at a time per entry, so that runs that start together build it once."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f".lock-{name[-2:]}").open("a")
    except OSError as error:
        raise CacheError(f"cannot write {folder}", found=error.strerror, fix="choose another --cache") from error
    with file:
        with suppress(OSError):  # a file system without locks: two runs then do the same work twice
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
