"""The page of a realism report: what is told apart, by which feature, and every feature's two distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from synthoma.realism.crops import SIZE, SPACING_MM
from synthoma.realism.distances import FEWEST, Distance, values_of
from synthoma.realism.features import BY_NAME, Row
from synthoma.realism.samples import HEALTHY_MM
from synthoma.realism.telling import Classifiers, Copies
from synthoma.reports.page import fact_table, number, page, plot_figures, table
from synthoma.reports.page import verdict as said_first
from synthoma.reports.plots import MODEL_COLORS, Plot, new_axes, to_svg
from synthoma.statistics.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDES = ("real", "synthetic")
_TOLD = (
    "<p>Classifiers that are trained on four fifths of the patients and asked about the rest, five times. 0.5 is"
    " chance, 1 is always right. The last row is a check: what is told apart there is the scans, not the lesions.</p>"
)


def verdict(classifiers: Classifiers, distances: Sequence[Distance], n: tuple[int, int], real: str = SIDES[0]) -> str:
    """What is told apart, by what, and what of it is the scans: three or four sentences.

    real: what the first side is called.
    """
    return " ".join(sentences(classifiers, distances, n, real))


def sentences(
    classifiers: Classifiers, distances: Sequence[Distance], n: tuple[int, int], real: str = SIDES[0]
) -> tuple[str, ...]:
    """The parts of the verdict: features all together, each of them, voxels."""
    return _by_features(classifiers, n, real), _feature_by_feature(distances, real), _by_crops(classifiers, real)


def _by_features(classifiers: Classifiers, n: tuple[int, int], real: str) -> str:
    told, lesions = classifiers.features, f"{n[0]} {real} and {n[1]} synthetic lesions of equal sizes"
    if told.note:
        return f"Too few lesions to train a classifier: {told.note}."
    reached = (
        f"a classifier on their features reaches an AUC of {said(told.auc)} on patients that it has not seen"
        f" ({lesions}; 0.5 is chance)"
    )
    rest = f"{said(classifiers.without_place.auc)} without the features of place, which say where lesions were put"
    if told.shown:
        return f"Synthetic lesions are told from {real} ones: {reached}, and one of {rest}."
    return f"It is not shown that features tell synthetic lesions from {real} ones: {reached}, and one of {rest}."


def _feature_by_feature(distances: Sequence[Distance], real: str) -> str:
    shown = [distance for distance in distances if distance.differs and BY_NAME[distance.feature].about != "size"]
    tested = sum(not np.isnan(distance.p) for distance in distances)
    if not tested:
        return f"With fewer than {FEWEST} lesions on a side no feature can be tested."
    if not shown:
        return f"No difference is shown in any of {tested} single features."
    named = ", ".join(
        f"{plain(each.feature)} ({'of place, ' * (BY_NAME[each.feature].about == 'place')}distance"
        f" {each.ks.value:.2f}; two halves of {real} ones {each.halves:.2f})"
        for each in shown[:4]
    )
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return f"They differ in {named}{more}; in {tested - len(shown)} further features no difference is shown."


def _by_crops(classifiers: Classifiers, real: str) -> str:
    crops, healthy = classifiers.crops, classifiers.healthy
    if crops.note:
        return f"No network looked at the voxels: {crops.note}."
    if not crops.shown:
        return f"A small network on crops of the scans does not show that it can tell them: AUC {said(crops.auc)}."
    first = (
        f"A small network on crops of the scans tells synthetic from {real} lesions with an AUC of {said(crops.auc)}"
    )
    if healthy.note:
        return f"{first}; whether the scans differ themselves is not known, for want of healthy tissue: {healthy.note}."
    if healthy.shown:
        return (
            f"{first}, but healthy tissue of the same scans as well, with {said(healthy.auc)}: the scans differ"
            " themselves, and the network may go by that."
        )
    return f"{first}; that the scans differ themselves is not shown: {said(healthy.auc)} on their healthy tissue."


def plain(feature: str) -> str:
    """The name of a feature in words: `edge_ratio` is edge ratio."""
    for unit in ("_mm", "_hu", "_ml"):
        feature = feature.removesuffix(unit)
    return feature.replace("_", " ")


def said(interval: Interval) -> str:
    """A figure with its interval in words."""
    if np.isnan(interval.low):
        return number(interval.value, 2)
    return f"{interval.value:.2f} (95 % interval {max(0.0, interval.low):.2f} to {min(1.0, interval.high):.2f})"


def draw_feature(feature: str, real: Sequence[Row], synthetic: Sequence[Row], sides: tuple[str, str] = SIDES) -> Plot:
    """Both distribution functions of one feature. sides: what the two are called."""
    about = BY_NAME[feature]
    axes: Axes = new_axes(f"{plain(feature)}{f' ({about.unit})' if about.unit else ''}", "share of lesions", (2.9, 2.2))
    rows: list[dict[str, Any]] = []
    for name, side, color, line in zip(sides, (real, synthetic), MODEL_COLORS, ("-", "--"), strict=True):
        values = np.sort(values_of(side, feature))
        values = values[np.isfinite(values)]
        share = np.arange(1, len(values) + 1) / max(len(values), 1)
        axes.step(
            values, share, where="post", color=color, linestyle=line, linewidth=1.6, label=f"{name} ({len(values)})"
        )
        rows += [{"side": name, feature: float(value)} for value in values]
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    return Plot(f"feature_{feature}", f"{about.words}.", to_svg(axes), tuple(rows))


def realism_page(
    title: str,
    classifiers: Classifiers,
    distances: Sequence[Distance],
    sizes: Sequence[Distance],
    copies: Copies,
    plots: Sequence[Plot],
    n: tuple[int, int],
    facts: Mapping[str, Any],
    real: str = SIDES[0],
) -> str:
    """The whole page. distances: of lesions of equal sizes; sizes: of all lesions, the features of size alone.

    real: what the first side is called: natural in-silico lesions are not real ones.
    """
    parts = [said_first(sentences(classifiers, distances, n, real)), "<h2>Can they be told apart?</h2>"]
    parts += [_TOLD, _told_table(classifiers, real), "<h2>Feature by feature</h2>"]
    parts.append(
        "<p>Lesions of equal sizes and organs, the features that differ most first. The distance is the largest gap"
        " between the two distribution functions (Kolmogorov-Smirnov), with its 95 % interval by patient. Beside it"
        " stands the same distance between two halves of the first side's patients: closer than that cannot be told."
        " p is of a permutation test by patient, corrected for the number of features (Holm).</p>"
    )
    parts.append(_distance_table(distances, real))
    parts.append(plot_figures(plots))
    parts += [
        "<h2>Sizes</h2>",
        "<p>Of all lesions, before equal sizes were drawn. A difference here is the recipe's choice.</p>",
    ]
    parts.append(_distance_table(sizes, real))
    if classifiers.features.weights:
        most = list(classifiers.features.weights.items())[:8]
        parts += [
            "<h2>What the classifier on features looks at</h2>",
            "<p>How much its AUC falls when one feature is shuffled among the lesions.</p>",
            table(
                ["feature", "about", "AUC falls by"],
                [[plain(name), BY_NAME[name].about, f"{fall:.3f}"] for name, fall in most],
                (2,),
            ),
        ]
    if not np.isnan(copies.synthetic):
        parts += ["<h2>Copies</h2>", f"<p>{escape(_copies(copies, real))}</p>"]
    return page(title, [*parts, "<h2>How it was counted</h2>", fact_table(facts)])


def _told_table(classifiers: Classifiers, real: str) -> str:
    seen = {
        "a forest on all features but size": classifiers.features,
        "the same without the features of place": classifiers.without_place,
        f"a small network on crops of {SIZE * SPACING_MM:.0f} mm around the lesions": classifiers.crops,
        f"the same on balls of {2 * HEALTHY_MM:.0f} mm of healthy tissue of the same scans": classifiers.healthy,
    }
    rows = []
    for name, told in seen.items():
        interval = "–" if np.isnan(told.auc.low) else f"{max(0.0, told.auc.low):.2f} to {min(1.0, told.auc.high):.2f}"
        value = "–" if np.isnan(told.auc.value) else f"{told.auc.value:.2f}"
        rows.append([name, value, interval, str(told.n[0] or "–"), str(told.n[1] or "–"), told.note])
    return table(["classifier", "AUC", "95 % interval", f"{real} lesions", "synthetic", ""], rows, (1, 2, 3, 4))


def _distance_table(distances: Sequence[Distance], real: str) -> str:
    head = ["feature", "about", "distance", "95 % interval", "two halves", "95 % of these", "p",
            f"{real}, median (5-95 %)", "synthetic, median (5-95 %)"]  # fmt: skip
    rows = []
    for distance in distances:
        unit = BY_NAME[distance.feature].unit
        ks = distance.ks
        interval = "–" if np.isnan(ks.low) else f"{max(0.0, ks.low):.2f} to {min(1.0, ks.high):.2f}"
        spans = [
            f"{number(mid, 2)} ({number(low, 2)} to {number(high, 2)}) {unit}"
            for low, mid, high in (distance.real, distance.synthetic)
        ]
        name = f"<b>{escape(plain(distance.feature))}</b>" if distance.differs else escape(plain(distance.feature))
        p = "–" if np.isnan(distance.adjusted) else f"{distance.adjusted:.3f}"
        rows.append([name, BY_NAME[distance.feature].about, f"{ks.value:.2f}", interval, number(distance.halves, 2),
                     number(distance.halves_high, 2), p, *spans])  # fmt: skip
    return table(head, rows, (2, 3, 4, 5, 6))


def _copies(copies: Copies, real: str) -> str:
    near = f"A {real} lesion and the nearest of another patient are {copies.real:.1f} SD of the features apart (median)"
    return (
        f"{near}, a synthetic one and the nearest {real} one {copies.synthetic:.1f}. {100 * copies.share:.0f} % of"
        f" {copies.n} synthetic lesions are nearer to a {real} one than 99 % of the {real} ones are to each other. Far"
        " more than 1 % would mean that lesions were copied."
    )
