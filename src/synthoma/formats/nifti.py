"""NIfTI-1 and -2: the header through nibabel, the voxels by ourselves (isal, memory map, Fortran order)."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import disk
from synthoma.bounded import Bounded
from synthoma.errors import FileError, GeometryError
from synthoma.formats.shear import ITK_COSINE, degrees_off, writable
from synthoma.formats.stored import Stored, geometry_of, slab_thickness
from synthoma.volume import Array, Box, Geometry, Triple, Volume

_HEADER_BYTES = (348, 540)  # of version 1 and 2
_DEFLATE_RATIO = 1032  # no deflate stream grows by more
_LONGEST_AXIS = 2**15 - 1
_WRITE_BYTES = 2**24
_AGREE_MM = 0.1
# Fields of a header that hold words, or that no reader looks at.
_WORDS = ("descrip", "aux_file", "intent_name", "db_name", "data_type", "extents", "session_error", "glmax", "glmin")
_ODD_UNITS = {1: "meters", 3: "microns"}


@dataclass(frozen=True)
class Header:
    """What a NIfTI file says about itself. raw: nibabel's header. offset: of the first voxel."""

    path: Path
    raw: Any
    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    offset: int
    slope: float
    intercept: float
    packed: bool

    @property
    def end(self) -> int:
        """Bytes, unpacked, up to the end of the last voxel."""
        i, j, k = self.shape
        return self.offset + i * j * k * self.dtype.itemsize


def read_header(path: Path) -> Header:
    """The header, checked: a single volume of numbers; `FileError` otherwise."""
    from nibabel.spatialimages import HeaderDataError

    with _reading(path):
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with _open(path, packed) as stream:
            block = stream.read(544)
    raw = _parse(path, block)
    try:
        shape = tuple(int(n) for n in raw.get_data_shape())
        dtype = raw.get_data_dtype()
        slope, intercept = raw.get_slope_inter()
        offset = int(raw["vox_offset"])
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise FileError(f"{path} has a damaged NIfTI header", found=str(error)) from error
    except KeyError as error:
        raise FileError(f"{path} has a damaged NIfTI header", found=f"data type {error}") from error
    first = 352 if len(raw.binaryblock) == 348 else 544
    offset = offset or first
    if offset < first:
        raise FileError(f"{path}: voxels inside the header", found=offset, expected=f"{first} or more")
    if raw["pixdim"][0] == 0:  # the standard: read as 1
        raw["pixdim"][0] = 1
    size = _single_volume(path, shape)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FileError(f"{path}: colors or complex numbers", found=dtype, expected="one number a voxel")
    return Header(
        path,
        raw,
        size,
        dtype,
        offset,
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
        packed,
    )


def geometry(header: Header) -> Geometry:
    """Where the voxels lie: sform before qform, as nibabel's `get_best_affine`."""
    from nibabel.spatialimages import HeaderDataError

    try:
        with np.errstate(all="ignore"):
            affine = header.raw.get_best_affine()
    except (HeaderDataError, ValueError) as error:
        raise GeometryError(f"{header.path} has no usable affine", found=str(error), fix="repair its header") from error
    return geometry_of(header.path, header.shape, affine)


def stored(path: Path) -> Stored:
    """The file's voxels, ready to be read."""
    header = read_header(path)
    where = geometry(header)
    _refuse_short(header)
    slabs = _stream_slabs if header.packed else _mapped_slabs
    return Stored(path, where, header.dtype, lambda box: slabs(header, box), header.slope, header.intercept)


