"""Cases (one scan of one patient, with its masks) and lesions (connected tumors in a mask, in mm)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import anatomy, files
from synthoma.errors import CaseError, SynthomaError
from synthoma.volume import Array, Box, Geometry, Volume


@dataclass(frozen=True)
class Label:
    """One structure inside a label map: the voxels holding any of `values`."""

    path: Path
    values: tuple[int, ...]


# Where voxels come from: a mask or image file, a label map, memory, or a function (which must pickle).
Source = Path | Label | Volume | Callable[[], Volume]


@dataclass(frozen=True, eq=False)
class Case:
    """One scan of one patient, with its masks; voxels are read when asked for.

    masks: structure (in `anatomy.canonical_name` spelling) -> source. A structure that is missing here is
    *not annotated*; one whose mask is empty is annotated and absent. The two are never mixed up.
    patient: what splits and bootstraps use; several cases may share one.
    attributes: phase, sex, hospital, ... as plain data.
    """

    id: str
    image: Source
    masks: Mapping[str, Source] = field(default_factory=dict)
    patient: str = ""
    dataset: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.id)

    def read_image(self, box: Box | None = None) -> Volume:
        """The scan in HU, or a box of it."""
        with self.named():
            if isinstance(self.image, Path):
                return files.read_image(self.image, box)
            if isinstance(self.image, Label):
                raise CaseError("a label map is not a scan", found=self.image.path)
            whole = self.image if isinstance(self.image, Volume) else self.image()
            return whole if box is None else whole.crop(box)

    def read_geometry(self) -> Geometry:
        """The scan's grid; of a file, from its header alone."""
        with self.named():
            if isinstance(self.image, Path):
                return files.read_geometry(self.image)
        return self.read_image().geometry

    def read_mask(self, structure: str, box: Box | None = None) -> Volume:
        """One structure as a bool mask, or a box of it; `CaseError` if it is not annotated."""
        return self.read_masks([structure], box)[structure]

    def read_masks(self, structures: Iterable[str] | None = None, box: Box | None = None) -> dict[str, Volume]:
        """Structures as bool masks, all of them unless told."""
        return dict(self.each_mask(structures, box))

    def each_mask(
        self, structures: Iterable[str] | None = None, box: Box | None = None
    ) -> Iterator[tuple[str, Volume]]:
        """The same, one after the other in the order asked for, so that thirty masks need the memory of one.

        Structures of one label map that follow each other are read from it at once.
        """
        wanted = list(self.masks) if structures is None else list(structures)
        path: Path | None = None
        for name in wanted:
            with self.named():
                source = self.masks.get(name)
                if source is None:
                    raise CaseError(f"{name} is not annotated", expected=f"one of {', '.join(self.masks) or 'none'}")
                if isinstance(source, Label):
                    if source.path != path:
                        labels, path = files.read_labels(source.path, box), source.path
                    mask = Volume(_where(labels.data, source.values), labels.geometry)
                elif isinstance(source, Path):
                    mask = files.read_labels(source, box)
                else:
                    whole = source if isinstance(source, Volume) else source()
                    mask = whole if box is None else whole.crop(box)
                mask = Volume(_as_bool(mask.data), mask.geometry)
            yield name, mask

    def has_organ(self, organ: str) -> bool:
        """Whether any part of the organ is annotated."""
        return any(part in self.masks for part in anatomy.organ(organ).structures)

    def read_organ(self, organ: str, box: Box | None = None) -> Volume:
        """An organ as one bool mask: its annotated parts (both kidneys) and the tumors inside it.

        Raises `CaseError` if no part of it is annotated.
        """
        parts = [part for part in anatomy.organ(organ).structures if part in self.masks]
        if not parts:
            raise CaseError(
                f"the {organ} is not annotated",
                case=self.id,
                found=", ".join(self.masks) or "no mask",
                expected=" or ".join(anatomy.organ(organ).structures),
                fix="leave the organ out of the recipe, or segment it first",
            )
        lesion = anatomy.organ(organ).lesion
        masks = list(self.read_masks(parts + [lesion] * (lesion in self.masks), box).values())
        return Volume(np.logical_or.reduce([mask.data for mask in masks]), masks[0].geometry)

    def named(self) -> _CaseNamed:
        """A block whose `SynthomaError` names this case."""
        return _CaseNamed(self.id)


