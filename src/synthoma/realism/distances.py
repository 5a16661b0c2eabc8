"""How far apart two sets of lesions are, feature by feature, beside two halves of the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthoma.realism.features import FEATURES, Row
from synthoma.seeds import rng_for
from synthoma.statistics.intervals import Interval, weights
from synthoma.statistics.paired import holm
from synthoma.volume import Array

FEWEST = 10  # lesions on a side for an interval and a test
HALVES = 200
PERMUTATIONS = 1999  # enough for a p of 5 % over all features together
Defined = tuple[Array, Array]  # values, and the number of the patient of each


@dataclass(frozen=True)
class Distance:
    """One feature of real and synthetic lesions.

    ks: largest gap between the two distribution functions, with its interval (`ks_interval`). halves: the same
    between two halves of the real patients, middle of `HALVES` draws; halves_high: the 95th percentile of these. p:
    share of shuffled patients whose gap is as large; adjusted: for the number of features (Holm). real, synthetic: 5th,
    50th and 95th percentile. n: lesions that have the feature.
    """

    feature: str
    ks: Interval
    halves: float
    halves_high: float
    p: float
    adjusted: float
    real: tuple[float, float, float]
    synthetic: tuple[float, float, float]
    n: tuple[int, int]

    @property
    def differs(self) -> bool:
        """Whether a difference is shown, at 5 % over all features together."""
        return self.adjusted < 0.05


def values_of(rows: Sequence[Row], feature: str) -> Array:
    """A feature of each lesion; nan where it could not be told."""
    return np.array([np.nan if row[feature] is None else row[feature] for row in rows], float)


def match_sizes(real: Sequence[Row], synthetic: Sequence[Row], seed: int = 0) -> tuple[list[Row], list[Row]]:
    """As many lesions of each size and organ on both sides, drawn at random: a difference is then not one of size.

    Sizes are steps of a third of an octave of diameter (1.26 times).
    """
    sides = []
    for rows in (real, synthetic):
        bins: dict[tuple[str, int], list[int]] = {}
        for place, row in enumerate(rows):
            size = int(np.floor(3 * np.log2(row["equivalent_diameter_mm"])))
            bins.setdefault((row["organ"], size), []).append(place)
        sides.append(bins)
    kept: tuple[list[int], list[int]] = [], []
    for key in sorted(set(sides[0]) & set(sides[1])):
        count = min(len(side[key]) for side in sides)
        for number, side in enumerate(sides):
            rng = rng_for(seed, "match", number, *key)
            kept[number].extend(rng.permutation(side[key])[:count].tolist())
    return [real[place] for place in sorted(kept[0])], [synthetic[place] for place in sorted(kept[1])]


def compare_features(
    real: Sequence[Row], synthetic: Sequence[Row], seed: int = 0, resamples: int = 1000
) -> list[Distance]:
    """Every feature's distance, the largest first. Fewer than 10 lesions on a side have neither intervals nor p."""
    found = []
    for feature in FEATURES:
        a, b = _defined(real, feature.name), _defined(synthetic, feature.name)
        if min(len(a[0]), len(b[0])) >= 2:
            found.append(_distance(feature.name, a, b, seed, resamples))
    adjusted = iter(holm([distance.p for distance in found if not np.isnan(distance.p)]))
    whole = [
        distance if np.isnan(distance.p) else Distance(**{**vars(distance), "adjusted": next(adjusted)})
        for distance in found
    ]
    return sorted(whole, key=lambda distance: -distance.ks.value)


def ks_distance(first: Array, second: Array, w_first: Array, w_second: Array) -> Array:
    """Largest gap between two weighted distribution functions, for every row of the weights (B, n) and (B, m)."""
    return np.asarray(np.abs(_differences(first, second, w_first, w_second)).max(axis=1))


def _differences(first: Array, second: Array, w_first: Array, w_second: Array) -> Array:
    """(B, values): the first distribution function less the second, at every value of either, and 0."""
    both = np.concatenate([first, second])
    order = np.argsort(both, kind="stable")
    last = np.append(np.diff(both[order]) > 0, True)  # of values that are equal
    zero = np.zeros((len(w_first), 1))
    parts = []
    for own, before in ((w_first, False), (w_second, True)):
        other = np.zeros((len(own), len(both) - own.shape[1]))
        wide = np.concatenate([other, own] if before else [own, other], axis=1)[:, order]
        total = wide.sum(axis=1, keepdims=True)
        parts.append(np.cumsum(wide, axis=1) / np.where(total > 0, total, np.nan))
    return np.concatenate([(parts[0] - parts[1])[:, last], zero], axis=1)