def affine_doubts(path: Path) -> list[str]:
    """Sentences on why the position of this file may not be what it seems; none for a clean header."""
    header = read_header(path)
    raw, doubts = header.raw, []
    qform, sform = int(raw["qform_code"]), int(raw["sform_code"])
    if qform <= 0 and sform <= 0:
        doubts.append("neither sform nor qform is set: orientation and position are a guess")
    apart = affine_conflict_mm(header)
    if apart == np.inf:
        doubts.append("the qform cannot be one; the sform is used")
    elif not apart <= _AGREE_MM:
        doubts.append(f"sform and qform are {apart:.1f} mm apart; the sform is used")
    where = geometry(header)
    if qform <= 0 and where.largest_cosine > ITK_COSINE:
        doubts.append(f"axes off 90 degrees by {degrees_off(where):.2g}: SimpleITK and nnU-Net do not open the file")
    unit = _ODD_UNITS.get(int(raw["xyzt_units"]) & 7)
    if unit:
        doubts.append(f"the header gives {unit}; read as mm")
    return doubts


def affine_conflict_mm(header: Header) -> float:
    """How far qform and sform are apart at the worst corner; 0 if only one is set, inf if one is unusable."""
    from nibabel.spatialimages import HeaderDataError

    if int(header.raw["qform_code"]) <= 0 or int(header.raw["sform_code"]) <= 0:
        return 0.0
    try:
        with np.errstate(all="ignore"):
            one, other = (Geometry(header.shape, affine) for affine in (header.raw.get_qform(), header.raw.get_sform()))
    except (HeaderDataError, GeometryError, ValueError):
        return float("inf")
    return one.corner_distance_mm(other)


def write(volume: Volume, path: Path, level: int = 1, slope: float = 1.0) -> None:
    """The volume as NIfTI-1, packed if the name ends in .gz; the same volume gives the same bytes.

    sform = qform, both "scanner" (code 1), in mm. Axes a little off 90 degrees are squared (`shear.writable`), which
    ITK asks for; `GeometryError` if they are far off. Masks of bool become uint8. level: of isal, 0 (fast) to 3
    (small). slope: what readers multiply the values with.
    """
    data = volume.data.view(np.uint8) if volume.data.dtype == bool else volume.data
    header = _new_header(data.shape, data.dtype, writable(volume.geometry, path), path, slope)
    _write(path, header, _pieces(data), level)


def write_mask(mask: Bounded, path: Path, level: int = 1) -> None:
    """The same bytes as `write` of the whole mask, which is never held as a whole."""
    header = _new_header(mask.grid.shape, np.dtype(np.uint8), writable(mask.grid, path), path, 1.0)
    _write(path, header, _pieces_of_mask(mask), level)


def _write(path: Path, header: bytes, pieces: Iterator[Any], level: int) -> None:
    packed = path.name.lower().endswith(".gz")
    with disk.atomic(path) as part, part.open("wb") as file:
        if not packed:
            file.write(header)
            file.writelines(pieces)
            return
        from isal import isal_zlib

        # wbits 31: a gzip frame without time stamp or name
        squeeze = isal_zlib.compressobj(level, wbits=31)
        file.write(squeeze.compress(header))
        for piece in pieces:
            file.write(squeeze.compress(piece))
        file.write(squeeze.flush())


def is_plain_mask(path: Path, where: Geometry) -> bool:
    """Whether a file is a packed mask (uint8) on this grid and nothing else, so that a copy of it may be passed on.

    Names of people travel in the texts of a header, its extensions, the frame of gzip, and bytes behind the voxels.
    """
    header = read_header(path)
    room = header.offset - len(header.raw.binaryblock)  # of extensions
    if not header.packed or header.dtype != np.uint8 or (header.slope, header.intercept, room) != (1, 0, 4):
        return False
    with _reading(path), path.open("rb") as file:
        frame = file.read(8)
    told = [field for field in _WORDS if bytes(header.raw.get(field) or b"").strip(b"\0")]
    same = geometry(header) == where and writable(where, path) is where
    unnamed = frame == b"\x1f\x8b\x08" + bytes(5)  # else a name, a comment or a time
    whole = _told_length(path) == header.end % 2**32
    return unnamed and whole and not told and same


