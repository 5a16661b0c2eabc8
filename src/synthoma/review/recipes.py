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
