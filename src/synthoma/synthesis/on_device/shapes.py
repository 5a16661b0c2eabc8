"""Masses on a device: the surface looked up by direction, the share of each voxel, the depth below the surface.

The formulas are those of `kernels.reference`, in single precision and in the same order, on arrays (K, J, I).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthoma.synthesis.bodies.body import COVERAGE_STEPS, coverage_table
from synthoma.synthesis.bodies.mass import CLOSE, TIE, Star
from synthoma.volume import Array

Vectors = tuple[Tensor, Tensor, Tensor]
_TINY = 1e-12
_PER_STEP, _MIDDLE = float(np.float32(-COVERAGE_STEPS / 2.5)), COVERAGE_STEPS + 0.5


@dataclass(frozen=True, eq=False)
class Shape:
    """A mass on its box, float32 (K, J, I), as `bodies.body.Body`; radius and depth_mm are None unless asked for."""

    alpha: Tensor
    radius: Tensor | None = None
    depth_mm: Tensor | None = None


def shape_of(star: Star, device: torch.device, need_inside: bool) -> Shape:
    """The voxels of a mass."""
    place = _Places(star, device)
    ratio = _ratios(star, place)
    scale = _scale_for(ratio, star.wanted)
    alpha = _shares(star, place, ratio, scale)
    return Shape(alpha, *_depths(star, place, ratio, scale)) if need_inside else Shape(alpha)


def upload(values: Array, device: torch.device) -> Tensor:
    """An array on the device, in its type."""
    dense = np.ascontiguousarray(values)
    # torch warns of arrays that may not be written, though nobody writes into this one
    return torch.from_numpy(dense if dense.flags.writeable else dense.copy()).to(device, non_blocking=True)


class _Places:
    """Unit coordinates of the voxels of a box, and the surface over directions."""

    def __init__(self, star: Star, device: torch.device) -> None:
        columns = (upload(axis, device).unbind() for axis in (star.i, star.j, star.k))
        x, y, z = ((k[:, None] + j)[:, :, None] + i for i, j, k in zip(*columns, strict=True))
        self.centers: Vectors = x, y, z
        self.moves = star.moves.tolist()
        self.side = (len(star.table) - 1) * star.factor + 1
        self.edges = _refined(star.table, star.factor, device).reshape(-1)

    def sample(self, move: list[float]) -> tuple[Vectors, Tensor, Tensor]:
        """Of one sample of each voxel: its coordinates, distance from the center, the surface in its direction."""
        x, y, z = (axis + step for axis, step in zip(self.centers, move, strict=True))
        at = x, y, z
        return at, _length(*at), self.edges[_map_index(*at, self.side)]


def _refined(table: Array, factor: int, device: torch.device) -> Tensor:
    """As `reference.refined`, in double precision until it is done."""
    values = upload(table, device)
    if factor > 1:
        at = np.arange((len(table) - 1) * factor + 1) / factor
        low = np.minimum(at.astype(int), len(table) - 2)
        below, weight = upload(low, device), upload(at - low, device)
        rows = values[below] * (1 - weight[:, None]) + values[below + 1] * weight[:, None]
        values = rows[:, below] * (1 - weight) + rows[:, below + 1] * weight
    return values.float()


def _map_index(x: Tensor, y: Tensor, z: Tensor, side: int) -> Tensor:
    size = x.abs() + y.abs() + z.abs() + _TINY
    a, b = x / size, y / size
    below = z < 0
    folded = torch.copysign(1 - b.abs(), a)
    b = torch.where(below, torch.copysign(1 - a.abs(), b), b)
    a = torch.where(below, folded, a)
    half = (side - 1) / 2
    # positive, so that cutting the fraction off rounds down; beyond the edge only by a rounding error
    row, column = ((axis * half + (half + 0.5)).long().clamp_(0, side - 1) for axis in (a, b))
    return row * side + column


def _length(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.sqrt(x * x + y * y + z * z + _TINY)


def _quadratic(matrix: Array, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    m = matrix.astype(np.float32).tolist()
    total = m[0][0] * x * x + m[1][1] * y * y + m[2][2] * z * z
    total = total + 2 * (m[0][1] * x * y + m[0][2] * x * z + m[1][2] * y * z)
    return torch.sqrt(total.clamp_min(_TINY))


def _ratios(star: Star, place: _Places) -> Tensor:
    """As `reference.shell_ratios`: radii over the surface's; inf outside the shell, -inf inside of it."""
    x, y, z = place.centers
    squared = x * x + y * y + z * z
    outermost, innermost = map(float, star.shell)
    total = torch.zeros_like(squared)
    for move in place.moves:
        _, distance, edge = place.sample(move)
        total += distance / edge
    total /= len(place.moves)
    ratio = torch.where(squared < outermost, total, torch.inf)
    return torch.where(squared < innermost, -torch.inf, ratio)


def _scale_for(ratio: Tensor, wanted: int) -> Tensor:
    """As `mass._scale_for`, without waiting for the device: the surface is widened until `wanted` voxels lie inside."""
    one = torch.ones((), device=ratio.device)
    if wanted >= ratio.numel():
        return one
    ordered = ratio.flatten().sort().values
    low, high = (one * float(limit) for limit in CLOSE)
    inner, outer = ordered[wanted - 1], ordered[wanted]
    close = (ordered > low) & (ordered < high)
    below = (ordered <= low).sum()
    nearer, farther = close & (ordered < inner - TIE), close & (ordered > outer + TIE)
    tied = close.sum() - nearer.sum() - farther.sum()
    # voxels mirrored about the center go together: all of them, or none
    fewer = 2 * (wanted - below - nearer.sum()) < tied
    none = torch.where(nearer, ordered, low).max() + (inner - TIE)
    all_of_them = (outer + TIE) + torch.where(farther, ordered, high).min()
    middle = torch.where(outer - inner < TIE, torch.where(fewer, none, all_of_them), inner + outer) / 2
    return torch.where((inner > low) & (outer < high), middle, one)


def _shares(star: Star, place: _Places, ratio: Tensor, scale: Tensor) -> Tensor:
    """As `reference.shares_of`."""
    table = upload(coverage_table(), ratio.device)
    scaled = ratio / scale
    share = torch.zeros_like(ratio)
    for move in place.moves:
        at, distance, edge = place.sample(move)
        outside = distance * (distance - scale * edge) / _quadratic(star.blur, *at)
        share += table[(outside * _PER_STEP + _MIDDLE).clamp_(0, 2 * COVERAGE_STEPS).long()]
    full = (scaled < float(1 - star.widest)).float()
    return torch.where((scaled - 1).abs() <= float(star.widest), share / len(place.moves), full)


def _depths(star: Star, place: _Places, ratio: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """As `reference.depths_of`."""
    found, distance = ratio / scale, _length(*place.centers)
    depth = distance * distance * (1 / found.clamp_min(1e-3) - 1) / _quadratic(star.stretch, *place.centers)
    shell = torch.isfinite(ratio)
    return torch.where(shell, found, 0.0), torch.where(shell, depth, 0.0)
