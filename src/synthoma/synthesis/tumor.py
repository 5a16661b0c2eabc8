"""The contract of synthesis: the plan of a tumor, the tumor, the verdict on it, and who renders it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from synthoma.volume import Array, Box, Volume

Vector = tuple[float, float, float]
DISPLACEMENT_REACH = 2.5  # radii over which pushed tissue comes to rest


class Calcification(NamedTuple):
    """A calcified speck: where in the lesion (unit coordinates), its radius in mm and its HU."""

    position: Vector
    radius_mm: float
    hu: float


@dataclass(frozen=True)
class TumorPlan:
    """Everything random about one tumor, decided before a voxel is touched: plain data, JSON and Parquet.

    form: `mass`, a star-shaped body, or `wall`, a thickening of a hollow organ's wall.
    center_mm: RAS+; of a wall tumor, the point of the organ's outer surface it grows from.
    axes_mm: half-axes of a mass; of a wall tumor half its length along the organ, half its arc around the
      organ, and its thickness.
    orientation: columns of the rotation from the tumor's frame to RAS+, as a unit quaternion (w, x, y, z).
      A wall tumor's first axis runs along the organ, its third points from the surface into the lumen.
    roughness, spectrum, skew: amplitude a, power p and skew s of the surface ln r = a (n - s (n^2 - 1)).
    contrast_hu: mean inside minus `base_hu`, the organ's mean in this scan.
    texture_hu, texture_mm: SD and correlation length of the tissue inside.
    edge_mm, blur_mm: SD of the tumor's own border, and of the scanner's in-plane blur, which adds to it.
    rim_hu, rim_mm: an enhancing rim, added to the contrast over that thickness; 0 for none.
    core_hu, core_share: a necrotic core, added to the contrast inside that share of the radius; 0 for none.
    displacement_mm, displacement_reach: how far the border pushes its neighbors, and where that ends, in radii.
    noise_hu, noise_from_mm: SD of the scan's grain there, and where to learn it for what replaces gas, stool, fat
      or vessels.
    relaxed: how often the wish for a place was widened before the organ had one.
    seed: of the surface, the texture and the grain. details: what other generators need.
    """

    organ: str
    form: Literal["mass", "wall"]
    center_mm: Vector
    axes_mm: Vector
    orientation: tuple[float, float, float, float]
    roughness: float
    spectrum: float
    skew: float
    base_hu: float
    contrast_hu: float
    texture_hu: float
    texture_mm: float
    edge_mm: float
    blur_mm: float
    noise_hu: float
    noise_from_mm: Vector
    seed: int
    rim_hu: float = 0.0
    rim_mm: float = 0.0
    core_hu: float = 0.0
    core_share: float = 0.0
    displacement_mm: float = 0.0
    displacement_reach: float = DISPLACEMENT_REACH
    calcifications: tuple[Calcification, ...] = ()
    relaxed: int = 0
    generator: str = "rules"
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def volume_mm3(self) -> float:
        """The planned volume: of the ellipsoid with these half-axes, or of the unclipped wall patch."""
        a, b, c = self.axes_mm
        return 4 / 3 * np.pi * a * b * c if self.form == "mass" else 2 / 3 * np.pi * a * b * c

    @property
    def equivalent_diameter_mm(self) -> float:
        """Of the ball of the planned volume."""
        return float((6 * self.volume_mm3 / np.pi) ** (1 / 3))

    @property
    def rotation(self) -> Array:
        """(3, 3): the tumor's frame to RAS+."""
        w, x, y, z = self.orientation
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON data from which `from_dict` gives an equal plan."""
        return dataclasses.asdict(self) | {"calcifications": [list(speck) for speck in self.calcifications]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TumorPlan:
        """The plan that `as_dict` wrote."""
        vectors = ("center_mm", "axes_mm", "orientation", "noise_from_mm")
        specks = tuple(Calcification(tuple(place), *rest) for place, *rest in data.get("calcifications", ()))
        plain: dict[str, Any] = {key: tuple(value) if key in vectors else value for key, value in data.items()}
        return cls(**(plain | {"calcifications": specks}))


@dataclass(frozen=True, eq=False)
class Tumor:
    """A rendered tumor on the box around it, not yet in the scan.

    box: in voxels of the scan. alpha: float32 (box), share of each voxel that is tumor. hu: float32 (box),
    the tumor's tissue without the scan's grain, meaningful where alpha > 0.
    """

    plan: TumorPlan
    box: Box
    alpha: Array
    hu: Array

    @property
    def mask(self) -> Array:
        """The label, bool (box): where at least half of the voxel is tumor."""
        return np.asarray(self.alpha >= 0.5)


@dataclass(frozen=True)
class Verdict:
    """Whether a tumor is fit to train on, why not, and the figures it was judged by."""

    accepted: bool
    reason: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)


class Generator(Protocol):
    """What draws a tumor's voxels from its plan; the one extension point, by name or `module:Class`."""

    def render(self, ct: Volume, organ: Volume, plan: TumorPlan) -> Tumor:
        """The tumor of `plan` on the grid of `ct`; `organ` is its organ's mask. Nothing random is left.

        Raises `CaseError` if the plan does not meet the scan.
        """
        ...
