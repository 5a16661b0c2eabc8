"""The recipe of a virtual lesion trial: which attributes of lesion, place and scan are varied, over which levels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from synthoma.recipe import Recipe

# Organs whose tumors are masses: of a wall tumor the organ decides on the size as well.
Organ = Literal["liver", "pancreas", "kidney", "uterus"]
Attribute = Literal[
    "diameter_mm", "contrast_hu", "edge_mm", "roughness", "texture_hu", "drift_hu", "rim_hu", "core_hu",
    "depth_mm", "vessel_mm",
    "slice_mm", "blur_mm", "noise_hu", "shift_hu", "view_cut_mm",
]  # fmt: skip
Cell = dict[str, float]  # attribute -> level


@dataclass(frozen=True)
class About:
    """An attribute. of: the lesion, its place, or the scan that is made worse. low, high: what can be rendered.

    harder: whether more of it makes a lesion harder to find, where the data do not say. ordered: whether it makes sense
    to speak of a level from which on half are found. everywhere: whether lesions of all generators have it.
    """

    of: Literal["lesion", "place", "scan"]
    words: str
    unit: str
    low: float
    high: float
    harder: bool = False
    ordered: bool = True
    everywhere: bool = True


ATTRIBUTES = {
    "diameter_mm": About("lesion", "diameter", "mm", 2, 100),
    "contrast_hu": About("lesion", "contrast", "HU", -300, 300),
    "edge_mm": About("lesion", "edge", "mm", 0, 10, harder=True),
    "roughness": About("lesion", "roughness", "", 0, 1, everywhere=False),
    "texture_hu": About("lesion", "texture", "HU", 0, 100, harder=True, everywhere=False),
    "drift_hu": About("lesion", "drift", "HU", -200, 200, everywhere=False),
    "rim_hu": About("lesion", "rim", "HU", -200, 200, everywhere=False),
    "core_hu": About("lesion", "core", "HU", -200, 200, everywhere=False),
    "depth_mm": About("place", "depth", "mm", 0, 200),
    "vessel_mm": About("place", "distance to vessels", "mm", 0, 200),
    "slice_mm": About("scan", "slice thickness", "mm", 0, 20, harder=True),
    "blur_mm": About("scan", "blur", "mm", 0, 10, harder=True),
    "noise_hu": About("scan", "noise added", "HU", 0, 200, harder=True),
    "shift_hu": About("scan", "shift of all HU", "HU", -300, 300, ordered=False),
    "view_cut_mm": About("scan", "cut of the field of view", "mm", 0, 400, harder=True),
}
Place = tuple[tuple[str, float], ...]  # attribute of the place and its level


def part_of(cell: Cell, of: str) -> Place:
    """The attributes of a cell that are of the lesion, of its place or of the scan, in one order."""
    return tuple((name, cell[name]) for name, about in ATTRIBUTES.items() if about.of == of and name in cell)


class TrialRecipe(Recipe):
    """Lesions that differ in one attribute only, at the same place of the same scan.

    organ: that gets the lesions. generator: who makes them: `rules`, `growth`, a learned one by name or as a file.
    levels: attribute -> the values it takes. base: the value of an attribute while others are varied; of a varied one
    the middle level unless told, of the scan's 0, the scan as it is; of others as real lesions have it, one value a
    place. design: `grid`, every combination of levels; `one`, one attribute at a time, the others at their base. sites:
    places in each host, and so lesions in each scan, each of another cell. gap_mm: between the borders of two of them.
    inside: the least share of a lesion that lies in the organ. phase: instead of the scan's own. vessel_veto: places
    keep out of vessels. retries: further places that are tried for the largest lesion. most_scans: a design that needs
    more is refused.
    """

    organ: Organ = "liver"
    generator: str = "rules"
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
            if ATTRIBUTES[name].of == "scan" and 0 not in values:
                raise ValueError(f"levels.{name} needs 0, the scan as it is, to compare with")
        for name, values in [*self.levels.items(), *((name, (value,)) for name, value in self.base.items())]:
            about = ATTRIBUTES[name]
            outside = [value for value in values if not about.low <= value <= about.high]
            if outside:
                raise ValueError(f"{name} is {outside[0]:g}, expected {about.low:g} to {about.high:g}")
            if self.generator != "rules" and not about.everywhere:
                known = ", ".join(each for each, row in ATTRIBUTES.items() if row.everywhere)
                raise ValueError(f"{name} is an attribute of lesions by rules; by {self.generator}: {known}")
        for name, value in self.base.items():
            if name in self.levels and value not in self.levels[name]:
                levels = ", ".join(f"{level:g}" for level in self.levels[name])
                raise ValueError(f"base.{name} is {value:g}, expected one of its levels: {levels}")
        if not {*self.levels, *self.base} >= {"diameter_mm", "contrast_hu"}:
            raise ValueError("diameter_mm and contrast_hu are needed, among levels or in base")
        return self

    @property
    def base_cell(self) -> Cell:
        """The base of every attribute that is told.

        Of a varied one the middle level, of an even number the upper; of the scan's 0.
        """
        cell: Cell = {
            name: 0.0 if ATTRIBUTES[name].of == "scan" else sorted(values)[len(values) // 2]
            for name, values in self.levels.items()
        }
        cell.update({str(name): value for name, value in self.base.items()})
        return cell

    def states(self) -> list[Cell]:
        """The states of the scan that lesions lie in, as it is first; {} alone where it is never made worse."""
        states = [dict(part_of(cell, "scan")) for cell in self.cells()]
        distinct = [state for place, state in enumerate(states) if state not in states[:place]]
        return sorted(distinct, key=lambda state: any(state.values()))

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
