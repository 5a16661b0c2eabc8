"""How far readers agree: Cohen's and Fleiss' kappa, Krippendorff's alpha."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from synthoma.volume import Array

Level = Literal["nominal", "ordinal", "interval"]


def cohen_kappa(first: ArrayLike, second: ArrayLike, weights: Literal["none", "linear", "quadratic"] = "none") -> float:
    """Cohen's kappa of two readers' answers (n,), category by category; weighted for ordered ones.

    With weights, sorted categories count as evenly spaced. nan if both gave one and the same answer throughout: chance
    alone then explains it.
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"two readers answer the same cases, got {a.shape} and {b.shape}")
    categories, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    size = len(categories)
    table = np.bincount(codes[: len(a)] * size + codes[len(a) :], minlength=size * size).reshape(size, size) / len(a)
    steps = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    cost = {"none": steps > 0, "linear": steps, "quadratic": steps**2}[weights].astype(float)
    expected = (cost * np.outer(table.sum(axis=1), table.sum(axis=0))).sum()
    return float(1 - (cost * table).sum() / expected) if expected else np.nan


def fleiss_kappa(counts: ArrayLike) -> float:
    """Fleiss' kappa of how many readers chose each category in each case (cases, categories).

    Every case has the same number of readers, at least two, else `ValueError`. nan if only one category was used.
    """
    table = np.asarray(counts, float)
    readers = table.sum(axis=1) if table.ndim == 2 else np.zeros(0)
    if not len(readers) or readers.min() != readers.max() or readers[0] < 2:
        raise ValueError("every case needs the same number of readers, two or more; else use krippendorff_alpha")
    m = readers[0]
    observed = ((table**2).sum(axis=1) - m) / (m * (m - 1))
    chance = ((table.sum(axis=0) / table.sum()) ** 2).sum()
    return float((observed.mean() - chance) / (1 - chance)) if chance < 1 else np.nan


def krippendorff_alpha(answers: ArrayLike, level: Level = "nominal") -> float:
    """Krippendorff's alpha of numbers (readers, cases), nan where a reader gave no answer.

    Cases with fewer than two answers tell nothing. nan if all answers are the same, or no case has two.
    Krippendorff, Content Analysis (2004), section 11.3.
    """
    table = np.asarray(answers, float)
    table = table[:, (~np.isnan(table)).sum(axis=0) >= 2]
    values = np.unique(table[~np.isnan(table)])
    if len(values) < 2:
        return np.nan
    counts = np.stack([(table == value).sum(axis=0) for value in values], axis=1).astype(float)  # (cases, values)
    pairs = counts.sum(axis=1) - 1
    coincidences = (counts / pairs[:, None]).T @ counts - np.diag((counts / pairs[:, None]).sum(axis=0))
    totals = coincidences.sum(axis=0)
    distance = _squared_distance(values, totals, level)
    expected = (distance * np.outer(totals, totals)).sum() / (totals.sum() - 1)
    return float(1 - (distance * coincidences).sum() / expected)


def _squared_distance(values: Array, totals: Array, level: Level) -> Array:
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return np.subtract.outer(values, values) ** 2
    # ordinal: the answers between two values, the two themselves half
    middle = np.cumsum(totals) - totals / 2
    return np.subtract.outer(middle, middle) ** 2
