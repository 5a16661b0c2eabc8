"""One cached case: its voxels in chunks on disk, and where in it patches can be centered."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import anatomy
from synthoma.cases import Lesion
from synthoma.errors import FileError
from synthoma.volume import PADDING_HU, Array, Box, Geometry

HU, LABELS, POINTS, RECORD = "hu.b2nd", "labels.b2nd", "points.npy", "entry.json"
CHUNK = 64  # of a store, along each axis: what is decompressed at once
MOST_VOXELS = 2**33  # of a store: a scan of 2048^3
_OPEN = 16  # stores that a process keeps open; one is some kilobytes until it is read


@dataclass(frozen=True, eq=False)
class Entry:
    """A case on the training grid. Made by `build_cache`; it pickles as paths, and opens its stores when read.

    geometry: axes as near to RAS+ as the scan's own allow. annotated: the structures that had a mask, empty ones
    too. lesions: the real tumors of the six organs. spans: which of the stored points belong to which place.
    """

    case: str
    patient: str
    dataset: str
    geometry: Geometry
    annotated: tuple[str, ...]
    attributes: Mapping[str, Any]
    folder: Path
    lesions: tuple[Lesion, ...] = ()
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def read_hu(self, box: Box) -> Array:
        """int16 HU of a box, in Fortran order; -1024 where it reaches outside."""
        return self._read(HU, box, np.int16, PADDING_HU)

    def read_labels(self, box: Box) -> Array:
        """uint8 ids of `anatomy.STRUCTURES` in a box, in Fortran order; 0 for none of them and outside."""
        return self._read(LABELS, box, np.uint8, 0)

    def annotates(self, name: str) -> bool:
        """Whether each voxel is known to be in or out of a class: an organ's name, or its lesion's.

        An organ counts if it or every part of it has a mask; a lesion if it has one, or if the case is known to
        be healthy (`attributes["healthy"]`).
        """
        return annotates(self.annotated, self.attributes, name)

    def points(self, place: str) -> Array:
        """Voxels (n, 3) to center patches on: of an organ (`liver`), a real tumor (`liver_lesion 2`), or `body`.

        A random sample, the same on every machine; empty if there is no such place.
        """
        start, stop = self.spans.get(place, (0, 0))
        return _load_points(self.folder / POINTS, _changed(self.folder / POINTS, self.case))[start:stop]

    def tables(self, name: str) -> dict[str, Array]:
        """What the augment of this name prepared for the case; do not write into it."""
        path = self.folder / tables_name(name, self.attributes)
        return _load_tables(path, _changed(path, self.case))

    def _read(self, name: str, box: Box, kind: type, outside: int) -> Array:
        path = self.folder / name
        inside = box.clip(self.geometry.shape)
        try:
            store = _open_store(path, _changed(path, self.case), self.geometry.shape[::-1], np.dtype(kind).str)
            # stored with the axes reversed, so that what is read is in Fortran order
            part = store[tuple(slice(low, high) for low, high in zip(*(end[::-1] for end in inside), strict=True))].T
        except (RuntimeError, ValueError, OSError) as error:
            raise _damaged(path, self.case, error) from error
        if inside == box:
            return part  # type: ignore[no-any-return]
        whole: Array = np.full(box.shape, outside, kind, order="F")
        whole[inside.seen_from(box).slices] = part
        return whole


def annotates(masks: Container[str], attributes: Mapping[str, Any], name: str) -> bool:
    """What `Entry.annotates` says of a case with these masks and attributes."""
    if name in masks:
        return True
    if anatomy.is_lesion(name):
        return bool(attributes.get("healthy"))
    return all(part in masks for part in anatomy.organ(name).parts)


def tables_name(name: str, attributes: Mapping[str, Any]) -> str:
    """The file of what an augment prepared: another one for other attributes, which it may go by (the phase)."""
    text = json.dumps([name, dict(attributes)], sort_keys=True, default=str)
    return f"tables-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.npz"


def read_tables(path: Path) -> dict[str, Array]:
    """The arrays of a .npz, checked by its checksums; `FileError` if it is none, or damaged.

    Nothing is read that the file's own size does not hold.
    """
    try:
        with zipfile.ZipFile(path) as members:
            if any(member.compress_type != zipfile.ZIP_STORED for member in members.infolist()):
                raise ValueError("compressed members, which are never written here")
            return {name.removesuffix(".npy"): _array_of(members.read(name)) for name in members.namelist()}
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise FileError(f"{path} is damaged", found=str(error)) from error


def _array_of(content: bytes) -> Array:
    """The array in the bytes of a .npy; `ValueError` if it holds objects or tells another size than it has."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if kind.hasobject or math.prod(shape) * kind.itemsize != len(content) - file.tell():
        raise ValueError(f"an array of {shape} in {len(content)} bytes")
    file.seek(0)
    array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


# By time of change as well, so that an entry that was rebuilt is opened anew.
@lru_cache(maxsize=_OPEN)
def _open_store(path: Path, changed: int, shape: tuple[int, ...], kind: str) -> Any:
    """The store of this shape and type; another one, or one of large chunks, is a `ValueError`."""
    import blosc2

    store = blosc2.open(str(path), mode="r", dparams=blosc2.DParams(nthreads=1))
    chunks, blocks = getattr(store, "chunks", ()), getattr(store, "blocks", ())
    if (getattr(store, "shape", None), str(getattr(store.dtype, "str", ""))) != (shape, kind) or max(
        (*chunks, *blocks)
    ) > CHUNK:
        raise ValueError(f"a store of {getattr(store, 'shape', None)} {store.dtype} in chunks of {chunks}")
    return store


@lru_cache(maxsize=_OPEN)
def _load_points(path: Path, changed: int) -> Array:
    return _array_of(path.read_bytes())


@lru_cache(maxsize=_OPEN)
def _load_tables(path: Path, changed: int) -> dict[str, Array]:
    return read_tables(path)


def _changed(path: Path, case: str) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise _damaged(path, case, error) from error


def _damaged(path: Path, case: str, error: Exception) -> FileError:
    return FileError(
        f"the cache is damaged or gone: {path}",
        case=case,
        found=str(error),
        fix="run the same command again: it rebuilds what is damaged",
    )
