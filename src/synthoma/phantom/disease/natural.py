"""Natural tumors: what grows through the tissue of an in-silico patient, cell by cell of a lattice.

A tumor starts at its founders and arrives at every place by the fastest path: tissue is fast or slow by its lobules
and strands, vessels and capsules hold it up, single steps take longer by chance (first-passage percolation). What was
reached by the time it was found is the tumor. Blood reaches it from its front; what lies too deep dies. It is put
into the tissue, before the scanner's blur and noise. Nothing here is shared with the tumors of `synthesis`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from synthoma.phantom.anatomy import noise, tissues
from synthoma.phantom.anatomy.abdomen import Abdomen
from synthoma.phantom.disease.kinds import HOMES, KINDS, Kind
from synthoma.phantom.disease.sites import TumorBed
from synthoma.phantom.findings import Finding
from synthoma.phantom.grids import block_mean, divided, parts_of
from synthoma.seeds import rng_for
from synthoma.volume import Geometry, Volume

Array = NDArray[Any]

_CELLS = 44  # of the lattice along an axis
_BLOCKED = 0.02  # tissue slower than this is not entered
_FATTY = 0.6  # of what age and fat did to the organ's HU, the part that its tumors show too
_CHANCE = 0.4  # SD of ln time of single steps
_STEPS = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]


@dataclass(frozen=True)
class Seedling:
    """A tumor before it has grown, as plain data. shade: how its HU differ from its kind's, in SD, by phase."""

    kind: str
    center_mm: tuple[float, float, float]
    diameter_mm: float
    shade: tuple[float, float, float]
    seed: int


def grow(seedling: Seedling, abdomen: Abdomen, site: TumorBed) -> Finding | None:
    """The tumor on the fine grid of a patient; None where tissue or field of view leave it no place."""
    kind, rng = KINDS[seedling.kind], rng_for(seedling.seed, "grow")
    lattice = _lattice(kind, seedling, rng)
    speed = _speed(kind, seedling, abdomen, lattice, rng)
    arrival = _arrival(speed, _starts(kind, speed, rng), kind, rng)
    if arrival is None:
        return None
    cell_mm = lattice.spacing_mm[0]
    wanted = int(np.pi / 6 * (seedling.diameter_mm / cell_mm) ** 3)
    end = _found_at(arrival, wanted)
    if end <= 0:
        return None
    # from time to mm: the pace of the tissue it went through
    pace = float(np.median(speed[arrival <= end])) * cell_mm
    depth_mm = np.clip((end - arrival) * pace, -6 * cell_mm, None).astype(np.float32)
    hu = _look(kind, seedling, depth_mm, lattice, site, rng)
    front_mm = float(rng.uniform(*kind.front_mm)) * min(1.0, seedling.diameter_mm / 16)
    return _placed(seedling, abdomen, site, lattice, (depth_mm, hu), front_mm)


def _lattice(kind: Kind, seedling: Seedling, rng: np.random.Generator) -> Geometry:
    """A cube around the founder, turned at random so that no direction of the scan is preferred."""
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    cell_mm = kind.reach * seedling.diameter_mm / _CELLS
    affine = np.eye(4)
    affine[:3, :3] = turn * cell_mm
    affine[:3, 3] = np.asarray(seedling.center_mm) - affine[:3, :3] @ np.full(3, (_CELLS - 1) / 2)
    return Geometry((_CELLS,) * 3, affine)


def _speed(kind: Kind, seedling: Seedling, abdomen: Abdomen, lattice: Geometry, rng: np.random.Generator) -> Array:
    """Speed of growth in each cell: that of its tissue, faster and slower by lobules of several sizes."""
    by_id = _paths(kind)
    box = abdomen.fine.box_around(seedling.center_mm, 1.8 * kind.reach / 2 * seedling.diameter_mm)
    share = abdomen.share[box.slices] * np.float32(1 / 255)
    through = by_id[abdomen.main[box.slices]] * share + by_id[abdomen.under[box.slices]] * (1 - share)
    speed = Volume(through, abdomen.fine.crop(box)).to(lattice, fill=0).data
    radius = seedling.diameter_mm / 2
    unrest: Array = np.zeros(lattice.shape, np.float32)
    for weight, length_mm in ((0.62, 1.1 * radius), (0.62, 0.45 * radius), (0.48, 5.0)):
        name = f"unrest {rng.integers(1 << 30)}"
        unrest += np.float32(weight) * noise.field(seedling.seed, name, max(length_mm, 0.8), lattice)
    return np.asarray(speed * np.exp(kind.unrest * unrest))


