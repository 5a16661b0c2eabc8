"""Cases as nnU-Net keeps them preprocessed, in memory: arrays in its order of axes, cropped, normalized as CT."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from synthoma.cases import Case
from synthoma.integrations.labels import label_scheme
from synthoma.integrations.nnunet.normalization import CtNormalization
from synthoma.integrations.nnunet.preparation import Preparation
from synthoma.synthesis.online.online import Fixed, Online
from synthoma.volume import Array, Geometry, Volume

LABELS = {"background": 0, "liver": 1, "tumor": 2}
WIDE = CtNormalization(mean_hu=50.0, sd_hu=100.0, lower_hu=-2000.0, upper_hu=3000.0)
_LPS = np.diag([-1.0, -1.0, 1.0])


def sitk_stuff(geometry: Geometry) -> dict[str, Any]:
    """What SimpleITK says of a grid."""
    direction = _LPS @ geometry.affine[:3, :3] / geometry.spacing_mm
    origin = _LPS @ geometry.affine[:3, 3]
    return {"spacing": geometry.spacing_mm, "origin": origin.tolist(), "direction": direction.ravel().tolist()}


def turned(data: Array, transpose_forward: tuple[int, ...]) -> Array:
    """An array (i, j, k) as nnU-Net's preprocessing has it."""
    return data.transpose(2, 1, 0).transpose(transpose_forward)


def label_map(case: Case) -> Volume:
    """Liver 1, its tumors 2."""
    masks = case.read_masks(["liver", "liver_lesion"])
    labels = masks["liver"].data.astype(np.uint8)
    labels[masks["liver_lesion"].data] = 2
    return Volume(labels, masks["liver"].geometry)


@dataclass
class Memory:
    """A data set that holds its cases. cut: voxels cropped from the start of each axis of the turned array."""

    cases: dict[str, Case]
    source_folder: str
    transpose_forward: tuple[int, ...] = (0, 1, 2)
    normalization: CtNormalization = WIDE
    cut: tuple[int, int, int] = (1, 2, 3)
    held: dict[str, Any] = field(default_factory=dict)

    @property
    def identifiers(self) -> list[str]:
        return sorted(self.cases)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        if identifier not in self.held:
            self.held[identifier] = self._made(self.cases[identifier])
        return self.held[identifier]

    def _made(self, case: Case) -> tuple[Any, Any, Any, dict[str, Any]]:
        scan, labels = case.read_image(), label_map(case)
        start = tuple(slice(n, None) for n in self.cut)
        hu = turned(scan.data, self.transpose_forward)[start].astype(np.float32)
        segmentation = turned(labels.data, self.transpose_forward)[start].astype(np.int16)
        known = self.normalization
        image = (np.clip(hu, known.lower_hu, known.upper_hu) - np.float32(known.mean_hu)) / np.float32(known.sd_hu)
        properties = {
            "sitk_stuff": sitk_stuff(scan.geometry),
            "bbox_used_for_cropping": [[n, n + size] for n, size in zip(self.cut, hu.shape, strict=True)],
            "shape_after_cropping_and_before_resampling": hu.shape,
            "class_locations": {
                value: np.pad(np.argwhere(segmentation == value), ((0, 0), (1, 0))) for value in (1, 2)
            },
        }
        return image[None], segmentation[None], None, properties

    def preparation(self, tumors: Online | Fixed, raw: dict[str, Path] | None = None) -> Preparation:
        """How the cases are measured."""
        return Preparation(
            cases=self,
            tumors=tumors,
            scheme=label_scheme(LABELS, "Liver"),
            normalization=self.normalization,
            transpose_forward=self.transpose_forward,
            folder=Path(self.source_folder) / "synthoma",
            raw=raw or {},
        )
