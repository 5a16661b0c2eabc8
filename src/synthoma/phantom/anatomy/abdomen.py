"""The order in which a patient is drawn, and what comes out: two tissues per voxel and their shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.anatomy import STRUCTURES
from synthoma.phantom.anatomy import arms, body, bowel, fluid, organs, skeleton, tissues, trees, vessels
from synthoma.phantom.anatomy.canvas import Canvas
from synthoma.phantom.anatomy.patient import Patient
from synthoma.phantom.anatomy.shapes import Curve
from synthoma.phantom.findings import Finding, half_filled
from synthoma.phantom.grids import block_mean, divided
from synthoma.volume import Box, Geometry, Volume

Array = NDArray[Any]

_SLAB_VOXELS = 4_000_000
# organs that a patient can live without; of the liver, what lies left of its fissure
REMOVABLE = ("gall_bladder", "spleen", "kidney_left", "kidney_right", "uterus", "liver_left")
_CUBE_MM = 2.5  # slices thicker than this are drawn in parts


@dataclass(frozen=True, eq=False)
class Abdomen:
    """One patient on one grid, before any scanner.

    main, under: the tissue ids (`tissues.TISSUES`) that fill most of each fine voxel; share: what part `main`
    fills, in 1/255. Each voxel of `geometry` holds `parts` fine voxels along its axes: one where it is nearly
    a cube, several along a slice thicker than that. findings: what is not healthy tissue, laid over it.
    """

    patient: Patient
    geometry: Geometry
    parts: tuple[int, int, int]
    main: Array
    under: Array
    share: Array
    findings: tuple[Finding, ...] = ()

    @property
    def fine(self) -> Geometry:
        """The grid of the fine voxels."""
        return divided(self.geometry, self.parts)

    def mask(self, structure: str) -> Volume:
        """One structure as an annotator draws it: a liver includes its veins and tumors, a bowel its contents.

        A tumor's voxels are those that it fills to at least half; they belong to its organ and to no other.
        """
        organ = structure.removesuffix("_lesion")
        if organ != structure:
            return Volume(self._filled(lambda tumor: tumor.organ == organ), self.geometry)
        inside = tissues.members(structure)[self.main]
        if self.parts != (1, 1, 1):
            inside = block_mean(inside.astype(np.float32), self.parts) >= 0.5
        if any(finding.tumor for finding in self.findings):
            others = self._filled(lambda tumor: tumor.host != structure)
            inside = (inside & ~others) | self._filled(lambda tumor: tumor.host == structure)
        return Volume(inside, self.geometry)

    def _filled(self, wanted: Callable[[Finding], bool]) -> Array:
        tumors = [finding for finding in self.findings if finding.tumor and wanted(finding)]
        return half_filled(tumors, self.fine.shape, self.parts)

    def labels(self) -> Volume:
        """uint8 label map of `anatomy.STRUCTURES`; where structures overlap, the finer one shows."""
        labels = Volume(tissues.label_by_id()[self.main], self.fine).to(self.geometry, labels="majority")
        for organ in sorted({finding.organ for finding in self.findings if finding.tumor}):
            lesion = f"{organ}_lesion"
            labels = Volume(np.where(self.mask(lesion).data, np.uint8(STRUCTURES[lesion]), labels.data), self.geometry)
        return labels


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
    limit = max(_CUBE_MM, min(geometry.spacing_mm))
    # an odd number of parts has a majority
    i, j, k = (1 + 2 * int(np.ceil((spacing / limit - 1) / 2 - 1e-6)) for spacing in geometry.spacing_mm)
    fine = divided(geometry, (i, j, k))
    main, under, share = (np.empty(fine.shape, np.uint8) for _ in range(3))
    courses = Courses(
        bowel.small_bowel(patient),
        trees.liver_trees(patient),
        [*trees.mesenteric_trees(patient), *trees.lung_trees(patient)],
    )
    for box in slabs(fine, 1):
        canvas = _draw(patient, fine.crop(box), courses)
        main[box.slices], under[box.slices], share[box.slices] = canvas.main, canvas.under, canvas.share
    return Abdomen(patient, geometry, (i, j, k), main, under, share)


def slabs(geometry: Geometry, step: int) -> Iterator[Box]:
    """Boxes across the third axis, a multiple of `step` thick, that together cover the grid."""
    i, j, k = geometry.shape
    thick = step * max(1, _SLAB_VOXELS // max(1, i * j * step))
    for first in range(0, k, thick):
        yield Box((0, 0, first), (i, j, min(k, first + thick)))


def _draw(patient: Patient, geometry: Geometry, courses: Courses) -> Canvas:
    canvas, there = Canvas(patient, geometry), set(REMOVABLE) - set(patient.absent)
    body.draw_trunk(canvas)
    body.draw_thorax(canvas)
    if patient.ascites_mm:
        fluid.draw_ascites(canvas)
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
    if "gall_bladder" in there:
        organs.draw_gall_bladder(canvas)
    if "spleen" in there:
        organs.draw_spleen(canvas)
    bowel.draw_stomach(canvas)
    if patient.sex == "female":
        if "uterus" in there:
            organs.draw_uterus(canvas)
    else:
        organs.draw_prostate(canvas)
    organs.draw_bladder(canvas)
    bowel.draw_colon(canvas)
    bowel.draw_small_bowel(canvas, courses.loops)
    for tree in courses.strands:
        trees.draw_tree(canvas, tree)
    if patient.ascites_mm:
        fluid.flood_pelvis(canvas)
    if patient.arms:
        arms.draw_arms(canvas)
    return canvas
