"""Whether a patient with a tumor is told from one without: sensitivity, specificity, ROC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthoma.statistics.intervals import Ratio, divide
from synthoma.volume import Array


@dataclass(frozen=True, eq=False)
class Patients:
    """One structure in many patients, each with one or more scans: arrays (n,).

    positive: has a tumor in any scan. predicted: any tumor voxel is predicted in any scan. localized: any true lesion
    is found. score: of the strongest predicted lesion of any scan.
    """

    positive: Array
    predicted: Array
    localized: Array
    score: Array

    @property
    def sensitivity(self) -> Ratio:
        """The share of patients with a tumor in whom any voxel is predicted."""
        return Ratio(self.positive & self.predicted, self.positive)

    @property
    def localized_sensitivity(self) -> Ratio:
        """The share of patients with a tumor in whom a true lesion is found."""
        return Ratio(self.positive & self.localized, self.positive)

    @property
    def specificity(self) -> Ratio:
        """The share of patients without a tumor in whom no voxel is predicted."""
        return Ratio(~self.positive & ~self.predicted, ~self.positive)

    def auc(self, weights: Array) -> Array:
        """The area under the ROC curve (B,) for weights (B, n): a positive scores higher than a negative, ties half.

        nan where there are no positives or no negatives.
        """
        above, below = self.score[self.positive], self.score[~self.positive]
        order = np.sort(below)
        ranks = np.argsort(below, kind="stable")
        sums = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights[:, ~self.positive][:, ranks], axis=1)], 1)
        beaten = (sums[:, np.searchsorted(order, above, "left")] + sums[:, np.searchsorted(order, above, "right")]) / 2
        ours = weights[:, self.positive]
        return divide((ours * beaten).sum(axis=1), ours.sum(axis=1) * sums[:, -1])

    def roc(self) -> tuple[Array, Array, Array]:
        """False positive rate, sensitivity and score (m,) of every threshold, from none called to all."""
        thresholds = np.unique(self.score)[::-1]
        called = self.score[None, :] >= thresholds[:, None]
        rates = [divide((called & side).sum(axis=1), side.sum()) for side in (~self.positive, self.positive)]
        return (
            np.concatenate([[0.0], rates[0]]),
            np.concatenate([[0.0], rates[1]]),
            np.concatenate([[np.inf], thresholds]),
        )


def gather(codes: Array, positive: Array, predicted: Array, localized: Array, score: Array) -> Patients:
    """Patients of scans: `codes` (m,) says whose each scan is, 0 to n - 1; the others are the scans' facts (m,)."""
    n = int(codes.max()) + 1 if len(codes) else 0
    strongest = np.full(n, -np.inf)
    np.maximum.at(strongest, codes, score)
    anywhere = [np.bincount(codes, fact, n) > 0 for fact in (positive, predicted, localized)]
    return Patients(anywhere[0], anywhere[1], anywhere[2], strongest)
