"""The synthesis recipe, and every random choice it leads to: organ + recipe + generator -> plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from synthoma import anatomy
from synthoma.anatomy import ShapePrior
from synthoma.errors import CaseError
from synthoma.recipe import Recipe
from synthoma.seeds import rng_for, seed_for
from synthoma.synthesis.bodies import wall
from synthoma.synthesis.location import OrganModel, apart, find_site
from synthoma.synthesis.tumor import DISPLACEMENT_REACH, Calcification, TumorPlan, Vector

Organ = Literal["liver", "pancreas", "kidney", "colon", "esophagus", "uterus"]
Share = Annotated[float, Field(ge=0, le=1)]
Millimeters = Annotated[float, Field(ge=0, le=200)]
Contrast = Annotated[float, Field(ge=-1000, le=1000)]

# Diameters in mm; the classes of Hu et al. 2023 (radius 4, 8, 16, 32 with half-axes of 0.75-1.25 of it), in mm.
SIZES = {"tiny": (6.0, 10.0), "small": (12.0, 20.0), "medium": (24.0, 40.0), "large": (48.0, 80.0)}


class JudgeRecipe(Recipe):
    """When a tumor is rejected.

    volume_error: relative difference of label and plan, for masses; wall_volume_error: for wall tumors, which follow
    the organ. on_wall: share of a wall tumor that must reach the wall. contrast_to_noise: at least this; 0 keeps
    isodense tumors. edge_ratio: border width over the scanner's own. saturated: share of voxels at the limits of
    the HU range.
    """

    volume_error: Share = 0.4
    wall_volume_error: Share = 0.6
    on_wall: Share = 0.9
    contrast_to_noise: Annotated[float, Field(ge=0, le=20)] = 0.0
    edge_ratio: Annotated[float, Field(ge=1, le=10)] = 4.0
    saturated: Share = 0.01


class SynthesisRecipe(Recipe):
    """Which tumors to put into a case. What is left out follows the statistics of real tumors (docs/priors.md).

    probability: that a case gets tumors in an organ at all. lesions: fewest and most per organ and case.
    sizes: weights of the size classes. diameter_mm: the range of diameters, instead. contrast_hu: the range of
    contrast to the organ. phase: instead of the scan's own. gap_mm: between the borders of two tumors.
    vessel_veto: centers keep out of vessels. mass_effect_share, displacement_mm: how many masses displace their
    neighbors, and how far at their border.
    retries: redraws of a rejected tumor. generator: by name, or `module:Class`.
    """

    organs: tuple[Organ, ...] = ("liver",)
    probability: Share = 1.0
    lesions: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] | None = None
    sizes: dict[Literal["tiny", "small", "medium", "large"], Annotated[float, Field(ge=0)]] | None = None
    diameter_mm: tuple[Annotated[float, Field(ge=2, le=200)], Annotated[float, Field(ge=2, le=200)]] | None = None
    contrast_hu: tuple[Contrast, Contrast] | None = None
    phase: Literal["unenhanced", "arterial", "portal"] | None = None
    gap_mm: Millimeters = 3.0
    vessel_veto: bool = False
    mass_effect_share: Share = 0.3
    displacement_mm: tuple[Millimeters, Millimeters] = (0.5, 3.0)
    retries: Annotated[int, Field(ge=0, le=50)] = 5
    judge: JudgeRecipe = JudgeRecipe()
    generator: str = "rules"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.organs or len(set(self.organs)) < len(self.organs):
            raise ValueError("organs needs at least one organ, and each once")
        if self.sizes is not None and not any(self.sizes.values()):
            raise ValueError("sizes needs at least one class with a weight above 0")
        if self.sizes is not None and self.diameter_mm is not None:
            raise ValueError("give sizes or diameter_mm, not both")
        return self


def draw_plans(organ_model: OrganModel, recipe: SynthesisRecipe, seed: int) -> list[TumorPlan]:
    """The tumors of one organ in one case, largest first; the same for the same case, organ, recipe and seed.

    May be empty: the recipe's `probability`. Tumors that find no room are left out, but if none finds any, the
    `CaseError` of the first is raised.
    """
    plans: list[TumorPlan] = []
    first_refusal: Exception | None = None
    for index, diameter_mm in enumerate(draw_diameters(organ_model, recipe, seed)):
        try:
            plans.append(draw_plan(organ_model, recipe, seed, index, 0, diameter_mm, plans))
        except CaseError as error:
            first_refusal = first_refusal or error
    if first_refusal is not None and not plans:
        raise first_refusal
    return plans


def draw_diameters(organ_model: OrganModel, recipe: SynthesisRecipe, seed: int) -> list[float]:
    """How many tumors, and how large: diameters in mm, largest first."""
    rng = rng_for(seed, organ_model.case, organ_model.organ, "sizes")
    if rng.random() >= recipe.probability:
        return []
    prior = anatomy.SHAPES[organ_model.organ]
    count = _count(prior, recipe, rng)
    mean, spread = prior.log_diameter
    own_spread = prior.within_case or spread
    of_case = rng.normal(mean, np.sqrt(max(spread**2 - own_spread**2, 0)))
    diameters = []
    for _ in range(count):
        if recipe.diameter_mm:
            diameters.append(_uniform(recipe.diameter_mm, rng))
        elif recipe.sizes:
            names = [name for name in SIZES if name in recipe.sizes]  # in one order, as in the digest
            weights = np.array([recipe.sizes[name] for name in names])
            diameters.append(_uniform(SIZES[names[rng.choice(len(names), p=weights / weights.sum())]], rng))
        else:
            drawn = float(np.exp(rng.normal(of_case, own_spread)))
            diameters.append(min(max(drawn, anatomy.DIAMETER_RANGE_MM[0]), anatomy.DIAMETER_RANGE_MM[1]))
    return sorted((round(float(d), 3) for d in diameters), reverse=True)


def draw_plan(
    organ_model: OrganModel,
    recipe: SynthesisRecipe,
    seed: int,
    index: int,
    attempt: int,
    diameter_mm: float,
    others: Sequence[TumorPlan] = (),
) -> TumorPlan:
    """One tumor of this diameter; `attempt` > 0 draws another one after a rejection. `CaseError` if there is no room.

    Numbers are rounded to what matters, so a plan reads well and survives any file format unchanged.
    """
    rng = rng_for(seed, organ_model.case, organ_model.organ, index, attempt)
    shape, tissue = anatomy.SHAPES[organ_model.organ], anatomy.TISSUES[organ_model.organ]
    taken = [(plan.center_mm, bounding_radius_mm(plan)) for plan in others]
    form = anatomy.SITES[organ_model.organ].form
    roughness, spectrum, skew = _surface(shape, diameter_mm, rng)
    if form == "wall":
        patch = wall.draw_frame(organ_model, diameter_mm, taken, recipe.gap_mm, rng)
        center, relaxed, axes, orientation = patch.center_mm, patch.relaxed, patch.axes_mm, patch.orientation
    else:
        axes, orientation = _axes(shape, diameter_mm, rng), _rotation(rng)
        reach = float(max(axes)) * (1 + 1.5 * roughness)
        wanted = _wanted_depth(organ_model, diameter_mm, attempt, rng)
        site = find_site(organ_model, wanted, reach, taken, recipe.gap_mm, rng)
        center, relaxed = site.center_mm, site.relaxed
    contrast = _contrast(organ_model, recipe, rng)
    core = diameter_mm >= tissue.core_from_mm and rng.random() < tissue.core_share
    rim = rng.random() < tissue.rim_share
    # tissue is not displaced where finished tumors or real lesions lie: they stay as they are
    alone = apart(np.array([center]), [*taken, *organ_model.lesions], DISPLACEMENT_REACH * max(axes)).all()
    displaces = form == "mass" and rng.random() < recipe.mass_effect_share and alone
    # a norm's last bit differs between machines, and a plan may not
    turn = (round(orientation[0], 6), *_rounded(orientation[1:], 6))
    return TumorPlan(
        organ=organ_model.organ,
        form="wall" if form == "wall" else "mass",
        center_mm=_rounded(center, 3),
        axes_mm=_rounded(axes, 3),
        orientation=turn,
        roughness=round(roughness, 4),
        spectrum=round(spectrum, 3),
        skew=round(skew, 3),
        base_hu=organ_model.base_hu,
        contrast_hu=round(contrast, 1),
        texture_hu=round(_uniform(tissue.texture_hu, rng), 1),
        texture_mm=round(_uniform(tissue.texture_mm, rng), 1),
        edge_mm=round(_uniform(tissue.edge_mm, rng), 2),
        blur_mm=round(organ_model.blur_mm, 2),
        noise_hu=round(organ_model.noise_hu, 1),
        noise_from_mm=_rounded(organ_model.noise_from_mm, 1),
        seed=seed_for(seed, organ_model.case, organ_model.organ, index, attempt),
        rim_hu=round(_uniform(tissue.rim_hu, rng), 1) if rim else 0.0,
        rim_mm=round(rng.uniform(0.08, 0.2) * diameter_mm, 1) if rim else 0.0,
        core_hu=round(_uniform(tissue.core_hu, rng), 1) if core else 0.0,
        core_share=round(rng.uniform(0.4, 0.75), 2) if core else 0.0,
        displacement_mm=round(min(_uniform(recipe.displacement_mm, rng), 0.4 * min(axes)), 2) if displaces else 0.0,
        calcifications=_specks(diameter_mm, tissue.speck_share, rng),
        relaxed=relaxed,
        generator=recipe.generator,
    )


def bounding_radius_mm(plan: TumorPlan) -> float:
    """Of a ball around the center that holds the tumor, lobules and all but the rarest bump included."""
    return max(plan.axes_mm) * (1 + 1.5 * plan.roughness)


def _count(prior: ShapePrior, recipe: SynthesisRecipe, rng: np.random.Generator) -> int:
    if recipe.lesions:
        low, high = sorted(recipe.lesions)
        return int(rng.integers(low, high + 1))
    median, most = prior.lesions
    if most <= 1:
        return 1
    return int(min(max(1, round(float(np.exp(rng.normal(np.log(median), np.log(most / median) / 1.645))))), 30))


def _surface(shape: ShapePrior, diameter_mm: float, rng: np.random.Generator) -> tuple[float, float, float]:
    amplitude = shape.roughness_20 * (diameter_mm / 20) ** shape.roughness_growth
    amplitude *= float(np.exp(shape.roughness_spread * rng.standard_normal()))
    spectrum = float(rng.normal(shape.spectrum, anatomy.SPECTRUM_SPREAD))
    return min(amplitude, anatomy.ROUGHNESS_LIMIT), spectrum, float(rng.normal(*anatomy.SKEW))


def _axes(shape: ShapePrior, diameter_mm: float, rng: np.random.Generator) -> Vector:
    """Half-axes, longest first, of the planned volume."""
    middle = _ratio(*shape.b_over_a, rng)
    short = middle * _ratio(*shape.c_over_b, rng)
    longest = diameter_mm / 2 / (middle * short) ** (1 / 3)
    return longest, longest * middle, longest * short


def _ratio(mean: float, deviation: float, rng: np.random.Generator) -> float:
    """Beta-distributed on the allowed range, with this mean and SD."""
    low, high = anatomy.AXIS_RATIO_RANGE
    share, spread = (mean - low) / (high - low), deviation / (high - low)
    total = share * (1 - share) / spread**2 - 1
    return low + (high - low) * float(rng.beta(share * total, (1 - share) * total))


def _rotation(rng: np.random.Generator) -> tuple[float, float, float, float]:
    quaternion = rng.standard_normal(4)
    w, x, y, z = (quaternion / np.linalg.norm(quaternion)).tolist()
    return w, x, y, z


def _wanted_depth(
    organ_model: OrganModel, diameter_mm: float, attempt: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Lowest and highest depth of the center, in mm under the organ's surface.

    A tumor that found no room outside is drawn deeper each time: without fat around, it has to grow inward.
    """
    prior, radius = anatomy.SITES[organ_model.organ], diameter_mm / 2
    if prior.free_surface is None:
        return prior.depth_share * radius, float("inf")
    mean = prior.free_surface[0 if diameter_mm < 20 else 1 if diameter_mm <= 40 else 2]
    free = float(np.clip(rng.normal(mean, anatomy.FREE_SURFACE_SPREAD), 0.03, 0.9))
    depth = organ_model.radius_mm - _distance_for(free, radius, organ_model.radius_mm) + 0.2 * attempt * radius
    return depth - 0.1 * radius, depth + 0.1 * radius


