"""Can a classifier tell synthetic lesions from real ones? And has a generator only copied what it learned from?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from synthoma.extras import need
from synthoma.realism.distances import FEWEST, values_of
from synthoma.realism.features import FEATURES, Row
from synthoma.statistics.intervals import ALIKE, Interval, bootstrap
from synthoma.volume import Array

FOLDS = 5
SIZE = ("size",)  # what matched sets agree in: no sign of being synthetic
PLACE = ("place",)  # where a lesion was put, and how many there are: the recipe's choice, not the tissue's


@dataclass(frozen=True)
class Told:
    """How well a classifier tells the two apart on patients it has not seen.

    auc: .5 for not at all, 1 for always, with its interval by patient. weights: feature -> how much the AUC falls when
    the feature is shuffled, the largest first; empty where nothing is shuffled. note: why there is no figure. n:
    lesions of each side.
    """

    auc: Interval
    weights: dict[str, float]
    note: str = ""
    n: tuple[int, int] = (0, 0)

    @property
    def shown(self) -> bool:
        """Whether it is shown that the two can be told apart: the whole interval is above .5."""
        return self.auc.low > 0.5


@dataclass(frozen=True)
class Classifiers:
    """The same question to four classifiers, on lesions of equal sizes.

    features: a forest on all features but size. without_place: without those of place as well. crops: a small network
    on crops of HU. healthy: the same network on healthy tissue of the same scans: so far the scans differ themselves.
    """

    features: Told
    without_place: Told
    crops: Told
    healthy: Told


def classify(
    real: Sequence[Row],
    synthetic: Sequence[Row],
    seed: int = 0,
    resamples: int = 1000,
    without: Collection[str] = SIZE,
    shuffle: bool = True,
) -> Told:
    """A random forest on features, five folds by patient (a classifier two-sample test).

    without: what features are about that it does not see. shuffle: whether it is told what it looks at. Lopez-Paz and
    Oquab 2017. Fewer than 10 lesions or 5 patients on a side give a note in place of the figure.
    """
    names = [feature.name for feature in FEATURES if feature.about not in without]
    patients, truth = _sides(real, synthetic)
    n = len(real), len(synthetic)
    if note := _too_few(patients, truth):
        return Told(Interval(np.nan, note=note), {}, note, n)
    table = np.column_stack([np.concatenate([values_of(rows, name) for rows in (real, synthetic)]) for name in names])
    scores, falls = _forests(table, truth, _folds(patients, truth, seed), seed, shuffle)
    order = np.argsort(-falls, kind="stable")
    weights = {names[place]: float(falls[place]) for place in order}
    return Told(_auc_by_patient(scores, patients, truth, resamples, seed), weights, n=n)


def classify_crops(
    real: Sequence[Row],
    synthetic: Sequence[Row],
    crops: tuple[Sequence[Array | None], Sequence[Array | None]],
    seed: int = 0,
    resamples: int = 1000,
) -> Told:
    """The same test by a small network on crops, in place of features. Lesions without a crop are left out.

    crops: of the lesions of each side, (S, S, S) HU less those of the organ. Needs torch.
    """
    rows = [row for row, crop in zip([*real, *synthetic], [*crops[0], *crops[1]], strict=True) if crop is not None]
    shown = [crop for side in crops for crop in side if crop is not None]
    count = sum(crop is not None for crop in crops[0])
    patients, truth = _sides(rows[:count], rows[count:])
    n = count, len(rows) - count
    if note := _too_few(patients, truth):
        return Told(Interval(np.nan, note=note), {}, note, n)
    need("torch", extra="train")
    from synthoma.learning.two_samples import held_out_scores

    scores = held_out_scores(np.stack(shown), truth, _folds(patients, truth, seed), seed)
    return Told(_auc_by_patient(scores, patients, truth, resamples, seed), {}, n=n)


def _sides(real: Sequence[Row], synthetic: Sequence[Row]) -> tuple[list[str], Array]:
    """The patient of each lesion, never one of both sides, and which side it is of (0 or 1)."""
    patients = [f"real {row['patient']}" for row in real] + [f"synthetic {row['patient']}" for row in synthetic]
    return patients, np.array([0] * len(real) + [1] * len(synthetic))


def _too_few(patients: Sequence[str], truth: Array) -> str:
    """Why there is no figure; empty if there are enough lesions and patients."""
    lesions = [int((truth == side).sum()) for side in (0, 1)]
    counts = [len({patient for patient, its in zip(patients, truth, strict=True) if its == side}) for side in (0, 1)]
    if min(lesions) >= FEWEST and min(counts) >= FOLDS:
        return ""
    return f"{lesions[0]} and {lesions[1]} lesions of {counts[0]} and {counts[1]} patients are too few"


def _folds(patients: Sequence[str], truth: Array, seed: int) -> list[tuple[Array, Array]]:
    """Places of the lesions that are learned from and of those that are scored, five times; no patient in both."""
    selection = need("sklearn.model_selection", extra="realism")
    folds = selection.StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    return list(folds.split(np.zeros((len(truth), 1)), truth, patients))


def _auc_by_patient(scores: Array, patients: Sequence[str], truth: Array, resamples: int, seed: int) -> Interval:
    _, who = np.unique(patients, return_inverse=True)
    first = [np.unique(who[truth == side], return_inverse=True) for side in (0, 1)]
    of_real, of_synthetic = scores[truth == 0], scores[truth == 1]

    def statistic(real_weights: Array, synthetic_weights: Array) -> Array:
        return auc(of_real, of_synthetic, real_weights[:, first[0][1]], synthetic_weights[:, first[1][1]])

    interval = bootstrap(statistic, [len(first[0][0]), len(first[1][0])], resamples, seed)
    if interval.note == ALIKE:  # told apart without a fault, in every resample too
        interval = Interval(interval.value, interval.value, interval.value, interval.n, interval.note)
    return interval


def auc(negative: Array, positive: Array, w_negative: Array, w_positive: Array) -> Array:
    """Share of pairs whose positive has the higher score, ties half, for every row of the weights."""
    wins = (positive[:, None] > negative[None]) + 0.5 * (positive[:, None] == negative[None])
    top = np.einsum("bp,pn,bn->b", w_positive, wins, w_negative, optimize=True)
    bottom = w_positive.sum(axis=1) * w_negative.sum(axis=1)
    return np.asarray(np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0))


def _forests(
    table: Array, truth: Array, folds: Sequence[tuple[Array, Array]], seed: int, shuffle: bool
) -> tuple[Array, Array]:
    """The score of every lesion by a forest that saw none of its patient; the fall of the AUC without each feature."""
    ensemble = need("sklearn.ensemble", extra="realism")
    scores, falls, rng = np.zeros(len(truth)), [], np.random.default_rng(seed)
    for train, test in folds:
        columns = (column[np.isfinite(column)] for column in table[train].T)
        middle = np.array([np.median(known) if known.size else 0.0 for known in columns])
        filled = np.where(np.isfinite(table), table, middle)
        forest = ensemble.RandomForestClassifier(
            100, min_samples_leaf=3, class_weight="balanced", random_state=seed, n_jobs=1
        )
        forest.fit(filled[train], truth[train])
        scores[test] = forest.predict_proba(filled[test])[:, 1]
        if shuffle:
            falls.append(_falls(forest, filled[test], truth[test], rng))
    return scores, np.mean(falls, axis=0) if falls else np.zeros(0)


def _falls(forest: object, table: Array, truth: Array, rng: np.random.Generator) -> Array:
    def of(values: Array) -> float:
        scores = forest.predict_proba(values)[:, 1]  # type: ignore[attr-defined]
        a, b = scores[truth == 0], scores[truth == 1]
        return float(auc(a, b, np.ones((1, len(a))), np.ones((1, len(b))))[0]) if len(a) and len(b) else 0.5

    whole, falls = of(table), []
    for place in range(table.shape[1]):
        shuffled = table.copy()
        shuffled[:, place] = rng.permutation(shuffled[:, place])
        falls.append(whole - of(shuffled))
    return np.array(falls)


@dataclass(frozen=True)
class Copies:
    """Whether synthetic lesions lie nearer to a real one than real ones of other patients do.

    synthetic, real: median distance to the nearest real lesion of another patient, in SDs of the features. share: of
    synthetic lesions that are nearer than all but 1 % of the real ones.
    """

    synthetic: float
    real: float
    share: float
    n: int


def find_copies(real: Sequence[Row], synthetic: Sequence[Row]) -> Copies:
    """Nearest neighbors in the space of standardized features; nan with fewer than 10 lesions on a side."""
    if min(len(real), len(synthetic)) < FEWEST:
        return Copies(np.nan, np.nan, np.nan, len(synthetic))
    table = np.column_stack([np.concatenate([values_of(rows, f.name) for rows in (real, synthetic)]) for f in FEATURES])
    known = np.isfinite(table).sum(axis=0) >= FEWEST
    table = table[:, known]
    spread = np.nanstd(table[: len(real)], axis=0)
    table = (table - np.nanmean(table[: len(real)], axis=0)) / np.where(spread > 0, spread, 1)
    table = np.where(np.isfinite(table), table, 0.0)
    ours, theirs = table[len(real) :], table[: len(real)]
    patients = np.array([row["patient"] for row in real])
    between = np.linalg.norm(theirs[:, None] - theirs[None], axis=2)
    between[patients[:, None] == patients[None]] = np.inf
    nearest_real = between.min(axis=1)
    nearest_real = nearest_real[np.isfinite(nearest_real)]
    nearest = np.linalg.norm(ours[:, None] - theirs[None], axis=2).min(axis=1)
    if nearest_real.size == 0:
        return Copies(float(np.median(nearest)), np.nan, np.nan, len(synthetic))
    bar = np.quantile(nearest_real, 0.01)
    return Copies(
        float(np.median(nearest)), float(np.median(nearest_real)), float((nearest < bar).mean()), len(synthetic)
    )
