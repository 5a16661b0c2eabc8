"""What becomes of each tumor: volume and tissue at every date, drawn once, as plain data; and its plan at a date."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from synthoma.cases import equivalent_diameter_mm
from synthoma.followup.laws import LAWS, draw_doubling_days
from synthoma.followup.recipe import COURSES, FollowRecipe
from synthoma.synthesis.drawing import uniform
from synthoma.synthesis.tumor import HU, TumorPlan

Volume = Annotated[float, Field(ge=0, le=3e7, allow_inf_nan=False)]
GONE_MM = 3.0  # tumors that shrink below this diameter are gone
_FIRST_MM = (6.0, 12.0)  # of a new lesion when it is first seen
_STABLE = 0.05  # SD of the relative change of the volume of a stable tumor
_HU_FALL = (8.0, 30.0)  # of a tumor that responds, by the last date
_CORE = (0.5, 0.8)  # share of the radius that has died in a tumor that responded, if its generator makes cores
_CORE_HU = (-30.0, -12.0)
_CALCIFIES = 0.25
_OLD_TISSUE = "texture_hu"  # a plan with this detail has tissue that may die and calcify


@dataclass(frozen=True)
class Course:
    """One tumor over dates. All lists have an entry a date.

    lesion: 1, 2, ..., the same at all dates. fate: `growth`, `stable` or `response`. volumes_mm3: 0 where it is not
    there. contrast_hu: added to the plan's. details: that replace those of the plan.
    """

    lesion: Annotated[int, Field(ge=1, le=10_000)]
    plan: TumorPlan
    fate: str
    doubling_days: float
    volumes_mm3: tuple[Volume, ...]
    contrast_hu: tuple[HU, ...]
    details: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)} | {
            "plan": self.plan.as_dict()
        }

    def plan_at(self, date: int) -> TumorPlan | None:
        """The tumor's plan at a date, counted from 0; None where it is not there.

        Axes, bounding radius and mass effect go with the cube root of the volume: rules scale along their own
        surface, growth runs on.
        """
        volume = self.volumes_mm3[date]
        if volume <= 0:
            return None
        plan = self.plan
        scale = (volume / plan.volume_mm3) ** (1 / 3)
        a, b, c = (round(axis * scale, 3) for axis in plan.axes_mm)
        return dataclasses.replace(
            plan,
            axes_mm=(a, b, c),
            volume_mm3=volume,
            radius_mm=plan.radius_mm * scale,
            contrast_hu=round(plan.contrast_hu + self.contrast_hu[date], 1),
            displacement_mm=round(min(plan.displacement_mm * scale, 0.4 * min(a, b, c)), 2),
            details={**plan.details, **self.details[date]},
        )


def draw_courses(plans: Sequence[TumorPlan], recipe: FollowRecipe, rng: np.random.Generator) -> list[Course]:
    """What becomes of a patient's tumors, given as the plans of the first date."""
    names = [name for name in COURSES if recipe.course.get(name)]
    weights = np.array([recipe.course[name] for name in names])
    course = names[rng.choice(len(names), p=weights / weights.sum())]
    courses = []
    for number, plan in enumerate(plans, 1):
        fate = str(rng.choice(["growth", "response"])) if course == "mixed" else course
        is_new = number > 1 and rng.random() < recipe.new_share and course != "stable"
        courses.append(_draw(number, plan, "growth" if is_new else fate, is_new, recipe, rng))
    return courses


def _draw(
    number: int, plan: TumorPlan, fate: str, is_new: bool, recipe: FollowRecipe, rng: np.random.Generator
) -> Course:
    days, volume = recipe.days, plan.volume_mm3
    doubling = round(draw_doubling_days(plan.organ, recipe.doubling_days, rng), 1)
    law, dates = LAWS[recipe.law], range(len(recipe.days))
    contrast, details = [0.0] * len(days), [dict[str, Any]() for _ in dates]
    if is_new:
        seen = int(rng.integers(1, len(days)))
        first = min(volume, np.pi / 6 * rng.uniform(*_FIRST_MM) ** 3)
        volumes = [law(first, doubling, days[n] - days[seen]) if n >= seen else 0.0 for n in dates]
    elif fate == "growth":
        volumes = [law(volume, doubling, day) for day in days]
    elif fate == "stable":
        noise = rng.normal(0, _STABLE, len(days))
        volumes = [volume * float(np.exp(noise[n] if n else 0)) for n in dates]
    else:
        shrinks, fall = uniform(recipe.response, rng), float(rng.uniform(*_HU_FALL))
        # most of it happens early
        done = [1 - (1 - day / days[-1]) ** 2 for day in days]
        volumes = [volume * (1 - shrinks * share) ** 3 for share in done]
        contrast = [round(-fall * share, 1) for share in done]
        if _OLD_TISSUE in plan.details:
            details = _died(plan, done, rng)
    volumes = [round(v, 1) if equivalent_diameter_mm(v) >= GONE_MM else 0.0 for v in volumes]
    for n in dates:  # what is gone stays gone
        if n and not volumes[n - 1] and fate == "response":
            volumes[n] = 0.0
    return Course(number, plan, fate, doubling, tuple(volumes), tuple(contrast), tuple(details))


def _died(plan: TumorPlan, done: Sequence[float], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Details of a responding tumor: a core that grows with the response, and in some specks of calcium in the end."""
    most, core_hu = float(rng.uniform(*_CORE)), round(float(rng.uniform(*_CORE_HU)), 1)
    first_hu = float(plan.details.get("core_hu", 0.0))
    calcifies = rng.random() < _CALCIFIES
    place = rng.uniform(-0.35, 0.35, 3).round(3).tolist()
    speck = [place, round(float(rng.uniform(0.8, 1.6)), 2), round(float(rng.uniform(180, 500)), 0)]
    found = []
    for share in done:
        entry: dict[str, Any] = {}
        if share > 0:
            entry = {"core_hu": round(first_hu + (core_hu - first_hu) * share, 1)}
            if "front_mm" in plan.details:  # growth counts dead tissue by its depth
                depth = 0.5 * plan.equivalent_diameter_mm * (1 - most)
                entry |= {"death_mm": round(max(depth, 1.0), 1), "core_share": 0.5}
            else:
                entry["core_share"] = round(most, 2)
            if calcifies and share > 0.6:
                entry["calcifications"] = [*plan.details.get("calcifications", ()), speck]
        found.append(entry)
    return found