class _CaseNamed:
    """A block whose `SynthomaError` names the case."""

    def __init__(self, case: str) -> None:
        self.case = case

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SynthomaError) and error.case is None:
            raise error.of_case(self.case) from error


def _as_bool(data: Array) -> Array:
    """Where a mask is not 0; the same memory if it holds 0 and 1 only."""
    if data.dtype == np.uint8 and data.max(initial=0) <= 1:
        return data.view(bool)
    return data if data.dtype == bool else data != 0


def _where(labels: Array, values: tuple[int, ...]) -> Array:
    if len(values) == 1:
        return np.asarray(labels == values[0])
    table = np.zeros(np.iinfo(labels.dtype).max + 1, bool)
    table[[value for value in values if value < table.size]] = True
    return table[labels]


@dataclass(frozen=True)
class Lesion:
    """One connected tumor of a mask. Made by `find_lesions` only.

    index: 1, 2, ... by falling volume. equivalent_diameter_mm: of the ball of the same volume. center_mm: centroid,
    RAS+. box: in voxels of the mask. synthetic: made by us.
    """

    case: str
    organ: str
    index: int
    voxels: int
    volume_ml: float
    equivalent_diameter_mm: float
    center_mm: tuple[float, float, float]
    box: Box
    synthetic: bool = False


def find_lesions(mask: Volume, organ: str, case: str = "", synthetic: bool = False) -> list[Lesion]:
    """The 26-connected components of a tumor mask, largest first; an empty mask gives an empty list."""
    return _components(mask, organ, case, synthetic)[0]


def label_lesions(mask: Volume, organ: str, case: str = "") -> tuple[list[Lesion], Array, Box]:
    """The same, with each lesion's index in its voxels on the box of all of them; empty if the mask is."""
    lesions, labels, order, box = _components(mask, organ, case, synthetic=False)
    ranks = np.zeros(len(order) + 1, labels.dtype)
    ranks[order] = np.arange(1, len(order) + 1)
    return lesions, ranks[labels], box


def _components(mask: Volume, organ: str, case: str, synthetic: bool) -> tuple[list[Lesion], Array, Array, Box]:
    """Lesions, largest first; the components as labeled, on their box; the label of each lesion."""
    import cc3d

    whole = Box.around(mask.data)
    if whole is None:
        return [], np.zeros((0, 0, 0), np.uint16), np.zeros(0, np.int64), Box((0, 0, 0), (0, 0, 0))
    part = np.ascontiguousarray(mask.data[whole.slices] != 0)
    labels = cc3d.connected_components(part, connectivity=26)
    table = cc3d.statistics(labels)
    order = np.argsort(-table["voxel_counts"][1:].astype(np.int64), kind="stable") + 1
    lesions = []
    for index, label in enumerate(order.tolist(), start=1):
        voxels = int(table["voxel_counts"][label])
        mm3 = voxels * mask.geometry.voxel_mm3
        i, j, k = (s for s in table["bounding_boxes"][label])
        box = Box(
            tuple(s.start + low for s, low in zip((i, j, k), whole.lower, strict=True)),
            tuple(s.stop + low for s, low in zip((i, j, k), whole.lower, strict=True)),
        )
        x, y, z = mask.geometry.to_mm(table["centroids"][label] + np.asarray(whole.lower)).tolist()
        lesions.append(
            Lesion(case, organ, index, voxels, mm3 / 1000, equivalent_diameter_mm(mm3), (x, y, z), box, synthetic)
        )
    return lesions, labels, order, whole


def equivalent_diameter_mm(volume_mm3: float) -> float:
    """Diameter of the ball of this volume; 0 for 0."""
    return float((6 * volume_mm3 / np.pi) ** (1 / 3))
