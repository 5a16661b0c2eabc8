"""What only looks like a tumor: cysts, haemangiomas, fat, scars, stones, metal. In the scan, never in a tumor mask."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.phantom.anatomy import noise, tissues
from synthoma.phantom.anatomy.body import column_y
from synthoma.phantom.anatomy.canvas import world_points
from synthoma.phantom.anatomy.organs import pancreas
from synthoma.phantom.anatomy.shapes import smooth_min
from synthoma.phantom.disease.kinds import HOMES
from synthoma.phantom.disease.sites import TumorBed
from synthoma.phantom.findings import Finding
from synthoma.phantom.grids import block_mean, divided, parts_of
from synthoma.volume import Geometry

Array = NDArray[Any]
Phases = tuple[float, float, float]
# signed distance in mm, and HU if they differ from place to place, of a sub-grid and its offsets from the center
Form = Callable[[Geometry, Array], tuple[Array, Any]]

_FAT = ("fat", "visceral_fat")
_LIVER = HOMES["liver"]
_FOSSA = (44.0, 50.0, 92.0)  # template place of the gallbladder


@dataclass(frozen=True)
class Spread:
    """Uniform between two values."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        return float(rng.uniform(self.low, self.high))


def draw_distractors(site: TumorBed, expected: dict[str, float], rng: np.random.Generator) -> list[Finding]:
    """Findings of a patient: of each name a Poisson number with this mean, where there is a free place."""
    found = []
    for name in DISTRACTORS:
        for _ in range(int(rng.poisson(expected.get(name, 0.0)))):
            found += [finding for finding in DISTRACTORS[name](site, rng) if finding is not None]
    return found


def _somewhere(site: TumorBed, rng: np.random.Generator, organ: str, radius_mm: float) -> Array | None:
    """A free place in an organ; it is taken."""
    home = HOMES[organ]
    for place in site.places(rng, home.tissues, home.lower, home.upper)[:20]:
        if site.free(place, radius_mm):
            site.take(place, radius_mm)
            return np.asarray(place)
    return None


def _made(
    site: TumorBed, kind: str, organ: str, center: Array, reach_mm: float, form: Form, into: Sequence[str],
    hu: Any = None, change: float | None = None, streaks_hu: float = 0.0,
) -> Finding | None:  # fmt: skip
    """A finding from its form: with its own HU, or changing those of the tissues it is in."""
    box = site.abdomen.fine.box_around(center.tolist(), reach_mm)
    if min(box.shape) < 1:
        return None
    grid = site.abdomen.fine.crop(box)
    parts = parts_of(grid, max(reach_mm / 10, 0.4))
    small = divided(grid, parts)
    offsets = np.stack(np.broadcast_arrays(*world_points(small)), axis=-1) - center.astype(np.float32)
    phi, own = form(small, offsets)
    voxel_mm = np.float32(small.voxel_mm3 ** (1 / 3))
    share = np.clip(np.float32(0.5) - phi / voxel_mm, 0, 1)
    filled = block_mean(share, parts)
    wanted = np.ones(256, bool) if not into else np.zeros(256, bool)
    for name in into:
        wanted[tissues.TISSUE_ID[name]] = True
    open_to, there_hu = site.tissue(box, wanted)
    if change is None:
        level = hu if own is None else own
        own_hu = block_mean(share * np.broadcast_to(level, share.shape), parts) / np.maximum(filled, 1e-4)
        changed = own_hu - there_hu
    else:
        changed = np.full(filled.shape, change)
    facts = {"kind": kind, "organ": organ, "center_mm": [round(float(value), 1) for value in center]}
    return Finding(
        kind, organ, box, (filled * open_to).astype(np.float32), changed.astype(np.float32),
        streaks_hu=streaks_hu, facts=facts,
    ).trimmed(0.05)  # fmt: skip


