"""A scan while tumors are put into it: the voxels so far, what lies where, and what may not be touched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy
from synthoma.bounded import EMPTY, Bounded, zeros_like
from synthoma.errors import CaseError
from synthoma.synthesis import coarse
from synthoma.synthesis.depth import depth_in, even_place
from synthoma.synthesis.insertion import mass_effect
from synthoma.synthesis.location import OrganModel, measure_organ
from synthoma.synthesis.scan import Noise
from synthoma.synthesis.tumor import Vector
from synthoma.volume import Array, Box, Geometry, Triple, Volume

FRAME = "RAS"  # the axes that tumors are put in along, however a file stores its voxels
# numbers in the map: `anatomy.STRUCTURES`' ids, whose last ones are tumors, then other tumors, then other structures
_FIRST_TUMOR = min(number for name, number in anatomy.STRUCTURES.items() if anatomy.is_lesion(name))
_OTHER_TUMOR = 1 + max(anatomy.STRUCTURES.values())
_IGNORED = 255  # voxels that nobody annotated, as untouchable as real tumors; the same in a training's label maps
# tumors grow around these: lying on them is not lying in another organ
_INFILTRATED = ("hepatic_vessel", "portal_vein_and_splenic_vein", "celiac_trunk")


class Scene:
    """Working copies of a scan and its masks. Made from a case's volumes, which stay as they are."""

    def __init__(self, case: str, ct: Volume, stored: Geometry | None = None, hu: Array | None = None) -> None:
        """hu: the voxels of `ct` to put tumors into, unless they are to be a copy."""
        self.case = case
        self.geometry: Geometry = ct.geometry
        self.stored = stored or ct.geometry  # the same grid with the axes of the file
        self.original = ct
        self.hu: Array = zeros_like(ct.data, ct.data.shape) if hu is None else hu
        if hu is None:
            self.hu[...] = ct.data
        self.masks: dict[str, Bounded] = {}
        self.numbers: dict[str, int] = {}
        self.boxes: dict[str, Box] = {}
        self.sizes = np.zeros(256, np.int64)  # voxels by number in the map; 0 for tumors, which nothing hides
        self.map: NDArray[np.uint8] | None = None  # None while the scan has no structure
        self.moved: set[str] = set()  # masks that mass effects have moved out of their boxes
        self._noises: dict[Vector, Noise] = {}
        self._depth = cache(depth_in)
        self._even: dict[Triple, tuple[Vector, Box | None]] = {}  # what `location.even_place` tells at these steps

    @classmethod
    def of_labels(
        cls, ct: Volume, labels: NDArray[np.uint8], masks: Mapping[str, Array], hu: Array | None = None
    ) -> Scene:
        """A scan, or a part of one, and its structures as one label map, ids of `anatomy.STRUCTURES`; it is kept.

        masks: the organs that tumors will be put into, real tumors included. hu: as for a scene; `original` then has
        the tumors too, so the noise has to be known.
        """
        scene = cls("", ct, hu=hu)
        scene.numbers = anatomy.STRUCTURES
        scene.map = labels
        whole = Box.whole(labels.shape)
        scene.masks = {name: Bounded(ct.geometry, whole, mask) for name, mask in masks.items()}
        return scene

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """The structure that each voxel of a box belongs to now; 0 for none. As in `anatomy.STRUCTURES`, if there."""
        return np.zeros(box.shape, np.uint8) if self.map is None else self.map[box.slices]

    @property
    def ct(self) -> Volume:
        """The scan with the tumors so far."""
        return Volume(self.hu, self.geometry)

    def add_mask(self, name: str, mask: Bounded, keep: bool) -> None:
        """A structure of the case; `keep` the ones that plans, phase or moved masks need, map the others only."""
        if keep:
            self.masks[name] = Bounded(self.geometry, mask.box, mask.data)
        if mask.box != EMPTY:
            self.boxes[name] = mask.box
        tumor = anatomy.is_lesion(name) or name == anatomy.IGNORE
        next_free = 1 + max(_OTHER_TUMOR, *(number for number in self.numbers.values() if number != _IGNORED), 0)
        number = anatomy.STRUCTURES.get(name, _OTHER_TUMOR if tumor else next_free)
        if name == anatomy.IGNORE:
            number = _IGNORED
        elif name in _INFILTRATED or number >= _IGNORED:
            return
        self.numbers[name] = number
        if mask.box == EMPTY:
            return
        if self.map is None:
            self.map = zeros_like(self.hu, self.hu.shape, np.uint8)
        # of structures that overlap the smaller one shows: a body mask must not hide the organs
        inside, part = mask.data, self.map[mask.box.slices]
        if not tumor:
            self.sizes[number] = np.count_nonzero(inside)
            if (inside & (part != 0)).any():
                inside = inside & ((self.sizes > self.sizes[number]) | (np.arange(256) == 0))[part]
        np.copyto(part, np.uint8(number), where=inside)

    def volumes(self) -> dict[str, Volume]:
        """The kept masks, moved by the mass effect so far."""
        return {name: mask.whole for name, mask in self.masks.items()}

    def organ(self, organ: str, center_mm: Iterable[float], reach_mm: float) -> Volume:
        """An organ's mask, its real tumors included, in a box of `reach_mm` around a point.

        Raises `CaseError` if the organ is not annotated.
        """
        box = self.geometry.box_around(tuple(center_mm), reach_mm)
        kind = anatomy.organ(organ)
        parts = [self.masks[name].on(box) for name in (*kind.structures, kind.lesion) if name in self.masks]
        if not parts:
            raise CaseError(f"the {organ} is not annotated", case=self.case, expected=" or ".join(kind.structures))
        return Volume(parts[0] if len(parts) == 1 else np.logical_or.reduce(parts), self.geometry.crop(box))

    def measure_organ(self, organ: str, phase: str, blur_mm: float, vessel_veto: bool) -> OrganModel:
        """The model of the organ as it is now; errors as `location.measure_organ`."""
        step = coarse.steps(self.geometry, organ)
        others = None if self.map is None else partial(self._coarse_others, self.map, step, organ)
        return measure_organ(
            self.ct, self.masks, organ, phase, blur_mm, self.case, vessel_veto, others, self._even_place
        )

    def _even_place(self, step: Triple) -> Vector:
        """`location.even_place` of the scan as it is now."""
        if step not in self._even:
            self._even[step] = even_place(self.ct, self.masks, step, self._depth)
        return self._even[step][0]

    def occupied(self, box: Box, organ: str) -> NDArray[np.bool_]:
        """Where in a box other structures, real tumors or tumors put in before are: nothing may change there."""
        return np.zeros(box.shape, bool) if self.map is None else self._others(self.map[box.slices], organ)

    def _coarse_others(self, numbers: NDArray[np.uint8], step: Triple, organ: str, box: Box) -> NDArray[np.bool_]:
        return self._others(np.array(coarse.thin(numbers, box, step)), organ)

    def _others(self, numbers: NDArray[np.uint8], organ: str) -> NDArray[np.bool_]:
        return others_of_labels(numbers, organ, self.numbers)

    def noise(self, center_mm: Vector) -> Noise:
        """The healthy scan's noise at a place."""
        if center_mm not in self._noises:
            self._noises[center_mm] = Noise.at(self.original, center_mm)
        return self._noises[center_mm]

    def holds_tumor(self, box: Box) -> bool:
        """Whether any tumor, real or put in before, or what nobody annotated, lies in a box."""
        if self.map is None:
            return False
        numbers = self.map[box.slices]
        return bool((((numbers >= _FIRST_TUMOR) & (numbers <= _OTHER_TUMOR)) | (numbers == _IGNORED)).any())

    def settle(
        self,
        box: Box,
        voxels: Array,
        mask: NDArray[np.bool_],
        organ: str,
        displacement: mass_effect.Displacement | None,
    ) -> None:
        """Take a tumor's voxels as part of the scan, and move every mask by its mass effect."""
        self.hu[box.slices] = voxels
        changed = box if displacement is None else box.hull(displacement.box)
        self._even = {step: (mm, of) for step, (mm, of) in self._even.items() if of and not of.meets(changed)}
        if displacement is not None:
            for name, structure in self.masks.items():
                part = structure.on(displacement.box)
                if part.any():
                    self.moved.add(name)
                    if not np.array_equal(part, moved := mass_effect.move_mask(part, displacement)):
                        self.masks[name] = structure.changed(displacement.box, moved)
            if self.map is not None:
                self.map[displacement.box.slices] = mass_effect.move_mask(
                    self.map[displacement.box.slices], displacement
                )
        if self.map is None:
            self.map = zeros_like(self.hu, self.hu.shape, np.uint8)
        np.copyto(self.map[box.slices], np.uint8(anatomy.STRUCTURES[anatomy.organ(organ).lesion]), where=mask)


