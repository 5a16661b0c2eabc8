"""What only a grown tumor's plan holds, and how each organ holds a growing front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from synthoma.synthesis.tumor import HU, Length, TumorPlan

Wait = Annotated[float, Field(ge=0, le=100)]
Speed = Annotated[float, Field(ge=0, le=10)]


@dataclass(frozen=True)
class Invasion:
    """How the front of a plan moves. Its unit of time is what it takes to grow to `front_mm` in even tissue.

    front_mm: half-axes of the front at time 1. tissue_hu: HU off the organ's own by so much slow the front down.
    vessel_hu: brighter than the organ by this is a vessel. vessel_pressure, border_pressure: how long a vessel that is
    crossed and the organ's border hold the front. outside_speed: of the front in fat outside the organ; 0 keeps it
    inside. death_mm: tissue this deep below the surface dies; 0 for none. wall_mm: of a hollow organ, the wall that the
    front runs in.
    """

    front_mm: tuple[Length, Length, Length]
    tissue_hu: Annotated[float, Field(gt=0, le=1000)] = 40.0
    vessel_hu: HU = 40.0
    vessel_pressure: Wait = 0.4
    border_pressure: Wait = 0.3
    outside_speed: Speed = 0.0
    death_mm: Length = 0.0
    wall_mm: Length = 0.0

    @classmethod
    def of(cls, plan: TumorPlan) -> Invasion:
        """The invasion of a plan."""
        return plan.details_as(cls)


@dataclass(frozen=True)
class Hold:
    """How an organ holds a growing front: the ranges that plans are drawn from, in the units of `Invasion`.

    Pressures are shares of the time to the planned size. They are assumptions that order what pathology describes: the
    liver's capsule holds long, renal masses bulge into the fat early, pancreatic ones infiltrate it.
    """

    border_pressure: tuple[float, float]
    outside_speed: tuple[float, float]
    vessel_pressure: tuple[float, float] = (0.2, 0.7)


HOLDS = {
    "liver": Hold((0.3, 0.8), (0.1, 0.3)),
    "pancreas": Hold((0.05, 0.3), (0.4, 0.8)),
    "kidney": Hold((0.0, 0.15), (0.7, 1.0)),
    "uterus": Hold((0.2, 0.5), (0.2, 0.6)),
    "colon": Hold((0.5, 1.0), (0.0, 0.0), (0.0, 0.0)),
    "esophagus": Hold((0.5, 1.0), (0.0, 0.0), (0.0, 0.0)),
}
DEATH_MM = (9.0, 16.0)  # how far from the tumor's border blood reaches; deeper tissue dies
WALL_MM = (3.0, 5.0)  # of bowel and esophagus
