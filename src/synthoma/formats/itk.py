"""NRRD and MetaImage through SimpleITK (extra `itk`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import disk
from synthoma.errors import FileError
from synthoma.extras import need
from synthoma.formats.stored import Stored, geometry_of
from synthoma.volume import Array, Box, Volume

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DEFLATE_RATIO = 1032  # no packed file grows by more


def stored(path: Path) -> Stored:
    """The file's voxels, ready to be read; `FileError` unless it holds one volume of numbers."""
    sitk = need("SimpleITK", extra="itk")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise FileError(f"{path} cannot be read", found=_reason(error)) from error
    size = reader.GetSize()
    if len(size) == 4 and size[3] == 1:
        size = size[:3]
    if len(size) != 3 or reader.GetNumberOfComponents() != 1:
        raise FileError(
            f"{path} does not hold one volume of numbers",
            found=f"shape {size}, {reader.GetNumberOfComponents()} numbers a voxel",
            expected="three axes, one number a voxel",
        )
    dimensions = len(reader.GetSize())
    direction = np.reshape(reader.GetDirection(), (dimensions, dimensions))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    dtype = _numpy_type(sitk, path, reader.GetPixelID())
    _refuse_short(path, size, dtype)
    geometry = geometry_of(path, size, _LPS_TO_RAS @ affine)
    return Stored(path, geometry, dtype, lambda box: _slabs(path, box))


def write(volume: Volume, path: Path) -> None:
    """The volume as packed NRRD or MHA; bool becomes uint8. MHD, two files, cannot be written whole."""
    sitk = need("SimpleITK", extra="itk")
    if path.suffix.lower() == ".mhd":
        raise FileError(f"cannot write {path}", found=".mhd, a pair of files", fix="write .mha or .nii.gz")
    data = volume.data.view(np.uint8) if volume.data.dtype == bool else volume.data
    affine = _LPS_TO_RAS @ volume.geometry.affine
    spacing = np.asarray(volume.geometry.spacing_mm)
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


def _slabs(path: Path, box: Box) -> Iterator[Array]:
    """The box in one piece; ITK leaves out the rest of the file where the format allows it."""
    sitk = need("SimpleITK", extra="itk")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        more = len(reader.GetSize()) - 3
        reader.SetExtractIndex([*box.lower, *[0] * more])
        reader.SetExtractSize([*box.shape, *[0] * more])
        image = reader.Execute()
    except RuntimeError as error:
        raise FileError(f"{path} cannot be read", found=_reason(error)) from error
    yield sitk.GetArrayViewFromImage(image).T


def _numpy_type(sitk: Any, path: Path, pixel: int) -> np.dtype[np.generic]:
    types = {
        sitk.sitkInt8: np.int8,
        sitk.sitkUInt8: np.uint8,
        sitk.sitkInt16: np.int16,
        sitk.sitkUInt16: np.uint16,
        sitk.sitkInt32: np.int32,
        sitk.sitkUInt32: np.uint32,
        sitk.sitkInt64: np.int64,
        sitk.sitkUInt64: np.uint64,
        sitk.sitkFloat32: np.float32,
        sitk.sitkFloat64: np.float64,
    }
    if pixel not in types:
        raise FileError(f"{path} does not hold numbers", found=sitk.GetPixelIDValueAsString(pixel))
    return np.dtype(types[pixel])


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
    return lines[-1] if lines else "no reason given"
