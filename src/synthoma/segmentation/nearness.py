"""Where a first look, with as few windows as cover the scan, finds anything: only windows near that are looked at.

What the first look said is kept, so that the windows it used are not looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from synthoma.segmentation.structures import FULL
from synthoma.segmentation.windows import Look, Windows, ask, require_finite
from synthoma.volume import Array, Box, Triple, triple

BLOCK = 2  # voxels along each axis of the blocks that a region is made of
KEPT_BYTES = 2**28  # of answers of the first look; windows whose answers do not fit are looked at again


@dataclass(frozen=True, eq=False)
class Region:
    """Blocks (bool) of `BLOCK`^3 voxels of a grid that are to be known, and the windows (bool) that touch them.

    left_out: how many windows neither touch it nor were needed to find it. Every window that covers a voxel of the
    region is wanted, so what is known there is what it would be if all windows were looked at.
    """

    blocks: Array
    wanted: Array
    left_out: int

    def voxels(self, box: Box) -> Array:
        """Which voxels of a box are in the region, bool."""
        around = _blocks_of(box)
        part = self.blocks[around.slices]
        for axis in range(3):
            part = part.repeat(BLOCK, axis)
        return part[box.shift([-low * BLOCK for low in around.lower]).slices]


def find_region(
    windows: Windows, look: Look, batch: int, least: Sequence[int], near_mm: float, spacing_mm: Sequence[float]
) -> tuple[Region | None, dict[Triple, torch.Tensor]]:
    """Where something may be, and what was said of the windows there that were looked at.

    None if nothing is found anywhere. The first look takes as few of the windows as cover the grid. least: the level
    of each class from which a voxel counts as found. near_mm: all voxels at most so far from one that was found are in
    the region, and some a little further, as it is made of blocks.
    """
    import edt

    known: dict[Triple, torch.Tensor] = {}
    found = np.zeros([-(-n // BLOCK) for n in windows.shape], bool)
    first, kept = np.zeros(windows.counts, bool), 0
    first[np.ix_(*sparse(windows))] = True
    for place, said in ask(windows, _places(first), look, batch):
        require_finite(said)
        if kept + said.nbytes <= KEPT_BYTES:
            known[place] = said.clone()
            kept += said.nbytes
        _mark(found, said, windows, place, least)
    if not found.any():
        return None, known
    block_mm = [BLOCK * mm for mm in spacing_mm]
    away_mm = edt.edt(~found, anisotropy=block_mm)
    blocks = away_mm <= near_mm + np.linalg.norm(block_mm)  # from center to center
    wanted = np.zeros(windows.counts, bool)
    for place in _places(~wanted):
        wanted[place] = blocks[_blocks_of(_inside(windows, place)).slices].any()
    left_out = int((~(wanted | first)).sum())
    return Region(blocks, wanted, left_out), {place: said for place, said in known.items() if wanted[place]}


def sparse(windows: Windows) -> tuple[list[int], ...]:
    """Per axis the fewest windows that cover it."""
    return tuple(_sparse(starts, size) for starts, size in zip(windows.starts, windows.size, strict=True))


def _sparse(starts: Sequence[int], size: int) -> list[int]:
    chosen = [0]
    while chosen[-1] < len(starts) - 1:
        end = starts[chosen[-1]] + size
        chosen.append(max(n for n, start in enumerate(starts) if start <= end))
    return chosen


def _mark(found: Array, said: torch.Tensor, windows: Windows, place: Triple, least: Sequence[int]) -> None:
    """Marks the blocks of `found` in which a window has a voxel of a level that counts."""
    levels = torch.tensor(least, device=said.device).view(-1, 1, 1, 1)
    high = ((said * FULL).round_() >= levels).any(0)
    inside = _inside(windows, place)
    part = high[inside.shift([-c for c in windows.corner(place)]).slices]
    at = [(along + low).cpu().numpy() // BLOCK for along, low in zip(part.nonzero().T, inside.lower, strict=True)]
    found[tuple(at)] = True


def _inside(windows: Windows, place: Triple) -> Box:
    """The part of a window that lies inside the grid."""
    corner = windows.corner(place)
    return Box(corner, triple(c + n for c, n in zip(corner, windows.size, strict=True))).clip(windows.shape)


def _blocks_of(box: Box) -> Box:
    """The blocks that a box of voxels touches."""
    return Box(triple(low // BLOCK for low in box.lower), triple(-(-high // BLOCK) for high in box.upper))


def _places(chosen: Array) -> list[Triple]:
    """The windows that are chosen (bool), in order."""
    return [triple(place) for place in np.argwhere(chosen).tolist()]
