"""Overlays: the voxels that tumors changed, in one small file a case, to be laid over the healthy scan."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma import disk
from synthoma.errors import CaseError, FileError
from synthoma.synthesis.generators.details import read_first_format
from synthoma.synthesis.insertion import mass_effect
from synthoma.synthesis.insertion.insertion import Inserted
from synthoma.synthesis.insertion.scene import FRAME, scan_digest
from synthoma.synthesis.pipeline import Synthesis, as_stored
from synthoma.synthesis.store.columns import Row, read_json_text
from synthoma.synthesis.store.comparing import compare
from synthoma.synthesis.store.manifest import accepted, versions
from synthoma.synthesis.tumor import Verdict
from synthoma.volume import Array, Box, Geometry, Volume

OVERLAY = "overlay.npz"
FORMAT, READABLE = 4, (1, 2, 3, 4)  # 4: noise told by neighbors; 3: plans with a drift of HU
_MOST_BYTES = 1 << 30  # of an overlay's arrays together; those of a case with fifty large tumors take a tenth

_RENAMED = {"diameter_mm": "equivalent_diameter_mm"}  # scores of the first format
_BITS = {2: np.uint16, 4: np.uint32}


def write_overlay(synthesis: Synthesis, rows: Sequence[Row], path: Path | str) -> None:
    """The tumors of a case as a .npz of four arrays, whole or not at all; the same tumors give the same bytes.

    rows: the case's; those of the tumors put in travel along. `header`: JSON. For the tumors one after the other,
    voxels in Fortran order: `masks` and `changed`, bits of each mask's and each changed box; `steps`, what is
    added to the bits of a changed voxel, as bytes, the low ones of a tumor first. The displacement of
    tissue around it is not stored: it follows from the plan. Stored is what differs from the displaced scan.
    """
    tumors, masks, changed, steps = [], [], [], []
    for row, tumor in zip(accepted(rows), synthesis.inserted, strict=True):
        start, end = (_bits(voxels) for voxels in (_displaced(tumor, synthesis.geometry), tumor.after))
        differs = start != end
        masks.append(np.packbits(tumor.mask.ravel(order="F")))
        changed.append(np.packbits(differs))
        steps.append((end - start)[differs].view(np.uint8).reshape(-1, start.itemsize).T.ravel())
        tumors.append({"box": tumor.box, "changed": tumor.changed, **row})
    header = {
        "format": FORMAT,
        "versions": versions(),
        "scan_digest": synthesis.scan_digest,
        "phase": synthesis.phase,
        "tumors": tumors,
    }
    with disk.atomic(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            header=np.frombuffer(json.dumps(header, allow_nan=False).encode(), np.uint8),
            masks=_joined(masks),
            changed=_joined(changed),
            steps=_joined(steps),
        )


def lay_over(scan: Volume, path: Path | str, case: str) -> Synthesis:
    """The healthy scan with the tumors of an overlay in it; the same voxels as when it was written.

    Raises `FileError` for a file that is none, or of another format; `CaseError` if the scan is not the one that
    the tumors were made on, or a tumor comes out otherwise.
    """
    header, *streams = _read(Path(path))
    frame = require_scan(scan, header["scan_digest"], case)
    turned = scan.reorient(frame)
    geometry, hu = turned.geometry, turned.data.copy(order="K")
    inserted = []
    for row in header["tumors"]:
        try:
            tumor = _lay_over_tumor(hu, geometry, row, *streams)
        except (AttributeError, CaseError, LookupError, TypeError, ValueError) as error:
            found = error.what if isinstance(error, CaseError) else repr(error)
            raise FileError(f"{path} is damaged", found=found, fix="copy it again") from error
        compare(row, tumor, case, versions())
        inserted.append(tumor)
    ct = as_stored(Volume(hu, geometry), scan.geometry)
    return Synthesis(case, header["scan_digest"], header["phase"], ct, tuple(inserted), frame=frame)


def require_scan(scan: Volume, digest: str, case: str) -> str:
    """The axes along which the tumors of a scan were put in; `CaseError` unless they were made on this scan.

    The first versions counted voxels along the axes of the file.
    """
    found = scan_digest(scan.reorient(FRAME))
    if found == digest:
        return FRAME
    if scan_digest(scan, first_format=True) == digest:
        return scan.geometry.axes
    raise CaseError(
        "the scan differs from the one that its tumors were made on",
        case=case,
        found=f"digest {found} ({scan.geometry}, {scan.data.dtype})",
        expected=digest,
        fix="give the data set that the tumors were made on, or synthesize anew",
    )


def _lay_over_tumor(
    hu: Array, geometry: Geometry, row: Row, masks: _Stream, changed: _Stream, steps: _Stream
) -> Inserted:
    """Writes the next tumor of the streams into `hu`; `ValueError` and the like if they do not fit its row."""
    box, region = (_box_in(geometry, *row[name]) for name in ("box", "changed"))
    plan = read_first_format(row["plan"])
    mask = _unpacked(masks, box.shape)
    before = hu[region.slices].copy(order="C")
    displacement = mass_effect.displacement(plan, geometry)
    if displacement is not None:
        hu[displacement.box.slices] = mass_effect.move_image(hu[displacement.box.slices], displacement)
    bits = _bits(hu[region.slices])
    differs = _unpacked(changed, region.shape).ravel(order="F")
    count = int(differs.sum())
    bits[differs] += steps.take(count * bits.itemsize).reshape(bits.itemsize, count).T.copy().view(bits.dtype)[:, 0]
    after = np.ascontiguousarray(bits.view(hu.dtype).reshape(region.shape, order="F"))
    hu[region.slices] = after
    scores = {_RENAMED.get(name, name): math.nan if value is None else value for name, value in row["scores"].items()}
    verdict = Verdict(True, row["reason"], scores)
    return Inserted(plan, verdict, row["index"], row["number"], box, mask, region, before, after)


def _box_in(geometry: Geometry, lower: Sequence[int], upper: Sequence[int]) -> Box:
    """A box of a file; `ValueError` unless it lies in the scan."""
    box = Box(tuple(lower), tuple(upper))  # type: ignore[arg-type]
    if len(lower) != 3 or len(upper) != 3 or 0 in box.shape or box.clip(geometry.shape) != box:
        raise ValueError(f"a box {lower} to {upper} outside the scan's {geometry.shape}")
    return box


class _Stream:
    """Bytes taken from the front; `ValueError` where they end too early."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> NDArray[np.uint8]:
        self.at += count
        if self.at > self.data.size:
            raise ValueError(f"{self.at} bytes are needed, {self.data.size} are there")
        return self.data[self.at - count : self.at]