def organ_of_labels(labels: NDArray[np.uint8], organ: str) -> NDArray[np.bool_]:
    """An organ with its tumors in a label map of `anatomy.STRUCTURES`."""
    kind = anatomy.organ(organ)
    found = np.asarray(labels == anatomy.STRUCTURES[kind.lesion])
    for name in kind.parts:
        found |= labels == anatomy.STRUCTURES[name]
    return found


def others_of_labels(
    labels: NDArray[np.uint8], organ: str, numbers: Mapping[str, int] = anatomy.STRUCTURES
) -> NDArray[np.bool_]:
    """Where a label map shows anything but an organ's own tissue; numbers: of the structures in it."""
    # along memory, also where an axis runs backwards, which is turned once, at the end
    turns = tuple(slice(None, None, -1 if step < 0 else 1) for step in labels.strides)
    forward = labels[turns]
    others = np.asarray(forward != 0)
    for name in anatomy.organ(organ).structures:
        if name in numbers:
            others &= forward != numbers[name]
    return others if min(labels.strides) >= 0 else others[turns].copy(order="K")


def scan_digest(ct: Volume, first_format: bool = False) -> str:
    """16 hexadecimal digits of a scan's grid and of every few of its voxels: tells scans apart at little cost.

    first_format: as the first manifests have it, where a zero of the affine may be negative.
    """
    i, j, k = (max(1, int(3.0 / spacing)) for spacing in ct.geometry.spacing_mm)
    digest = hashlib.blake2b(digest_size=8)
    affine = (ct.geometry.affine.round(3) + (-0.0 if first_format else 0.0)).tolist()
    digest.update(repr((ct.data.shape, affine, str(ct.data.dtype))).encode())
    digest.update(ct.data[::i, ::j, ::k].tobytes(order="F"))
    return digest.hexdigest()