def _paths(kind: Kind) -> Array:
    by_id = np.zeros(256, np.float32)
    for tissue, speed in {**kind.paths, **dict.fromkeys(HOMES[kind.organ].tissues, 1.0)}.items():
        by_id[tissues.TISSUE_ID[tissue]] = speed
    return by_id


def _starts(kind: Kind, speed: Array, rng: np.random.Generator) -> list[tuple[tuple[int, int, int], float]]:
    """Cells where growth begins, and when, in cells' worth of time: founders first, satellites later."""
    radius = _CELLS / 2 / kind.reach
    starts = [(np.zeros(3), 0.0)]
    for _ in range(int(rng.integers(kind.founders[0], kind.founders[1] + 1)) - 1):
        away = rng.uniform(0.45, 0.9) * radius
        starts += [(_direction(rng) * away, float(rng.uniform(0, 0.5) * radius))]
    for _ in range(int(rng.poisson(kind.satellites))):
        away, size = rng.uniform(1.35, 1.85) * radius, rng.uniform(0.15, 0.4) * radius
        starts += [(_direction(rng) * away, float(radius - size))]
    begun = []
    for offset, time in starts:
        i, j, k = np.clip(np.rint(offset + _CELLS // 2), 1, _CELLS - 2).astype(int).tolist()
        if speed[i, j, k] > _BLOCKED:
            begun.append(((i, j, k), time))
    return begun


def _direction(rng: np.random.Generator) -> Array:
    way = rng.normal(size=3)
    return np.asarray(way / np.linalg.norm(way))


def _arrival(speed: Array, starts: list[Any], kind: Kind, rng: np.random.Generator) -> Array | None:
    """Time of arrival at each cell by the fastest path over its 26 neighbors; infinite where nothing arrives.

    One unit is the time from cell to cell at speed 1. Strands: a direction in which the tumor spreads faster.
    """
    if not starts:
        return None
    slow = np.where(speed > _BLOCKED, 1 / np.maximum(speed, _BLOCKED), np.inf).astype(np.float32)
    strand, stretch = _direction(rng), rng.uniform(*kind.stretch)
    ways = []
    for step in _STEPS:
        here, there = _pair(step)
        along = float(np.dot(step, strand)) ** 2
        length = np.sqrt(along / stretch**2 + (sum(abs(n) for n in step) - along))
        luck = np.exp(_CHANCE * rng.standard_normal(slow[here].shape, dtype=np.float32))
        ways.append((here, there, (slow[here] + slow[there]) * luck * np.float32(length / 2)))
    arrival = np.full(slow.shape, np.inf, np.float32)
    for cell, time in starts:
        arrival[cell] = min(arrival[cell], time)
    for _ in range(4 * _CELLS):
        before = arrival.copy()
        for here, there, cost in ways:
            np.minimum(arrival[there], arrival[here] + cost, out=arrival[there])
            np.minimum(arrival[here], arrival[there] + cost, out=arrival[here])
        if np.array_equal(before, arrival):
            break
    return arrival


def _pair(step: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of all cells that have a neighbor at this step, and of those neighbors."""
    ends = {-1: (slice(1, None), slice(None, -1)), 0: (slice(None), slice(None)), 1: (slice(None, -1), slice(1, None))}
    here, there = zip(*(ends[n] for n in step), strict=True)
    return here, there


def _found_at(arrival: Array, wanted: int) -> float:
    """The time at which so many cells have been reached, or the lattice's end, if that comes first."""
    reached = arrival[np.isfinite(arrival)]
    if reached.size < 2:
        return 0.0
    time = float(np.partition(reached, min(wanted, reached.size - 1))[min(wanted, reached.size - 1)])
    faces = [arrival.take(end, axis=axis).min() for axis in range(3) for end in (0, -1)]
    return min(time, float(min(faces)))


def _look(
    kind: Kind, seedling: Seedling, depth_mm: Array, lattice: Geometry, site: TumorBed, rng: np.random.Generator
) -> Array:
    """HU in each cell: perfused tissue with its grain, a rim at the front, what died in the depth, specks."""
    inside = np.maximum(depth_mm, 0)
    own = np.asarray(kind.hu) + np.asarray(seedling.shade) * kind.spread_hu
    reference = HOMES[kind.organ].reference
    level = float(site.contrast @ (np.asarray(tissues.TISSUES[reference].hu) + own))
    level += _FATTY * site.abdomen.patient.shift_hu.get(reference, 0.0)
    grain = noise.field(seedling.seed, "grain", float(rng.uniform(*kind.grain_mm)), lattice)
    clones = noise.field(seedling.seed, "clones", max(0.8 * seedling.diameter_mm / 2, 2.0), lattice)
    hu = np.float32(level) + np.float32(kind.grain_hu) * (np.float32(0.7) * grain + np.float32(0.7) * clones)
    rim = float(site.contrast @ np.asarray(kind.rim)) * rng.uniform(0.0, 1.5)
    rim_mm = min(kind.rim_mm, seedling.diameter_mm / 8)
    hu += np.float32(rim) * np.exp(-((inside / np.float32(rim_mm)) ** 2)) * expit(2 * clones + 0.5)
    if rng.random() < kind.core:
        reach = kind.reach_mm * rng.uniform(0.5, 1.3)
        dead = expit((inside - reach + 0.35 * reach * grain) / (0.12 * reach + 0.4))
        hu += dead * (np.float32(rng.uniform(*kind.core_hu)) - hu)
    if rng.random() < kind.specks:
        dots = noise.field(seedling.seed, "specks", 2.5, lattice)
        hu += np.float32(rng.uniform(150, 450)) * expit((dots - 2.1) * 6)
    return np.asarray(hu, np.float32)


def _placed(
    seedling: Seedling, abdomen: Abdomen, site: TumorBed, lattice: Geometry, grown: tuple[Array, Array], front_mm: float
) -> Finding | None:
    """The lattice's tumor in the patient's voxels, by their shares."""
    kind = KINDS[seedling.kind]
    depth_mm, hu = grown
    box = abdomen.fine.box_around(seedling.center_mm, 1.05 * kind.reach * seedling.diameter_mm / 2)
    grid = abdomen.fine.crop(box)
    parts = parts_of(grid, max(2 * lattice.spacing_mm[0], 0.5))
    small = divided(grid, parts)
    depth_there = Volume(depth_mm, lattice).to(small, fill=float(depth_mm.min())).data
    sub = expit(depth_there * np.float32(1.7 / front_mm))
    filled = block_mean(sub, parts)
    own = block_mean(sub * Volume(hu, lattice).to(small, fill=0).data, parts) / np.maximum(filled, 1e-4)
    open_to, there_hu = site.tissue(box, _paths(kind) > _BLOCKED)
    change = np.where(open_to > 0, own - there_hu, 0).astype(np.float32)
    host = tissues.structure_of(int(site.tissue_at(np.array([seedling.center_mm]))[0]))
    facts = {
        "kind": seedling.kind,
        "organ": kind.organ,
        "center_mm": [round(value, 1) for value in seedling.center_mm],
        "asked_mm": round(seedling.diameter_mm, 1),
        "front_mm": round(front_mm, 2),
    }
    share = (filled * open_to).astype(np.float32)
    return Finding(seedling.kind, kind.organ, box, share, change, tumor=True, host=host, facts=facts).trimmed()
