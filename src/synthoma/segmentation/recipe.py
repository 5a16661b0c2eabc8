"""The recipe of a training."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from synthoma import anatomy
from synthoma.learning.loop import OptimizerRecipe, Precision
from synthoma.learning.losses import LossRecipe
from synthoma.learning.models import ModelSpec
from synthoma.learning.networks import NetworkRecipe
from synthoma.learning.patches import PatchRecipe
from synthoma.recipe import Recipe
from synthoma.segmentation.infer import SegmentRecipe


class TrainRecipe(Recipe):
    """How to train.

    organs: one output for each, which holds its tumors too, and one for its tumors. steps: of the optimizer; more of
    them than a finished run had go on from it. batch: patches a step (and process); after `patches.per_epoch` of them
    every case has other synthetic tumors. synthesis: which tumors are put into healthy tissue (a synthesis recipe; its
    `probability` is that of a case to get some in an epoch); without it, or with `none`, there are none. healthy: data
    sets or cases whose organs are known to bear no tumor though no tumor mask says so; `*` for all. precision: of the
    network's arithmetic. average: decay of the average of weights that becomes the model; 0 takes the weights
    themselves. validation: share of patients held back where no splits are given; validate_every: in epochs, 0 never;
    patience: validations without a better score after which training ends; the weights of the best validation then
    become the model, ended early or not. 0 never ends early, and takes those of the last step. checkpoint_every: in
    steps. pictures_every: in epochs, 0 never.
    compile: the network by torch, faster after some minutes. log_every: in steps. tensorboard: curves and pictures
    beside metrics.jsonl.
    """

    organs: tuple[Literal["liver", "pancreas", "kidney", "colon", "esophagus", "uterus"], ...] = ("liver",)
    steps: int = Field(25_000, ge=1)
    batch: int = Field(2, ge=1)
    network: NetworkRecipe = NetworkRecipe()
    patches: PatchRecipe = PatchRecipe()
    synthesis: dict[str, Any] | None = None
    healthy: tuple[str, ...] = ()
    loss: LossRecipe = LossRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    precision: Precision = "auto"
    average: float = Field(0.999, ge=0, lt=1)
    compile: bool = False
    validation: float = Field(0.2, ge=0, lt=1)
    validate_every: int = Field(10, ge=0)
    patience: int = Field(0, ge=0)
    segment: SegmentRecipe = SegmentRecipe()
    checkpoint_every: int = Field(500, ge=1)
    pictures_every: int = Field(10, ge=0)
    log_every: int = Field(10, ge=1)
    tensorboard: bool = True

    @field_validator("synthesis", mode="before")
    @classmethod
    def _none(cls, table: Any) -> Any:
        return None if table == "none" else table  # TOML has no word for it

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.organs or len(set(self.organs)) < len(self.organs):
            raise ValueError("organs needs at least one organ, and each once")
        if not self.patches.spacing_mm:
            raise ValueError("patches.spacing_mm must be above 0: the scans of a training have one spacing")
        if self.patches.per_epoch < self.batch:
            raise ValueError(f"patches.per_epoch {self.patches.per_epoch} is less than a batch of {self.batch}")
        self.spec()  # the network takes such patches
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The network's outputs in order: every organ, then its tumors."""
        return tuple(name for organ in self.organs for name in (organ, anatomy.organ(organ).lesion))

    def spec(self) -> ModelSpec:
        """What a model of this recipe needs to be used."""
        return ModelSpec(
            network=self.network,
            classes=self.classes,
            spacing_mm=(self.patches.spacing_mm,) * 3,
            window_hu=self.patches.window_hu,
            patch=self.patches.size,
        )
