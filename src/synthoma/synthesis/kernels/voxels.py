"""Compiled kernels on HU: the scan's noise, blending, fields of waves, tissue, the border's area."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthoma.synthesis.kernels import reference
from synthoma.synthesis.kernels.compiling import dense, kernel, part, spans
from synthoma.synthesis.kernels.reference import Inside, Places, Shades, mean_and_sd
from synthoma.volume import Array, Floats

_ONE, _TWO, _ZERO = np.float32(1), np.float32(2), np.float32(0)
_START, _NEXT, _TWO_ON = np.uint64(0), np.uint64(1), np.uint64(2)
_AT_ONCE = 4  # waves
_NONE = np.int64(0)
_HARDLY, _HALF, _NEARLY, _FULL = map(np.float32, (0.1, 0.5, 0.9, 0.95))


def own_noise(hu: Array, alpha: Floats, low: Floats, at: Places) -> Floats:
    """As `reference.own_noise`."""
    return _noise_of(hu, alpha, low, low, at, low, mixing=False)


def mixed_noise(hu: Array, alpha: Floats, low: Floats, trust: Floats, at: Places, tile: Floats) -> Floats:
    """As `reference.mixed_noise`."""
    return _noise_of(hu, alpha, low, trust, at, tile, mixing=True)


def _noise_of(hu: Array, alpha: Floats, low: Floats, trust: Floats, at: Places, tile: Floats, mixing: bool) -> Floats:
    shares, means, weights, learned = (dense(given, np.float32) for given in (alpha, low, trust, tile))
    voxels, noise = dense(hu, np.int16 if hu.dtype == np.int16 else np.float32), np.zeros_like(shares)
    learned = np.take(learned, np.arange(shares.shape[2]) % learned.shape[2], axis=2)  # as long as a row
    flat = (array.reshape(-1) for array in (noise, voxels, shares))
    before, next_share = (np.concatenate(places) for places in zip(*at, strict=True))
    given = spans(alpha), means, weights, learned, before, next_share, *shares.shape[:0:-1], mixing
    _noise(*flat, *given, np.empty((2, means.shape[2]), np.float32))
    return noise.T


def blended(before: Array, alpha: Floats, tissue: Floats, noise: Floats, limits: tuple[float, float]) -> Array:
    """As `reference.blended`."""
    voxels = np.ascontiguousarray(before.T).copy()
    low, high = np.float32(limits[0]), np.float32(limits[1])
    shares, inside, grain = (dense(given, np.float32) for given in (alpha, tissue, noise))
    flat = (array.reshape(-1) for array in (voxels, shares, inside, grain))
    _blend(*flat, spans(alpha), low, high, before.dtype == np.int16)
    return voxels.T


def wave_sums(k_waves: Array, j_waves: Array, lines: Array, alpha: Floats) -> Floats:
    """As `reference.wave_sums`."""
    shares = dense(alpha, np.float32)
    field = np.zeros_like(shares)
    more = -len(lines) % _AT_ONCE
    heights, total = np.zeros(len(lines) + more), np.empty(shares.shape[2])
    whole = np.concatenate([lines, np.zeros((more, lines.shape[1]))]) if more else np.ascontiguousarray(lines)
    _add_waves(field.reshape(-1), k_waves, j_waves, whole, shares.reshape(-1), spans(alpha), heights, total)
    return field.T


def shaded(alpha: Floats, texture: Floats, border: Floats, depth_mm: Floats, radius: Floats, shades: Shades) -> Floats:
    """As `reference.shaded`."""
    shares, depths, radii = (dense(given, np.float32) for given in (alpha, depth_mm, radius))
    # what there is none of is multiplied with 0
    waves = dense(texture, np.float32) if shades.texture_hu else shares
    edge = dense(border, np.float32) if shades.core_hu else shares
    field = np.empty_like(shares)
    flat = (array.reshape(-1) for array in (field, shares, waves, edge, depths, radii))
    rim_mm = shades.rim_mm if shades.rim_hu else _ONE
    _shade(*flat, spans(alpha), tuple(shades._replace(rim_mm=rim_mm)))
    return field.T


def inside(hu: Array, alpha: Floats, limits: tuple[float, float]) -> Inside:
    """As `reference.inside`."""
    if hu.dtype != np.int16:
        return reference.inside(hu, alpha, limits)
    shares, voxels, found = dense(alpha, np.float32), dense(hu, np.int16), np.zeros(9, np.int64)
    low, high = (np.int16(limit) for limit in limits)
    _sum_inside(voxels.reshape(-1), shares.reshape(-1), spans(alpha), low, high, found)
    label, partly, saturated, *sums = found.tolist()
    return Inside(label, partly, saturated, *mean_and_sd(*(sums[:3] if sums[0] > 1 else sums[3:])))


def border_area_mm2(alpha: Floats, spacing_mm: Sequence[float]) -> float:
    """As `reference.border_area_mm2`."""
    i, j, k = (np.array([spacing, 2 * spacing], np.float32) for spacing in spacing_mm)
    shares = dense(alpha, np.float32)
    padded = np.zeros([n + 2 for n in shares.shape], np.float32)
    padded[1:-1, 1:-1, 1:-1] = shares
    layers, rows, length = padded.shape
    flat, slopes = padded.reshape(-1), np.empty(length, np.float32)
    first, behind = spans(alpha).astype(np.int64).reshape(-1, 2).T
    before = np.arange(len(first)) * shares.shape[2] - 1
    starts, stops = np.full((layers, rows), length), np.zeros((layers, rows), np.int64)
    filled, own = behind > first, (layers - 2, rows - 2)
    starts[1:-1, 1:-1] = np.where(filled, first - before, length).reshape(own)
    stops[1:-1, 1:-1] = np.where(filled, behind - before, 0).reshape(own)
    return float(_border_area(flat, starts.reshape(-1), stops.reshape(-1), rows, length, i, j, k, slopes))


@part
def _row(values: Any, k: int, k_share: Any, j: int, j_share: Any, row: Any) -> None:
    """Samples of a row of voxels, interpolated along K and then along J."""
    over, right = min(k + 1, values.shape[0] - 1), min(j + 1, values.shape[1] - 1)
    for i in range(len(row)):
        one = values[k, j, i] + (values[over, j, i] - values[k, j, i]) * k_share
        other = values[k, right, i] + (values[over, right, i] - values[k, right, i]) * k_share
        row[i] = one + (other - one) * j_share


@kernel
def _noise(
    noise: Any, hu: Any, alpha: Any, span: Any, low: Any, trust: Any, tile: Any, sample: Any, share: Any, length: int,
    rows: int, mixing: bool, scratch: Any,
) -> None:  # fmt: skip
    """sample, share: of the voxels along I, then J, then K: the sample before each, and the next one's share."""
    means, weights = scratch[0], scratch[1]
    begin, end = _START, np.uint64(len(means) - 1)
    for row in range(len(span) // 2):
        first, last = span[2 * row], span[2 * row + 1]
        if first < last:
            k, j = row // rows, row % rows
            at_j, at_k = length + j, length + rows + k
            _row(low, sample[at_k], share[at_k], sample[at_j], share[at_j], means)
            if mixing:
                _row(trust, sample[at_k], share[at_k], sample[at_j], share[at_j], weights)
            learned = tile[k % tile.shape[0], j % tile.shape[1]]
            for at in range(first, last):
                if alpha[at] > 0:
                    i = at - begin
                    before = np.uint64(sample[i])
                    after = min(before + _NEXT, end)
                    own = np.float32(hu[at]) - (means[before] + (means[after] - means[before]) * share[i])
                    if mixing:
                        weight = weights[before] + (weights[after] - weights[before]) * share[i]
                        own = weight * own + np.sqrt(_ONE - weight * weight) * learned[i]
                    noise[at] = own
        begin += np.uint64(length)


@kernel
def _blend(voxels: Any, alpha: Any, tissue: Any, noise: Any, span: Any, low: Any, high: Any, whole: bool) -> None:
    for row in range(len(span) // 2):
        for at in range(span[2 * row], span[2 * row + 1]):
            before = np.float32(voxels[at])
            new = min(max((noise[at] + tissue[at] - before) * alpha[at] + before, low), high)
            new = np.rint(new) if whole else new
            voxels[at] = new if alpha[at] > 0 else before


@kernel
def _add_waves(
    field: Any, k_waves: Any, j_waves: Any, lines: Any, alpha: Any, span: Any, heights: Any, total: Any
) -> None:
    begin, waves = _START, k_waves.shape[1] // 2
    for row in range(len(span) // 2):
        first, last = span[2 * row] - begin, span[2 * row + 1] - begin
        if first < last:
            k, j = row // len(j_waves), row % len(j_waves)
            for i in range(first, last):
                total[i] = 0
            for wave in range(waves):
                cos_k, sin_k = k_waves[k, wave], k_waves[k, waves + wave]
                cos_j, sin_j = j_waves[j, wave], j_waves[j, waves + wave]
                heights[wave] = cos_k * cos_j - sin_k * sin_j
                heights[waves + wave] = -sin_k * cos_j - cos_k * sin_j
            for wave in range(0, len(lines), _AT_ONCE):
                a, b, c, d = heights[wave], heights[wave + 1], heights[wave + 2], heights[wave + 3]
                one, two, three, four = lines[wave], lines[wave + 1], lines[wave + 2], lines[wave + 3]
                for i in range(first, last):  # one after the other, all the same
                    total[i] = (((total[i] + a * one[i]) + b * two[i]) + c * three[i]) + d * four[i]
            for i in range(first, last):
                field[begin + i] = total[i] if alpha[begin + i] > 0 else 0.0
        begin += np.uint64(len(total))


@part
def _smooth_step(share: Any) -> Any:
    clipped = min(max(share, _ZERO), _ONE)
    return clipped * clipped * (np.float32(3) - _TWO * clipped)


@part
def _shade_of(texture: Any, border: Any, depth_mm: Any, radius: Any, shades: Any) -> Any:
    """HU of a voxel above the mean. What a tumor has none of adds 0 to it."""
    texture_hu, drift_hu, drift_mm, rim_hu, rim_mm, core_hu, core_share = shades
    left = min(max(_ONE - depth_mm / drift_mm, _ZERO), _ONE)
    inner = core_share - radius + np.float32(0.08) * border
    field = _ZERO + texture_hu * texture
    field += drift_hu * (_ONE - left * left)
    field += rim_hu * _smooth_step(_ONE - depth_mm / rim_mm)
    return field + core_hu * _smooth_step(inner / np.float32(0.2) + np.float32(0.5))


@kernel
def _shade(
    field: Any, alpha: Any, texture: Any, border: Any, depth_mm: Any, radius: Any, span: Any, shades: Any
) -> None:
    nothing = _shade_of(_ZERO, _ZERO, _ZERO, _ZERO, shades)
    for at in range(np.uint64(len(field))):
        field[at] = nothing
    for row in range(len(span) // 2):
        for at in range(span[2 * row], span[2 * row + 1]):
            new = _shade_of(texture[at], border[at], depth_mm[at], radius[at], shades)
            field[at] = new if alpha[at] > 0 else nothing


@kernel
def _sum_inside(hu: Any, alpha: Any, span: Any, low: Any, high: Any, found: Any) -> None:
    """found: voxels of the label, partly filled, saturated; then of the core and of the label: count, sum, squares."""
    for row in range(len(span) // 2):
        label = partly = saturated = core = total = squares = whole = all_squares = _NONE
        for at in range(span[2 * row], span[2 * row + 1]):
            share, value = alpha[at], np.int64(hu[at])
            is_label, is_core = np.int64(share >= _HALF), np.int64(share > _FULL)
            label += is_label
            partly += np.int64((share > _HARDLY) & (share < _NEARLY))
            saturated += is_label & np.int64((hu[at] <= low) | (hu[at] >= high))
            core += is_core
            total += is_core * value
            squares += is_core * value * value
            whole += is_label * value
            all_squares += is_label * value * value
        sums = label, partly, saturated, core, total, squares, label, whole, all_squares
        for n in range(len(sums)):
            found[n] += sums[n]


@kernel
def _border_area(
    alpha: Any, starts: Any, stops: Any, rows: int, length: int, i_mm: Any, j_mm: Any, k_mm: Any, slopes: Any
) -> float:
    """alpha: with a layer of 0 around it, and where each row's first value above 0 is, and what is behind the last.

    i_mm, j_mm, k_mm: steps of one voxel, and of two.
    """
    area, size = 0.0, np.uint64(length)
    for row in range(len(starts)):
        left, right = row - int(row % rows > 0), row + int(row % rows < rows - 1)
        under, over = row - rows * int(row >= rows), row + rows * int(row + rows < len(starts))
        first = min(starts[row], starts[left], starts[right], starts[under], starts[over]) - 1
        last = max(stops[row], stops[left], stops[right], stops[under], stops[over]) + 1
        if first > last:  # nothing here, nor around
            continue
        here, one, other = np.uint64(row) * size, np.uint64(left) * size, np.uint64(right) * size
        lower, upper = np.uint64(under) * size, np.uint64(over) * size
        along_j, along_k = j_mm[right - left - 1], k_mm[(over - under) // rows - 1]
        for i in range(np.uint64(max(first, 1)), np.uint64(min(last, length - 1))):
            di = (alpha[here + i + _NEXT] - alpha[here + i - _NEXT]) / i_mm[1]
            dj = (alpha[other + i] - alpha[one + i]) / along_j
            dk = (alpha[upper + i] - alpha[lower + i]) / along_k
            slopes[i] = np.sqrt(di * di + dj * dj + dk * dk)
        if first == 0:
            slopes[0] = abs(alpha[here + _NEXT] / i_mm[0])
        if last == length:
            slopes[length - 1] = abs(alpha[here + size - _TWO_ON] / i_mm[0])
        for i in range(first, last):
            area += slopes[i]
    return area
