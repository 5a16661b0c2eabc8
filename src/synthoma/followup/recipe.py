"""The follow-up recipe: dates, what becomes of the tumors, and how later scans differ from the first."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from synthoma.recipe import Recipe
from synthoma.synthesis.recipe import SynthesisRecipe

Course = Literal["growth", "stable", "response", "mixed"]
Millimeters = Annotated[float, Field(ge=0, le=50)]
COURSES: dict[Course, float] = {"growth": 0.4, "stable": 0.15, "response": 0.3, "mixed": 0.15}


class RescanRecipe(Recipe):
    """How a later scan differs from the first. Ranges are uniform, drawn anew for each date.

    shift_mm, turn_deg: most of a rigid shift along, and turn around, each axis. breathing_mm: how far the front of the
    body slides along the spine. fresh_noise: whether noise is another one of the same texture. slice_mm: thickness of
    slices; None for the scan's own. blur_mm: SD of a softer kernel. shift_hu: an offset of all HU.
    """

    shift_mm: Millimeters = 6.0
    turn_deg: Annotated[float, Field(ge=0, le=15)] = 2.0
    breathing_mm: tuple[Annotated[float, Field(ge=-50, le=50)], Annotated[float, Field(ge=-50, le=50)]] = (-8.0, 8.0)
    fresh_noise: bool = True
    slice_mm: tuple[Millimeters, Millimeters] | None = None
    blur_mm: tuple[Millimeters, Millimeters] = (0.0, 0.0)
    shift_hu: tuple[Annotated[float, Field(ge=-200, le=200)], Annotated[float, Field(ge=-200, le=200)]] = (-3.0, 3.0)


class FollowRecipe(Recipe):
    """One scan in, the same patient at several dates out.

    synthesis: the tumors, those that appear later included. days: of the scans, the first 0, ascending. law: of
    growth. doubling_days: the range of doubling times; else the organ's own. course: weights of what becomes of a
    patient's tumors: all grow, all stay, all respond to treatment, or some grow and some respond. response: by how much
    of their diameter responding tumors shrink by the last date; 1 is gone. new_share: how many tumors, but for the
    first, are not there at the first date. scan: how later scans differ.
    """

    synthesis: SynthesisRecipe = SynthesisRecipe()
    days: Annotated[tuple[Annotated[float, Field(ge=0, le=36500)], ...], Field(min_length=2, max_length=50)] = (
        0.0, 90.0, 180.0, 270.0,
    )  # fmt: skip
    law: Literal["exponential", "gompertz"] = "gompertz"
    doubling_days: tuple[Annotated[float, Field(ge=1, le=1e5)], Annotated[float, Field(ge=1, le=1e5)]] | None = None
    course: dict[Course, Annotated[float, Field(ge=0)]] = Field(default_factory=lambda: dict(COURSES))
    response: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0.25, 0.8)
    new_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    scan: RescanRecipe = RescanRecipe()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.days[0] != 0 or any(late <= early for early, late in zip(self.days, self.days[1:], strict=False)):
            raise ValueError(f"days begin with 0 and ascend, not {', '.join(f'{day:g}' for day in self.days)}")
        if not any(self.course.values()):
            raise ValueError("course needs at least one entry with a weight above 0")
        return self