def _read(path: Path) -> tuple[dict[str, Any], _Stream, _Stream, _Stream]:
    try:
        with zipfile.ZipFile(path) as archive:
            header = read_json_text(_member(archive, "header").tobytes().decode())
            _require_format(path, header)
            streams = [_Stream(_member(archive, name)) for name in ("masks", "changed", "steps")]
    except FileNotFoundError as error:
        raise FileError(f"no file {path}", fix="run the synthesis again: it makes what is missing") from error
    except (
        OSError, ValueError, LookupError, EOFError, NotImplementedError, RuntimeError, struct.error,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise FileError(f"{path} is no overlay, or damaged", found=str(error), fix="copy it again") from error
    return header, *streams


def _require_format(path: Path, header: Any) -> None:
    """`FileError` unless it is the header of an overlay, of a format that is read."""
    if not isinstance(header, dict) or "format" not in header:
        raise FileError(f"{path} is no overlay", found="a header of something else")
    if header.get("format") not in READABLE:
        raise FileError(
            f"{path} is an overlay of another format",
            found=f"format {header.get('format')}, written by {header.get('versions')}",
            expected=f"format 1 or 2, which {versions()} reads",
            fix="replay the manifest instead",
        )
    if not {"scan_digest", "phase", "tumors"} <= header.keys():
        raise FileError(f"{path} is damaged", found="a header without tumors", fix="copy it again")


def _member(archive: zipfile.ZipFile, name: str) -> NDArray[np.uint8]:
    """A one-dimensional array of bytes in a .npz; its size is checked before a byte is read."""
    about = archive.getinfo(f"{name}.npy")
    if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
        raise ValueError(f"arrays of more than {_MOST_BYTES:,} bytes")
    data = io.BytesIO(archive.read(about))
    np.lib.format.read_magic(data)
    shape, _, kind = np.lib.format.read_array_header_1_0(data)
    found = np.frombuffer(data.getbuffer()[data.tell() :], np.uint8)
    if kind != np.uint8 or shape != found.shape:
        raise ValueError(f"{name} is {shape} of {kind}, with {found.size} bytes")
    return found


def _displaced(tumor: Inserted, geometry: Geometry) -> Array:
    """The changed box after the displacement alone."""
    displacement = mass_effect.displacement(tumor.plan, geometry)
    if displacement is None:
        return tumor.before
    moved = tumor.before.copy()
    place = displacement.box.seen_from(tumor.changed).slices
    moved[place] = mass_effect.move_image(moved[place], displacement)
    return moved


def _bits(voxels: Array) -> Array:
    """The bits of voxels as unsigned numbers, in Fortran order, flat; a copy."""
    return voxels.flatten(order="F").view(_BITS[voxels.itemsize])


def _unpacked(stream: _Stream, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    count = shape[0] * shape[1] * shape[2]
    bits = np.unpackbits(stream.take(-(-count // 8)), count=count)
    return np.ascontiguousarray(bits.astype(bool).reshape(shape, order="F"))


def _joined(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.concatenate([np.empty(0, np.uint8), *parts])
