"""Files of the cache: in which form, and placed whole by one process, whatever the file system."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from synthoma import disk
from synthoma.errors import FileError
from synthoma.learning.entry import CHUNK
from synthoma.volume import Array

# Of int16 CT a random 96^3 crop takes 1.5 ms with these, and the file half the size of its voxels.
_BLOCK = 16


class CacheError(FileError):
    """A cache that cannot be written, which is no fault of the case at hand."""


def as_store(data: Array) -> bytes:
    """The array as a blosc2 file, axes reversed, so that a Fortran-ordered one is written and read as it lies."""
    import blosc2

    turned = np.ascontiguousarray(data.T)
    # the bytes of a number are sorted by their place in it; for labels, of one byte, that is half the time of a read
    filters = {} if turned.itemsize > 1 else {"filters": [blosc2.Filter.NOFILTER]}
    store = blosc2.asarray(
        turned,
        chunks=tuple(min(CHUNK, n) for n in turned.shape),
        blocks=tuple(min(_BLOCK, n) for n in turned.shape),
        cparams=blosc2.CParams(codec=blosc2.Codec.LZ4, clevel=5, nthreads=1, **filters),
    )
    content: bytes = store.to_cframe()  # not written by blosc2, which does not say that a disk is full
    return content


def as_npy(array: Array) -> bytes:
    """The array as a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write(path: Path, content: bytes) -> tuple[int, str]:
    """Onto the disk, whatever happens to the machine next; size and digest."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return len(content), hashlib.blake2b(content, digest_size=16).hexdigest()


@contextmanager
def placed(target: Path, is_whole: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """A temporary path, of this process alone, that becomes the target when the block ends, and vanishes if it fails.

    A target that is there is replaced, unless `is_whole` says that another process has placed it meanwhile, as it can
    where a file system has no locks. Raises `CacheError` if the disk is full or cannot be written.
    """
    part = disk.part_of(target)
    try:
        yield part
        if target.exists() and is_whole():
            return
        if target.is_dir():
            shutil.rmtree(target)
        part.replace(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and is_whole():
            return
        raise CacheError(
            f"cannot write {target}", found=error.strerror or str(error), fix="free space or choose another --cache"
        ) from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with suppress(OSError):
                part.unlink()
