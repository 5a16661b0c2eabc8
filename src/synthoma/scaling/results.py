"""What a study found, as plain data: scores, gains, curves and real-equivalent cases, with intervals or reasons."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import Field

from synthoma.recipe import Recipe
from synthoma.statistics.intervals import Interval
from synthoma.tables import plain


class FitRecipe(Recipe):
    """How points are read. ceiling: the best possible score (1; 100 for percent). worthwhile: what doubling the real
    cases must add to be worth the annotation. resamples, confidence: of the bootstrap."""

    ceiling: float = Field(1.0, gt=0)
    worthwhile: float = Field(0.01, gt=0)
    resamples: int = Field(2000, ge=100)
    confidence: float = Field(0.95, gt=0.5, lt=1)


@dataclass(frozen=True)
class Level:
    """An arm at one number of real cases. score: the mean over `seeds` training seeds.

    gain: the score less that of the real-only arm at the same number, over the seeds that both have. equivalent: how
    many real cases alone would score the same; factor: that over `cases`. The two are inf where no number would.
    """

    arm: str
    cases: int
    seeds: int
    score: Interval
    gain: Interval | None = None
    equivalent: Interval | None = None
    factor: Interval | None = None


@dataclass(frozen=True)
class ArmFit:
    """The curve of one arm. law: `power`, or `log-linear` of two sizes; empty if there is none. problem: why the
    numbers cannot be trusted, or why there are none; empty if they can.

    held_out: law -> error at sizes it was not fitted to. saturation: from how many cases on doubling them adds less
    than `worthwhile`. doubling: what twice the most cases measured would add. curve: score with interval at numbers of
    cases, up to twice the most measured.
    """

    arm: str
    law: str
    problem: str
    parameters: dict[str, Interval] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)
    saturation: Interval | None = None
    doubling: Interval | None = None
    curve: tuple[tuple[float, Interval], ...] = ()


@dataclass(frozen=True)
class StudyFit:
    """What is known of one metric on one test set. real: the arm without synthetic tumors. best: at each number of
    cases the arm that scores best, how often it does among resamples, and the arms not told from it. patient_share: how
    much of the variance of gains comes from which patients were tested on, the rest being training seeds; nan if the
    two cannot be told apart. note: why there are no intervals, or what they leave out.
    """

    real: str
    patients: int
    seeds: int
    confidence: float
    levels: tuple[Level, ...]
    arms: tuple[ArmFit, ...]
    best: dict[int, tuple[str, float, tuple[str, ...]]]
    patient_share: float = float("nan")
    note: str = ""

    def level(self, arm: str, cases: int) -> Level | None:
        """The level of an arm, if it was measured."""
        return next((one for one in self.levels if (one.arm, one.cases) == (arm, cases)), None)

    def arm(self, name: str) -> ArmFit:
        """The curve of an arm."""
        return next(one for one in self.arms if one.arm == name)

    @property
    def mixed(self) -> list[str]:
        """The arms with synthetic tumors."""
        return [one.arm for one in self.arms if one.arm != self.real]

    @property
    def largest(self) -> int:
        """The most real cases that the real-only arm was trained with."""
        return max((one.cases for one in self.levels if one.arm == self.real), default=0)

    def as_dict(self) -> dict[str, Any]:
        """JSON data; None for what is not a number, and for what has no end."""
        return dict(_json(asdict(self)))


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json(entry) for entry in value]
    return plain(value)