def _new_header(shape: Triple, kind: np.dtype[Any], where: Geometry, path: Path, slope: float) -> bytes:
    import nibabel

    if not all(1 <= n <= _LONGEST_AXIS for n in shape):
        raise FileError(f"NIfTI cannot hold {path}", found=shape, expected=f"axes of 1 to {_LONGEST_AXIS}")
    raw = nibabel.Nifti1Header()
    raw.set_data_shape(shape)
    raw.set_data_dtype(kind.newbyteorder("<"))
    raw.set_zooms(where.spacing_mm)
    raw.set_xyzt_units("mm")
    raw.set_sform(where.affine, 1)
    raw.set_qform(where.affine, 1)
    raw["vox_offset"], raw["scl_slope"], raw["scl_inter"], raw["magic"] = 352, slope, 0, b"n+1"
    return bytes(raw.binaryblock) + bytes(4)


def _pieces(data: Array) -> Iterator[Any]:
    """Voxels, some slices at a time, in the order of the file."""
    step = slab_thickness(data.shape, data.dtype.itemsize, _WRITE_BYTES)
    little = data.dtype.newbyteorder("<")
    for k in range(0, data.shape[2], step):
        yield _fortran(data[:, :, k : k + step]).astype(little, copy=False).T.data


def _pieces_of_mask(mask: Bounded) -> Iterator[Any]:
    """The same pieces of the whole mask; one piece of memory serves them all."""
    i, j, slices = mask.grid.shape
    step = slab_thickness(mask.grid.shape, 1, _WRITE_BYTES)
    slab = np.zeros((i, j, min(step, slices)), np.uint8, order="F")
    for k in range(0, slices, step):
        box = Box((0, 0, k), (i, j, min(k + step, slices)))
        shared = box.overlap(mask.box)
        if shared:
            slab[shared[0]] = mask.data[shared[1]]
        yield slab[:, :, : box.shape[2]].T.data
        if shared:
            slab[shared[0]] = 0


def _fortran(slab: Array) -> Array:
    """The slab in Fortran order; row by row where it is not, since a strided copy of all misses the cache."""
    if abs(slab.strides[0]) == slab.itemsize:
        return np.asfortranarray(slab)
    result = np.empty(slab.shape, slab.dtype, order="F")
    for j in range(slab.shape[1]):
        result[:, j] = np.ascontiguousarray(slab[:, j])
    return result


def _parse(path: Path, block: bytes) -> Any:
    """nibabel's header of the right version and byte order."""
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    if len(block) < 352:
        raise FileError(f"{path} is too short", found=f"{len(block)} bytes", expected="a NIfTI header")
    order = next((o for o in "<>" if struct.unpack(f"{o}i", block[:4])[0] in _HEADER_BYTES), None)
    size = struct.unpack(f"{order}i", block[:4])[0] if order else 0
    magic = block[344:348] if size == 348 else block[4:8]
    if magic[:3] in (b"ni1", b"ni2"):
        raise FileError(f"{path} is half of a .hdr/.img pair", fix="convert the pair to one .nii.gz file first")
    if order is None or magic[:3] not in (b"n+1", b"n+2") or len(block) < size:
        raise FileError(f"{path} is not NIfTI", found=f"the first bytes {block[:4]!r}, magic {magic!r}")
    kind = nibabel.Nifti1Header if size == 348 else nibabel.Nifti2Header
    try:
        return kind(block[:size], endianness=order, check=False)
    except (HeaderDataError, ValueError) as error:
        raise FileError(f"{path} has a damaged NIfTI header", found=str(error)) from error


def _single_volume(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) < 3 or min(shape) < 1:
        raise FileError(f"{path} holds no volume", found=f"shape {shape}", expected="three axes of 1 or more")
    if any(n > 1 for n in shape[3:]):
        raise FileError(
            f"{path} holds several volumes",
            found=f"{int(np.prod(shape[3:]))} (shape {shape})",
            expected="one",
            fix="write the one you mean to its own file: "
            "nibabel.save(nibabel.four_to_three(nibabel.load(path))[0], ...)",
        )
    return shape[0], shape[1], shape[2]


