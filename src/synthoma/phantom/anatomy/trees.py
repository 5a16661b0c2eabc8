"""Trees of small vessels, grown toward places that need blood: liver, mesentery, retroperitoneum, lungs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.phantom.anatomy import body
from synthoma.phantom.anatomy.canvas import Canvas
from synthoma.phantom.anatomy.organs import LIVER_BOX, liver_shape
from synthoma.phantom.anatomy.patient import Patient
from synthoma.phantom.anatomy.shapes import FAR_MM, Curve, points_of
from synthoma.phantom.anatomy.vessels import PORTAL

Array = NDArray[Any]
Inside = Callable[[Array], Array]


@dataclass(frozen=True)
class Tree:
    """Branches in world mm, the tissue they are made of, and the tissues they are seen in."""

    tissue: str
    inside: tuple[str, ...]
    branches: list[Curve]


def liver_trees(patient: Patient) -> list[Tree]:
    """Three hepatic veins from the cava and the portal tree from the hilum, with their branches."""

    def deep(tried: Array) -> Array:
        result: Array = liver_shape(points_of(tried), patient) < -9
        return result

    rng = patient.rng("liver vessels")
    mains = np.array([(78, 0, 150), (92, -20, 165), (44, 40, 150), (2, 50, 160), (70, -48, 160)], float)
    mains = patient.to_world(mains + rng.normal(0, 5, mains.shape))
    roots = patient.to_world(np.array([(22, -14, 188), (23, -10, 192)]))
    targets = np.concatenate([mains, _places(patient, "hepatic veins", 70, *LIVER_BOX, deep)])
    veins = _grow(rng, roots, targets, 1.5)
    mains = np.array([(62, 4, 126), (82, 14, 132), (74, -28, 122), (20, 22, 136), (-4, 44, 146)], float)
    mains = patient.to_world(mains + rng.normal(0, 4, mains.shape))
    roots = patient.curve("vessels", PORTAL[0]).points[-2:]
    targets = np.concatenate([mains, _places(patient, "portal branches", 95, *LIVER_BOX, deep)])
    portal = _grow(rng, roots, targets, 1.25)
    return [
        Tree("hepatic_vein", ("liver",), veins),
        Tree("portal_vein_in_liver", ("liver", "portal_vein"), portal),
    ]


def mesenteric_trees(patient: Patient) -> list[Tree]:
    """Small vessels through the fat between the loops and behind them."""

    def between(tried: Array) -> Array:
        result: Array = body.cavity(points_of(tried)) < -10
        return result

    trees = []
    for name, count, low, high, root, tip_mm in (
        ("mesentery", 190, (-95, -10, -70), (95, 76, 100), [(2, 20, 70), (6, 24, 40)], 0.8),
        ("retroperitoneum", 40, (-100, -70, -40), (100, 10, 120), [(0, -6, 40), (0, -6, 60)], 0.6),
        ("pelvis", 30, (-60, -80, -165), (60, 50, -60), [(0, -30, -60), (0, -30, -80)], 0.8),
    ):
        targets = _places(patient, name, count, low, high, between)
        branches = _grow(patient.rng(name), patient.to_world(np.array(root)), targets, tip_mm)
        trees.append(Tree("vein", ("visceral_fat",), branches))
    return trees


def lung_trees(patient: Patient) -> list[Tree]:
    """Vessels that thin out toward the pleura."""

    def above(tried: Array) -> Array:
        points = points_of(tried)
        return np.asarray((body.cavity(points) < -6) & (body.dome(points) > 6) & (points.z > 110))

    trees = []
    for side, name in ((1, "right"), (-1, "left")):
        low, high = sorted((side * 25.0, side * 135.0))
        targets = _places(patient, f"lung {name}", 130, (low, -95, 110), (high, 85, 290), above)
        root = patient.to_world(np.array([(side * 34, -24, 300), (side * 40, -30, 280)]))
        branches = _grow(patient.rng(f"lung {name}"), root, targets, 0.95)
        trees.append(Tree(f"lung_vessel_{name}", (f"lung_{name}",), branches))
    return trees


def _grow(rng: np.random.Generator, roots: Array, targets: Array, tip_mm: float, power: float = 2.7) -> list[Curve]:
    """Branches from root points (M, 3) to every target (N, 3), each joined to the nearest branch so far.

    Radii follow Murray's law with this power: a parent's radius^power is the sum of its children's; tips have
    `tip_mm`. World mm in and out; targets nearest to the roots come first.
    """
    nodes = np.empty((len(roots) + 60 * len(targets), 3))
    nodes[: len(roots)] = roots
    used, parent, ends = len(roots), list(range(-1, len(roots) - 1)), []
    order = np.argsort(np.linalg.norm(targets - roots[-1], axis=1))
    for target in np.asarray(targets, float)[order]:
        near = int(np.argmin(((nodes[:used] - target) ** 2).sum(axis=1)))
        start = nodes[near].copy()
        length = float(np.linalg.norm(target - start))
        steps = min(60, max(1, round(length / 9)))
        bow = rng.normal(0, 0.12 * length, 3)
        for step in range(1, steps + 1):
            nodes[used] = start + (target - start) * step / steps + bow * np.sin(np.pi * step / steps)
            parent.append(near)
            near, used = used, used + 1
        ends.append(near)
    nodes = nodes[:used]
    load = np.zeros(len(nodes))
    for end in ends:
        while end >= 0:
            load[end] += 1
            end = parent[end]
    radii = tip_mm * np.maximum(load, 1) ** (1 / power)
    return _branches(nodes, parent, radii, ends)


def _branches(nodes: Array, parent: list[int], radii: Array, ends: list[int]) -> list[Curve]:
    """Paths from each tip down to what another path has covered already."""
    done = np.zeros(len(nodes), bool)
    curves = []
    for end in sorted(ends, key=lambda node: -radii[node]):
        path = [end]
        while not done[path[-1]] and parent[path[-1]] >= 0:
            done[path[-1]] = True
            path.append(parent[path[-1]])
        if len(path) > 1:
            line = np.array(path[::-1])
            thick = radii[line].copy()
            thick[0] = thick[1]
            curves.append(Curve(nodes[line], thick))
    return curves


def draw_tree(canvas: Canvas, tree: Tree) -> None:
    """Paint the branches inside the tissues they run through and nowhere else."""
    for curve in tree.branches:
        tube = canvas.tube(curve, reach_mm=3)
        if tube is not None:
            allowed = canvas.holds(tube.region, tree.tissue, *tree.inside)
            canvas.paint(tree.tissue, np.where(allowed, tube.phi, FAR_MM), tube.region)


def _places(patient: Patient, name: str, count: int, lower: Any, upper: Any, inside: Any) -> Array:
    """World positions (<= count, 3) spread evenly over the part of a template box where `inside(points)` holds."""
    rng = patient.rng("targets", name)
    tried = rng.uniform(lower, upper, (count * 12, 3))
    kept = tried[inside(tried)]
    chosen = np.empty((count, 3))
    used = 0
    apart = 0.8 * (np.prod(np.subtract(upper, lower)) * len(kept) / len(tried) / count) ** (1 / 3)
    for place in kept:
        if used == count:
            break
        if not used or np.linalg.norm(chosen[:used] - place, axis=1).min() > apart:
            chosen[used] = place
            used += 1
    return patient.to_world(chosen[:used])
