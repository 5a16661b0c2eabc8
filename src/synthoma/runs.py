"""Run folders: what was asked, with what, how it went, and one record per case; nobody's files overwritten."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import platform
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TextIO

from synthoma.disk import atomic, is_part, read_json, sweep, write_json, write_text
from synthoma.errors import FileError, RunError
from synthoma.recipe import Recipe

Status = Literal["running", "done", "failed", "interrupted"]

RECORD, RECIPE, LOCK = "run.json", "recipe.toml", ".lock"
INPUTS = "inputs.jsonl"  # what a training was begun with, which is no result

# The packages whose version can change a byte of what a run writes.
PACKAGES = (
    "synthoma", "numpy", "scipy", "opencv-python-headless", "connected-components-3d", "edt", "nibabel", "isal",
    "pyarrow", "SimpleITK", "pydicom", "torch", "monai",
)  # fmt: skip

log = logging.getLogger(__name__)
_SHOWN = 5  # differences from another run that an error names


@dataclass(frozen=True)
class RunRecord:
    """One run, as `run.json` in its folder holds it.

    id: kind and a digest of what was asked, so the same run has the same id everywhere.
    recipe: the whole recipe with its defaults; digest: its digest. inputs: name -> hash of what was read.
    versions: of the packages that matter, when the run was first started. started, finished: UTC, ISO 8601.
    status: a folder that says running while nobody holds it was killed; running the same command again resumes.
    summary: what the run noted about its outcome; `cases` and `failed` where it mapped over cases.
    """

    id: str
    kind: str
    recipe: dict[str, Any]
    digest: str
    seed: int
    versions: dict[str, str]
    inputs: dict[str, str]
    started: str
    finished: str | None = None
    status: Status = "running"
    summary: dict[str, Any] = field(default_factory=dict)


class Journal:
    """Lines of JSON that outlive a kill: appended one by one, each in one write.

    What a killed process left of its last line is dropped (and a line broken by the disk as well, with a
    warning): a case without a record is done again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """The entries in the order they were appended; none if there is no file yet. Mends the file."""
        return [entry for _, entry in self.scan()]

    def scan(self) -> Iterator[tuple[slice, Any]]:
        """Where each entry lies, in bytes, and the entry, one at a time; mends the file once all are seen.

        Places are those in the mended file.
        """
        if not self.path.exists():
            return
        dropped, at, is_ended = set(), 0, True
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if number - 1 in dropped:  # the last line breaks whenever a process is killed
                    log.warning("%s: line %d is broken and dropped", self.path, number - 1)
                try:
                    entry = json.loads(line)
                except ValueError:  # also what is not UTF-8
                    dropped.add(number)
                    continue
                is_ended = line.endswith(b"\n")
                length = len(line) - is_ended
                yield slice(at, at + length), entry
                at += length + 1
            if dropped or not is_ended:
                file.seek(0)
                whole = (line for number, line in enumerate(file, 1) if number not in dropped)
                with atomic(self.path) as part, part.open("wb") as mended:
                    mended.writelines(line.rstrip(b"\n") + b"\n" for line in whole)

    def append(self, line: str) -> None:
        """One line of JSON at the end; `FileError` if the disk is full."""
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(line.encode() + b"\n")
        except OSError as error:
            raise self.fault(error) from error

    def fault(self, error: OSError) -> FileError:
        """What to tell whoever cannot write to it."""
        return FileError(f"cannot write {self.path}", found=error.strerror, fix="free space and run again")

    def replace(self, lines: Iterable[str]) -> None:
        """These lines instead of what is there, all or none."""
        with atomic(self.path) as part, part.open("wb") as file:
            file.writelines(line.encode() + b"\n" for line in lines)


class Run:
    """An open run folder. Made by `open_run`, which writes its record when the block ends."""

    def __init__(self, folder: Path, record: RunRecord) -> None:
        self.folder, self.record = folder, record
        self._claimed: set[str] = set()

    def note(self, **facts: Any) -> None:
        """Add JSON data to the summary in `run.json`; the summary is written when the run ends."""
        self.record = replace(self.record, summary={**self.record.summary, **facts})

    def journal(self, name: str = "records") -> Journal:
        """The journal `NAME.jsonl` of this run. Each has one writer: asking twice is a `ValueError`."""
        if name in self._claimed:
            raise ValueError(f"{self.record.id} already writes {name}.jsonl; give the second journal another name")
        self._claimed.add(name)
        return Journal(self.folder / f"{name}.jsonl")


