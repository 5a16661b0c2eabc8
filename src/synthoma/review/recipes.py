"""What a study asks for, as recipes: stages, readers, thresholds, arms."""

from __future__ import annotations

from typing import Literal, Self

import pydantic

from synthoma.recipe import Recipe


class Stage(Recipe):
    """One pass over the cases. Every finished case goes on to the next stage."""

    name: str = pydantic.Field("annotate", min_length=1, description="what readers call it")
    role: str = pydantic.Field("reader", min_length=1, description="whose turn it is")
    tools: Literal["screen", "refine"] = pydantic.Field(
        "refine", description="screen: accept and reject; refine: draw as well"
    )
    readings: int = pydantic.Field(1, ge=1, le=10, description="readers of the role who read each case on their own")


class AnnotateRecipe(Recipe):
    """An annotation study. The default is one reader who accepts, rejects and refines in one pass."""

    structures: tuple[str, ...] = pydantic.Field(
        (), description="lesions to annotate, one task each; empty: all that proposals or data have"
    )
    sensitivity: float = pydantic.Field(
        0.9, gt=0, le=1, description="proposals are cut at the highest score that kept it in the validation run"
    )
    least_score: float | None = pydantic.Field(None, ge=0, le=1, description="cut here instead")
    least_voxels: int = pydantic.Field(1, ge=1, description="smaller candidates are left out")
    stages: tuple[Stage, ...] = pydantic.Field((Stage(),), min_length=1, description="one after the other")
    readers: tuple[str, ...] = pydantic.Field(("reader",), min_length=1, description="the role of each reader")
    show_case_ids: bool = pydantic.Field(False, description="case ids on the page; they may name patients")

    @pydantic.model_validator(mode="after")
    def _enough_readers(self) -> Self:
        for stage in self.stages:
            readers = self.readers.count(stage.role)
            if readers < stage.readings:
                raise ValueError(
                    f"stage {stage.name} needs {stage.readings} readers with the role {stage.role}, there are {readers}"
                )
        return self


class TuringRecipe(Recipe):
    """A blinded study: can readers tell synthetic lesions from real ones?"""

    items: int = pydantic.Field(24, ge=4, le=2000, description="lesions shown, half of them real")
    design: Literal["rating", "pairs"] = pydantic.Field(
        "rating", description="rating: one lesion, from 1 (surely real) to 6; pairs: a real and a synthetic one at once"
    )
    organs: tuple[str, ...] = pydantic.Field((), description="empty: all that both arms have")
    repeats: int = pydantic.Field(4, ge=0, description="items that every reader sees twice, without being told")
    field_mm: tuple[float, float, float] = pydantic.Field(
        (180.0, 180.0, 120.0), description="what is shown around the lesion: left-right, front-back, head-foot"
    )
    spacing_mm: tuple[float, float, float] | None = pydantic.Field(
        None, description="both arms on this grid; leave it out to show voxels as they are"
    )
    most_size_ratio: float = pydantic.Field(1.5, gt=1, description="of the diameters of a matched pair")
    most_contrast_hu: float = pydantic.Field(40.0, gt=0, description="difference of contrast within a matched pair")
    seconds: float | None = pydantic.Field(None, gt=0, description="after which the lesion is hidden; none: no limit")
    margin: float = pydantic.Field(0.1, gt=0, lt=0.5, description="of equivalence: accuracy within 0.5 +- margin")
    correlation: float = pydantic.Field(
        0.3, ge=0, le=1, description="of two readers' answers, for the power told beforehand"
    )

    @pydantic.model_validator(mode="after")
    def _even(self) -> Self:
        if self.items % 2:
            raise ValueError(f"items = {self.items}: half of them are real, so the number is even")
        shown = self.items // 2 if self.design == "pairs" else self.items
        if self.repeats > shown // 2:
            raise ValueError(f"repeats = {self.repeats}: at most half of what is shown, {shown // 2}")
        if min(self.field_mm) < 20 or max(self.field_mm) > 500:
            raise ValueError(f"field_mm = {self.field_mm}: from 20 to 500 mm")
        if self.spacing_mm is not None and not 0.3 <= min(self.spacing_mm) <= max(self.spacing_mm) <= 10:
            raise ValueError(f"spacing_mm = {self.spacing_mm}: from 0.3 to 10 mm")
        return self
