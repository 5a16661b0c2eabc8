"""Psychometric curves: the share of lesions found over the levels of one attribute, and where it is one half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthoma.seeds import rng_for
from synthoma.statistics.intervals import Interval, Ratio, bootstrap, divide
from synthoma.tables import Row
from synthoma.trials.recipe import ATTRIBUTES
from synthoma.volume import Array

FEWEST = 5  # patients, below which a threshold has no interval
# Of the logistic curve on levels scaled to 0 to 1, as SD of a normal prior: it is felt only where levels separate
# found from missed without a fault, and the curve would be infinitely steep.
_STEEPEST, _SHIFT = 60.0, 100.0
# What a threshold and the width of the logistic curve may be before the data are seen, on levels scaled to 0 to 1: the
# threshold anywhere, beyond the levels too; the width as likely none at all (a sharp detector) as any from 0.01 to 1.
_THRESHOLDS = np.linspace(-0.5, 1.5, 401)
_WIDTHS = np.concatenate([[1e-5], np.geomspace(0.01, 1, 24)])
_PRIOR = np.concatenate([[0.5], np.full(24, 0.5 / 24)])


@dataclass(frozen=True, eq=False)
class Counts:
    """How many lesions of each level were found. levels: (L,), ascending; found, total: (patients, L)."""

    attribute: str
    levels: Array
    found: Array
    total: Array

    @classmethod
    def of(cls, attribute: str, lesions: Sequence[Row], patients: Sequence[str] | None = None) -> Counts:
        """Of rows with the attribute and `found`. patients: all who may be resampled; those of the rows unless told."""
        patients = list(dict.fromkeys(row["patient"] for row in lesions)) if patients is None else list(patients)
        levels = np.array(sorted({float(row[attribute]) for row in lesions}))
        found, total = np.zeros((len(patients), len(levels))), np.zeros((len(patients), len(levels)))
        place = {patient: number for number, patient in enumerate(patients)}
        for row in lesions:
            at = place[row["patient"]], int(np.searchsorted(levels, float(row[attribute])))
            total[at] += 1
            found[at] += row["found"]
        return cls(attribute, levels, found, total)

    def shares(self, resamples: int, seed: int) -> list[Interval]:
        """The share found at each level, with its interval by patient."""
        shares = []
        for level in range(len(self.levels)):
            tried = self.total[:, level] > 0
            ratio = Ratio(self.found[tried, level], self.total[tried, level])
            shares.append(bootstrap(ratio, int(tried.sum()), resamples, seed, proportion=True))
        return shares


@dataclass(frozen=True, eq=False)
class Curve:
    """A logistic curve through the shares found. half: the level at which half are found, with its interval.

    It is -inf or inf where the curve is beyond one half on all levels; ends of the interval too. rising: whether more
    is found at higher levels. draws: thresholds as likely as the data make them, on the scale of the axis.
    """

    attribute: str
    levels: Array
    slope: float
    offset: float
    half: Interval
    rising: bool
    draws: Array

    def share(self, levels: Array) -> Array:
        """The fitted share found at any level."""
        unit = _unit(to_axis(self.attribute, levels), to_axis(self.attribute, self.levels))
        return np.asarray(1 / (1 + np.exp(-(self.offset + self.slope * unit))))


def to_axis(attribute: str, levels: Array) -> Array:
    """Levels on the scale of the curve: diameters as logarithms, contrast without its sign, others as they are."""
    levels = np.asarray(levels, float)
    if attribute == "diameter_mm":
        return np.log(levels)
    return np.abs(levels) if attribute == "contrast_hu" else levels


def from_axis(attribute: str, values: Array) -> Array:
    """Back; contrast stays without its sign, and what is beyond all levels infinite."""
    values = np.asarray(values, float)
    if attribute != "diameter_mm":
        return values
    with np.errstate(over="ignore"):
        return np.where(np.isneginf(values), -np.inf, np.exp(values))


def fit_curve(
    counts: Counts, resamples: int = 1000, seed: int = 0, confidence: float = 0.95, model: int = 0
) -> Curve | None:
    """The curve of one attribute; None with fewer than two levels, without a lesion, or of one that has no order.

    The interval is of Bayes' rule: how likely each threshold makes what was found, over all widths of the curve (see
    `_PRIOR`). Patients who differ more than chance allows count for less. Where the curve is steeper than the step
    between two levels, the threshold may lie anywhere between them, and the interval says so. model: 0, 1 of models
    that are compared, whose places between two levels have nothing to do with each other. resamples: how many draws.
    """
    axis = to_axis(counts.attribute, counts.levels)
    if len(counts.found) == 0 or len(np.unique(axis)) < 2 or not ATTRIBUTES[counts.attribute].ordered:
        return None
    n = len(counts.found)
    unit = _unit(axis, axis)
    slope, offset = (float(each[0]) for each in _fit(unit, counts.found.sum(0)[None], counts.total.sum(0)[None]))
    shares = divide(counts.found.sum(0), counts.total.sum(0))
    rising = slope >= 0 if np.ptp(shares) > 0 else not ATTRIBUTES[counts.attribute].harder
    low, high = float(axis.min()), float(axis.max())

    def level(value: Array) -> Array:
        return from_axis(counts.attribute, np.where(np.isfinite(value), low + value * (high - low), value))

    value = float(level(_half(np.array([slope]), np.array([offset]), rising))[0])
    draws = np.full(0, np.nan)
    half = Interval(value, n=n, note=f"fewer than {FEWEST} patients have no interval")
    if n >= FEWEST:
        below = _posterior(unit, counts, rising)
        chance = rng_for(seed, "threshold", model, resamples).random(resamples)
        ends = _beyond(np.interp([(1 - confidence) / 2, (1 + confidence) / 2], below, _THRESHOLDS))
        draws = _beyond(np.interp(chance, below, _THRESHOLDS))
        half = Interval(value, float(level(ends[:1])[0]), float(level(ends[1:])[0]), n)
    return Curve(counts.attribute, counts.levels, slope, offset, half, rising, low + draws * (high - low))


def threshold_gap(first: Curve, second: Curve) -> Interval:
    """The second threshold less the first, in levels of the attribute, with its interval.

    It leaves out that both were tried on the same patients, and is a little too wide for that. nan where either lies
    beyond the levels; without an interval where it does so in more than 5 % of the draws.
    """
    attribute = first.attribute
    value = second.half.value - first.half.value
    n = first.half.n
    if not np.isfinite(value) or len(first.draws) == 0:
        return Interval(value if np.isfinite(value) else np.nan, n=n, note="beyond the levels")
    both = np.isfinite(first.draws) & np.isfinite(second.draws)
    if both.mean() < 0.95:
        return Interval(value, n=n, note="beyond the levels in too many draws")
    gaps = from_axis(attribute, second.draws[both]) - from_axis(attribute, first.draws[both])
    low, high = np.quantile(gaps, [0.025, 0.975])
    return Interval(value, float(low), float(high), n)


def _unit(values: Array, all_values: Array) -> Array:
    """Scaled so that the levels lie from 0 to 1."""
    return np.asarray((values - all_values.min()) / (all_values.max() - all_values.min()))


def _fit(unit: Array, found: Array, total: Array) -> tuple[Array, Array]:
    """Slope and offset of weighted logistic regressions, one a row of `found` and `total` (B, L), by Newton's method.

    The steps are limited, since those of steep curves overshoot; the penalized likelihood has one maximum.
    """
    slope, offset = np.zeros(len(found)), np.zeros(len(found))
    for _ in range(80):
        share = 1 / (1 + np.exp(-np.clip(offset[:, None] + slope[:, None] * unit, -500, 500)))
        gap, weight = found - total * share, total * share * (1 - share)
        down = np.stack([gap.sum(1) - offset / _SHIFT**2, (gap * unit).sum(1) - slope / _STEEPEST**2])
        a = weight.sum(1) + 1 / _SHIFT**2
        b, c = (weight * unit).sum(1), (weight * unit**2).sum(1) + 1 / _STEEPEST**2
        determinant = a * c - b * b
        step = np.stack([(c * down[0] - b * down[1]), (a * down[1] - b * down[0])]) / determinant
        step *= np.minimum(1, 8 / np.maximum(np.abs(step).max(0), 1e-12))
        offset, slope = offset + step[0], slope + step[1]
        if np.abs(step).max() < 1e-9:
            break
    return slope, offset


def _half(slope: Array, offset: Array, rising: bool) -> Array:
    """Where curves are one half on the unit scale; infinite where they are on one side of it on all levels."""
    at_low, at_high = offset > 0, offset + slope > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -offset / slope
    always = -np.inf if rising else np.inf  # found at every level: the threshold is on the hard side of all
    return np.where(at_low & at_high, always, np.where(~at_low & ~at_high, -always, crossing))


def _posterior(unit: Array, counts: Counts, rising: bool) -> Array:
    """How likely the threshold lies below each of `_THRESHOLDS`, given what was found."""
    away = (unit - _THRESHOLDS[:, None, None]) / _WIDTHS[:, None]
    away = away if rising else -away
    found, total = counts.found.sum(0), counts.total.sum(0)
    likelihood = -(found * np.logaddexp(0, -away) + (total - found) * np.logaddexp(0, away)).sum(-1)
    likelihood /= _unlikeness(counts)
    weight = (np.exp(likelihood - likelihood.max()) * _PRIOR).sum(1)
    return np.asarray((np.cumsum(weight) - weight / 2) / weight.sum())


def _unlikeness(counts: Counts) -> float:
    """How many times more the numbers found in patients vary than chance allows; at least 1."""
    share = divide(counts.found.sum(0), counts.total.sum(0))
    chance = float((counts.total * share * (1 - share)).sum())
    gaps = counts.found.sum(1) - (counts.total * share).sum(1)
    n = len(gaps)
    return max(1.0, float((gaps**2).sum()) / chance * n / (n - 1)) if chance > 0 else 1.0


def _beyond(thresholds: Array) -> Array:
    """On the scale of the levels, infinite where beyond all of them."""
    return np.where(thresholds < 0, -np.inf, np.where(thresholds > 1, np.inf, thresholds))