def _ball(radius_mm: float, lumps: Sequence[tuple[Array, float]] = ()) -> Form:
    """A ball with smaller ones grown together with it: offsets in mm and radii."""

    def form(_: Geometry, offsets: Array) -> tuple[Array, Any]:
        phi = np.linalg.norm(offsets, axis=-1) - np.float32(radius_mm)
        for offset, radius in lumps:
            phi = smooth_min(phi, np.linalg.norm(offsets - offset.astype(np.float32), axis=-1) - radius, radius_mm / 4)
        return phi, None

    return form


def _lumps(rng: np.random.Generator, radius_mm: float, most: int) -> list[tuple[Array, float]]:
    """Balls on the surface of a ball."""
    lumps = []
    for _ in range(int(rng.integers(0, most + 1))):
        way = rng.normal(size=3)
        size = radius_mm * rng.uniform(0.4, 0.75)
        lumps.append((way / np.linalg.norm(way) * radius_mm * rng.uniform(0.6, 0.95), float(size)))
    return lumps


def _cyst(organ: str, median_mm: float, into: Sequence[str]) -> Callable[[TumorBed, np.random.Generator], list[Any]]:
    """Water in a sharp round border, alike in all phases."""

    def draw(site: TumorBed, rng: np.random.Generator) -> list[Any]:
        radius = float(np.clip(median_mm / 2 * np.exp(rng.normal(0, 0.55)), 2, 28))
        center = _somewhere(site, rng, organ, radius + 2)
        if center is None:
            return []
        form = _ball(radius, _lumps(rng, radius, 2))
        return [_made(site, f"{organ}_cyst", organ, center, 2 * radius + 2, form, into, hu=rng.uniform(-2, 14))]

    return draw


def _haemangioma(site: TumorBed, rng: np.random.Generator) -> list[Any]:
    """Blood: lobulated, nodules at its rim as bright as vessels, filled later from there; small ones at once."""
    radius = float(np.clip(8 * np.exp(rng.normal(0, 0.5)), 3, 25))
    center = _somewhere(site, rng, "liver", radius + 2)
    if center is None:
        return []
    seed, lumps = int(rng.integers(1 << 40)), _lumps(rng, radius, 3)
    dark = 38.0
    early, late = ((dark, 235.0, 168.0), (dark, dark + 12, 120.0)) if radius > 6 else ((dark, 200.0, 165.0),) * 2
    bright, fill = float(site.contrast @ early), float(site.contrast @ late)

    def form(grid: Geometry, offsets: Array) -> tuple[Array, Any]:
        phi, _ = _ball(radius, lumps)(grid, offsets)
        phi = phi + 0.12 * radius * noise.field(seed, "haemangioma", 0.8 * radius, grid)
        nodules = noise.field(seed, "nodules", 0.7 * radius, grid)
        rim = np.clip(0.9 + phi / (0.2 * radius) + 0.9 * nodules, 0, 1)
        return phi, (fill + (bright - fill) * rim).astype(np.float32)

    return [_made(site, "haemangioma", "liver", center, 2 * radius + 3, form, ("liver",))]


def _focal_fat(site: TumorBed, rng: np.random.Generator) -> list[Any]:
    """More fat, or in a fatty liver less, in a geographic patch beside ligament or gallbladder; vessels run through."""
    place = ((-6.0, 66.0, 132.0), (-2.0, 58.0, 112.0), _FOSSA)[int(rng.integers(3))]
    center = site.abdomen.patient.to_world(np.array([place]) + rng.normal(0, 4, (1, 3)))[0]
    fatty = site.abdomen.patient.shift_hu.get("liver", 0.0)
    change = -0.8 * fatty if fatty < -14 else -rng.uniform(14, 38)
    half = np.array([rng.uniform(5, 10), rng.uniform(9, 18), rng.uniform(9, 20)])
    if not site.free(center, float(half.mean())):
        return []
    site.take(center, float(half.mean()))
    seed = int(rng.integers(1 << 40))

    def form(grid: Geometry, offsets: Array) -> tuple[Array, Any]:
        unit = np.abs(offsets / half.astype(np.float32))
        phi = (np.max(unit, axis=-1) * 0.6 + np.linalg.norm(unit, axis=-1) * 0.4 - 1) * np.float32(half.min())
        return phi + 3.0 * noise.field(seed, "fat", 14.0, grid) + 1.0 * noise.field(seed, "edge", 5.0, grid), None

    name = "focal_sparing" if change > 0 else "focal_fat"
    return [_made(site, name, "liver", center, float(half.max()) + 8, form, ("liver",), change=change)]


