"""The synthesis recipe: which tumors are put into a case, and when one is rejected."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from synthoma.recipe import Recipe

Organ = Literal["liver", "pancreas", "kidney", "colon", "esophagus", "uterus"]
Share = Annotated[float, Field(ge=0, le=1)]
Millimeters = Annotated[float, Field(ge=0, le=200)]
Contrast = Annotated[float, Field(ge=-1000, le=1000)]

# Diameters in mm; the classes of Hu et al. 2023 (radius 4, 8, 16, 32 with half-axes of 0.75-1.25 of it), in mm.
SIZES = {"tiny": (6.0, 10.0), "small": (12.0, 20.0), "medium": (24.0, 40.0), "large": (48.0, 80.0)}


class JudgeRecipe(Recipe):
    """When a tumor is rejected.

    volume_error: relative difference of label and plan; wall_volume_error: for tumors whose shape follows the organ.
    on_wall: share of a wall tumor that must reach the wall. contrast_to_noise: at least this; 0 keeps
    isodense tumors. edge_ratio: border width over the scanner's own. saturated: share of voxels at the limits of
    the HU range. slits: volume of slits and cavities in the label over its own. critic: lowest and highest score of a
    critic, where there is one.
    wall_volume_error: the same difference, for tumors whose shape follows the organ.
    """

    volume_error: Share = 0.4
    wall_volume_error: Share = 0.6
    on_wall: Share = 0.9
    contrast_to_noise: Annotated[float, Field(ge=0, le=20)] = 0.0
    edge_ratio: Annotated[float, Field(ge=1, le=10)] = 4.0
    saturated: Share = 0.01
    slits: Share = 0.03
    critic: tuple[float, float] = (0.0, 1.0)


def require_band(keep: float, at_most: float) -> None:
    """`ValueError` if no share of a tumor's voxels lies between a critic's limits."""
    if keep > at_most:
        raise ValueError(f"keep is the lower limit: {keep:g} is above at_most, {at_most:g}")


class CriticRecipe(Recipe):
    """A trained segmentation that judges each tumor by itself.

    model: a file, a train run, or the name of one in the box; several are folds, of which each case asks the first that
    was not trained on it; empty for no critic. keep, at_most: the least and the largest share of a tumor's voxels that
    it may call tumor: neither invisible nor trivial.
    """

    model: str | tuple[str, ...] = ""
    keep: Share = 0.7
    at_most: Share = 1.0

    @model_validator(mode="after")
    def _band(self) -> Self:
        require_band(self.keep, self.at_most)
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """The models, if there are any."""
        return (self.model,) * bool(self.model) if isinstance(self.model, str) else self.model


Count = Annotated[int, Field(ge=1, le=100)]
Diameter = Annotated[float, Field(ge=2, le=200)]


class Mix(Recipe):
    """One of several ways in which a case's tumors are drawn: what is given here replaces what the recipe says.

    organs: those it is for; all if there are none. weight: how often it is chosen, against the other mixes of an organ.
    lesions, sizes, diameter_mm, contrast_hu, surface_share: as in the recipe, which keeps what is left out here.
    """

    organs: tuple[Organ, ...] = ()
    weight: Annotated[float, Field(gt=0)] = 1.0
    lesions: tuple[Count, Count] | None = None
    sizes: dict[Literal["tiny", "small", "medium", "large"], Annotated[float, Field(ge=0)]] | None = None
    diameter_mm: tuple[Diameter, Diameter] | None = None
    contrast_hu: tuple[Contrast, Contrast] | None = None
    surface_share: Share | None = None

    def applied(self, recipe: SynthesisRecipe) -> SynthesisRecipe:
        """The recipe with what this mix says; sizes replace diameters and the other way round."""
        given = {name: value for name in _MIXED if (value := getattr(self, name)) is not None}
        if {"sizes", "diameter_mm"} & set(given):
            given = {"sizes": None, "diameter_mm": None} | given
        return recipe.model_copy(update=given)


_MIXED = ("lesions", "sizes", "diameter_mm", "contrast_hu", "surface_share")


class SynthesisRecipe(Recipe):
    """Which tumors to put into a case. What is left out follows the statistics of real tumors (docs/priors.md).

    probability: that a case gets tumors in an organ at all. lesions: fewest and most per organ and case.
    sizes: weights of the size classes. diameter_mm: the range of diameters, instead. contrast_hu: the range of
    contrast to the organ. drift_hu: the range of the middle less the border of a mass by rules; [0, 0] for even ones.
    phase: instead of the scan's own. gap_mm: between the borders of two tumors.
    vessel_veto: centers keep out of vessels. mass_effect_share, displacement_mm: how many masses displace their
    neighbors, and how far at their border. surface_share: of tumors in liver, pancreas and uterus, those that reach
    the organ's surface; by chance only if left out. mixes: ways to draw a case's tumors, one chosen for each case and
    organ. retries: redraws of a rejected tumor. generator: by name, a model file, or `module:Class`. as_learned:
    contrast as that of the lesions that a learned generator learned from, instead of the prior. critic: a trained
    segmentation as a further judge.
    organs: that get tumors, if the case has them.
    """

    organs: tuple[Organ, ...] = ("liver",)
    probability: Share = 1.0
    lesions: tuple[Count, Count] | None = None
    sizes: dict[Literal["tiny", "small", "medium", "large"], Annotated[float, Field(ge=0)]] | None = None
    diameter_mm: tuple[Diameter, Diameter] | None = None
    contrast_hu: tuple[Contrast, Contrast] | None = None
    drift_hu: tuple[Contrast, Contrast] | None = None
    phase: Literal["unenhanced", "arterial", "portal"] | None = None
    gap_mm: Millimeters = 3.0
    vessel_veto: bool = False
    mass_effect_share: Share = 0.3
    displacement_mm: tuple[Millimeters, Millimeters] = (0.5, 3.0)
    surface_share: Share | None = None
    mixes: tuple[Mix, ...] | None = None
    retries: Annotated[int, Field(ge=0, le=50)] = 5
    judge: JudgeRecipe = JudgeRecipe()
    generator: str = "rules"
    as_learned: bool = False
    critic: CriticRecipe = CriticRecipe()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.organs or len(set(self.organs)) < len(self.organs):
            raise ValueError("organs needs at least one organ, and each once")
        tables: list[SynthesisRecipe | Mix] = [self, *(self.mixes or ())]
        for table in tables:
            if table.sizes is not None and not any(table.sizes.values()):
                raise ValueError("sizes needs at least one class with a weight above 0")
            if table.sizes is not None and table.diameter_mm is not None:
                raise ValueError("give sizes or diameter_mm, not both")
        return self

    @property
    def judgement(self) -> JudgeRecipe:
        """When a tumor is rejected, by the critic's limits too."""
        if not self.critic.models:
            return self.judge
        return self.judge.with_changes(critic=(self.critic.keep, self.critic.at_most))
