"""The points of a study as a table, and what they could have been with other patients and other training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from synthoma.errors import RunError
from synthoma.seeds import rng_for
from synthoma.statistics.intervals import Ratio, divide, weights
from synthoma.volume import Array


@dataclass(frozen=True, eq=False)
class Point:
    """One trained model on one test set: its arm, how many real annotated cases it saw, its seed, its score.

    score: by patient of the test set, the same patients in the same order in every point. A published number is a
    ratio of one patient.
    """

    arm: str
    cases: int
    seed: int
    score: Ratio


@dataclass(frozen=True, eq=False)
class Table:
    """Points by arm, number of cases and seed; nan where a point is missing. top, bottom: (A, K, S, P)."""

    arms: tuple[str, ...]
    cases: tuple[int, ...]
    seeds: tuple[int, ...]
    top: Array
    bottom: Array

    @classmethod
    def of(cls, points: Sequence[Point]) -> Table:
        """The table of points on one test set; `RunError` if two are the same or their patients differ."""
        arms = tuple(dict.fromkeys(point.arm for point in points))
        cases = tuple(sorted({point.cases for point in points}))
        seeds = tuple(sorted({point.seed for point in points}))
        patients = {len(point.score.top) for point in points}
        if len(patients) > 1:
            raise RunError("points were scored on different patients", found=sorted(patients))
        shape = (len(arms), len(cases), len(seeds), *patients)
        top, bottom = np.full(shape, np.nan), np.full(shape, np.nan)
        for point in points:
            place = arms.index(point.arm), cases.index(point.cases), seeds.index(point.seed)
            if not np.isnan(top[place]).all():
                raise RunError("two points of one arm, number of cases and seed", found=f"{point.arm}, {point.cases}")
            top[place], bottom[place] = point.score.top, point.score.bottom
        counts = np.nansum(bottom, axis=(0, 1, 2)) > 0  # a patient without what is scored tells nothing
        return cls(arms, cases, seeds, top[..., counts], bottom[..., counts])

    @property
    def patients(self) -> int:
        """How many patients have what is scored."""
        return int(self.top.shape[-1])

    @cached_property
    def values(self) -> Array:
        """The score of every point (A, K, S)."""
        return divide(self.top.sum(axis=-1), self.bottom.sum(axis=-1))

    def resampled(self, resamples: int, seed: int) -> Array:
        """The scores (B, A, K, S) of the same points with other patients and other training seeds.

        Patients are drawn with replacement, the same in every point. To this is added what seeds differ in: residuals
        around the mean over seeds, drawn with all arms together (arms of one seed learn from the same cases) from all
        numbers of cases, scaled to the spread at each. That spread is itself known from few seeds only, so its scale
        is drawn as well. With one seed nothing is known of others, and patients vary alone.
        """
        drawn = self._other_patients(resamples, seed)
        noise = self._other_seeds(resamples, seed)
        return drawn if noise is None else drawn + noise

    def resampled_apart(self, resamples: int, seed: int) -> tuple[Array, Array] | None:
        """The scores with other patients alone, and with other training seeds alone; None with one seed."""
        noise = self._other_seeds(resamples, seed)
        return None if noise is None else (self._other_patients(resamples, seed), self.values + noise)

    def _other_patients(self, resamples: int, seed: int) -> Array:
        shape = self.top.shape[:-1]
        draws = weights(self.patients, resamples, seed)
        top, bottom = (draws @ part.reshape(-1, self.patients).T for part in (self.top, self.bottom))
        values = divide(top, bottom).reshape(resamples, *shape)
        # a mean of n drawn from n spreads (n - 1) / n of what a mean of n new ones does
        wider = np.sqrt(self.patients / max(self.patients - 1, 1))
        spread: Array = self.values + wider * (values - self.values)
        return spread

    def _other_seeds(self, resamples: int, seed: int) -> Array | None:
        """What to add (B, A, K, S); None if no arm has two seeds anywhere."""
        there = ~np.isnan(self.values)
        count = there.sum(axis=2)
        if count.max(initial=0) < 2:
            return None
        own = self.values - _mean(self.values, axis=2)[..., None]
        own = own * np.sqrt(divide(count, np.maximum(count - 1, 1)))[..., None]
        own[count < 2] = np.nan
        spread, freedom = _moderated(own, count)
        rows = np.moveaxis(own / np.maximum(spread, 1e-12)[:, None], 0, -1).reshape(-1, len(self.arms))
        whole = rows[~np.isnan(rows).any(axis=1)]
        if len(whole) == 0:  # no seed has all arms: they are drawn as if apart
            whole = np.stack([rows[~np.isnan(rows)]] * len(self.arms), axis=1)
        rng = rng_for(seed, "seeds", *map(len, (self.arms, self.cases, self.seeds)))
        shape = (resamples, len(self.cases), len(self.seeds))
        noise = whole[rng.integers(0, len(whole), shape)] * rng.choice([-1.0, 1.0], shape)[..., None]
        unsure = np.sqrt(freedom / rng.chisquare(freedom, (resamples, len(self.cases))))
        added: Array = np.moveaxis(noise, -1, 1) * (spread * unsure)[:, None, :, None]
        return added


def _moderated(own: Array, count: Array) -> tuple[Array, Array]:
    """The spread between seeds at each number of cases (K,), of all arms together, and its degrees of freedom (K,).

    Three seeds tell a variance badly; all points tell one well, but small training sets may vary more. So each
    number's own variance is drawn towards that of all, which counts as much as one arm's (after Smyth 2004).
    """
    several = np.maximum(count - 1, 0)
    squares = np.nansum(own**2 * several[..., None] / np.maximum(count, 1)[..., None], axis=(0, 2))
    pooled = squares.sum() / several.sum()
    shared = np.mean(several[several > 0])
    freedom = several.sum(axis=0) + shared
    return np.sqrt((squares + pooled * shared) / freedom), freedom


def _mean(values: Array, axis: int) -> Array:
    """The mean of what is not nan; nan where there is nothing."""
    there = ~np.isnan(values)
    return divide(np.where(there, values, 0).sum(axis=axis), there.sum(axis=axis))


def mean_over_seeds(values: Array) -> Array:
    """The mean over the last axis of what is not nan; nan where there is nothing."""
    return _mean(values, axis=-1)
