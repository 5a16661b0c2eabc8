"""What a case is made from: the digest of its files, and a cheap stamp that tells that none has changed since."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A file changed so shortly before it was stamped could be changed again within the clock's tick: no stamp trusts it.
_SETTLED_S = 2.0
_SIDECARS = (".mhd", ".nhdr")  # headers whose voxels lie in files of the same stem


@dataclass(frozen=True)
class Reads:
    """What one case is made from.

    facts: what is known without reading voxels, as JSON data (id, patient, structures, label values).
    paths: files, and folders that stand for every file below them, in a fixed order.
    """

    facts: Any = None
    paths: tuple[Path, ...] = ()

    def __add__(self, other: Reads) -> Reads:
        return Reads([self.facts, other.facts], (*self.paths, *other.paths))

    def digest(self) -> str:
        """16 hexadecimal digits that differ when a fact or a byte of any file does, wherever the files lie.

        Reads every file once (about 1 GB/s). A file that is absent or cannot be read has a digest of its own.
        """
        whole = hashlib.blake2b(self._facts(), digest_size=8)
        for place, path in self._files():
            whole.update(f"\0{place}\0".encode("utf-8", "surrogateescape"))
            whole.update(_content(path))
        return whole.hexdigest()

    def stamp(self) -> str:
        """16 hexadecimal digits from facts, sizes, times and inodes: as before only if no file has changed.

        The time of change (ctime) takes part, which copying a file over another sets and no ordinary program can
        set back. Empty if a file is absent, or was changed within the last two seconds: then nothing is known.
        """
        whole = hashlib.blake2b(self._facts(), digest_size=8)
        now = time.time()
        for place, path in self._files():
            try:
                found = path.stat()
            except OSError:
                return ""
            if now - max(found.st_mtime, found.st_ctime) < _SETTLED_S:
                return ""
            times = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            whole.update(f"\0{place}\0{times}".encode("utf-8", "surrogateescape"))
        return whole.hexdigest()

    def _facts(self) -> bytes:
        return json.dumps(self.facts, sort_keys=True, default=str).encode()

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Every file with its place: the number of its path, and where it lies below that."""
        for number, path in enumerate(self.paths):
            if path.is_dir():
                inner = (Path(at) / name for at, _, names in os.walk(path) for name in names)
                yield from ((f"{number}/{file.relative_to(path)}", file) for file in sorted(inner))
            elif path.suffix.lower() in _SIDECARS and path.is_file():
                beside = sorted(file for file in path.parent.iterdir() if file.stem == path.stem and file.is_file())
                yield from ((f"{number}/{file.suffix}", file) for file in beside)
            else:
                yield str(number), path


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError as error:
        return f"unreadable {error.errno}".encode()
