"""What is measured of every lesion, as a table: name, what it is about, unit; and one row of figures a lesion."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from synthoma.cases import Case
from synthoma.inputs import Reads
from synthoma.realism.crops import Crops
from synthoma.realism.samples import Sample, read_samples
from synthoma.realism.shape import shape_features
from synthoma.realism.tissue import tissue_features

Row = dict[str, Any]


@dataclass(frozen=True)
class Feature:
    """One figure of a lesion. about: size, place, shape, contrast, border, noise or tissue. unit: empty for a ratio."""

    name: str
    about: str
    unit: str
    words: str


FEATURES = (
    Feature("equivalent_diameter_mm", "size", "mm", "diameter of the ball of the same volume"),
    Feature("longest_axial_mm", "size", "mm", "longest line in an axial slice"),
    Feature("depth_ratio", "place", "", "depth of the center below the organ's surface over the radius"),
    Feature("neighbor_mm", "place", "mm", "distance to the nearest lesion of the organ"),
    Feature("sphericity", "shape", "", "surface of the ball of the same volume over the surface"),
    Feature("solidity", "shape", "", "volume over that of the convex hull"),
    Feature("roughness", "shape", "", "spread of the logarithm of the radius around an ellipsoid"),
    Feature("elongation", "shape", "", "second axis over the longest"),
    Feature("flatness", "shape", "", "shortest axis over the longest"),
    Feature("contrast_hu", "contrast", "HU", "core minus the organ around"),
    Feature("contrast_to_noise", "contrast", "", "contrast over the organ's fine noise"),
    Feature("edge_ratio", "border", "", "width of the border over what the scanner's blur gives"),
    Feature("edge_shift_mm", "border", "mm", "how far inside the drawn border the HU are half way"),
    Feature("noise_ratio", "noise", "", "fine noise in the core over that in the organ"),
    Feature("noise_correlation", "noise", "", "correlation of neighboring noise, core minus organ"),
    Feature("heterogeneity_hu", "tissue", "HU", "spread of the smooth tissue beyond that of the organ"),
    Feature("skewness", "tissue", "", "skewness of the core's HU"),
    Feature("rim_hu", "tissue", "HU", "rim minus inside"),
    Feature("core_hu", "tissue", "HU", "innermost minus middle"),
)  # fmt: skip
BY_NAME = {feature.name: feature for feature in FEATURES}


Ball = tuple[Sequence[float], float]  # center and radius in mm


@dataclass(frozen=True, eq=False)
class Side:
    """A case of the real or of the synthetic data set. put_in: balls around the tumors put in; None for all lesions."""

    side: str
    case: Case
    put_in: Sequence[Ball] | None = None

    @property
    def id(self) -> str:
        """Unique over both data sets."""
        return f"{self.side} {self.case.id}"

    def reads(self) -> Reads:
        """What the figures are made from."""
        return self.case.reads()


def measure_lesion(sample: Sample) -> Row:
    """One lesion as a row: who it is, and all `FEATURES`; nan where one cannot be told."""
    lesion = sample.lesion
    figures = {
        "equivalent_diameter_mm": lesion.equivalent_diameter_mm,
        "longest_axial_mm": lesion.longest_axial_mm,
        "neighbor_mm": sample.neighbor_mm,
        **shape_features(sample.mask, sample.ct.geometry),
        **tissue_features(sample),
    }
    who = {"case": sample.case, "patient": sample.patient, "organ": lesion.organ, "index": lesion.index}
    return who | {"center_mm": list(lesion.center_mm)} | {name: figures[name] for name in BY_NAME}


def measure_side(
    side: Side, organs: Collection[str] = (), smallest_ml: float = 0.05, crops: Crops | None = None
) -> dict[str, list[Row]]:
    """The lesions of a case as rows of JSON data (None for nan).

    organs: which ones; all unless told. smallest_ml: smaller lesions are left out. Where balls of tumors that were put
    in are given, lesions whose center lies in none of them are real ones and are left out. crops: where those of the
    lesions are written; nowhere unless told.
    """
    samples = read_samples(side.case, organs, smallest_ml)
    chosen = [sample for sample in samples if side.put_in is None or _is_put_in(sample, side.put_in)]
    if crops is not None:
        crops.write(side.id, chosen)
    return {"lesions": [{name: _plain(value) for name, value in measure_lesion(each).items()} for each in chosen]}


def _is_put_in(sample: Sample, balls: Sequence[Ball]) -> bool:
    return any(math.dist(sample.lesion.center_mm, center) <= radius for center, radius in balls)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
