"""Psychometric curves: the share of lesions found over the levels of one attribute, and where it is one half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthoma.seeds import rng_for
from synthoma.statistics.intervals import Interval, Ratio, bootstrap, divide, weights
from synthoma.tables import Row
from synthoma.volume import Array

FEWEST = 5  # patients, below which a threshold has no interval
_HARDER = ("edge_mm", "texture_hu")  # of which more makes a lesion harder to find, where the data do not say
# Of the logistic curve on levels scaled to 0 to 1, as SD of a normal prior: it is felt only where levels separate
# found from missed without a fault, and the curve would be infinitely steep.
_STEEPEST, _SHIFT = 60.0, 100.0


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
    is found at higher levels. draws: the threshold in each resample, on the scale of the axis.
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
    """The curve of one attribute; None with fewer than two levels, or without a lesion.

    The interval is that of a bootstrap by patient (percentiles). Where the curve is steeper than the step between two
    levels, the threshold may lie anywhere between them: no lesion there was tried. The interval says so. model: 0, 1 of
    models that are compared, whose places between two levels have nothing to do with each other.
    """
    axis = to_axis(counts.attribute, counts.levels)
    if len(counts.found) == 0 or len(np.unique(axis)) < 2:
        return None
    n = len(counts.found)
    unit = _unit(axis, axis)
    slope, offset = (float(each[0]) for each in _fit(unit, counts.found.sum(0)[None], counts.total.sum(0)[None]))
    shares = divide(counts.found.sum(0), counts.total.sum(0))
    rising = slope >= 0 if np.ptp(shares) > 0 else counts.attribute not in _HARDER
    low, high = float(axis.min()), float(axis.max())

    def level(value: Array) -> Array:
        return from_axis(counts.attribute, np.where(np.isfinite(value), low + value * (high - low), value))

    value = float(level(_half(np.array([slope]), np.array([offset]), rising))[0])
    draws = np.full(0, np.nan)
    half = Interval(value, n=n, note=f"fewer than {FEWEST} patients have no interval")
    if n >= FEWEST:
        drawn = weights(n, resamples, seed)
        found, total = drawn @ counts.found, drawn @ counts.total
        slopes, offsets = _fit(unit, found, total)
        draws = _spread(_half(slopes, offsets, rising), slopes, unit, divide(found, total), seed, model)
        ends = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], method="nearest")
        half = Interval(value, float(level(ends[:1])[0]), float(level(ends[1:])[0]), n)
    return Curve(counts.attribute, counts.levels, slope, offset, half, rising, low + draws * (high - low))


def threshold_gap(first: Curve, second: Curve) -> Interval:
    """The second threshold less the first, in levels of the attribute, with its interval over the same resamples.

    nan where either lies beyond the levels; without an interval where it does so in more than 5 % of the resamples.
    """
    attribute = first.attribute
    value = second.half.value - first.half.value
    n = first.half.n
    if not np.isfinite(value) or len(first.draws) == 0:
        return Interval(value if np.isfinite(value) else np.nan, n=n, note="beyond the levels")
    both = np.isfinite(first.draws) & np.isfinite(second.draws)
    if both.mean() < 0.95:
        return Interval(value, n=n, note="beyond the levels in too many resamples")
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


def _spread(half: Array, slope: Array, unit: Array, shares: Array, seed: int, model: int) -> Array:
    """Thresholds moved at random within the step between two levels, as far as the curve is steeper than the step.

    shares: found at each level (B, L). Where all are missed at one end of the step and all found at the other, the
    threshold may be anywhere in it.
    """
    moved = half.copy()
    inside = np.flatnonzero(np.isfinite(half))
    order = np.argsort(unit, kind="stable")
    unit, shares = unit[order], shares[:, order]
    place = np.clip(np.searchsorted(unit, half[inside], "right"), 1, len(unit) - 1)
    low, high = unit[place - 1], unit[place]
    rise = 2 * np.log(9) / np.maximum(np.abs(slope[inside]), 1e-9)  # from 10 to 90 %
    rise[np.abs(shares[inside, place] - shares[inside, place - 1]) == 1] = 0
    loose = np.maximum(0, (high - low) - rise)
    chance = rng_for(seed, "threshold", model, len(half)).uniform(-0.5, 0.5, len(half))[inside]
    moved[inside] = np.clip(half[inside] + chance * loose, low, high)
    return moved
