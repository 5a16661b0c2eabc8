"""Image files to volumes and back; the one way in to every format."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from synthoma.bounded import Bounded
from synthoma.errors import FileError
from synthoma.formats import nifti, segments
from synthoma.formats.dicom_outlines import Outline
from synthoma.formats.segments import Segment
from synthoma.formats.stored import Stored
from synthoma.volume import Box, Geometry, Volume

NIFTI_SUFFIXES = (".nii.gz", ".nii")
SEGMENTS_SUFFIX = segments.SUFFIX
ITK_SUFFIXES = (SEGMENTS_SUFFIX, ".nrrd", ".mha", ".mhd")
SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES


def read_image(path: Path | str, box: Box | None = None) -> Volume:
    """A scan in HU, int16 or float32, or a box of it; the path may be a folder that holds one CT series.

    A file that stores whole numbers gives int16 where they all fit, after a slope and intercept that are whole too;
    everything else gives float32, whole values stored as floats included. NaN is kept. Of an uncompressed NIfTI only
    the box is read, of a packed one all up to the box's last slice.
    Raises `FileError` or `GeometryError` with the path, the value found and the way out.
    """
    return open_stored(path).image(box)


def read_labels(path: Path | str, box: Box | None = None, layer: int | None = None) -> Volume:
    """A mask or label map, uint8 or uint16, or a box of it.

    Signed, floating and scaled types are fine as long as every value is a whole number from 0 to 65535, else
    `FileError`. layer: of a `.seg.nrrd` in which segments overlap, see `list_segments`.
    """
    path = Path(path)
    if layer is not None and _kind(path) in ITK_SUFFIXES:
        return segments.read_layer(path, layer, box)
    return open_stored(path, labels=True).labels(box)


def read_geometry(path: Path | str, labels: bool = False) -> Geometry:
    """Where the voxels lie, from the header alone. labels: a folder may hold masks, of any modality."""
    path = Path(path)
    kind = _kind(path)
    if kind in NIFTI_SUFFIXES:
        return nifti.geometry(nifti.read_header(path))
    if kind == SEGMENTS_SUFFIX:
        return segments.read_grid(path)
    return open_stored(path, labels).geometry


def list_segments(path: Path | str) -> list[Segment]:
    """The structures that a `.seg.nrrd` names, each a source of masks for a `Case`; none for any other file.

    Layers that overlap are told apart, and a file that covers a part of the scan only is placed in it by the case.
    """
    path = Path(path)
    return segments.list_segments(path) if _kind(path) == segments.SUFFIX else []


def list_outlines(scan: Path | str, objects: Path | str) -> tuple[list[Outline], Geometry]:
    """The structures that the SEG and RTSTRUCT files of a folder hold of a scan, and the scan's grid.

    scan: the folder of a DICOM series, which the files must refer to; or an image file, on whose grid they must lie.
    objects: their folder, which may be the scan's.
    """
    from synthoma.formats import dicom_outlines

    scan, objects = Path(scan), Path(objects)
    if scan.is_dir():
        return dicom_outlines.outlines_beside(scan, None if objects == scan else objects)
    return dicom_outlines.outlines_in(objects), read_geometry(scan)


def affine_doubts(path: Path | str) -> list[str]:
    """Sentences on why a file's position may not be what it seems; an empty list for a clean header."""
    path = Path(path)
    return nifti.affine_doubts(path) if _kind(path) in NIFTI_SUFFIXES else []


def write_volume(volume: Volume, path: Path | str, level: int = 1) -> None:
    """The volume as NIfTI, NRRD or MHA, by the path's suffix; whole or not at all.

    The same volume gives the same bytes; bool is stored as uint8. level: of gzip, 0 (fast) to 3 (small).
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix in NIFTI_SUFFIXES:
        nifti.write(volume, path, level)
    elif suffix in ITK_SUFFIXES:
        from synthoma.formats import itk

        itk.write(volume, path)
    else:
        raise _unknown(path)


def write_mask(mask: Bounded, path: Path | str, level: int = 1) -> None:
    """The same bytes as `write_volume` of the whole mask, without memory for it where the format allows."""
    if suffix_of(path) in NIFTI_SUFFIXES:
        nifti.write_mask(mask, Path(path), level)
    else:
        write_volume(mask.whole, path, level)


def write_fractions(levels: Volume, path: Path | str) -> None:
    """Levels (uint8, 0 to 255) as a NIfTI file that reads as fractions from 0 to 1; whole or not at all."""
    if levels.data.dtype != np.uint8:
        raise ValueError(f"levels are uint8, not {levels.data.dtype}")
    # rounded down, so that no reader finds a fraction above 1
    nifti.write(levels, Path(path), slope=float(np.nextafter(np.float32(1 / 255), np.float32(0))))


def scan_date(path: Path | str) -> str:
    """The day a scan was taken, as DICOM writes it (20261129); "" if its files do not say, or are no DICOM."""
    from synthoma.formats import dicom

    return dicom.scan_date(Path(path)) if Path(path).is_dir() else ""


def suffix_of(path: Path | str) -> str:
    """The suffix of an image file in lower case (`.nii.gz`, `.nrrd`, ...), empty if it is none."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def is_image_file(path: Path | str) -> bool:
    """Whether the name is that of an image file we read; hidden files (`._liver_0.nii.gz`) are none."""
    return bool(suffix_of(path)) and not Path(path).name.startswith(".")


def open_stored(path: Path | str, labels: bool = False) -> Stored:
    """The file after a look at its header, to be read whole or slab by slab; errors as `read_image`.

    labels: a folder of DICOM files may then be a segmentation.
    """
    path = Path(path)
    kind = _kind(path)
    if kind in NIFTI_SUFFIXES:
        return nifti.stored(path)
    if kind == "folder":
        from synthoma.formats import dicom

        return dicom.stored(path, labels=labels)
    from synthoma.formats import itk

    return itk.stored(path)


def _kind(path: Path) -> str:
    """The suffix, or `folder`; `FileError` if nothing readable is there."""
    try:
        if path.is_dir():
            return "folder"
        status = path.stat()
    except FileNotFoundError as error:
        raise FileError(f"no file {path}") from error
    except OSError as error:
        raise FileError(f"cannot read {path}", found=error.strerror) from error
    except ValueError as error:  # a null byte
        raise FileError(f"{str(path)!r} is no path", found=str(error)) from error
    suffix = suffix_of(path)
    if not suffix:
        raise _unknown(path)
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{path} is no file", found="a pipe or a device")
    if status.st_size == 0:
        raise FileError(f"{path} is empty", found="0 bytes", fix="copy or download it again")
    if not os.access(path, os.R_OK):
        raise FileError(f"cannot read {path}", found="no permission")
    return suffix


def _unknown(path: Path) -> FileError:
    fix = "convert the pair to one .nii.gz file first" if path.suffix in (".hdr", ".img") else None
    return FileError(
        f"{path} is no image file we know",
        found=f"the suffix {''.join(path.suffixes[-2:]) or 'none'}",
        expected=", ".join(SUFFIXES) + " or a folder of DICOM files",
        fix=fix,
    )