def _granuloma(site: TumorBed, rng: np.random.Generator) -> list[Any]:
    """A calcified speck of some millimeters."""
    radius = float(rng.uniform(1.2, 3.6))
    center = _somewhere(site, rng, "liver", radius + 2)
    if center is None:
        return []
    return [_made(site, "granuloma", "liver", center, radius + 2, _ball(radius), (), hu=rng.uniform(260, 850))]


def _wedge(
    name: str, organ: str, reach: Spread, change: tuple[Spread, Spread, Spread], width: Spread
) -> Callable[[TumorBed, np.random.Generator], list[Any]]:
    """A cone that opens toward the capsule: a scar, an infarct, a segment with other perfusion."""

    def draw(site: TumorBed, rng: np.random.Generator) -> list[Any]:
        length, slope = reach.draw(rng), width.draw(rng)
        center = _somewhere(site, rng, organ, 0.35 * length)
        if center is None:
            return []
        home = HOMES[organ]
        middle = (np.asarray(home.lower) + home.upper) / 2 * ((1, 1, 1) if organ == "liver" else (0.0, 1, 1))
        middle[0] = middle[0] if organ == "liver" else np.sign(center[0]) * 45
        way = center - site.abdomen.patient.to_world(middle[None])[0] + rng.normal(0, 12, 3)
        way = (way / np.linalg.norm(way)).astype(np.float32)
        seed = int(rng.integers(1 << 40))
        by_phase = np.array([spread.draw(rng) for spread in change])

        def form(grid: Geometry, offsets: Array) -> tuple[Array, Any]:
            along = offsets @ way
            aside = np.sqrt(np.maximum((offsets**2).sum(axis=-1) - along**2, 0))
            phi = aside - np.float32(slope) * (along + np.float32(length / 2))
            phi = np.maximum(phi * np.float32(0.9), np.abs(along) - np.float32(length / 2))
            return phi + 1.3 * noise.field(seed, "wedge", 7.0, grid), None

        return [
            _made(site, name, organ, center, length, form, home.tissues, change=float(site.contrast @ by_phase))
        ]  # fmt: skip

    return draw


def _clips(site: TumorBed, rng: np.random.Generator) -> list[Any]:
    """Surgical clips where a gallbladder was, with streaks."""
    center = site.abdomen.patient.to_world(np.array([_FOSSA]) + (-6, -14, 10))[0]
    clips = []
    for _ in range(int(rng.integers(2, 5))):
        way = rng.normal(size=3)
        way = (way / np.linalg.norm(way)).astype(np.float32)

        def form(_: Geometry, offsets: Array, way: Array = way) -> tuple[Array, Any]:
            along = np.clip(offsets @ way, -2.5, 2.5)
            return np.linalg.norm(offsets - along[..., None] * way, axis=-1) - 0.8, None

        place = center + rng.normal(0, 7, 3)
        streaks = float(rng.uniform(60, 170))
        clips.append(_made(site, "clip", "gall_bladder", place, 6, form, (), hu=3000.0, streaks_hu=streaks))
    return clips