def _distance_for(free: float, radius: float, organ_radius: float) -> float:
    """How far apart two balls' centers lie when `free` of the first's surface, or the least possible, is outside."""
    # the spheres meet where the cosine seen from the first's center is (R^2 - D^2 - r^2) / (2 D r) = 1 - 2 free
    cosine, excess = 1 - 2 * free, radius**2 - organ_radius**2
    if excess > 0:
        cosine = min(cosine, -(excess**0.5) / radius)
    return float(max((radius * cosine) ** 2 - excess, 0.0) ** 0.5 - radius * cosine)


def _contrast(organ_model: OrganModel, recipe: SynthesisRecipe, rng: np.random.Generator) -> float:
    if recipe.contrast_hu:
        return _uniform(recipe.contrast_hu, rng)
    mean, deviation, low, high = anatomy.CONTRASTS[organ_model.organ, organ_model.phase]
    drawn = rng.normal(mean, deviation)
    while not low <= drawn <= high:
        drawn = rng.normal(mean, deviation)
    return float(drawn)


def _specks(diameter_mm: float, share: float, rng: np.random.Generator) -> tuple[Calcification, ...]:
    if diameter_mm < 10 or rng.random() >= share:
        return ()
    specks = []
    for _ in range(int(rng.integers(1, 5))):
        direction = rng.standard_normal(3)
        place = direction / np.linalg.norm(direction) * 0.75 * rng.random() ** (1 / 3)
        specks.append(
            Calcification(
                _rounded(place, 3),
                round(min(rng.uniform(0.6, 2.0), 0.08 * diameter_mm), 2),
                round(rng.uniform(180, 600), 0),
            )
        )
    return tuple(specks)


def _uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    return float(rng.uniform(min(limits), max(limits)))


def _rounded(values: Sequence[float], digits: int) -> Vector:
    x, y, z = (round(float(value), digits) for value in values)
    return x, y, z
