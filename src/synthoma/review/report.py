"""The page of a study: what was asked, what readers said, with intervals; and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from synthoma import disk
from synthoma.reports.page import number, page, plot_figures, table
from synthoma.reports.plots import COLORS, MARKS, MUTED, Plot, draw_legend, new_axes, to_svg
from synthoma.review.annotated import Annotated
from synthoma.review.rated import Rated
from synthoma.review.recipes import AnnotateRecipe, TuringRecipe
from synthoma.statistics.intervals import Interval
from synthoma.statistics.multireader import Equivalence
from synthoma.tables import Row, write_table

REPORT, FIGURES, ANSWERS, LESIONS, TASKS = "report.html", "figures.csv", "answers.csv", "lesions.csv", "tasks.csv"
HOW_RATED = (
    "Intervals are 95 % and over readers and cases: Obuchowski and Rockette 1995 for one modality with the degrees of "
    "freedom of Hillis 2007 and the covariances of DeLong 1988; of one reader over cases alone. A rating of 4 to 6 "
    "says synthetic. Sensitivity is the share of synthetic lesions called synthetic, specificity that of real ones "
    "called real. Intervals of agreement resample items. Equivalence: two one-sided tests at 5 % against the margin "
    "that was fixed before the study."
)
HOW_ANNOTATED = (
    "Intervals are 95 %, bootstrapped by patient (BCa). Seconds count while a case is open in the browser. Lesions are "
    "those of the last stage; a rejected candidate has the size it was proposed with. The DSC compares each accepted "
    "candidate with its proposal."
)


def write_rated(found: Rated, recipe: TuringRecipe, notes: Sequence[str], out: Path, title: str) -> None:
    """The page and tables of a blinded study."""
    plots = [_ratings_plot(found), _figures_plot(found)] if found.figures and recipe.design == "rating" else []
    asked = (
        f"Can readers tell synthetic lesions from real ones? {_people(found)}, {found.items} items that all answered."
    )
    if found.left_out:
        asked += f" {found.left_out} items are not answered by all and are left out of the figures."
    parts = [f"<h2>What was asked</h2><p>{escape(asked)}</p>", _list(notes)]
    parts += ["<h2>The answer</h2>", f'<p class="strong">{escape(_answer(found))}</p>', _list(found.notes)]
    if found.figures:
        parts += [_figure_table(found.figure_rows()), plot_figures(plots)]
    if found.repeats:
        rows = [[row["reader"], str(row["n"]), str(row["same"]), number(row["kappa"], 2)] for row in found.repeats]
        head = ["reader", "items shown twice", "same answer", "kappa of ratings (quadratic)"]
        parts += ["<h2>Repeatability</h2>", table(head, rows, (1, 2, 3))]
    if found.seconds:
        rows = [[name, f"{m:.1f}", f"{a:.1f} to {b:.1f}", str(n)] for name, (a, m, b, n) in found.seconds.items()]
        parts += ["<h2>Time</h2>", table(["reader", "median seconds", "quartiles", "answers"], rows, (1, 3))]
    rows = [[row["sign"], str(row["named"]), str(row["right"]), str(row["wrong"])] for row in found.signs]
    head = ["sign", "named", "with a right answer", "with a wrong one"]
    parts += ["<h2>What gave lesions away</h2>", table(head, rows, (1, 2, 3))]
    parts += ["<h2>How it was counted</h2>", f"<p>{escape(HOW_RATED)}</p>"]
    disk.write_text(out / REPORT, page(title, [part for part in parts if part]))
    write_table(found.figure_rows(), out / FIGURES)
    write_table(list(found.rows), out / ANSWERS)


def _answer(found: Rated) -> str:
    accuracy = found.figures.get("accuracy")
    if accuracy is None or found.equivalence is None:
        return "Not enough answers yet."
    interval, test = accuracy.interval, found.equivalence
    text = (
        f"Accuracy {number(interval.value, 2)} (95 % interval {number(interval.low, 2)} to {number(interval.high, 2)},"
        f" n = {interval.n} items, {_people(found)}), where guessing"
        " gives 0.50."
    )
    return f"{text} {_of_equivalence(test, interval)}"


def _people(found: Rated) -> str:
    return f"{len(found.readers)} reader{'s' if len(found.readers) != 1 else ''}"


def _of_equivalence(test: Equivalence, interval: Interval) -> str:
    within = f"{test.center:g} ± {test.margin:g}"
    if test.shown:
        return f"Readers guess: accuracy lies within {within} (p = {test.p:.3f})."
    if interval.low > test.center or interval.high < test.center:
        return f"Readers do not guess. That they guess within {within} is not shown (p = {test.p:.2f})."
    return (
        f"Neither is shown: not that readers can tell, and not that they guess within {within} (p = {test.p:.2f})."
        " More answers are needed."
    )


def _figure_table(rows: Sequence[Row]) -> str:
    cells = [
        [escape(row["metric"]), escape(row["reader"]), number(row["value"]), number(row["low"]), number(row["high"]),
         str(row["n"])]
        for row in rows
    ]  # fmt: skip
    return table(["figure", "reader", "value", "95 % from", "to", "n"], cells, (2, 3, 4, 5))


def _ratings_plot(found: Rated) -> Plot:
    """How often each rating was given to real and to synthetic lesions."""
    axes = new_axes("rating: 1 surely real, 6 surely synthetic", "share of answers")
    rows: list[Row] = []
    for place, arm in enumerate(("real", "synthetic")):
        ratings = [row["rating"] for row in found.rows if row["arm"] == arm and not row["repeat"]]
        shares = [ratings.count(n) / len(ratings) if ratings else 0.0 for n in range(1, 7)]
        across = [n + 0.36 * (place - 0.5) for n in range(1, 7)]
        axes.bar(
            across, shares, 0.34, color=COLORS[1 + place], hatch="" if place else "//", edgecolor="white", label=arm
        )
        rows += [{"arm": arm, "rating": n, "share": share} for n, share in zip(range(1, 7), shares, strict=True)]
    axes.legend(fontsize=8, frameon=False)
    count = len([row for row in found.rows if not row["repeat"]])
    return Plot("ratings", f"Ratings of real and synthetic lesions, {count} answers.", to_svg(axes), tuple(rows))


def _figures_plot(found: Rated) -> Plot:
    axes = new_axes("", "value")
    names = list(found.figures)
    for place, name in enumerate(names):
        mean = found.figures[name]
        each = [*mean.by_reader] if len(found.readers) > 1 else []
        for offset, interval in enumerate([mean.interval, *each]):
            at = place + 0.6 * offset / (len(each) + 1) - 0.2
            error = [[interval.value - interval.low], [interval.high - interval.value]]
            color, mark = COLORS[offset % len(COLORS)], MARKS[offset % len(MARKS)]
            axes.errorbar([at], [interval.value], error, fmt=mark, color=color, markersize=5, linewidth=1.2, capsize=2)
    axes.axhline(0.5, color=MUTED, linewidth=0.9, linestyle="--")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1.02)
    people = [reader.name for reader in found.readers]
    draw_legend(axes, ["all", *people] if len(people) > 1 else ["all"], COLORS, MARKS)
    return Plot("figures", "Mean over readers and each reader, 95 % intervals; dashed: guessing.", to_svg(axes), ())


def write_annotated(
    found: Annotated, recipe: AnnotateRecipe, notes: Sequence[str], facts: dict[str, Any], out: Path, title: str
) -> None:
    """The page and tables of an annotation study."""
    done = [row for row in found.tasks if row["finished"]]
    left = ", ".join(f"{stage}: {count}" for stage, count in found.open.items()) or "none"
    asked = f"{len(done)} of {len(found.tasks)} tasks are finished; open: {left}."
    cuts = "; ".join(f"{name} at {score:.3g}" for name, score in facts["least_scores"].items())
    parts = [f"<h2>What was done</h2><p>{escape(asked)} Proposals were cut at their score: {escape(cuts)}.</p>"]
    parts += [_list(notes), _list(found.notes)]
    cells = [
        [escape(name), number(each.value, 2), number(each.low, 2), number(each.high, 2), str(each.n), escape(each.note)]
        for name, each in found.figures.items()
    ]
    if cells:
        parts += [table(["figure", "value", "95 % from", "to", "patients", ""], cells, (1, 2, 3, 4))]
    fates = ("accepted", "rejected", "added", "open")
    rows = [[size, *(str(counts[fate]) for fate in fates)] for size, counts in found.counts.items()]
    parts += ["<h2>Lesions by size</h2>", table(["diameter", *fates], rows, (1, 2, 3, 4))]
    if found.agreement:
        cells = [
            [escape(row["stage"]), escape(row["readers"]), str(row["items"]), number(row["dsc"], 2),
             str(row["candidates"]), number(row["kappa"], 2)]
            for row in found.agreement
        ]  # fmt: skip
        head = ["stage", "readers", "items", "mean DSC of accepted voxels", "candidates", "kappa of judgements"]
        parts += ["<h2>Agreement between readers</h2>", table(head, cells, (2, 3, 4, 5))]
    parts += ["<h2>How it was counted</h2>", f"<p>{escape(HOW_ANNOTATED)}</p>"]
    disk.write_text(out / REPORT, page(title, [part for part in parts if part]))
    figures = [
        {"metric": name, "value": each.value, "low": each.low, "high": each.high, "n": each.n}
        for name, each in found.figures.items()
    ]
    write_table(figures, out / FIGURES)
    write_table(list(found.lesions), out / LESIONS)
    write_table(list(found.tasks), out / TASKS)


def write_browsed(rows: Sequence[Row], out: Path, title: str) -> None:
    """The page and table of a synthesis that was looked through."""
    organs = sorted({row["organ"] for row in rows})
    counts = [[organ, *(_count(rows, organ, status) for status in ("accepted", "dropped", "open"))] for organ in organs]
    remarks = [f"{row['case']}, tumor {row['number']}: {row['remark']}" for row in rows if row["remark"]]
    parts = [table(["organ", "accepted", "dropped", "open"], counts, (1, 2, 3))]
    parts += ["<h2>Remarks</h2>", _list(remarks)] if remarks else []
    disk.write_text(out / REPORT, page(title, parts))
    write_table(list(rows), out / ANSWERS)


def _count(rows: Sequence[Row], organ: str, status: str) -> str:
    return str(sum(row["organ"] == organ and row["status"] == status for row in rows))


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>" if sentences else ""
