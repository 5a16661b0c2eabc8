"""Whole files or none: every file of ours is written beside its place, flushed, and renamed into it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from synthoma.errors import DiskFullError, FileError

# What a half-written file or folder is called: `.NAME.HOST-PROCESS.part`. Two processes never write the same one.
_PART = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)\.part")
_FORGOTTEN_S = 86_400.0  # a part of another host this old is nobody's any more
_TRIES = 5
_swept: set[tuple[int, str]] = set()


@lru_cache(maxsize=1)
def host_key() -> str:
    """8 hexadecimal digits that tell this machine, since its start, from any other; its name is not in them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        boot = f"{uuid.getnode()}"
    return hashlib.blake2b(f"{socket.gethostname()} {boot}".encode(), digest_size=4).hexdigest()


def part_of(path: Path) -> Path:
    """Where this process writes what will be `path`; what dead processes left in that folder is removed first."""
    with suppress(OSError):  # who cannot list the folder may still write into it
        _sweep_once(path.parent)
    return path.with_name(f".{path.name}.{host_key()}-{os.getpid()}.part")


def is_part(name: str) -> bool:
    """Whether a file or folder of this name is a half-written one of ours."""
    return _PART.fullmatch(name) is not None


def sweep(folder: Path) -> None:
    """Remove half-written files and folders whose process is dead, or that another host left a day ago."""
    for entry in os.scandir(folder):
        match = _PART.fullmatch(entry.name)
        if match is None:
            continue
        if match["host"] == host_key():
            dead = not _is_alive(int(match["process"]))
        else:
            dead = time.time() - entry.stat(follow_symlinks=False).st_mtime > _FORGOTTEN_S
        if dead:
            _remove(Path(entry.path))


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends, and vanishes if it fails.

    Folders on the way are made. The temporary name holds host and process, so that two runs on a file system
    without locks do not write into each other's; what a killed process left is removed by the next that writes there.
    Raises `FileError` if the disk is full or the folder is not writable.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
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

    An older folder of that name goes when the block begins, and what another process has put there meanwhile when it
    ends. Raises `FileError` if the disk is full or the place is not writable.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(path)
        for old in (part, path):
            if old.exists():
                shutil.rmtree(old)
        part.mkdir()
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield part
        _put(part, path)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise _cannot_write(path, error) from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def remove_folder(path: Path) -> None:
    """Take away a folder that an earlier start of this run wrote; nothing if there is none, `FileError` if it stays."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _put(part: Path, path: Path) -> None:
    """Rename a folder into its place, instead of one that another process may just have put there."""
    for _ in range(_TRIES):
        try:
            part.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            aside = part.with_name(f".old{part.name}")
            with suppress(FileNotFoundError):
                path.replace(aside)
                shutil.rmtree(aside)
        else:
            return
    raise FileError(f"cannot write {path}", found="another process that writes it again and again")


def _sweep_once(folder: Path) -> None:
    place = (os.getpid(), os.fspath(folder))
    if place not in _swept:
        _swept.add(place)
        sweep(folder)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove(path: Path) -> None:
    with suppress(OSError):  # another process may sweep as well
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _cannot_write(path: Path, error: OSError) -> FileError:
    """The fault with the way out that fits it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "free space and run again, or choose another --out"
        return DiskFullError(f"cannot write {path}", found=error.strerror, fix=fix)
    if error.errno == errno.EFBIG:
        fix = "choose another --out, where files may be this large"
    elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
        fix = "choose another --out, where you may write"
    elif isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        fix = "what lies there is in the way: move it, or choose another --out"
    else:
        fix = "choose another --out"
    return FileError(f"cannot write {path}", found=error.strerror or str(error), fix=fix)


def write_text(path: Path | str, text: str) -> None:
    """The text as UTF-8 with Unix line ends; stray bytes of a file's name as `\\udcff`, which JSON reads."""
    with atomic(path) as part:
        part.write_bytes(text.encode(errors="backslashreplace"))


def write_json(path: Path | str, data: Any) -> None:
    """Indented JSON, keys in the order given, nan refused."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """The data of a JSON file, with or without a byte order mark; `FileError` if it cannot be read or is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise FileError(f"no file {path}") from error
    except OSError as error:
        raise FileError(f"cannot read {path}", found=error.strerror or str(error)) from error
    except RecursionError:
        raise FileError(f"{path} is not JSON that can be read", found="nested too deep") from None
    except ValueError as error:  # of text, of JSON, of numbers with more digits than Python reads
        raise FileError(f"{path} is not JSON", found=str(error)) from error


def digest(path: Path | str) -> str:
    """32 hexadecimal digits that tell a file's bytes; `FileError` if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise FileError(f"cannot read {path}", found=error.strerror or str(error)) from error