def _stent(site: TumorBed, rng: np.random.Generator) -> list[Any]:
    """A metal mesh in the bile duct, from the hilum of the liver to the duodenum, with air or bile inside."""
    ends = site.abdomen.patient.to_world(np.array([(36.0, 14.0, 116.0), (44.0, 10.0, 76.0)]) + rng.normal(0, 2, (2, 3)))
    center, way = ends.mean(axis=0), (ends[1] - ends[0]).astype(np.float32)
    half = float(np.linalg.norm(way)) / 2
    way = way / np.float32(2 * half)
    inner = float(rng.choice([-300.0, 5.0]))

    def form(_: Geometry, offsets: Array) -> tuple[Array, Any]:
        along = offsets @ way
        aside = np.linalg.norm(offsets - along[..., None] * way, axis=-1)
        return np.maximum(aside - 4.2, np.abs(along) - half), np.where(aside > 3.3, 950.0, inner).astype(np.float32)

    return [_made(site, "stent", "liver", center, half + 5, form, (), streaks_hu=float(rng.uniform(15, 45)))]


def _screws(site: TumorBed, rng: np.random.Generator) -> list[Any]:
    """Screws of titanium through the pedicles of a lumbar vertebra, with streaks."""
    level = float(rng.choice([-2.0, 34.0, 68.0]))
    back = float(column_y(np.array([level]))[0]) - 30
    streaks, screws = float(rng.uniform(90, 260)), []
    for side in (-1, 1):
        ends = site.abdomen.patient.to_world(
            np.array([(20.0 * side, back - 14, level), (9.0 * side, back + 32, level)])
        )
        center, half = ends.mean(axis=0), ((ends[1] - ends[0]) / 2).astype(np.float32)

        def form(_: Geometry, offsets: Array, half: Array = half) -> tuple[Array, Any]:
            along = np.clip(offsets @ half / np.dot(half, half), -1, 1)
            return np.linalg.norm(offsets - along[..., None] * half, axis=-1) - 3.0, None

        reach = float(np.linalg.norm(half)) + 5
        screw = _made(site, "screw", "spine", center, reach, form, (), hu=3000.0, streaks_hu=streaks)
        screws.append(None if screw is None else replace(screw, streaks_mm=4.0))
    return screws


