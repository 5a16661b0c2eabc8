"""Paired tests of two models over the same patients, and the correction for many tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthoma.seeds import rng_for
from synthoma.statistics.intervals import Ratio, divide

EXACT = 12  # patients up to which all sign changes are tried


def permutation_p(first: Ratio, second: Ratio, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of the difference of two figures, the models' names swapped patient by patient.

    All swaps are tried for up to 12 patients, else `resamples` drawn ones. nan if a figure is undefined.
    """
    n = len(first.top)
    ones = np.ones((1, n))
    observed = float((second(ones) - first(ones))[0]) if n else np.nan
    if np.isnan(observed):
        return np.nan
    if n <= EXACT:
        swap = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(float)
    else:
        swap = rng_for(seed, "permutation", n).integers(0, 2, (resamples, n)).astype(float)
    top, bottom = second.top - first.top, second.bottom - first.bottom
    a = divide(first.top.sum() + swap @ top, first.bottom.sum() + swap @ bottom)
    b = divide(second.top.sum() - swap @ top, second.bottom.sum() - swap @ bottom)
    extreme = np.abs(b - a) >= abs(observed) - 1e-12 * max(1.0, abs(observed))
    if n <= EXACT:
        return float(extreme.mean())
    return float((1 + extreme.sum()) / (1 + resamples))


def wilcoxon_p(first: Ratio, second: Ratio) -> float:
    """Two-sided p of Wilcoxon's signed-rank test over patients that have both figures; 1 if none differs."""
    from scipy.stats import wilcoxon

    gaps = second.by_patient - first.by_patient
    gaps = gaps[~np.isnan(gaps)]
    if len(gaps) == 0:
        return np.nan
    if not np.any(gaps):
        return 1.0
    return float(wilcoxon(gaps).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """The p values corrected for their number (Holm 1979), in their order; nan stays and counts as no test."""
    values = np.asarray(p, float)
    adjusted = np.full(len(values), np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors))
    return [float(value) for value in adjusted]