def ks_interval(real: Defined, synthetic: Defined, resamples: int, seed: int) -> Interval:
    """The distance, and by how much it may be off, by resampling patients.

    Resampled distances are nearly always larger than the distance itself, since chance adds to every gap, so their
    percentiles are no interval. What is resampled is the whole difference of the two functions: 95 % of the draws
    differ from it by less than some gap everywhere, and so does the distance (a band as Kolmogorov's, rather too wide).
    """
    (a, who_a), (b, who_b) = real, synthetic
    counts = int(who_a.max()) + 1, int(who_b.max()) + 1
    whole = _differences(a, b, np.ones((1, len(a))), np.ones((1, len(b))))
    draws = [weights(count, resamples, seed, level) for level, count in enumerate(counts)]
    drawn = _differences(a, b, draws[0][:, who_a], draws[1][:, who_b])
    value, reach = float(np.abs(whole).max()), float(np.quantile(np.abs(drawn - whole).max(axis=1), 0.95))
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach), counts[0])


def _defined(rows: Sequence[Row], feature: str) -> Defined:
    values = values_of(rows, feature)
    known = np.isfinite(values)
    _, patients = np.unique([row["patient"] for row in rows] or [""], return_inverse=True)
    return values[known], np.unique(patients[: len(rows)][known], return_inverse=True)[1]


def _distance(name: str, real: Defined, synthetic: Defined, seed: int, resamples: int) -> Distance:
    (a, who_a), (b, who_b) = real, synthetic
    counts = int(who_a.max()) + 1, int(who_b.max()) + 1
    enough = min(len(a), len(b)) >= FEWEST and min(counts) >= 2
    if enough:
        ks = ks_interval(real, synthetic, resamples, seed)
        p = _permutation_p(real, synthetic, ks.value, seed)
    else:
        value = float(ks_distance(a, b, np.ones((1, len(a))), np.ones((1, len(b))))[0])
        ks, p = Interval(value, n=counts[0], note="few lesions"), float("nan")
    halves = _halves(real, seed)
    percentiles = [tuple(np.percentile(values, [5, 50, 95]).tolist()) for values in (a, b)]
    middle, high = (float(np.median(halves)), float(np.quantile(halves, 0.95))) if halves.size else (np.nan, np.nan)
    return Distance(name, ks, middle, high, p, float("nan"), percentiles[0], percentiles[1], (len(a), len(b)))


def _permutation_p(real: Defined, synthetic: Defined, gap: float, seed: int) -> float:
    """Patients are shuffled between the sides; both (1 + as large) / (1 + draws)."""
    values = np.concatenate([real[0], synthetic[0]])
    shift = int(real[1].max()) + 1
    who = np.concatenate([real[1], synthetic[1] + shift])
    patients = int(who.max()) + 1
    sides = np.arange(patients) < shift
    rng = rng_for(seed, "permutation")
    drawn = np.array([rng.permutation(sides) for _ in range(PERMUTATIONS)], float)
    gaps = _side_gaps(values, drawn[:, who])
    return float((1 + (gaps >= gap - 1e-12).sum()) / (1 + PERMUTATIONS))


def _side_gaps(values: Array, first: Array) -> Array:
    """KS distances between the values on the first side (B, n; 0 or 1) and the others."""
    order = np.argsort(values, kind="stable")
    last = np.append(np.diff(values[order]) > 0, True)
    gaps = []
    for part in np.array_split(first[:, order], max(1, first.size // 2_000_000)):
        up = np.cumsum(part, axis=1) / np.maximum(part.sum(axis=1, keepdims=True), 1)
        down = np.cumsum(1 - part, axis=1) / np.maximum((1 - part).sum(axis=1, keepdims=True), 1)
        gaps.append(np.abs(up - down)[:, last].max(axis=1))
    return np.concatenate(gaps)


def _halves(real: Defined, seed: int) -> Array:
    """KS distances between two halves of the real patients; empty with fewer than four patients."""
    values, who = real
    patients = int(who.max()) + 1
    if patients < 4:
        return np.zeros(0)
    rng = rng_for(seed, "halves")
    sides = np.arange(patients) < patients // 2
    drawn = np.array([rng.permutation(sides) for _ in range(HALVES)], float)
    return _side_gaps(values, drawn[:, who])
