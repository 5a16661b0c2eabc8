"""The recipes of generators: what they learn from, and how."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from synthoma.learning.crops import CropRecipe
from synthoma.learning.loop import OptimizerRecipe, Precision
from synthoma.learning.networks import NetworkRecipe, check_patch
from synthoma.learning.tissue import GeneratorSpec, TissueNetworkRecipe
from synthoma.recipe import Recipe
from synthoma.synthesis.recipe import SynthesisRecipe


class GeneratorRecipe(Recipe):
    """What both kinds of generators have in common.

    crops: what a lesion crop is. network: of the generator. steps: of the optimizer; batch: crops a step.
    validation: share of patients held back. checkpoint_every, pictures_every, log_every: in steps; pictures show the
    same twelve lesions every time, 0 never. tensorboard: curves beside metrics.jsonl.
    average: decay of the average of weights that becomes the generator. kind: how it is trained.
    """

    crops: CropRecipe = CropRecipe()
    network: TissueNetworkRecipe = TissueNetworkRecipe()
    steps: int = Field(20_000, ge=1)
    batch: int = Field(2, ge=1)
    average: float = Field(0.999, ge=0, lt=1)
    validation: float = Field(0.15, ge=0, lt=1)
    checkpoint_every: int = Field(500, ge=1)
    pictures_every: int = Field(2000, ge=0)
    log_every: int = Field(20, ge=1)
    tensorboard: bool = True

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.crops.size % self.network.multiple:
            raise ValueError(f"crops.size must be a multiple of {self.network.multiple} for this network")
        return self


class DiffusionRecipe(GeneratorRecipe):
    """A generator by rectified flow on lesion crops.

    optimizer: how its weights move. precision: of the network's arithmetic. sampling_steps: Euler steps when it makes a
    tumor.
    """

    kind: Literal["diffusion"] = "diffusion"
    optimizer: OptimizerRecipe = OptimizerRecipe(rate=4e-4, warmup=200)
    precision: Precision = "auto"
    sampling_steps: int = Field(12, ge=1, le=1000)

    def spec(self, organs: tuple[str, ...]) -> GeneratorSpec:
        """What a model of this recipe needs to be used."""
        return GeneratorSpec(
            kind="diffusion", network=self.network, spacing_mm=self.crops.spacing_mm, size=self.crops.size,
            steps=self.sampling_steps, organs=organs,
        )  # fmt: skip


class AdversarialRecipe(GeneratorRecipe):
    """A generator that learns from a discriminator, which tells real lesions from its own, and from a critic.

    fakes: the synthesis recipe that says which fake lesions are put where; their shape, place and contrast are those
    of the rules. discriminator: its network; discriminator_rate, generator_rate: of Adam.
    realism, critic, look: weights of the generator's terms: taken for real by the discriminator, taken for a tumor by
    the critic, and true to the look that was asked for. limit_hu: how far from a lesion's mean its HU may go.
    discriminator_every: steps of the generator for one of the discriminator. smoothing: of its labels. window_hu: what
    it sees.
    """

    kind: Literal["adversarial"] = "adversarial"
    fakes: SynthesisRecipe = SynthesisRecipe(organs=("liver",), mass_effect_share=0.0)
    discriminator: NetworkRecipe = NetworkRecipe(name="unet", width=8, depth=4)
    generator_rate: float = Field(3e-4, gt=0)
    discriminator_rate: float = Field(3e-4, gt=0)
    discriminator_every: int = Field(1, ge=1)
    smoothing: float = Field(0.1, ge=0, lt=1)
    realism: float = Field(1.0, ge=0)
    critic: float = Field(0.5, ge=0)
    look: float = Field(1.0, ge=0)
    limit_hu: float = Field(120.0, gt=0)
    window_hu: tuple[float, float] = (-175.0, 250.0)

    @model_validator(mode="after")
    def _seen(self) -> Self:
        check_patch(self.discriminator, (self.crops.size,) * 3)
        if self.discriminator.deep_supervision:
            raise ValueError("discriminator has one output: deep_supervision must be off")
        return self

    def spec(self, organs: tuple[str, ...]) -> GeneratorSpec:
        """What a model of this recipe needs to be used."""
        return GeneratorSpec(
            kind="adversarial", network=self.network, spacing_mm=self.crops.spacing_mm, size=self.crops.size,
            limit_hu=self.limit_hu, organs=organs,
        )  # fmt: skip
