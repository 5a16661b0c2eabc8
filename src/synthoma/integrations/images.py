"""What a pipeline's image must be before tumors go in: HU on a grid whose spacing is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy
from synthoma.errors import CaseError, GeometryError
from synthoma.orientation import moves
from synthoma.volume import Array, Geometry, Volume, triple

ORDER = "load, channel first, orientation, spacing; then tumors; then intensity scaling, cropping, other augmentation"
_FEW = 100_000  # voxels looked at
_ENOUGH = 200  # voxels of one value that are no chance
_NEAR_ZERO = 40  # what images that were scaled to 0-1 or to unit variance stay below
_TRANSPOSED = ("uint8", "uint16", "int16", "float32")  # what labels and HU come in
_ORGAN_HU = (-100.0, 450.0)  # medians of organs on any CT, with contrast or without


def geometry_of(shape: Sequence[int], affine: Any, case: str = "") -> Geometry:
    """The grid (I, J, K) of an array. affine: (4, 4), voxel index -> RAS+ mm.

    Raises `GeometryError` if there is none, for 2-D images, and for the identity, which stands where a pipeline does
    not know the spacing.
    """
    fix = "load files with their headers (LoadImaged, tio.ScalarImage(path)), or give the affine of the voxels in mm"
    if affine is None or np.array_equal(np.asarray(affine, float), np.eye(4)):
        found = "no affine" if affine is None else "the identity, which arrays without a header get"
        raise GeometryError("the voxels' size in mm is not known", case=case or None, found=found, fix=fix)
    if len(shape) != 3 or min(shape) < 2:
        raise GeometryError(
            "tumors are put into 3-D scans", case=case or None, found=f"an array of {tuple(shape)}",
            expected="three axes of two voxels or more, beside one of channels",
        )  # fmt: skip
    return Geometry(triple(shape), np.asarray(affine, float))


def one_channel(data: Array, what: str, case: str = "") -> Array:
    """The voxels (I, J, K) of a channel-first array (1, I, J, K); `CaseError` for other shapes."""
    if data.ndim != 4 or data.shape[0] != 1:
        raise CaseError(
            f"{what} is not one channel of a 3-D scan", case=case or None, found=f"an array of {data.shape}",
            expected="(1, I, J, K)", fix="add the channel with EnsureChannelFirstd; split label maps later",
        )  # fmt: skip
    return np.asarray(data[0])


def as_hu(image: Array, case: str = "") -> NDArray[Any]:
    """The image in a type of HU: int16 where all values are whole numbers, as files of scanners hold, else float32.

    So an int16 file that a pipeline loaded as float gets the very voxels that `synthoma synthesize` makes of it.
    Raises `CaseError` for NaN and infinity.
    """
    if image.dtype == np.int16:
        return image
    few = _some(image)
    with np.errstate(invalid="ignore"):
        if np.array_equal(few.astype(np.int16), few):
            whole = image.astype(np.int16)
            if np.array_equal(whole, image):
                return whole
    values = image.astype(np.float32)
    if not np.isfinite(values).all():
        raise CaseError("the image holds NaN or infinity", case=case or None, fix="replace them by -1024")
    return values


def require_hu(image: Array, masks: Mapping[str, Volume], case: str = "") -> None:
    """`CaseError` for values that cannot be HU: scaled to 0-1, to 0-255 or to unit variance, or moved.

    masks: of organs, of which at least one has voxels. Crops without air are fine; in these 0-255 cannot be told.
    """
    values = _some(image)
    low, high = float(values.min()), float(values.max())
    flat = low == high
    # air, or what lies below a window, at one value
    cut = low > -900 and np.count_nonzero(values == low) > max(_ENOUGH, 0.01 * values.size)
    if not flat and (max(abs(low), abs(high)) <= _NEAR_ZERO or (low >= 0 and high <= 255 and cut)):
        _refuse(f"all values from {low:.4g} to {high:.4g}", case)
    for name, mask in masks.items():
        if name not in _PLAIN or not mask.data.any():
            continue
        some = (slice(None, None, 2),) * 3  # one voxel in eight tells as much, unless it misses a thin part
        shown = np.ascontiguousarray(mask.data.T[some])
        found = image.T[some][shown] if shown.any() else image[mask.data]
        median = float(np.median(found[:: max(1, found.size // _FEW)]))
        if not _ORGAN_HU[0] <= median <= _ORGAN_HU[1]:
            _refuse(f"a median of {median:.4g} in the {name}", case)


# solid organs: colon and esophagus hold gas
_PLAIN = {name for organ in ("liver", "pancreas", "kidney", "uterus") for name in anatomy.organ(organ).structures}


def in_columns(data: Array) -> Array:
    """The array (I, J, K) in Fortran order, in which synthesis keeps voxels; the same array if it is so already.

    Of the common types through OpenCV's blocked transposition, which takes a ninth of numpy's time.
    """
    if data.flags.f_contiguous or not data.flags.c_contiguous or data.dtype.name not in _TRANSPOSED:
        return np.asfortranarray(data)
    i, j, k = data.shape
    flat = cv2.transpose(data.reshape(i, j * k))  # (J K, I): the runs along I are whole, and only these move now
    return np.ascontiguousarray(flat.reshape(j, k, i).transpose(1, 0, 2)).T


def turned(data: Array, geometry: Geometry, axes: str) -> Array:
    """A view of an array of any type with its axes ordered and pointing as named, as `Volume.reorient` has them."""
    order, flips = moves(geometry.axes, axes)
    return data.transpose(order)[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]


def _refuse(found: str, case: str) -> None:
    raise CaseError(
        "the image does not hold HU",
        case=case or None,
        found=found,
        expected="air near -1000, soft tissue near 0",
        fix=f"put the tumors in before intensities are scaled: {ORDER}",
    )


def _some(image: Array) -> Array:
    """An even sample of an array's voxels, flat."""
    step = max(1, round((image.size / _FEW) ** (1 / 3)))
    return np.asarray(image[::step, ::step, ::step]).ravel(order="K")