@contextmanager
def open_run(
    folder: Path | str,
    kind: str,
    recipe: Recipe,
    seed: int = 0,
    inputs: Mapping[str, str] | None = None,
    growing: str = "",
) -> Iterator[Run]:
    """The run folder, made or resumed, and ours alone while the block lasts.

    An empty or absent folder is made; one of the same kind, recipe, seed and inputs is resumed. Raises `RunError`
    if it holds another run (naming each key that differs), other files, or is in use (naming the process). A run of
    the same kind in which every case failed gives way to another. growing: a key of the recipe that may be larger than
    it was: the run goes on from where it ended.
    The run ends as done, interrupted (Ctrl-C) or failed (any other exception leaves the block). A new one that failed
    before it wrote anything leaves nothing, so that it is in nobody's way.
    """
    folder = Path(folder)
    asked = _asked(kind, recipe, seed, dict(inputs or {}))
    _refuse_other_files(folder)
    is_new = not (folder / RECORD).exists()
    with _locked(folder, asked.id):
        run = Run(folder, _begin(folder, asked, growing))
        if not (folder / RECIPE).exists():
            write_text(folder / RECIPE, recipe.to_toml())
        status: Status = "failed"
        ended_well = False
        try:
            yield run
            status, ended_well = "done", True
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            with suppress(OSError):  # somebody may have taken the folder away
                sweep(folder)  # of workers that were killed
            if is_new and not ended_well and not _holds_work(folder):
                _leave(folder)
            else:
                _write(folder, replace(run.record, status=status, finished=_now()))


def _holds_work(folder: Path) -> bool:
    """Whether there is anything beside what every run begins with."""
    for path in folder.iterdir():
        is_frame = path.name in (RECORD, RECIPE, LOCK, INPUTS) or path.name.startswith(".")
        if not is_frame and not (path.suffix == ".jsonl" and path.stat().st_size == 0):
            return True
    return False


def _leave(folder: Path) -> None:
    """Take away what a run began with, and the records of cases that all failed."""
    for path in folder.iterdir():
        if path.name in (RECORD, RECIPE) or path.suffix == ".jsonl":
            path.unlink(missing_ok=True)


def _came_to_nothing(folder: Path, found: RunRecord, asked: RunRecord) -> bool:
    """Whether a run ended without a single case done, so that nothing is lost if another takes its folder."""
    cases = found.summary.get("cases")
    nothing_done = bool(cases) and cases == found.summary.get("failed") and found.status == "done"
    return nothing_done and found.kind == asked.kind and not any(path.is_dir() for path in folder.iterdir())


def read_run(folder: Path | str) -> RunRecord:
    """The record of a run folder; `RunError` if it is none."""
    path = Path(folder) / RECORD
    if not path.is_file():
        raise RunError(f"{folder} is not a run folder", expected=f"a {RECORD} in it")
    data = read_json(path)
    known = {entry.name for entry in fields(RunRecord)}
    if not isinstance(data, dict) or set(data) != known:
        raise RunError(
            f"{path} is not the record of a run",
            found=", ".join(data) if isinstance(data, dict) else type(data).__name__,
            expected=", ".join(entry.name for entry in fields(RunRecord)),
        )
    kinds = {"id": str, "kind": str, "recipe": dict, "digest": str, "inputs": dict, "versions": dict, "summary": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(data[name], kind)]
    if wrong:
        raise RunError(f"{path} is damaged", found=f"{wrong[0]} = {data[wrong[0]]!r}", fix=f"remove {folder}")
    return RunRecord(**data)


def _asked(kind: str, recipe: Recipe, seed: int, inputs: dict[str, str]) -> RunRecord:
    identity = json.dumps([kind, recipe.digest(), seed, inputs], sort_keys=True)
    return RunRecord(
        id=f"{kind}-{hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()}",
        kind=kind,
        recipe=recipe.as_dict(),
        digest=recipe.digest(),
        seed=seed,
        versions=_versions(),
        inputs=inputs,
        started=_now(),
    )


