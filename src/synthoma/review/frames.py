"""What the browser sees: voxels in the order of a screen (LPS), as bytes; and masks back on the scan's own grid.

The patient's right is on the left of the screen and the front is up, so index axes point left (L), to the back (P) and
to the head (S). A volume is turned to them by reordering and flipping its axes alone: no voxel is interpolated, and the
way back gives the same voxels, on oblique grids too (they are shown along their own axes).
"""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import files
from synthoma.errors import FileError, GeometryError
from synthoma.volume import Array, Box, Geometry, Volume

SCREEN = "LPS"
LOWEST_HU, HIGHEST_HU = -1024, 3071  # what a CT stores in 12 bits
_SLAB = 16  # slices turned at once


def describe(geometry: Geometry) -> dict[str, Any]:
    """Shape, spacing in mm and the largest angle in degrees between an index axis and the body's, on the screen."""
    turned = geometry.reoriented(SCREEN)
    cosines = np.abs(turned.affine[:3, :3] / np.asarray(turned.spacing_mm)).diagonal()
    angle = float(np.degrees(np.arccos(np.clip(cosines.min(), 0, 1))))
    return {"shape": turned.shape, "spacing_mm": turned.spacing_mm, "angle_degrees": round(angle, 1)}


def scan_bytes(scan: Volume) -> Iterator[bytes]:
    """The scan as little-endian int16, first axis fastest, some slices at a time; NaN is air."""
    data = scan.reorient(SCREEN).data
    for start in range(0, data.shape[2], _SLAB):
        slab = data[:, :, start : start + _SLAB]
        yield hu_int16(slab).tobytes(order="F")


def hu_int16(data: Array) -> Array:
    """HU as int16 within -1024 to 3071, rounded; what every item of a study is shown as."""
    if data.dtype != np.int16:
        data = np.rint(np.nan_to_num(data, nan=LOWEST_HU, posinf=HIGHEST_HU, neginf=LOWEST_HU))
    return np.clip(data, LOWEST_HU, HIGHEST_HU).astype("<i2")


def pack(labels: Volume) -> tuple[list[int], bytes]:
    """Labels (uint8, 0 is none) as the box that holds them, on the screen's axes, and its deflated voxels.

    box: lower corner, then shape; six zeros and nothing packed for an empty mask.
    """
    data = labels.reorient(SCREEN).data
    box = Box.around(data)
    if box is None:
        return [0] * 6, b""
    voxels = np.ascontiguousarray(data[box.slices].astype(np.uint8, copy=False).T)
    return [*box.lower, *box.shape], zlib.compress(voxels.tobytes(), 1)


def unpack(box: Sequence[int], packed: bytes, geometry: Geometry) -> Volume:
    """The labels on the scan's own grid. box, packed: as `pack` gives them.

    Raises `FileError` for bytes that are not the voxels of this box, `GeometryError` for a box that leaves the scan.
    """
    turned = geometry.reoriented(SCREEN)
    voxels = _voxels(box, packed, turned)
    data = np.zeros(turned.shape, np.uint8, order="F")
    data[tuple(slice(low, low + n) for low, n in zip(box[:3], box[3:], strict=True))] = voxels
    return Volume(data, turned).reorient(geometry.axes)


def filled(box: Sequence[int], packed: bytes, geometry: Geometry) -> bytes:
    """The packed voxels of a mask with its gaps between axial slices filled, on the same box; errors as `unpack`."""
    whole = fill_between(_voxels(box, packed, geometry.reoriented(SCREEN))).astype(np.uint8)
    return zlib.compress(np.ascontiguousarray(whole.T).tobytes(), 1)


def _voxels(box: Sequence[int], packed: bytes, turned: Geometry) -> Array:
    """The voxels of a box that lies within a scan turned to the screen's axes."""
    if len(box) != 6:
        raise GeometryError("a box is a corner and a shape", found=f"{len(box)} numbers", expected="6")
    lower, shape = box[:3], box[3:]
    if not any(shape):
        return np.zeros((0, 0, 0), np.uint8)
    fits = zip(lower, shape, turned.shape, strict=True)
    if not all(0 <= low < low + n <= size for low, n, size in fits):
        raise GeometryError("the mask's box leaves the scan", found=list(box), expected=f"inside {turned.shape}")
    return np.frombuffer(_inflate(packed, int(np.prod(shape))), np.uint8).reshape(shape[::-1]).T


def to_nifti(labels: Volume) -> bytes:
    """The labels as the bytes of a .nii.gz file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.nii.gz"
        files.write_volume(labels, path)
        return path.read_bytes()


def from_nifti(body: bytes, geometry: Geometry) -> Volume:
    """The labels in the bytes of a NIfTI file, uint8 on this grid.

    Raises `FileError` for what is no mask of values to 255, `GeometryError` for another grid, before voxels are read.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("labels.nii.gz" if body[:2] == b"\x1f\x8b" else "labels.nii")
        path.write_bytes(body)
        try:
            geometry.require_same(files.read_geometry(path), "file")
            labels = files.read_labels(path)
        except FileError as error:  # without the path, which means nothing to a reader
            raise FileError("This is no mask file that can be read: NIfTI with whole numbers from 0 to 255.") from error
        if labels.data.max(initial=0) > 255:
            raise FileError("This mask file has values above 255.")
        return Volume(labels.data.astype(np.uint8), geometry)


def digest(box: Sequence[int], packed: bytes) -> str:
    """32 hexadecimal digits that tell the voxels of a packed mask, however they were deflated."""
    limit = int(np.prod(box[3:])) if len(box) == 6 else 0
    voxels = _inflate(packed, limit) if limit else b""
    return hashlib.blake2b(repr(list(box)).encode() + voxels, digest_size=16).hexdigest()


def _inflate(packed: bytes, size: int) -> bytes:
    """The deflated bytes, exactly so many: a small upload cannot fill the memory."""
    stream = zlib.decompressobj()
    try:
        voxels = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise FileError(
            "the mask is damaged", found=str(error), expected="deflated voxels", fix="save again"
        ) from error
    if len(voxels) != size or not stream.eof:
        raise FileError("the mask is damaged", found=f"{len(voxels)} voxels", expected=f"{size}", fix="save again")
    return voxels


def fill_between(mask: Array) -> Array:
    """A mask (I, J, K) with its gaps along K filled: between two drawn slices the border moves evenly.

    Shape-based interpolation: the signed distances to the border of two drawn slices are mixed by position (Raya and
    Udupa, IEEE Trans Med Imaging 1990). Drawn slices stay as they are, and nothing grows beyond the first and the last.
    """
    filled = np.array(mask, bool)
    drawn = np.flatnonzero(filled.any(axis=(0, 1)))
    for low, high in zip(drawn, drawn[1:], strict=False):
        if high - low < 2:
            continue
        ends = [_signed_distance(filled[:, :, k]) for k in (low, high)]
        for k in range(low + 1, high):
            share = (k - low) / (high - low)
            filled[:, :, k] = (1 - share) * ends[0] + share * ends[1] > 0
    return filled


def _signed_distance(slice_mask: Array) -> Array:
    """Distance to the border in voxels, positive inside."""
    import edt

    padded = np.pad(slice_mask, 1).astype(np.uint8)
    inside, outside = edt.edt(padded), edt.edt(1 - padded)
    distance: Array = np.where(padded > 0, inside - 0.5, 0.5 - outside)[1:-1, 1:-1]
    return distance
