"""The order in which a patient is drawn, and what comes out: two tissues per voxel and their shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.datasets.insilico import body, bowel, organs, skeleton, tissues, trees, vessels
from synthoma.datasets.insilico.canvas import Canvas
from synthoma.datasets.insilico.patient import Patient
from synthoma.datasets.insilico.shapes import Curve
from synthoma.volume import Box, Geometry, Volume

Array = NDArray[Any]

_SLAB_VOXELS = 4_000_000


@dataclass(frozen=True, eq=False)
class Abdomen:
    """One patient on one grid, before any scanner.

    main, under: the tissue ids (`tissues.TISSUES`) that fill most of each voxel; share: what part `main`
    fills, in 1/255.
    """

    patient: Patient
    geometry: Geometry
    main: Array
    under: Array
    share: Array

    def mask(self, structure: str) -> Volume:
        """One structure as an annotator draws it: a liver includes its veins, a bowel its contents."""
        return Volume(tissues.members(structure)[self.main], self.geometry)

    def labels(self) -> Volume:
        """uint8 label map of `anatomy.STRUCTURES`; where structures overlap, the finer one shows."""
        return Volume(tissues.label_by_id()[self.main], self.geometry)


@dataclass(frozen=True)
class Courses:
    """What is found once per patient and drawn in every slab: bowel loops and vessel trees."""

    loops: list[Curve]
    liver: list[trees.Tree]
    strands: list[trees.Tree]


def draw_abdomen(patient: Patient, geometry: Geometry) -> Abdomen:
    """The patient on any grid; the same places hold the same tissue whatever the spacing or the field of view.

    Drawn in slabs along the third axis, so memory does not grow with the grid.
    """
    main, under, share = (np.empty(geometry.shape, np.uint8) for _ in range(3))
    courses = Courses(
        bowel.small_bowel(patient),
        trees.liver_trees(patient),
        [*trees.mesenteric_trees(patient), *trees.lung_trees(patient)],
    )
    for box in _slabs(geometry):
        canvas = _draw(patient, geometry.crop(box), courses)
        main[box.slices], under[box.slices], share[box.slices] = canvas.main, canvas.under, canvas.share
    return Abdomen(patient, geometry, main, under, share)


def _slabs(geometry: Geometry) -> Iterator[Box]:
    i, j, k = geometry.shape
    thick = max(1, _SLAB_VOXELS // max(1, i * j))
    for first in range(0, k, thick):
        yield Box((0, 0, first), (i, j, min(k, first + thick)))


def _draw(patient: Patient, geometry: Geometry, courses: Courses) -> Canvas:
    canvas = Canvas(patient, geometry)
    body.draw_trunk(canvas)
    body.draw_thorax(canvas)
    skeleton.draw_muscles(canvas)
    skeleton.draw_spine(canvas)
    skeleton.draw_ribs(canvas)
    skeleton.draw_pelvis(canvas)
    vessels.draw_great_vessels(canvas)
    bowel.draw_esophagus(canvas)
    organs.draw_kidneys(canvas)
    organs.draw_adrenals(canvas)
    organs.draw_pancreas(canvas)
    bowel.draw_duodenum(canvas)
    organs.draw_liver(canvas)
    for tree in courses.liver:
        trees.draw_tree(canvas, tree)
    organs.draw_gall_bladder(canvas)
    organs.draw_spleen(canvas)
    bowel.draw_stomach(canvas)
    organs.draw_bladder(canvas)
    if patient.sex == "female":
        organs.draw_uterus(canvas)
    else:
        organs.draw_prostate(canvas)
    bowel.draw_colon(canvas)
    bowel.draw_small_bowel(canvas, courses.loops)
    for tree in courses.strands:
        trees.draw_tree(canvas, tree)
    return canvas
