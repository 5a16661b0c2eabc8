"""How a score grows with the number of annotated cases: three laws, fitted to many resamples at once.

power      y(n) = a - b n^-c,  b >= 0, c > 0, a at most the best possible score   (methods of Chen et al. 2025)
log-linear y(n) = a + b ln n,  b >= 0
constant   y(n) = a
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synthoma.volume import Array

EXPONENTS = (0.02, 4.0)  # flatter than the first is log-linear, steeper than the second a step to the plateau
STEPS = 60  # exponents tried between them, and as many again between the neighbors of the best


@dataclass(frozen=True, eq=False)
class Curves:
    """One law with the parameters of B resamples: a, b, c of (B,) each; c is nan for the laws without it."""

    law: str
    a: Array
    b: Array
    c: Array

    def at(self, cases: float | Array) -> Array:
        """Scores (B, m) at numbers of cases (m,) above 0."""
        n = np.atleast_1d(np.asarray(cases, float))
        if self.law == "power":
            scores: Array = self.a[:, None] - self.b[:, None] * n ** -self.c[:, None]
        else:
            scores = self.a[:, None] + self.b[:, None] * np.log(n)
        return scores

    def cases_for(self, scores: Array) -> Array:
        """The number of cases (B,) at which each curve reaches its score (B,).

        inf where it never does; 0 for a curve that does not rise and lies above the score.
        """
        flat = np.where(scores > self.a, np.inf, 0.0)
        rises = self.b > 0
        b = np.where(rises, self.b, 1.0)
        with np.errstate(divide="ignore", over="ignore"):
            if self.law == "power":
                missing = np.maximum(self.a - scores, 0.0) / b
                return np.where(rises, missing ** (-1 / self.c), flat)
            return np.where(rises, np.exp((scores - self.a) / b), flat)

    def worth_until(self, gain: float) -> Array:
        """The number of cases (B,) from which doubling them adds less than `gain`.

        0 where it always does; inf for a log-linear curve that always adds more.
        """
        if self.law == "power":
            with np.errstate(over="ignore"):
                return (self.b * (1 - 2.0**-self.c) / gain) ** (1 / self.c)
        return np.where(self.b * np.log(2) >= gain, np.inf, 0.0)

    @property
    def count(self) -> int:
        """How many resamples."""
        return len(self.a)


def fit_power(cases: Array, scores: Array, weights: Array, ceiling: float = 1.0) -> Curves:
    """The power law nearest to scores (B, K) at numbers of cases (K,), in least squares with weights (K,).

    For a given exponent a and b are linear; the exponent is searched, twice, on a grid. Three sizes or more.
    """
    scale = float(np.exp(np.log(cases).mean()))
    grid = np.geomspace(*EXPONENTS, STEPS)
    errors = np.stack([_power_at(cases / scale, scores, weights, ceiling, c)[2] for c in grid], axis=1)
    best = errors.argmin(axis=1)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, STEPS - 1)]
    found = [np.full(len(scores), np.nan) for _ in range(4)]
    found[3][:] = np.inf
    for share in np.linspace(0, 1, STEPS):
        c = low ** (1 - share) * high**share
        a, b, error = _power_at(cases / scale, scores, weights, ceiling, c)
        better = error < found[3]
        for place, values in enumerate((a, b, c, error)):
            found[place] = np.where(better, values, found[place])
    a, b, c, _ = found
    return Curves("power", a, b * scale**c, c)


def _power_at(
    n: Array, scores: Array, weights: Array, ceiling: float, exponent: float | Array
) -> tuple[Array, Array, Array]:
    """a, b and the squared error, (B,) each, for an exponent, or one of each resample (B,)."""
    x = n[None, :] ** -np.reshape(exponent, (-1, 1))
    share = weights / weights.sum()
    mean_x, mean_y = x @ share, scores @ share
    dx, dy = x - mean_x[:, None], scores - mean_y[:, None]
    b = np.maximum(-(dx * dy) @ share / np.maximum((dx**2) @ share, 1e-300), 0.0)
    a = mean_y + b * mean_x
    over = a > ceiling
    b = np.where(over, np.maximum((x * (ceiling - scores)) @ share / ((x**2) @ share), 0.0), b)
    a = np.where(over, ceiling, a)
    return a, b, (scores - a[:, None] + b[:, None] * x) ** 2 @ share


def fit_log_linear(cases: Array, scores: Array, weights: Array, ceiling: float = 1.0) -> Curves:
    """The log-linear law nearest to scores (B, K); two sizes or more. It has no ceiling."""
    x = np.log(cases)
    share = weights / weights.sum()
    dx = x - x @ share
    b = np.maximum(scores @ (share * dx) / ((dx**2) @ share), 0.0)
    return Curves("log-linear", scores @ share - b * (x @ share), b, np.full(len(scores), np.nan))


def fit_constant(cases: Array, scores: Array, weights: Array, ceiling: float = 1.0) -> Curves:
    """The mean of scores (B, K): more cases change nothing."""
    return Curves("constant", scores @ (weights / weights.sum()), np.zeros(len(scores)), np.full(len(scores), np.nan))


Fit = Callable[[Array, Array, Array, float], Curves]
LAWS: dict[str, Fit] = {"power": fit_power, "log-linear": fit_log_linear, "constant": fit_constant}
PARAMETERS = {"power": 3, "log-linear": 2, "constant": 1}


def held_out_errors(cases: Array, scores: Array, weights: Array, ceiling: float = 1.0) -> dict[str, float]:
    """Law -> root mean square error at each number of cases when fitted to the others; scores (K,).

    nan for a law with more parameters than points left.
    """
    errors = {}
    for law, fit in LAWS.items():
        gaps = []
        for place in range(len(cases)):
            kept = np.arange(len(cases)) != place
            if kept.sum() < PARAMETERS[law]:
                gaps.append(np.nan)
                continue
            curve = fit(cases[kept], scores[None, kept], weights[kept], ceiling)
            gaps.append(float(curve.at(cases[place])[0, 0] - scores[place]))
        errors[law] = float(np.sqrt(np.mean(np.square(gaps)))) if gaps else np.nan
    return errors
