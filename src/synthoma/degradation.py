"""What makes a scan worse: thicker slices, blur, noise, a shift of HU, a cut field of view.

One code for augmentation, follow-up scans and robustness tests. Sizes are in mm along the patient's axes, so the same
degradation means the same on every grid, and gives the same voxels however the scan is stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthoma.volume import PADDING_HU, Array, Floats, Geometry, Volume

_REACH = 3.0  # SDs of a Gaussian kernel on either side


@dataclass(frozen=True)
class Degradation:
    """How a scan gets worse: plain data. The defaults leave it as it is; what is asked for happens in this order.

    slice_mm: thickness of slices, as if scanned that thick; no more than the scan's own changes nothing. blur_mm: SD
    of a Gaussian blur along all axes. noise_hu: SD of the noise; noise_mm: SD of the kernel that correlates it, 0 for
    white noise; noise_seed: of the noise. shift_hu: added. view_mm: diameter of the circle in axial planes, around
    the middle of the grid, outside of which a scanner writes -1024 HU; 0 for no circle.
    """

    slice_mm: float = 0.0
    blur_mm: float = 0.0
    noise_hu: float = 0.0
    noise_mm: float = 0.0
    noise_seed: int = 0
    shift_hu: float = 0.0
    view_mm: float = 0.0


def degrade(ct: Volume, how: Degradation) -> Volume:
    """The scan made worse, on its own grid; int16 stays int16 (rounded), float32 stays float32.

    See `thicker_slices` for slices on a grid of their own. Where nothing is asked for it is the same object.
    """
    if not (how.slice_mm or how.blur_mm or how.noise_hu or how.shift_hu or how.view_mm):
        return ct
    upright = ct.reorient("RAS")
    spacing = upright.geometry.spacing_mm
    hu: Floats = np.ascontiguousarray(upright.data, np.float32)
    if how.slice_mm > spacing[2]:
        hu = _thin(_thick(hu, _slices(hu.shape[2], spacing[2], how.slice_mm)), hu.shape[2])
    if how.blur_mm > 0:
        hu = _blurred(hu, [how.blur_mm / s for s in spacing])
    if how.noise_hu > 0:
        hu = hu + np.float32(how.noise_hu) * _noise(hu.shape, [how.noise_mm / s for s in spacing], how.noise_seed)
    if how.shift_hu:
        hu = hu + np.float32(how.shift_hu)
    if how.view_mm > 0:
        hu = np.where(in_view(upright.geometry, how.view_mm)[:, :, None], hu, np.float32(PADDING_HU))
    return _as(hu, upright.data.dtype, upright.geometry).reorient(ct.geometry.axes)


def axis_matrices(how: Degradation, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> list[Array | None]:
    """What thick slices and blur do along I, J and K of an upright scan, as matrices that voxels are multiplied with.

    None along an axis where they change nothing. For whoever computes elsewhere: `values @ matrix` along each axis.
    """
    matrices: list[Array | None] = [None, None, None]
    if how.slice_mm > spacing_mm[2]:
        depth = shape[2]
        slices = _thick(np.eye(depth, dtype=np.float32)[None], _slices(depth, spacing_mm[2], how.slice_mm))
        matrices[2] = _thin(slices, depth)[0]
    if how.blur_mm > 0:
        import cv2

        one = np.ones((1, 1), np.float32)
        for axis, (n, s) in enumerate(zip(shape, spacing_mm, strict=True)):
            eye = np.eye(n, dtype=np.float32)
            blur = cv2.sepFilter2D(eye, -1, _kernel(how.blur_mm / s), one, borderType=cv2.BORDER_REPLICATE)
            before = matrices[axis]
            matrices[axis] = np.asarray(blur if before is None else before @ blur)
    return matrices


def white_noise(shape: tuple[int, ...], seed: int) -> Floats:
    """The noise of SD 1 that `degrade` adds to a scan of this shape."""
    return _noise(shape, [0.0, 0.0, 0.0], seed)


def thicker_slices(ct: Volume, slice_mm: float) -> Volume:
    """The same field of view in slices as near to this thickness as a whole number of them allows; HU are means.

    Slices lie along the axis nearest to feet-head. Slices that are not thicker than the scan's own change nothing.
    """
    upright = ct.reorient("RAS")
    grid = upright.geometry
    depth = grid.shape[2]
    count = _slices(depth, grid.spacing_mm[2], slice_mm)
    if slice_mm <= grid.spacing_mm[2] or count >= depth:
        return ct
    affine = grid.affine.copy()
    factor = depth / count
    affine[:3, 3] += (
        affine[:3, 2] * (factor - 1) / 2
    )  # from the middle of the first slice to that of the first thick one
    affine[:3, 2] *= factor
    thick = Geometry((grid.shape[0], grid.shape[1], count), affine)
    hu = _thick(np.ascontiguousarray(upright.data, np.float32), count)
    return _as(hu, upright.data.dtype, thick).reorient(ct.geometry.axes)


def _as(hu: Floats, kind: np.dtype, grid: Geometry) -> Volume:
    if kind == np.int16:
        return Volume(np.clip(np.rint(hu), -32768, 32767).astype(np.int16), grid)
    return Volume(hu, grid)


def _slices(depth: int, spacing_mm: float, slice_mm: float) -> int:
    """How many thick slices a scan of `depth` thin ones has, at least two."""
    return max(2, round(depth / (slice_mm / spacing_mm)))


def _thick(hu: Floats, count: int) -> Floats:
    """Means along the last axis, `count` of them."""
    import cv2

    flat = hu.reshape(-1, hu.shape[2])
    thick = cv2.resize(flat, (count, len(flat)), interpolation=cv2.INTER_AREA)
    return np.asarray(thick.reshape(*hu.shape[:2], count))


def _thin(hu: Floats, depth: int) -> Floats:
    """Linear interpolation between slices along the last axis, `depth` of them."""
    import cv2

    flat = hu.reshape(-1, hu.shape[2])
    fine = cv2.resize(flat, (depth, len(flat)), interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine.reshape(*hu.shape[:2], depth))


def _blurred(hu: Floats, sigmas: list[float]) -> Floats:
    """Gaussian blur of these SDs in voxels; beyond the edge lies what is at the edge."""
    import cv2

    first, rows, columns = (_kernel(sigma) for sigma in sigmas)
    one = np.ones((1, 1), np.float32)
    flat = cv2.sepFilter2D(hu.reshape(len(hu), -1), -1, one, first, borderType=cv2.BORDER_REPLICATE)
    image: Floats = np.asarray(flat.reshape(hu.shape))
    for plane in image:
        plane[...] = cv2.sepFilter2D(plane, -1, columns, rows, borderType=cv2.BORDER_REPLICATE)
    return image


def _kernel(sigma: float) -> Array:
    import cv2

    kernel: Array = cv2.getGaussianKernel(2 * max(1, round(_REACH * sigma)) + 1, sigma, cv2.CV_32F)
    return kernel


def _noise(shape: tuple[int, ...], sigmas: list[float], seed: int) -> Floats:
    """Noise of SD 1, white or with the correlation of a Gaussian kernel of these SDs in voxels."""
    if not any(sigmas):
        return np.random.Generator(np.random.SFC64(seed)).standard_normal(shape, np.float32)
    # drawn with a margin, so that the noise at the edge is that of the middle
    margins = [max(1, round(_REACH * sigma)) for sigma in sigmas]
    wide = [n + 2 * m for n, m in zip(shape, margins, strict=True)]
    white = np.random.Generator(np.random.SFC64(seed)).standard_normal(wide, np.float32)
    inner = tuple(slice(m, m + n) for m, n in zip(margins, shape, strict=True))
    norm = np.prod([np.sqrt((_kernel(sigma) ** 2).sum()) for sigma in sigmas])
    return np.ascontiguousarray(_blurred(white, sigmas)[inner]) / np.float32(norm)


def in_view(grid: Geometry, view_mm: float) -> Array:
    """Whether each column of voxels (I, J) lies in a circle of this diameter around the middle."""
    i, j = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(grid.shape[:2], grid.spacing_mm[:2], strict=True))
    return np.asarray(np.hypot(i[:, None], j) <= view_mm / 2)
