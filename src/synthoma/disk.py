"""Whole files or none: every file of ours is written beside its place, flushed, and renamed into it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from synthoma.errors import FileError


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends, and vanishes if it fails.

    Folders on the way are made. The temporary name is fixed (`.NAME.part`), so what a killed process left is
    overwritten by the next attempt. Raises `FileError` if the disk is full or the folder is not writable.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # what kept us from writing may keep us from removing
            part.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes it when the block ends, and vanishes if it fails.

    An older folder of that name, and what a killed process left (`.NAME.part`), go when the block begins. Raises
    `FileError` if the disk is full or the place is not writable.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        for old in (part, path):
            if old.exists():
                shutil.rmtree(old)
        part.mkdir(parents=True)
        yield part
        part.replace(path)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise _cannot_write(path, error) from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _cannot_write(path: Path, error: OSError) -> FileError:
    return FileError(
        f"cannot write {path}", found=error.strerror or str(error), fix="free space or choose another --out"
    )


def write_text(path: Path | str, text: str) -> None:
    """The text as UTF-8 with Unix line ends."""
    with atomic(path) as part:
        part.write_bytes(text.encode())


def write_json(path: Path | str, data: Any) -> None:
    """Indented JSON, keys in the order given, nan refused."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """The data of a JSON file; `FileError` if it is absent or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(f"no file {path}") from error
    except RecursionError:
        raise FileError(f"{path} is not JSON that can be read", found="nested too deep") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise FileError(f"{path} is not JSON", found=str(error)) from error


def digest(path: Path | str) -> str:
    """32 hexadecimal digits that tell a file's bytes; `FileError` if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise FileError(f"cannot read {path}", found=error.strerror or str(error)) from error
