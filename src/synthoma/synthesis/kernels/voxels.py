"""Compiled kernels on HU: the scan's noise, blending, fields of waves, the border's area."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthoma.synthesis.kernels.compiling import dense, filled, kernel
from synthoma.synthesis.kernels.reference import Places, Shades
from synthoma.volume import Array, Floats

_ONE, _ZERO = np.float32(1), np.float32(0)
_NEXT = np.uint64(1)


def own_noise(hu: Array, alpha: Floats, low: Floats, at: Places) -> Floats:
    """As `reference.own_noise`."""
    shares = dense(alpha, np.float32)
    noise = np.zeros_like(shares)
    voxels = dense(hu, np.int16 if hu.dtype == np.int16 else np.float32)
    _subtract(noise, voxels, shares, dense(low, np.float32), *_along(at))
    return noise.T


def mixed_noise(hu: Array, alpha: Floats, low: Floats, trust: Floats, at: Places, tile: Floats) -> Floats:
    """As `reference.mixed_noise`."""
    shares, noise = dense(alpha, np.float32), own_noise(hu, alpha, low, at).T
    _mix(noise, shares, dense(trust, np.float32), dense(tile, np.float32), *_along(at))
    return noise.T


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
    shares = dense(alpha, np.float32)
    field = np.zeros_like(shares)
    _add_waves(field, k_waves, j_waves, lines, shares)
    return field.T


def shaded(alpha: Floats, texture: Floats, border: Floats, depth_mm: Floats, radius: Floats, shades: Shades) -> Floats:
    """As `reference.shaded`."""
    shares, spread, edge, depths, radii = (
        dense(part, np.float32) for part in (alpha, texture, border, depth_mm, radius)
    )
    field = np.empty_like(shares)
    _shade(field, shares, spread, edge, depths, radii, *shades)
    return field.T


def border_area_mm2(alpha: Floats, spacing_mm: Sequence[float]) -> float:
    """As `reference.border_area_mm2`."""
    i, j, k = (np.array([spacing, 2 * spacing], np.float32) for spacing in spacing_mm)
    shares = dense(alpha, np.float32)
    padded = np.zeros([n + 2 for n in shares.shape], np.float32)
    padded[1:-1, 1:-1, 1:-1] = shares
    return float(_border_area(padded, i, j, k))


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
def _subtract(noise: Any, hu: Any, alpha: Any, low: Any, ai: Any, wi: Any, aj: Any, wj: Any, ak: Any, wk: Any) -> None:
    row = np.empty(low.shape[2], np.float32)
    end = len(row) - 1
    for k in range(hu.shape[0]):
        for j in range(hu.shape[1]):
            first, last = filled(alpha[k, j])
            if first == last:
                continue
            _row(low, ak[k], wk[k], aj[j], wj[j], row)
            for i in range(first, last):
                if alpha[k, j, i] > 0:
                    start = row[ai[i]]
                    mean = start + (row[min(ai[i] + 1, end)] - start) * wi[i]
                    noise[k, j, i] = np.float32(hu[k, j, i]) - mean


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
    end = len(row) - 1
    for k in range(alpha.shape[0]):
        for j in range(alpha.shape[1]):
            first, last = filled(alpha[k, j])
            if first == last:
                continue
            _row(trust, ak[k], wk[k], aj[j], wj[j], row)
            learned = tile[k % tile.shape[0], j % tile.shape[1]]
            at = int(first) % len(learned)
            for i in range(first, last):
                if alpha[k, j, i] > 0:
                    start = row[ai[i]]
                    weight = start + (row[min(ai[i] + 1, end)] - start) * wi[i]
                    noise[k, j, i] = weight * noise[k, j, i] + np.sqrt(_ONE - weight * weight) * learned[at]
                at = at + 1 if at + 1 < len(learned) else 0


@kernel
def _blend(voxels: Any, alpha: Any, tissue: Any, noise: Any, low: Any, high: Any, whole: bool) -> None:
    for k in range(alpha.shape[0]):
        for j in range(alpha.shape[1]):
            row, shares, inside, grain = voxels[k, j], alpha[k, j], tissue[k, j], noise[k, j]
            first, last = filled(shares)
            for i in range(first, last):
                before = np.float32(row[i])
                new = min(max((grain[i] + inside[i] - before) * shares[i] + before, low), high)
                new = np.rint(new) if whole else new
                row[i] = new if shares[i] > 0 else before


@kernel
def _add_waves(field: Any, k_waves: Any, j_waves: Any, lines: Any, alpha: Any) -> None:
    total, heights = np.empty(alpha.shape[2]), np.empty(len(lines))
    waves = len(lines) // 2
    for k in range(alpha.shape[0]):
        for j in range(alpha.shape[1]):
            shares, target = alpha[k, j], field[k, j]
            first, last = filled(shares)
            if first == last:
                continue
            for i in range(first, last):
                total[i] = 0
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
                target[i] = total[i] if shares[i] > 0 else 0.0


@kernel
def _smooth_step(share: Any) -> Any:
    clipped = min(max(share, _ZERO), _ONE)
    return clipped * clipped * (np.float32(3) - np.float32(2) * clipped)


@kernel
def _drift(depth_mm: Any, drift_hu: Any, drift_mm: Any) -> Any:
    left = min(max(_ONE - depth_mm / drift_mm, _ZERO), _ONE)
    return drift_hu * (_ONE - left * left)


@kernel
def _rim(depth_mm: Any, rim_hu: Any, rim_mm: Any) -> Any:
    return rim_hu * _smooth_step(_ONE - depth_mm / rim_mm)


@kernel
def _core(radius: Any, border: Any, core_hu: Any, core_share: Any) -> Any:
    inner = core_share - radius + np.float32(0.08) * border
    return core_hu * _smooth_step(inner / np.float32(0.2) + np.float32(0.5))


@kernel
def _shade(
    field: Any, alpha: Any, texture: Any, border: Any, depth_mm: Any, radius: Any,
    texture_hu: Any, drift_hu: Any, drift_mm: Any, rim_hu: Any, rim_mm: Any, core_hu: Any, core_share: Any,
) -> None:  # fmt: skip
    nothing = _ZERO
    nothing += _drift(_ZERO, drift_hu, drift_mm) if drift_hu != 0 else _ZERO
    nothing += _rim(_ZERO, rim_hu, rim_mm) if rim_hu != 0 else _ZERO
    nothing += _core(_ZERO, _ZERO, core_hu, core_share) if core_hu != 0 else _ZERO
    for k in range(alpha.shape[0]):
        for j in range(alpha.shape[1]):
            row, shares, depths, radii = field[k, j], alpha[k, j], depth_mm[k, j], radius[k, j]
            row[:] = nothing
            first, last = filled(shares)
            if first == last:
                continue
            for i in range(first, last):
                row[i] = 0
            if texture_hu != 0:
                waves = texture[k, j]
                for i in range(first, last):
                    row[i] += texture_hu * waves[i]
            if drift_hu != 0:
                for i in range(first, last):
                    row[i] += _drift(depths[i], drift_hu, drift_mm)
            if rim_hu != 0:
                for i in range(first, last):
                    row[i] += _rim(depths[i], rim_hu, rim_mm)
            if core_hu != 0:
                borders = border[k, j]
                for i in range(first, last):
                    row[i] += _core(radii[i], borders[i], core_hu, core_share)
            for i in range(first, last):
                row[i] = row[i] if shares[i] > 0 else nothing


@kernel
def _border_area(padded: Any, i_mm: Any, j_mm: Any, k_mm: Any) -> float:
    """padded: alpha with a layer of 0 around it; steps of one voxel, and of two, in mm."""
    area = 0.0
    layers, rows, length = padded.shape
    slopes = np.empty(length, np.float32)
    starts, stops = np.empty((layers, rows), np.int64), np.empty((layers, rows), np.int64)
    for k in range(layers):
        for j in range(rows):
            first, last = filled(padded[k, j])
            starts[k, j], stops[k, j] = (first, last) if first < last else (length, 0)
    for k in range(layers):
        under, over = max(k - 1, 0), min(k + 1, layers - 1)
        for j in range(rows):
            left, right = max(j - 1, 0), min(j + 1, rows - 1)
            first = min(starts[k, j] - 1, starts[k, left], starts[k, right], starts[under, j], starts[over, j])
            last = max(stops[k, j] + 1, stops[k, left], stops[k, right], stops[under, j], stops[over, j])
            if first >= last:  # nothing here, nor around
                continue
            own, one, other = padded[k, j], padded[k, left], padded[k, right]
            lower, upper = padded[under, j], padded[over, j]
            along_j, along_k = j_mm[right - left - 1], k_mm[over - under - 1]
            first, last = max(first, 0), min(last, length)
            for i in range(np.uint64(max(first, 1)), np.uint64(min(last, length - 1))):
                di = (own[i + _NEXT] - own[i - _NEXT]) / i_mm[1]
                dj, dk = (other[i] - one[i]) / along_j, (upper[i] - lower[i]) / along_k
                slopes[i] = np.sqrt(di * di + dj * dj + dk * dk)
            if first == 0:
                slopes[0] = abs(own[1] / i_mm[0])
            if last == length:
                slopes[length - 1] = abs(own[length - 2] / i_mm[0])
            for i in range(first, last):
                area += slopes[i]
    return area
