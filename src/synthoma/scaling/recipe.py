"""The study recipe: which points a scaling study has, and how they are trained, scored and read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from synthoma import anatomy
from synthoma.datasets.splits import SplitRecipe
from synthoma.evaluation.figures import METRICS, metric
from synthoma.evaluation.scoring import EvaluateRecipe, nsd_name
from synthoma.recipe import Recipe
from synthoma.scaling.results import FitRecipe
from synthoma.synthesis.recipe import require_band

REAL = "real only"
BOUNDED = tuple(
    name for name, entry in METRICS.items() if entry.better == "high" and name not in ("patient_auc", "dsc", "iou")
)
TESTS = {"test": "new patients of the training hospitals", "ood": "patients of other hospitals"}


class FilterRecipe(Recipe):
    """Which tumors a critic keeps.

    keep, at_most: the least and the largest share of a tumor's voxels that it calls tumor. steps: of a critic's
    training; as many as a point has unless given.
    """

    keep: Annotated[float, Field(ge=0, le=1)] = 0.5
    at_most: Annotated[float, Field(ge=0, le=1)] = 1.0
    steps: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _band(self) -> Self:
        require_band(self.keep, self.at_most)
        return self


class StudyRecipe(Recipe):
    """A grid of trainings: numbers of real annotated cases x arms x seeds.

    counts: numbers of real cases with annotated tumors; 0 is trained in the arms with synthetic tumors only. shares:
    of patches that are cut from hosts of synthetic tumors; the real-only arm, 0, is always there. generators, filters:
    what makes synthetic tumors, and what sorts them out; every combination with `shares` is an arm, and the first is
    the one that the answer is about. seeds: trainings of each, each with subsets of its own. seed: of subsets, weights
    and tumors. healthy: how many cases without tumors take part, in every arm the same; all if None.

    learned: by name in `generators`, the generator recipe of one that learns in the study, from the same cases as the
    networks of its points. critic: which tumors the filter `critic` keeps. copies: of each host, with tumors made
    before the training and shown in turn by epoch, in all arms alike; 0 draws new ones in every epoch.

    train: a train recipe, for every point the same. tests: sides of the splits that are scored, in words; all sides
    unless named. splits: how to divide the cases where the data set has no `splits.json`. metric, structure: what is
    compared; the tumors of the first organ unless named. examples: cases of each test set that are shown. evaluate,
    fit: how cases are scored and points are read.
    """

    counts: tuple[Annotated[int, Field(ge=0)], ...] = (4, 8, 16)
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.5,)
    generators: tuple[str, ...] = ("rules",)
    filters: tuple[Literal["none", "critic"], ...] = ("none",)
    learned: dict[str, dict[str, Any]] = Field(default_factory=dict)
    critic: FilterRecipe = FilterRecipe()
    copies: int = Field(0, ge=0, le=99)
    seeds: int = Field(3, ge=1)
    seed: int = Field(0, ge=0)
    healthy: int | None = Field(None, ge=0)
    train: dict[str, Any] = Field(default_factory=dict)
    tests: dict[str, str] = Field(default_factory=dict)
    splits: SplitRecipe = SplitRecipe(test=0.3, folds=1)
    metric: str = "dsc_present"
    structure: str = ""
    examples: int = Field(3, ge=0)
    evaluate: EvaluateRecipe = EvaluateRecipe(distances=False, tolerances_mm=(2.0,))
    fit: FitRecipe = FitRecipe()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("counts", "shares", "generators", "filters"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} needs at least one value, and each once")
        if list(self.counts) != sorted(self.counts):
            raise ValueError("counts are given from the smallest to the largest")
        if self.metric not in BOUNDED and not self.metric.startswith("nsd_"):
            raise ValueError(f"no curve is known for {self.metric}; known: {', '.join(BOUNDED)}, nsd_2mm and the like")
        if "critic" in self.filters and not self.copies:
            raise ValueError("a critic judges tumors before a training: give copies, such as 4")
        if strangers := sorted(set(self.learned) - set(self.generators)):
            raise ValueError(f"learned.{strangers[0]} is the recipe of no generator of {', '.join(self.generators)}")
        if self.learned and not self.counts[0]:
            raise ValueError("a generator that learns in the study needs a real case: take 0 out of counts")
        computed = [nsd_name(tolerance) for tolerance in self.evaluate.tolerances_mm]
        if self.metric.startswith("nsd_") and self.metric not in computed:
            raise ValueError(
                f"metric {self.metric} is not computed: evaluate.tolerances_mm gives {', '.join(computed) or 'none'}"
            )
        return self

    @property
    def lesion(self) -> str:
        """The structure that is compared."""
        return self.structure or anatomy.organ((*self.train.get("organs", ()), "liver")[0]).lesion

    @property
    def metric_label(self) -> str:
        """The metric in words; a study is about tumors, so scans without are no part of a DSC."""
        return "DSC" if self.metric == "dsc_present" else metric(self.metric).label

    def words_for(self, test: str) -> str:
        """A test set in words."""
        return self.tests.get(test) or TESTS.get(test, test)

    def arms(self) -> list[Arm]:
        """The real-only arm, and every way to add synthetic tumors; the one that the answer is about comes second."""
        mixed = [
            Arm(share, generator, filtered)
            for generator in self.generators
            for filtered in self.filters
            for share in self.shares
        ]
        return [Arm(), *mixed]

    def label(self, arm: Arm) -> str:
        """An arm in words, no longer than it takes to tell it from the others."""
        if arm.share == 0:
            return REAL
        told = [f"{100 * arm.share:g} %"] if len(self.shares) > 1 else []
        told += [arm.generator] if len(self.generators) > 1 else []
        told += [arm.filter] if arm.filter != "none" else []
        return "with synthetic tumors" + (f", {', '.join(told)}" if told else "")

    def points(self) -> Iterator[PointTask]:
        """Every point, arms without a critic first, then seed by seed: what a partial study has can be compared."""
        for judged in (False, True):
            arms = [arm for arm in self.arms() if (arm.filter == "critic") == judged]
            for seed, count in itertools.product(range(self.seeds), self.counts):
                yield from (PointTask(arm, count, seed) for arm in arms if count or arm.share)


@dataclass(frozen=True)
class Arm:
    """A way to train: the share of patches from hosts of synthetic tumors, made by what, sorted out by what."""

    share: float = 0.0
    generator: str = ""
    filter: str = "none"

    @property
    def name(self) -> str:
        """As part of a folder's name."""
        if self.share == 0:
            return "real"
        return f"{self.maker}-{100 * self.share:g}" + ("" if self.filter == "none" else f"-{self.filter}")

    @property
    def maker(self) -> str:
        """The generator, as part of a folder's name."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.generator)


@dataclass(frozen=True)
class PointTask:
    """One training of the grid."""

    arm: Arm
    cases: int
    seed: int

    @property
    def id(self) -> str:
        """Its name, and that of its folder."""
        return f"{self.subset}_{self.arm.name}"

    @property
    def subset(self) -> str:
        """The name of the cases that it learns from, which all arms have in common."""
        return f"n{self.cases:04d}_s{self.seed}"
