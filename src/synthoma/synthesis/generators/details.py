"""What only a rule-based plan holds, and how plans of the first manifests are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from synthoma.synthesis.bodies.body import Surface, bounding_radius_mm
from synthoma.synthesis.bodies.forms import FORMS
from synthoma.synthesis.tumor import HU, Coordinate, Length, TumorPlan

# Names of the first manifests -> those of today.
_RENAMED = {"push_mm": "displacement_mm", "push_reach": "displacement_reach"}


class Calcification(NamedTuple):
    """A calcified speck: where in the lesion (unit coordinates), its radius in mm and its HU."""

    position: tuple[Coordinate, Coordinate, Coordinate]
    radius_mm: Length
    hu: HU


@dataclass(frozen=True)
class Tissue:
    """What is inside a tumor.

    texture_hu, texture_mm: SD and correlation length of its heterogeneity. drift_hu, drift_mm: the middle less the
    border, and the depth down to which the HU drift; 0 for none. rim_hu, rim_mm: an enhancing rim, added to
    the contrast over that thickness; 0 for none. core_hu, core_share: a necrotic core, added to the contrast inside
    that share of the radius; 0 for none. calcifications: position, radius in mm and HU of each speck.
    """

    texture_hu: Annotated[float, Field(ge=0, le=1000)] = 0.0
    texture_mm: Annotated[float, Field(ge=0.1, le=300)] = 5.0
    drift_hu: HU = 0.0
    drift_mm: Length = 0.0
    rim_hu: HU = 0.0
    rim_mm: Length = 0.0
    core_hu: HU = 0.0
    core_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    calcifications: Annotated[tuple[Calcification, ...], Field(max_length=100)] = ()

    @classmethod
    def of(cls, plan: TumorPlan) -> Tissue:
        """The tissue of a plan."""
        return plan.details_as(cls)

    @property
    def needs_inside(self) -> bool:
        """Whether it varies with the depth below the surface."""
        return self.rim_hu != 0 or self.core_hu != 0 or self.drift_hu != 0


def read_first_format(data: Mapping[str, Any]) -> TumorPlan:
    """A plan as manifests and overlays of format 1 hold it; others as `TumorPlan.from_dict` reads them."""
    if "form" not in data:
        return TumorPlan.from_dict(data)
    plain = {_RENAMED.get(name, name): value for name, value in data.items()}
    details = {
        entry.name: plain.pop(entry.name)
        for kind in (Surface, Tissue)
        for entry in dataclasses.fields(kind)
        if entry.name in plain
    }
    x, y, z = plain["axes_mm"]
    plain["volume_mm3"] = FORMS[details["form"]].volume_mm3((x, y, z))
    plain["radius_mm"] = bounding_radius_mm((x, y, z), details["roughness"])
    return TumorPlan.from_dict({**plain, "details": details})
