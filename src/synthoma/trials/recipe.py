"""The recipe of a virtual lesion trial: which attributes of a lesion are varied, and over which levels."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from synthoma.recipe import Recipe

# Organs whose tumors are masses: of a wall tumor the organ decides on the size as well.
Organ = Literal["liver", "pancreas", "kidney", "uterus"]
Attribute = Literal["diameter_mm", "contrast_hu", "edge_mm", "roughness", "texture_hu", "rim_hu", "core_hu"]
Cell = dict[str, float]  # attribute -> level

# The least and the largest value of each attribute; the limits of what can be rendered.
LIMITS = {
    "diameter_mm": (2.0, 100.0),
    "contrast_hu": (-300.0, 300.0),
    "edge_mm": (0.0, 10.0),
    "roughness": (0.0, 1.0),
    "texture_hu": (0.0, 100.0),
    "rim_hu": (-200.0, 200.0),
    "core_hu": (-200.0, 200.0),
}


class TrialRecipe(Recipe):
    """Lesions that differ in one attribute only, at the same place of the same scan.

    organ: that gets the lesions. levels: attribute -> the values it takes. base: the value of an attribute while others
    are varied; of a varied one the middle level unless told, of others as real lesions have it, one value a place.
    design: `grid`, every combination of levels; `one`, one attribute at a time, the others at their base. sites: places
    in each host, and so lesions in each scan, each of another cell. gap_mm: between the borders of two of them.
    inside: the least share of a lesion that lies in the organ. phase: instead of the scan's own. vessel_veto: places
    keep out of vessels. retries: further places that are tried for the largest lesion. most_scans: a design that needs
    more is refused.
    """

    organ: Organ = "liver"
    levels: dict[Attribute, tuple[float, ...]] = Field(
        {"diameter_mm": (6, 9, 12, 16, 22, 30), "contrast_hu": (-60, -40, -25, -15)}, min_length=1
    )
    base: dict[Attribute, float] = Field(default_factory=dict)
    design: Literal["grid", "one"] = "grid"
    sites: Annotated[int, Field(ge=1, le=10)] = 1
    gap_mm: Annotated[float, Field(ge=0, le=200)] = 20.0
    inside: Annotated[float, Field(ge=0, le=1)] = 0.75
    phase: Literal["unenhanced", "arterial", "portal"] | None = None
    vessel_veto: bool = False
    retries: Annotated[int, Field(ge=0, le=50)] = 10
    most_scans: Annotated[int, Field(ge=1)] = 2000

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, values in self.levels.items():
            if not values or len(set(values)) < len(values):
                raise ValueError(f"levels.{name} needs at least one value, and each once")
        for name, values in [*self.levels.items(), *((name, (value,)) for name, value in self.base.items())]:
            low, high = LIMITS[name]
            outside = [value for value in values if not low <= value <= high]
            if outside:
                raise ValueError(f"{name} is {outside[0]:g}, expected {low:g} to {high:g}")
        for name, value in self.base.items():
            if name in self.levels and value not in self.levels[name]:
                levels = ", ".join(f"{level:g}" for level in self.levels[name])
                raise ValueError(f"base.{name} is {value:g}, expected one of its levels: {levels}")
        if not {*self.levels, *self.base} >= {"diameter_mm", "contrast_hu"}:
            raise ValueError("diameter_mm and contrast_hu are needed, among levels or in base")
        return self

    @property
    def base_cell(self) -> Cell:
        """The base of every attribute that is told: of a varied one the middle level, of an even number the upper."""
        cell: Cell = {name: sorted(values)[len(values) // 2] for name, values in self.levels.items()}
        cell.update({str(name): value for name, value in self.base.items()})
        return cell

    def cells(self) -> list[Cell]:
        """The cells of the design, each once, in the order of the levels; every attribute that is told has a value."""
        base = self.base_cell
        if self.design == "grid":
            return [
                base | dict(zip(self.levels, values, strict=True))
                for values in itertools.product(*self.levels.values())
            ]
        cells = [base]
        cells += [base | {name: value} for name, values in self.levels.items() for value in values]
        return [cell for place, cell in enumerate(cells) if cell not in cells[:place]]


class ReportRecipe(Recipe):
    """How predictions on a trial are scored. Lesions are found as in `evaluate`: matched one to one.

    missing: what a scan without a prediction counts as. rule, least_iou, resample, labels: as in `evaluate`.
    resamples: of the bootstrap by patient.
    """

    missing: Literal["leave_out", "empty"] = "leave_out"
    rule: Literal["iou", "overlap", "center"] = "iou"
    least_iou: Annotated[float, Field(ge=0, lt=1)] = 0.1
    resample: bool = False
    labels: str = ""
    resamples: Annotated[int, Field(ge=100)] = 1000