def _stone(site: TumorBed, rng: np.random.Generator) -> list[Any]:
    """Gallstones at the bottom of the bladder."""
    radius = float(rng.uniform(1.5, 6))
    tried = site.places(rng, ("gall_bladder",), (20, 20, 60), (70, 75, 115))
    if not len(tried):
        return []
    low = tried[np.argsort(tried[:, 1])[: max(1, len(tried) // 6)]]
    center = low[int(rng.integers(len(low)))]
    hu = float(rng.choice([rng.uniform(60, 140), rng.uniform(200, 600)]))
    return [_made(site, "gallstone", "gall_bladder", center, radius + 2, _ball(radius), ("gall_bladder",), hu=hu)]


def _mass(
    name: str, organ: str, box: tuple[Any, Any], into: Sequence[str], radius: Spread, hu: tuple[Spread, Spread, Spread]
) -> Callable[[TumorBed, np.random.Generator], list[Any]]:
    """A benign, smooth lump: a fibroid, a lymph node. into: the tissue it starts in, then those it may reach."""

    def draw(site: TumorBed, rng: np.random.Generator) -> list[Any]:
        size, level = radius.draw(rng), float(site.contrast @ np.array([spread.draw(rng) for spread in hu]))
        for center in site.places(rng, into[:1], *box)[:20]:
            if site.free(center, size):
                site.take(center, size)
                return [_made(site, name, organ, center, 2 * size, _ball(size, _lumps(rng, size, 1)), into, hu=level)]
        return []

    return draw


def draw_plaques(site: TumorBed, amount: float, rng: np.random.Generator) -> list[Finding]:
    """Calcium in the wall of the aorta, `amount` plaques on average."""
    from synthoma.phantom.anatomy.vessels import GREAT

    aorta = site.abdomen.patient.curve("vessels", GREAT[0][1])
    found = []
    for _ in range(int(rng.poisson(amount))):
        place = int(rng.integers(len(aorta.points) // 3, len(aorta.points)))
        angle, size = rng.uniform(0, 2 * np.pi), float(rng.uniform(1.0, 3.2))
        center = aorta.points[place] + aorta.radii[place] * np.array([np.cos(angle), np.sin(angle), 0])
        made = _made(site, "plaque", "aorta", center, size + 2, _ball(size), (), hu=float(rng.uniform(350, 950)))
        if made is not None:
            found.append(made)
    return found


def draw_duct(site: TumorBed, tumor: Finding, share: float) -> Finding | None:
    """The pancreatic duct, full of water and wide from a tumor that dams it to the tail, in this share of tumors."""
    rng = site.abdomen.patient.rng("duct", tumor.kind)
    line = pancreas(site.abdomen.patient).points
    start = int(np.linalg.norm(line - np.asarray(tumor.facts["center_mm"]), axis=1).argmin())
    dams, radius, hu = rng.random() < share, float(rng.uniform(1.6, 4.0)), float(rng.uniform(4, 16))
    if not dams or start > len(line) - 4:
        return None
    line = line[start:-1]
    center = line.mean(axis=0)

    def form(grid: Geometry, offsets: Array) -> tuple[Array, Any]:
        away = np.full(offsets.shape[:-1], np.inf, np.float32)
        for one, other in itertools.pairwise((line - center).astype(np.float32)):
            step = other - one
            along = np.clip((offsets - one) @ step / np.dot(step, step), 0, 1)
            np.minimum(away, np.linalg.norm(offsets - one - along[..., None] * step, axis=-1), out=away)
        return away - np.float32(radius) + 0.4 * noise.field(site.abdomen.patient.seed, "duct", 12.0, grid), None

    reach = float(np.linalg.norm(line - center, axis=1).max()) + radius + 2
    duct = _made(site, "dilated_duct", "pancreas", center, reach, form, ("pancreas",), hu=hu)
    return None if duct is None else _beside(duct, tumor)


def _beside(finding: Finding, tumor: Finding) -> Finding | None:
    """The finding without what a tumor fills; None if nothing is left."""
    share, common = finding.share.copy(), finding.box.overlap(tumor.box)
    if common is not None:
        share[common[0]] *= 1 - tumor.share[common[1]]
    return replace(finding, share=share).trimmed(0.05)


_NODE_HU = (Spread(32, 45), Spread(55, 85), Spread(65, 95))
DISTRACTORS: dict[str, Callable[[TumorBed, np.random.Generator], list[Any]]] = {
    "liver_cyst": _cyst("liver", 11, ("liver", "visceral_fat")),
    "kidney_cyst": _cyst("kidney", 18, (*HOMES["kidney"].tissues, *_FAT)),
    "pancreas_cyst": _cyst("pancreas", 9, ("pancreas", *_FAT)),
    "haemangioma": _haemangioma,
    "focal_fat": _focal_fat,
    "granuloma": _granuloma,
    "liver_scar": _wedge(
        "liver_scar", "liver", Spread(18, 40), (Spread(-10, -3), Spread(-16, -4), Spread(-34, -14)), Spread(0.2, 0.4)
    ),
    "perfusion": _wedge(
        "perfusion", "liver", Spread(22, 50), (Spread(-2, 2), Spread(14, 40), Spread(0, 9)), Spread(0.3, 0.6)
    ),
    "kidney_scar": _wedge(
        "kidney_scar", "kidney", Spread(14, 26), (Spread(-8, 0), Spread(-110, -60), Spread(-130, -70)), Spread(0.2, 0.5)
    ),
    "clips": _clips,
    "stent": _stent,
    "gallstone": _stone,
    "screws": _screws,
    "fibroid": _mass(
        "fibroid", "uterus", (HOMES["uterus"].lower, HOMES["uterus"].upper), ("uterus", "visceral_fat"), Spread(5, 20),
        (Spread(40, 55), Spread(50, 95), Spread(75, 120)),
    ),
    "lymph_node": _mass(
        "lymph_node", "retroperitoneum", ((-40, -30, 20), (50, 30, 120)), ("visceral_fat",), Spread(3, 8), _NODE_HU
    ),
}  # fmt: skip
