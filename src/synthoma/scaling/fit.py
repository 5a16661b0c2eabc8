"""From the points of a study to its findings; what the points do not decide gets the reason instead of a number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthoma.scaling.laws import EXPONENTS, LAWS, PARAMETERS, Curves, held_out_errors
from synthoma.scaling.results import ArmFit, FitRecipe, Level, StudyFit
from synthoma.scaling.table import Point, Table, mean_over_seeds
from synthoma.statistics.intervals import UNDEFINED, Interval
from synthoma.volume import Array

FAR = 2.0  # times the largest number of cases measured: what lies beyond is extrapolated
ALONG = 40  # numbers of cases at which curves are given for drawing


def fit_study(points: Sequence[Point], real: str, recipe: FitRecipe | None = None, seed: int = 0) -> StudyFit:
    """Everything that the points of one test set tell; the same for the same seed.

    real: the name of the arm without synthetic tumors. A point that is missing is fitted around. Scores of a single
    patient (published means) have no interval. What cannot be identified has no number, but the reason.
    """
    table = Table.of(points)
    study = _Study(table, real, recipe or FitRecipe(), seed)
    places = [(arm, place) for arm in range(len(table.arms)) for place in range(len(table.cases))]
    return StudyFit(
        real,
        table.patients,
        len(table.seeds),
        study.recipe.confidence,
        tuple(study.level(arm, place) for arm, place in places if study.there[arm, place]),
        tuple(study.arm(arm) for arm in range(len(table.arms))),
        {cases: study.best(place) for place, cases in enumerate(table.cases) if study.there[:, place].sum() > 1},
        study.patient_share(seed),
        study.note,
    )


class _Study:
    """The table and its resamples; arms and numbers of cases by their place.

    scores: (1 + B, A, K, S), first as measured, then of every resample; so of every figure made of them.
    """

    def __init__(self, table: Table, real: str, recipe: FitRecipe, seed: int) -> None:
        self.table, self.recipe = table, recipe
        self.real = table.arms.index(real) if real in table.arms else None
        self.measured: Array = np.logical_not(np.isnan(table.values))
        self.there = np.asarray(self.measured.any(axis=2))
        self.scores, self.note = self._resampled(seed)
        self.reference = None if self.real is None else self.fitted(self.real)

    def _resampled(self, seed: int) -> tuple[Array, str]:
        measured = self.table.values[None]
        if self.table.patients < 2:
            return measured, "values without intervals: the scores of single patients are not known"
        drawn = self.table.resampled(self.recipe.resamples, seed)
        defined = np.asarray(np.isfinite(drawn[:, self.measured]).all(axis=1))
        if defined.mean() < 1 - UNDEFINED:
            return measured, "values without intervals: too few patients have what is scored"
        one = len(self.table.seeds) < 2
        note = "one training seed: intervals leave out what another would change" if one else ""
        return np.concatenate([measured, drawn[defined]]), note

    def mean(self, arm: int, place: int) -> Array:
        """The score of an arm at a number of cases (1 + B,)."""
        return mean_over_seeds(self.scores[:, arm, place])

    def interval(self, figure: Array, note: str = "") -> Interval:
        """The figure as measured with percentiles of its resamples; an end that is inf is open."""
        value, drawn = float(figure[0]), np.sort(figure[1:])
        if len(drawn) == 0 or np.isnan(value):
            return Interval(value, n=self.table.patients, note=note or self.note)
        tail = (1 - self.recipe.confidence) / 2 * (len(drawn) - 1)  # not interpolated: ends may be inf
        low, high = drawn[int(np.floor(tail))], drawn[len(drawn) - 1 - int(np.floor(tail))]
        return Interval(value, float(low), float(high), self.table.patients, note)

    def sizes(self, arm: int) -> tuple[Array, Array]:
        """Numbers of cases above 0 that an arm has, and their places."""
        cases = np.array(self.table.cases, float)
        kept = np.flatnonzero(self.there[arm] & (cases > 0))
        return cases[kept], kept

    def fitted(self, arm: int) -> Curves | None:
        """The curves of an arm: a power law, a log-linear one of two sizes, None of fewer."""
        n, kept = self.sizes(arm)
        law = "power" if len(n) >= PARAMETERS["power"] else "log-linear"
        if len(n) < PARAMETERS[law]:
            return None
        weights = self.measured[arm, kept].sum(axis=1).astype(float)
        return LAWS[law](n, mean_over_seeds(self.scores[:, arm, kept]), weights, self.recipe.ceiling)

    def level(self, arm: int, place: int) -> Level:
        """One arm at one number of cases."""
        cases, seeds = self.table.cases[place], int(self.measured[arm, place].sum())
        # a resample adds what seeds differ in, which can lead below 0, where no score is
        score = self.interval(np.clip(self.mean(arm, place), 0, self.recipe.ceiling))
        level = Level(self.table.arms[arm], cases, seeds, score)
        if self.real is None or arm == self.real:
            return level
        gain = None
        both = self.measured[[arm, self.real], place].all(axis=0)
        if both.any():
            gaps = self.scores[:, arm, place] - self.scores[:, self.real, place]
            gain = self.interval(gaps[:, both].mean(axis=1))
        equivalent = self.equivalent(arm, place)
        return Level(level.arm, cases, seeds, level.score, gain, equivalent, _divided(equivalent, cases))

    def equivalent(self, arm: int, place: int) -> Interval:
        """How many real cases alone score the same."""
        if self.reference is None or self.real is None:
            reason = "cannot be identified: the arm without synthetic tumors has fewer than two sizes"
            return Interval(np.nan, n=self.table.patients, note=reason)
        unknown = self.no_rise(self.real)
        if unknown:
            return Interval(np.nan, n=self.table.patients, note=f"{unknown} without synthetic tumors")
        found = self.reference.cases_for(self.mean(arm, place))
        n, _ = self.sizes(self.real)
        note = ""
        if found[0] > FAR * n.max():
            note = f"beyond twice the {n.max():g} real cases measured: extrapolated"
        elif found[0] < n.min() / FAR:
            note = f"below half of the {n.min():g} real cases measured: extrapolated"
        return self.interval(found, note)

    def no_rise(self, arm: int) -> str:
        """That more cases are not shown to help; empty if they are."""
        _, kept = self.sizes(arm)
        rise = self.interval(self.mean(arm, kept[-1]) - self.mean(arm, kept[0]))
        sizes = f"from {self.table.cases[kept[0]]} to {self.table.cases[kept[-1]]} cases"
        if rise.value <= 0:
            return f"cannot be identified: the score does not rise {sizes}"
        return f"cannot be identified: no rise is shown {sizes}" if rise.low <= 0 else ""

    def arm(self, arm: int) -> ArmFit:
        """The curve of an arm with everything read off it."""
        name = self.table.arms[arm]
        n, kept = self.sizes(arm)
        curves = self.fitted(arm)
        if curves is None:
            return ArmFit(name, "", f"cannot be identified: a curve needs two sizes or more, there are {len(n)}")
        weights = self.measured[arm, kept].sum(axis=1).astype(float)
        scores = mean_over_seeds(self.table.values[arm, kept])
        along = np.geomspace(n.min(), FAR * n.max(), ALONG)
        worth = curves.worth_until(self.recipe.worthwhile)
        far = f"beyond twice the {n.max():g} cases measured: extrapolated" if worth[0] > FAR * n.max() else ""
        ends = curves.at(np.array([n.max(), 2 * n.max()]))
        return ArmFit(
            name,
            curves.law,
            self.no_rise(arm) or self._problem(curves, len(n)),
            {key: self.interval(getattr(curves, key)) for key in ("a", "b", "c")[: PARAMETERS[curves.law]]},
            held_out_errors(n, scores, weights, self.recipe.ceiling),
            self.interval(worth, far) if curves.law == "power" else None,
            self.interval(ends[:, 1] - ends[:, 0]),
            tuple((float(x), self.interval(y)) for x, y in zip(along, curves.at(along).T, strict=True)),
        )

    def _problem(self, curves: Curves, sizes: int) -> str:
        """Why the parameters of a rising curve mean little; empty if they do."""
        if curves.law != "power":
            return f"cannot be identified: a power law has three parameters, and there are {sizes} sizes"
        if curves.a[0] >= self.recipe.ceiling:
            return f"the plateau cannot be identified: the fit ends at the ceiling of {self.recipe.ceiling:g}"
        if curves.c[0] > EXPONENTS[1] * 0.99:
            return "the exponent cannot be identified: the plateau is reached between the first two sizes"
        if curves.c[0] < EXPONENTS[0] * 1.01:
            return "the plateau cannot be identified: the curve is straight on a logarithmic scale"
        if sizes == PARAMETERS["power"]:
            return "three sizes for three parameters: the curve passes through them, and nothing checks it"
        return ""

    def patient_share(self, seed: int) -> float:
        """How much of the variance of gains is the patients'; nan where it cannot be told."""
        others = [arm for arm in range(len(self.table.arms)) if arm != self.real]
        if len(self.scores) == 1 or self.real is None or not others:
            return np.nan
        parts = self.table.resampled_apart(self.recipe.resamples, seed)
        if parts is None:
            return np.nan
        gaps = [mean_over_seeds(part[:, others] - part[:, [self.real]]) for part in parts]
        there = np.isfinite(gaps[0][0])  # an arm and the real-only one share no seed somewhere
        patients, seeds = (float(gap[:, there].var(axis=0).mean()) if there.any() else np.nan for gap in gaps)
        return patients / (patients + seeds) if patients + seeds > 0 else np.nan

    def best(self, place: int) -> tuple[str, float, tuple[str, ...]]:
        """The arm with the highest score at a number of cases, how often it has among resamples, and those like it."""
        arms = np.flatnonzero(self.there[:, place])
        scores = mean_over_seeds(self.scores[:, arms, place])
        first = int(scores[0].argmax())
        gaps = [self.interval(scores[:, first] - scores[:, n]) for n in range(len(arms))]
        alike = tuple(self.table.arms[arms[n]] for n, gap in enumerate(gaps) if n != first and gap.spans_zero)
        often = float((scores[1:].argmax(axis=1) == first).mean()) if len(scores) > 1 else np.nan
        return self.table.arms[arms[first]], often, alike


def _divided(interval: Interval, by: int) -> Interval | None:
    if by == 0:
        return None
    return Interval(interval.value / by, interval.low / by, interval.high / by, interval.n, interval.note)