def _begin(folder: Path, asked: RunRecord, growing: str) -> RunRecord:
    """The record to go on with, written as running."""
    record = asked
    if (folder / RECORD).exists():
        before = read_run(folder)
        found = _grown(before, asked, growing)
        differing = list(_differences(found, asked))
        if differing and _came_to_nothing(folder, found, asked):
            log.warning("%s held another run, in which every case had failed; it gives way", folder)
            _leave(folder)
            found, differing = asked, []
        if differing:
            raise RunError(
                f"{folder} holds another run, {before.id}: {' | '.join(differing[:_SHOWN])}{_more(differing)}",
                fix=f"choose another --out, or ask for that run again (its recipe: {folder / RECIPE})",
            )
        for change in _compare(found.versions, asked.versions):
            log.warning("%s was started with other versions: %s", found.id, change)
        if found.recipe != before.recipe:
            (folder / RECIPE).unlink(missing_ok=True)  # written anew
        record = replace(found, status="running", finished=None, summary={})
    _write(folder, record)
    return record


def _grown(found: RunRecord, asked: RunRecord, growing: str) -> RunRecord:
    """The record found with the growing key as it is asked for, if that is larger; else the record itself."""
    before, now = found.recipe.get(growing), asked.recipe.get(growing)
    if before is None or now is None or now <= before:
        return found
    return replace(found, id=asked.id, digest=asked.digest, recipe={**found.recipe, growing: now})


def _more(differing: list[str]) -> str:
    return f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""


def _differences(found: RunRecord, asked: RunRecord) -> Iterator[str]:
    for name in ("kind", "seed"):
        yield from _compare({name: getattr(found, name)}, {name: getattr(asked, name)})
    yield from _compare(found.recipe, asked.recipe)
    yield from _compare({"inputs": found.inputs}, {"inputs": asked.inputs})


def _compare(here: Any, asked: Any) -> Iterator[str]:
    """`a.b: 3 here, 5 asked` for every leaf that differs."""
    here_leaves, asked_leaves = dict(_leaves(here)), dict(_leaves(asked))
    for key in sorted({*here_leaves, *asked_leaves}):
        left, right = here_leaves.get(key, "absent"), asked_leaves.get(key, "absent")
        if left != right:
            yield f"{key}: {left} here, {right} asked"


def _leaves(data: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _leaves(value, f"{place}.{key}" if place else str(key))
    else:
        yield place, json.dumps(data, ensure_ascii=False)


def _refuse_other_files(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file", expected="a folder for the run", fix="choose another --out")
    if not folder.exists() or (folder / RECORD).exists():
        return
    # What a run killed in its first moments leaves is no obstacle.
    others = sorted(path.name for path in folder.iterdir() if path.name != LOCK and not is_part(path.name))
    if others:
        raise RunError(
            f"{folder} holds files that are no run's",
            found=", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else ""),
            expected="an empty or absent folder, or a run to resume",
            fix="choose another --out",
        )


@contextmanager
def _locked(folder: Path, run_id: str) -> Iterator[None]:
    """Hold the folder's lock, which the kernel releases however this process ends."""
    path, is_ours = folder / LOCK, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _acquire(path, folder)
        file.truncate(0)
        file.write(json.dumps({"id": run_id, "host": socket.gethostname(), "pid": os.getpid()}) + "\n")
        file.flush()
    except OSError as error:
        raise RunError(f"cannot write into {folder}", found=error.strerror, fix="choose another --out") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if is_ours:
            with suppress(OSError):  # it goes if it is empty: the run came to nothing
                folder.rmdir()
        file.close()


def _acquire(path: Path, folder: Path) -> TextIO:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = _holder(file.read())
            file.close()
            raise RunError(
                f"{folder} is in use by {holder}", fix="wait for it to end, or choose another --out"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
            log.warning("%s: this file system has no locks, so a second process in the folder goes unseen", folder)
            return file
        # The one before us may have removed the file between our open and our lock.
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"{holder['id']} (host {holder['host']}, process {holder['pid']})"
    except ValueError:  # it has not written its name yet
        return "another process"


def _write(folder: Path, record: RunRecord) -> None:
    write_json(folder / RECORD, asdict(record))


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