def _refuse_short(header: Header) -> None:
    """`FileError` if the file cannot deliver what its header promises, before anything is allocated."""
    size = header.path.stat().st_size
    if not header.packed:
        if size < header.end:
            raise _short(header, size)
        return
    if header.end > size * _DEFLATE_RATIO:
        raise _short(header, size * _DEFLATE_RATIO, "at most ")
    if _told_length(header.path) != header.end % 2**32 and header.end > 2**26:
        # another length than the gzip frame tells (or several frames): count before allocating
        with _reading(header.path), _open(header.path, True) as stream:
            delivered = _skip(stream, header.end)
        if delivered < header.end:
            raise _short(header, delivered)


def _told_length(path: Path) -> int:
    """The unpacked length that the end of a packed file tells, modulo 4 GiB."""
    with _reading(path), path.open("rb") as file:
        file.seek(-4, 2)
        return int(struct.unpack("<I", file.read(4))[0])


def _short(header: Header, found: int, about: str = "") -> FileError:
    size = "x".join(map(str, header.shape))
    return FileError(
        f"{header.path} is cut short, or its header lies",
        found=f"{about}{found} bytes",
        expected=f"{header.end} for {size} voxels of {header.dtype}",
        fix="copy or download it again",
    )


def _mapped_slabs(header: Header, box: Box) -> Iterator[Array]:
    """Slabs of a memory map: only the pages of the box are read."""
    with _reading(header.path):
        whole = np.memmap(header.path, header.dtype, "r", header.offset, header.shape, order="F")
    if box.shape != header.shape and hasattr(mmap, "MADV_RANDOM"):
        whole._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]  # numpy types leave it out
    step = slab_thickness(box.shape, header.dtype.itemsize)
    i, j, k = box.slices
    for start in range(k.start, k.stop, step):
        yield whole[i, j, start : min(start + step, k.stop)]


def _stream_slabs(header: Header, box: Box) -> Iterator[Array]:
    """Slabs of a packed stream, up to the last slice of the box; the whole is checked by its checksum."""
    rows, columns, slices = header.shape
    step = slab_thickness(header.shape, header.dtype.itemsize)
    slab = np.empty((rows, columns, step), header.dtype, order="F")
    i, j, k = box.slices
    with _reading(header.path), _open(header.path, True) as stream:
        ahead = header.offset + k.start * rows * columns * header.dtype.itemsize
        if (found := _skip(stream, ahead)) < ahead:
            raise _short(header, found)
        for start in range(k.start, k.stop, step):
            part = slab[:, :, : min(step, k.stop - start)]
            wanted = part.T.data.cast("B")
            found = _fill(stream, wanted)
            if found < len(wanted):
                raise _short(header, ahead + found)
            ahead += found
            yield part[i, j]
        if k.stop == slices:
            stream.read(1)  # runs into the end of the frame, where the checksum is compared


def _skip(stream: Any, count: int) -> int:
    """How many bytes were there to pass over, at most `count`."""
    scratch = memoryview(bytearray(min(count, 2**20)))
    done = 0
    while found := _fill(stream, scratch[: count - done]):
        done += found
    return done


def _fill(stream: Any, target: memoryview) -> int:
    """How many bytes the stream had for the target; fewer than it holds only at the end."""
    done = 0
    while done < len(target):
        found = stream.readinto(target[done:])
        if not found:
            break
        done += found
    return done


def _open(path: Path, packed: bool) -> Any:
    if not packed:
        return path.open("rb")
    from isal import igzip

    return igzip.open(path, "rb")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A block in which a damaged or unreadable file becomes a `FileError`."""
    import zlib

    from isal.igzip_lib import IsalError

    try:
        yield
    except (EOFError, zlib.error, IsalError) as error:  # type: ignore[misc]  # stubs declare an instance
        raise FileError(
            f"{path} is damaged", found=str(error), expected="whole", fix="copy or download it again"
        ) from error
    except OSError as error:
        raise FileError(f"cannot read {path}", found=error.strerror or str(error)) from error
