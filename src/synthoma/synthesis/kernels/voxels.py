"""Compiled kernels on HU: the scan's noise, blending, fields of waves, the border's area."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthoma.synthesis.kernels.compiling import dense, kernel
from synthoma.synthesis.kernels.reference import Places, Shades
from synthoma.volume import Array, Floats

_ONE, _ZERO = np.float32(1), np.float32(0)


def own_noise(hu: Array, low: Floats, at: Places) -> Floats:
    """As `reference.own_noise`."""
    return np.asarray(_minus(_float(hu), dense(low, np.float32), *_along(at)).T)


def mixed_noise(own: Floats, alpha: Floats, trust: Floats, at: Places, tile: Floats) -> Floats:
    """As `reference.mixed_noise`, where alpha is not 0; own noise where it is."""
    noise = dense(own, np.float32).copy()
    _mix(noise, dense(alpha, np.float32), dense(trust, np.float32), dense(tile, np.float32), *_along(at))
    return np.asarray(noise.T)


def is_trusted(alpha: Floats, trust: Floats, at: Places) -> bool:
    """As `reference.is_trusted`."""
    return bool(_is_trusted(dense(alpha, np.float32), dense(trust, np.float32), *_along(at)))


def blended(before: Array, alpha: Floats, tissue: Floats, noise: Floats, limits: tuple[float, float]) -> Array:
    """As `reference.blended`."""
    voxels = np.ascontiguousarray(before.T).copy()
    low, high = np.float32(limits[0]), np.float32(limits[1])
    shares, inside, grain = (dense(part, np.float32) for part in (alpha, tissue, noise))
    _blend(voxels, shares, inside, grain, low, high, before.dtype == np.int16)
    return voxels.T


def wave_sums(k_waves: Array, j_waves: Array, lines: Array, alpha: Floats) -> Floats:
    """As `reference.wave_sums`."""
    return np.asarray(_wave_sums(k_waves, j_waves, lines, dense(alpha, np.float32)).T)


def shaded(texture: Floats, border: Floats, depth_mm: Floats, radius: Floats, shades: Shades) -> Floats:
    """As `reference.shaded`."""
    spread, edge, depths, radii = (dense(part, np.float32) for part in (texture, border, depth_mm, radius))
    return np.asarray(_shaded(spread, edge, depths, radii, *shades).T)


def border_area_mm2(alpha: Floats, spacing_mm: Sequence[float]) -> float:
    """As `reference.border_area_mm2`."""
    i, j, k = (np.array([spacing, 2 * spacing], np.float32) for spacing in spacing_mm)
    return float(_border_area(np.pad(alpha.T, 1), i, j, k))


def _float(hu: Array) -> Array:
    return dense(hu, np.float32)


def _along(at: Places) -> list[Array]:
    """Samples and shares along I, J and K, of one type."""
    return [
        np.ascontiguousarray(part, kind) for low, share in at for part, kind in ((low, np.int64), (share, np.float32))
    ]


@kernel
def _row(values: Any, k: int, k_share: Any, j: int, j_share: Any, row: Any) -> None:
    """Samples of a row of voxels, interpolated along K and then along J."""
    over, right = min(k + 1, values.shape[0] - 1), min(j + 1, values.shape[1] - 1)
    for i in range(len(row)):
        one = values[k, j, i] + (values[over, j, i] - values[k, j, i]) * k_share
        other = values[k, right, i] + (values[over, right, i] - values[k, right, i]) * k_share
        row[i] = one + (other - one) * j_share


@kernel
def _minus(hu: Any, low: Any, ai: Any, wi: Any, aj: Any, wj: Any, ak: Any, wk: Any) -> Any:
    row = np.empty(low.shape[2], np.float32)
    last = len(row) - 1
    for k in range(hu.shape[0]):
        for j in range(hu.shape[1]):
            _row(low, ak[k], wk[k], aj[j], wj[j], row)
            for i in range(hu.shape[2]):
                start = row[ai[i]]
                hu[k, j, i] -= start + (row[min(ai[i] + 1, last)] - start) * wi[i]
    return hu


@kernel
def _is_trusted(alpha: Any, trust: Any, ai: Any, wi: Any, aj: Any, wj: Any, ak: Any, wk: Any) -> bool:
    row = np.empty(trust.shape[2], np.float32)
    last = len(row) - 1
    for k in range(alpha.shape[0]):
        for j in range(alpha.shape[1]):
            _row(trust, ak[k], wk[k], aj[j], wj[j], row)
            for i in range(alpha.shape[2]):
                start = row[ai[i]]
                if alpha[k, j, i] > 0 and start + (row[min(ai[i] + 1, last)] - start) * wi[i] != _ONE:
                    return False
    return True


@kernel
def _mix(noise: Any, alpha: Any, trust: Any, tile: Any, ai: Any, wi: Any, aj: Any, wj: Any, ak: Any, wk: Any) -> None:
    row = np.empty(trust.shape[2], np.float32)
    last = len(row) - 1
    for k in range(alpha.shape[0]):
        for j in range(alpha.shape[1]):
            _row(trust, ak[k], wk[k], aj[j], wj[j], row)
            learned, at = tile[k % tile.shape[0], j % tile.shape[1]], -1
            for i in range(alpha.shape[2]):
                at = at + 1 if at + 1 < len(learned) else 0
                if alpha[k, j, i] > 0:
                    start = row[ai[i]]
                    weight = start + (row[min(ai[i] + 1, last)] - start) * wi[i]
                    other = np.sqrt(_ONE - weight * weight)
                    noise[k, j, i] = weight * noise[k, j, i] + other * learned[at]


@kernel
def _blend(voxels: Any, alpha: Any, tissue: Any, noise: Any, low: Any, high: Any, whole: bool) -> None:
    for k in range(alpha.shape[0]):
        for j in range(alpha.shape[1]):
            for i in range(alpha.shape[2]):
                before = np.float32(voxels[k, j, i])
                new = (noise[k, j, i] + tissue[k, j, i] - before) * alpha[k, j, i] + before
                new = min(max(new, low), high)
                voxels[k, j, i] = np.rint(new) if whole else new


@kernel
def _wave_sums(k_waves: Any, j_waves: Any, lines: Any, alpha: Any) -> Any:
    field = np.zeros(alpha.shape, np.float32)
    total, heights = np.empty(alpha.shape[2]), np.empty(len(lines))
    waves = len(lines) // 2
    for k in range(alpha.shape[0]):
        for j in range(alpha.shape[1]):
            shares = alpha[k, j]
            first, last = 0, len(shares)
            while first < last and shares[first] <= 0:
                first += 1
            while last > first and shares[last - 1] <= 0:
                last -= 1
            if first == last:
                continue
            total[first:last] = 0
            for wave in range(waves):
                cos_k, sin_k = k_waves[k, wave], k_waves[k, waves + wave]
                cos_j, sin_j = j_waves[j, wave], j_waves[j, waves + wave]
                heights[wave] = cos_k * cos_j - sin_k * sin_j
                heights[waves + wave] = -sin_k * cos_j - cos_k * sin_j
            for wave in range(0, len(lines) - 3, 4):
                a, b, c, d = heights[wave], heights[wave + 1], heights[wave + 2], heights[wave + 3]
                one, two, three, four = lines[wave], lines[wave + 1], lines[wave + 2], lines[wave + 3]
                for i in range(first, last):  # four in one go, one after the other
                    total[i] = (((total[i] + a * one[i]) + b * two[i]) + c * three[i]) + d * four[i]
            for wave in range(len(lines) // 4 * 4, len(lines)):
                for i in range(first, last):
                    total[i] += heights[wave] * lines[wave, i]
            for i in range(first, last):
                field[k, j, i] = total[i] if shares[i] > 0 else 0.0
    return field


@kernel
def _smooth_step(share: Any) -> Any:
    clipped = min(max(share, _ZERO), _ONE)
    return clipped * clipped * (np.float32(3) - np.float32(2) * clipped)


@kernel
def _shaded(
    texture: Any, border: Any, depth_mm: Any, radius: Any,
    texture_hu: Any, drift_hu: Any, drift_mm: Any, rim_hu: Any, rim_mm: Any, core_hu: Any, core_share: Any,
) -> Any:  # fmt: skip
    field = np.zeros(depth_mm.shape, np.float32)
    to, depths, radii = field.ravel(), depth_mm.ravel(), radius.ravel()
    waves, borders = texture.ravel(), border.ravel()
    if texture_hu != 0:
        for n in range(len(to)):
            to[n] += texture_hu * waves[n]
    if drift_hu != 0:
        for n in range(len(to)):
            left = min(max(_ONE - depths[n] / drift_mm, _ZERO), _ONE)
            to[n] += drift_hu * (_ONE - left * left)
    if rim_hu != 0:
        for n in range(len(to)):
            to[n] += rim_hu * _smooth_step(_ONE - depths[n] / rim_mm)
    if core_hu != 0:
        for n in range(len(to)):
            inner = core_share - radii[n] + np.float32(0.08) * borders[n]
            to[n] += core_hu * _smooth_step(inner / np.float32(0.2) + np.float32(0.5))
    return field


@kernel
def _border_area(padded: Any, i_mm: Any, j_mm: Any, k_mm: Any) -> float:
    """padded: alpha with a layer of 0 around it; steps of one voxel, and of two, in mm."""
    area = 0.0
    layers, rows, length = padded.shape
    for k in range(layers):
        under, over = max(k - 1, 0), min(k + 1, layers - 1)
        for j in range(rows):
            left, right = max(j - 1, 0), min(j + 1, rows - 1)
            for i in range(length):
                before, after = max(i - 1, 0), min(i + 1, length - 1)
                di = padded[k, j, after] - padded[k, j, before]
                dj = padded[k, right, i] - padded[k, left, i]
                dk = padded[over, j, i] - padded[under, j, i]
                if di != 0 or dj != 0 or dk != 0:
                    di /= i_mm[after - before - 1]
                    dj /= j_mm[right - left - 1]
                    dk /= k_mm[over - under - 1]
                    area += np.sqrt(di * di + dj * dj + dk * dk)
    return area
