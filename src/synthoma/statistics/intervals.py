"""How sure a number is: bootstrap intervals by patient.

A figure over patients is a function of how often each patient counts: `weights` (B, n) -> values (B,). Ones give the
figure itself, multinomial draws its bootstrap, ones with a single zero its jackknife.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from synthoma.seeds import rng_for
from synthoma.volume import Array

Statistic = Callable[..., Array]  # weights of each level, (B, n) -> (B,)
ALIKE = "all patients alike"
WILSON = "Wilson"
UNDEFINED = 0.05  # of the resamples; with more an interval would leave out the cases that matter


@dataclass(frozen=True)
class Interval:
    """A figure and its confidence interval, nan where there is none. n: patients; note: why, or what kind."""

    value: float
    low: float = np.nan
    high: float = np.nan
    n: int = 0
    note: str = ""

    @property
    def spans_zero(self) -> bool:
        """True as well where there is no interval: then nothing is shown either."""
        return not (self.low > 0 or self.high < 0)


@dataclass(frozen=True, eq=False)
class Ratio:
    """A figure that is a sum over a sum, each by patient (n,): a mean, a sensitivity, false positives per scan."""

    top: Array
    bottom: Array

    def __call__(self, weights: Array) -> Array:
        return divide(weights @ self.top, weights @ self.bottom)

    @property
    def by_patient(self) -> Array:
        """The figure of each patient alone, nan where it has none."""
        return divide(self.top, self.bottom)


def divide(top: Array, bottom: Array) -> Array:
    """Quotients, nan where the bottom is 0."""
    top, bottom = np.asarray(top, float), np.asarray(bottom, float)
    quotients: Array = np.full(np.broadcast(top, bottom).shape, np.nan)
    return np.divide(top, bottom, out=quotients, where=bottom != 0)


def bootstrap(
    statistic: Statistic,
    levels: int | Sequence[int],
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    proportion: bool = False,
) -> Interval:
    """The figure with its BCa interval (Efron 1987), resampled by patient.

    levels: how many patients; or how many patients, and how many of each further level drawn with replacement of its
    own (training seeds), whose weights `statistic` gets as further arguments. The acceleration is the patients'.
    Fewer than two patients, or a figure undefined in more than 5 % of the resamples, give the value alone. So do
    patients who are all alike (3 found of 3), since a bootstrap knows no others; but a proportion, a share of yes and
    no from 0 to 1, then has Wilson's interval of as many trials as patients.
    """
    sizes = [levels] if isinstance(levels, int) else list(levels)
    n = sizes[0]
    ones = [np.ones((1, size)) for size in sizes]
    value = float(statistic(*ones)[0]) if min(sizes) > 0 else np.nan
    if np.isnan(value):
        return Interval(value, n=n, note="undefined")
    if n < 2:
        return Interval(value, n=n, note="one patient has no interval")
    draws = [weights(size, resamples, seed, level) for level, size in enumerate(sizes)]
    drawn = statistic(*draws)
    defined = np.sort(drawn[~np.isnan(drawn)])
    if len(defined) < (1 - UNDEFINED) * resamples:
        return Interval(value, n=n, note="undefined in too many resamples")
    if defined[-1] - defined[0] <= 1e-12 * max(1.0, abs(value)):
        if proportion:
            return Interval(value, *wilson(value, n, confidence), n, WILSON)
        return Interval(value, n=n, note=ALIKE)
    left_out = statistic(1.0 - np.eye(n), *(np.ones((n, size)) for size in sizes[1:]))
    low, high = _bca_shares(value, defined, left_out[~np.isnan(left_out)], confidence)
    return Interval(value, float(np.quantile(defined, low)), float(np.quantile(defined, high)), n)


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share of n independent trials (Wilson 1927), within 0 to 1 and never without width."""
    from scipy.special import ndtri

    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (share * (1 - share) / n + z2 / (4 * n**2))) ** 0.5 / (1 + z2 / n)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    # rounding: an end is the share itself where all agree
    return min(low, share), max(high, share)


def weights(n: int, resamples: int, seed: int, level: int = 0) -> Array:
    """How often each of n counts in each resample (B, n); the same for the same arguments everywhere."""
    rng = rng_for(seed, "bootstrap", level, n)
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)


def _bca_shares(value: float, drawn: Array, left_out: Array, confidence: float) -> tuple[float, float]:
    """Which quantiles of the sorted bootstrap values are the interval's ends."""
    from scipy.special import ndtr, ndtri

    # half of the ties below: a discrete figure is no biased one
    below = (np.searchsorted(drawn, value, "left") + np.searchsorted(drawn, value, "right")) / 2 / len(drawn)
    bias = ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    gaps = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = (gaps**2).sum() ** 1.5
    acceleration = (gaps**3).sum() / (6 * spread) if spread > 0 else 0.0
    ends = bias + ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    low, high = ndtr(bias + ends / (1 - acceleration * ends))
    return float(low), float(high)
