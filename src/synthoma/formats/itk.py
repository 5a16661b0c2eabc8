"""NRRD and MetaImage through SimpleITK (extra `itk`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from synthoma import disk
from synthoma.errors import FileError
from synthoma.extras import need
from synthoma.formats.limits import require_room
from synthoma.formats.shear import writable
from synthoma.formats.stored import Stored, geometry_of
from synthoma.names import require_unicode
from synthoma.volume import Array, Box, Volume

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DATA_FILE = re.compile(rb"(?im)^[ \t]*(?:ElementDataFile\s*=|data ?file:)[ \t]*(.*)$")
_DEFLATE_RATIO = 1032  # no packed file grows by more


def stored(path: Path, layer: int | None = None) -> Stored:
    """The file's voxels, ready to be read; `FileError` unless it holds one volume of numbers.

    layer: which number of every voxel, where a file holds several.
    """
    sitk = need("SimpleITK", extra="itk")
    reader = _header(path)
    size, numbers = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) == 4 and size[3] == 1:
        size = size[:3]
    if len(size) != 3 or (numbers != 1 if layer is None else layer >= numbers):
        raise FileError(
            f"{path} does not hold one volume of numbers",
            found=f"shape {size}, {numbers} numbers a voxel",
            expected="three axes, one number a voxel" if layer is None else f"three axes, a layer {layer}",
            fix="it holds segments that overlap: files.list_segments names them"
            if _is_layered(path, numbers)
            else None,
        )
    dimensions = len(reader.GetSize())
    direction = np.reshape(reader.GetDirection(), (dimensions, dimensions))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    dtype = _numpy_type(sitk, path, reader.GetPixelID())
    _refuse_short(path, (*size, numbers), dtype)
    geometry = geometry_of(path, size, _LPS_TO_RAS @ affine)

    def slabs(box: Box) -> Iterator[Array]:
        require_room(path, (*size, numbers), dtype.itemsize)  # of a packed file ITK reads all, whatever the box
        return _slabs(path, box, layer if numbers > 1 else None)

    return Stored(path, geometry, dtype, slabs)


def metadata(path: Path, prefix: str) -> tuple[dict[str, str], int]:
    """The words of a header whose keys begin so, and how many numbers each voxel has."""
    reader = _header(path)
    keys = [key for key in reader.GetMetaDataKeys() if key.startswith(prefix) and key.isprintable() and key.isascii()]
    return {key: str(reader.GetMetaData(key)) for key in keys}, reader.GetNumberOfComponents()


def _header(path: Path) -> Any:
    """A reader that has read the header of the file."""
    sitk = need("SimpleITK", extra="itk")
    require_unicode(str(path))  # ITK ends the process over others
    _refuse_files_elsewhere(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise FileError(f"{path} cannot be read", found=_reason(error)) from error
    return reader


def _refuse_files_elsewhere(path: Path) -> None:
    """`FileError` if a header says that its voxels lie in a file that is not in its folder."""
    try:
        with path.open("rb") as file:
            start = file.read(2**16)
    except OSError as error:
        raise FileError(f"cannot read {path}", found=error.strerror or str(error)) from error
    if start.startswith(b"NRRD"):
        start = re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0]
    named = _DATA_FILE.search(start)
    if named is None or named[1].strip().upper() == b"LOCAL":
        return
    listed = start[named.end() :].splitlines() if named[1].strip().upper().startswith(b"LIST") else []
    for entry in (named[1], *listed):
        name = PurePosixPath(entry.decode("utf-8", "replace").strip().replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or str(name) == "-" or ":" in str(name):
            raise FileError(f"{path} says that its voxels lie elsewhere", found=str(name), expected="a file beside it")


def _is_layered(path: Path, numbers: int) -> bool:
    return numbers > 1 and path.name.lower().endswith(".seg.nrrd")


def write(volume: Volume, path: Path) -> None:
    """The volume as packed NRRD or MHA; bool becomes uint8. MHD, two files, cannot be written whole.

    Axes a little off 90 degrees are squared, as for NIfTI.
    """
    sitk = need("SimpleITK", extra="itk")
    if path.suffix.lower() == ".mhd":
        raise FileError(f"cannot write {path}", found=".mhd, a pair of files", fix="write .mha or .nii.gz")
    data = volume.data.view(np.uint8) if volume.data.dtype == bool else volume.data
    require_unicode(str(path))
    where = writable(volume.geometry, path)
    affine = _LPS_TO_RAS @ where.affine
    spacing = np.asarray(where.spacing_mm)
    image = sitk.GetImageFromArray(data.T)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    with disk.atomic(path) as part:
        named = part.with_name(f"{part.name}{path.suffix}")  # SimpleITK chooses the format by suffix
        try:
            sitk.WriteImage(image, str(named), useCompression=True, compressionLevel=1)
            named.replace(part)
        except RuntimeError as error:
            raise FileError(f"cannot write {path}", found=_reason(error)) from error
        finally:
            named.unlink(missing_ok=True)


def _slabs(path: Path, box: Box, layer: int | None) -> Iterator[Array]:
    """The box in one piece; ITK leaves out the rest of the file where the format allows it."""
    sitk = need("SimpleITK", extra="itk")
    reader = _header(path)
    try:
        more = len(reader.GetSize()) - 3
        reader.SetExtractIndex([*box.lower, *[0] * more])
        reader.SetExtractSize([*box.shape, *[0] * more])
        image = reader.Execute()
        if layer is not None:
            image = sitk.VectorIndexSelectionCast(image, layer)
    except RuntimeError as error:
        raise FileError(f"{path} cannot be read", found=_reason(error)) from error
    yield sitk.GetArrayViewFromImage(image).T


def _numpy_type(sitk: Any, path: Path, pixel: int) -> np.dtype[np.generic]:
    types = {
        getattr(sitk, f"sitk{vector}{name}"): np.dtype(name.lower())
        for name in ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64")
        for vector in ("", "Vector")
    }
    if pixel not in types:
        raise FileError(f"{path} does not hold numbers", found=sitk.GetPixelIDValueAsString(pixel))
    return types[pixel]


def _refuse_short(path: Path, size: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    """`FileError` if a file with its voxels inside is too small for what its header promises."""
    needed = int(np.prod([int(n) for n in size], dtype=object)) * dtype.itemsize
    most = path.stat().st_size * _DEFLATE_RATIO
    if path.suffix.lower() != ".mhd" and needed > most:
        raise FileError(
            f"{path} is cut short, or its header lies",
            found=f"at most {most} bytes",
            expected=f"{needed} bytes",
        )


def _reason(error: RuntimeError) -> str:
    """The last line of an ITK message, which names the fault."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[-1].removeprefix("sitk::ERROR: ") if lines else "no reason given"
    return "neither NRRD nor MetaImage" if told.startswith("Unable to determine ImageIO reader") else told
