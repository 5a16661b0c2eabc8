"""Several readers of the same cases: figures with intervals over both, equivalence to chance, and power beforehand.

Readers and cases are both drawn from larger populations, and readers of the same cases err together. The method is
that of Obuchowski and Rockette (Commun Stat Simul Comput 1995) for one modality, with the degrees of freedom of Hillis
(Stat Med 2007; 26:596): the readers' figures vary by MS(R), and share a covariance that the cases give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from synthoma.statistics.intervals import Interval
from synthoma.volume import Array


@dataclass(frozen=True, eq=False)
class ReaderMean:
    """The mean of a figure over readers. by_reader: each one's, with the interval over cases alone.

    error: standard error of the mean; freedom: degrees of freedom, inf for one reader. interval.n: cases.
    """

    interval: Interval
    by_reader: tuple[Interval, ...]
    error: float
    freedom: float


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests against `center` +- `margin` (Schuirmann 1987). p: the larger; shown: p < 0.05.

    low, high: the 90 % interval, which lies within the margin exactly if equivalence is shown.
    """

    center: float
    margin: float
    p: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        return self.p < 0.05


def auc(ratings: ArrayLike, positive: ArrayLike) -> float:
    """Area under the ROC curve of ratings (n,), ties half: the Mann-Whitney statistic. nan without both classes."""
    one, is_positive = np.asarray(ratings, float)[None], np.asarray(positive, bool)
    return float(_placements(one, is_positive)[0].mean()) if 0 < is_positive.sum() < is_positive.size else np.nan


def reader_auc(ratings: ArrayLike, positive: ArrayLike, confidence: float = 0.95) -> ReaderMean:
    """The mean AUC over readers with its interval over readers and cases.

    ratings: (readers, cases), higher is more positive, all given; positive: (cases,). The covariances are those of
    DeLong et al. (Biometrics 1988; 44:837). Needs two cases of each class, else `ValueError`.
    """
    table, is_positive = _checked(ratings, positive)
    of_positive, of_negative = _placements(table, is_positive)
    covariance = np.atleast_2d(np.cov(of_positive)) / of_positive.shape[1]
    covariance = covariance + np.atleast_2d(np.cov(of_negative)) / of_negative.shape[1]
    return random_readers(of_positive.mean(axis=1), covariance, table.shape[1], confidence)


def reader_share(correct: ArrayLike, positive: ArrayLike, confidence: float = 0.95) -> ReaderMean:
    """The mean share of correct answers over readers, cases drawn anew within each class.

    correct: (readers, cases), 0 or 1; positive: (cases,). Both classes weigh as their numbers of cases. A single
    reader's interval is Wilson's (1927), which has a width where all answers are alike.
    """
    table, is_positive = _checked(correct, positive)
    covariance = np.zeros((len(table), len(table)))
    for group in (table[:, is_positive], table[:, ~is_positive]):
        covariance += np.atleast_2d(np.cov(group)) * group.shape[1]
    mean = random_readers(table.mean(axis=1), covariance / table.shape[1] ** 2, table.shape[1], confidence)
    return _with_scores(mean, confidence)


def reader_rate(yes: ArrayLike, confidence: float = 0.95) -> ReaderMean:
    """The mean share of yes over readers: a sensitivity or a specificity.

    yes: (readers, cases), cases of one class. Intervals of single readers as in `reader_share`.
    """
    table = np.asarray(yes, float)
    if table.ndim != 2 or table.shape[1] < 2 or np.isnan(table).any():
        raise ValueError(f"two or more cases, each answered by every reader; got {table.shape}")
    covariance = np.atleast_2d(np.cov(table)) / table.shape[1]
    return _with_scores(random_readers(table.mean(axis=1), covariance, table.shape[1], confidence), confidence)


def random_readers(values: ArrayLike, covariance: ArrayLike, cases: int, confidence: float = 0.95) -> ReaderMean:
    """The mean of readers' figures (r,) whose covariance over cases is known (r, r), and its interval.

    The variance of the mean is (MS(R) + r max(Cov2, 0)) / r, Cov2 the mean of the off-diagonal covariances; the degrees
    of freedom are (MS(R) + r max(Cov2, 0))^2 / (MS(R)^2 / (r - 1)) (Hillis 2007). Of one reader the interval is over
    cases alone. Intervals of shares and areas end at 0 and 1.
    """
    from scipy.stats import norm, t

    figures, shared = np.asarray(values, float), np.asarray(covariance, float)
    r = len(figures)
    tail = (1 + confidence) / 2
    each = [_bounded(value, norm.ppf(tail) * np.sqrt(max(own, 0)), cases) for value, own in zip(
        figures, shared.diagonal(), strict=True)]  # fmt: skip
    mean = float(figures.mean())
    if r == 1:
        error = float(np.sqrt(max(shared[0, 0], 0)))
        return ReaderMean(each[0], (each[0],), error, np.inf)
    spread = float(figures.var(ddof=1))
    between = float(shared[~np.eye(r, dtype=bool)].mean())
    total = spread + r * max(between, 0.0)
    error = float(np.sqrt(total / r))
    if error == 0:  # no answer differs: an area of 0 or 1 has no interval of this kind
        bare = Interval(mean, n=cases, note="no answer differs from another")
        return ReaderMean(bare, tuple(each), 0.0, np.inf)
    freedom = float(total**2 / (spread**2 / (r - 1))) if spread > 0 else np.inf
    half = float((t.ppf(tail, freedom) if np.isfinite(freedom) else norm.ppf(tail)) * error)
    return ReaderMean(_bounded(mean, half, cases), tuple(each), error, freedom)


def _with_scores(mean: ReaderMean, confidence: float) -> ReaderMean:
    """Wilson's interval for every reader's share, and for the mean where no answer differs from another."""
    each = tuple(_wilson(interval.value, interval.n, confidence) for interval in mean.by_reader)
    alike = len(each) == 1 or mean.error == 0
    whole = _wilson(mean.interval.value, mean.interval.n, confidence) if alike else mean.interval
    return ReaderMean(whole, each, mean.error, mean.freedom)


def _wilson(share: float, n: int, confidence: float) -> Interval:
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)), n)


def equivalence(mean: ReaderMean, center: float, margin: float) -> Equivalence:
    """Whether a mean over readers lies within `margin` of `center`, which both were fixed beforehand."""
    from scipy.stats import norm, t

    law = t(mean.freedom) if np.isfinite(mean.freedom) else norm
    value, error = mean.interval.value, mean.error
    half = float(law.ppf(0.95)) * error
    if error == 0:
        p = 0.0 if abs(value - center) < margin else 1.0
    else:
        p = float(max(law.sf((value - (center - margin)) / error), law.cdf((value - (center + margin)) / error)))
    return Equivalence(center, margin, p, value - half, value + half)


def equivalence_power(cases: int, readers: int, margin: float, correlation: float = 0.3) -> float:
    """The chance to show that readers guess (0.5 +- margin correct), if they do; one-sided 5 % twice.

    correlation: of two readers' answers to a case. Normal approximation (Chow, Shao and Wang, Sample Size Calculations
    in Clinical Research, section 4.1.3) with the variance of a mean over correlated readers.
    """
    from scipy.stats import norm

    error = _error_of_guesses(cases, readers, correlation)
    return float(max(0.0, 2 * norm.cdf(margin / error - norm.ppf(0.95)) - 1))


def detection_power(cases: int, readers: int, share: float, correlation: float = 0.3) -> float:
    """The chance to show that readers do not guess, if `share` of their answers are right; two-sided 5 %."""
    from scipy.stats import norm

    error = _error_of_guesses(cases, readers, correlation)
    return float(norm.sf(norm.ppf(0.975) - abs(share - 0.5) / error))


def _error_of_guesses(cases: int, readers: int, correlation: float) -> float:
    return float(np.sqrt(0.25 * (1 + (readers - 1) * correlation) / (readers * cases)))


def _placements(ratings: Array, positive: Array) -> tuple[Array, Array]:
    """The shares of negative cases rated below each positive one (r, m), and of positive above each negative (r, n)."""
    high, low = ratings[:, positive], ratings[:, ~positive]
    above = (high[:, :, None] > low[:, None, :]) + 0.5 * (high[:, :, None] == low[:, None, :])
    return above.mean(axis=2), above.mean(axis=1)


def _checked(table: ArrayLike, positive: ArrayLike) -> tuple[Array, Array]:
    values, is_positive = np.asarray(table, float), np.asarray(positive, bool)
    if values.ndim != 2 or is_positive.shape != values.shape[1:] or np.isnan(values).any():
        raise ValueError(f"every reader answers every case; got {values.shape} answers to {is_positive.shape} cases")
    if min(is_positive.sum(), (~is_positive).sum()) < 2:
        raise ValueError("an interval needs two cases of each class")
    return values, is_positive


def _bounded(value: float, half: float, cases: int) -> Interval:
    return Interval(float(value), max(0.0, float(value - half)), min(1.0, float(value + half)), cases)
