"""The page of a study: what was asked, the answer, the plots behind it, and how to do it again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from synthoma.reports.page import fact_table, page, plot_figures, table, verdict
from synthoma.reports.pictures import Picture
from synthoma.reports.plots import Plot
from synthoma.scaling import answer
from synthoma.scaling.plots import plot_scaling, plot_sizes
from synthoma.scaling.results import StudyFit
from synthoma.scaling.table import Point
from synthoma.statistics.intervals import Interval

TITLE = "How many annotated scans did synthetic tumors replace?"
STYLE = """<style>
.answer { background: var(--tint); border-left: 4px solid #0072b2; padding: 0.8em 1.1em; font-size: 1.1em; }
.plots figure { max-width: 36em; } .plots.examples figure { width: 19em; } .examples img { width: 100%; }
.failed { border-left: 4px solid #d55e00; padding: 0.2em 1.1em; background: var(--tint); margin: 1em 0; }
td:first-child { min-width: 0; } p, li, .failed { max-width: 60em; }
td { white-space: nowrap; } td:last-child { white-space: normal; } h2 { margin-top: 1.6em; }
</style>"""
IN_SILICO = (
    "All patients are in silico: scans and natural tumors were drawn, none is of a person. A real case here is one "
    "with natural tumors, as opposed to synthetic tumors that were put in."
)
HOW = (
    "Every number of real cases is a subset of the next, drawn anew for each training seed by patient; all arms of one "
    "seed learn from the same cases, for the same number of steps, and are scored on the same test patients, of whom "
    "no scan was trained on. Intervals resample test patients and training seeds together. Curves are "
    "y = a − b n^−c with c above 0 and a at most the best possible score; other laws are compared by how well they "
    "predict the sizes they were not fitted to. Real-equivalents solve: real-only curve at n = the mixed arm's score."
)


@dataclass(frozen=True, eq=False)
class Study:
    """What the page tells. All by test set, the one of the training hospitals first.

    tests: name -> in words. arm: the one the study is about. metric: in words. fits: findings of the metric; points:
    behind them; sizes: size -> findings of lesion sensitivity. worthwhile: what a doubling of the real cases must add.
    in_silico: whether all patients were drawn. tumors: of points with a bank, what was made, judged and kept.
    """

    tests: Mapping[str, str]
    arm: str
    metric: str
    fits: Mapping[str, StudyFit]
    points: Mapping[str, Sequence[Point]]
    sizes: Mapping[str, Mapping[str, StudyFit]]
    worthwhile: float
    failed: Sequence[str] = ()
    in_silico: bool = False
    tumors: Sequence[Mapping[str, Any]] = ()

    @property
    def first(self) -> StudyFit:
        """The findings of the first test set."""
        return next(iter(self.fits.values()))

    def answer(self) -> str:
        """The answer in two sentences."""
        return answer.answer({self.tests[name]: fit for name, fit in self.fits.items()}, self.arm, self.metric)

    def plots(self) -> list[Plot]:
        """Scores against real cases and sensitivity by size, of every test set."""
        plots = [
            plot_scaling(name, fit, self.points[name], self.arm, self.metric, self.tests[name], self.in_silico)
            for name, fit in self.fits.items()
        ]
        for name, by_size in self.sizes.items():
            level = answer.headline(self.fits[name], self.arm)
            if level is not None and by_size:
                plots.append(plot_sizes(name, by_size, self.arm, level.cases, self.tests[name]))
        return plots

    def remarks(self) -> list[str]:
        """Further findings and what limits them, a sentence each."""
        fit = self.first
        found = [answer.saturation(fit.arm(fit.real), fit.largest, self.worthwhile)]
        found += [answer.doubling(one, fit.largest) for one in fit.arms if one.arm in (fit.real, self.arm)]
        if len(fit.arms) > 2:
            found += [answer.best_arm(fit, number) for number in fit.best]
        found += [sentence for sentence in (*answer.warnings(fit), answer.doubt(fit)) if sentence]
        return list(dict.fromkeys(found))


def study_page(
    study: Study, asked: str, plots: Sequence[Plot], examples: Sequence[Picture], facts: Mapping[str, Any]
) -> str:
    """The page. asked: the question with the grid, in words; facts: how to do it again, a row each."""
    scaling, sizes = ([plot for plot in plots if plot.name.startswith(kind)] for kind in ("scaling", "sizes"))
    parts = [
        STYLE,
        verdict([IN_SILICO] * study.in_silico),
        f"<h2>What was asked</h2><p>{escape(asked)}</p>",
        f'<h2>The answer</h2><p class="answer">{escape(study.answer())}</p>',
        _failed(study.failed),
        plot_figures(scaling),
        "<h2>What else was found</h2>" + _list(study.remarks()),
    ]
    if sizes:
        parts.append("<h2>Which tumors are found</h2>" + plot_figures(sizes))
    parts += [_examples(examples), "<h2>The points</h2>"]
    for name, fit in study.fits.items():
        parts += [f"<h3>{escape(study.tests[name])}</h3>", _levels(fit, study.metric), _curves(fit)]
    parts.append(_banks(study.tumors))
    parts += ["<h2>How it was done, and how to do it again</h2>", f"<p>{HOW}</p>", fact_table(facts)]
    return page(TITLE + " In silico" * study.in_silico, [part for part in parts if part])


def level_rows(study: Study) -> list[dict[str, Any]]:
    """Every mean with its interval, gain and real-equivalent, as rows of a table; None for what has no number."""
    rows = []
    for name, fit in study.fits.items():
        for level in fit.levels:
            row: dict[str, Any] = {"test": name, "arm": level.arm, "cases": level.cases, "seeds": level.seeds}
            for key in ("score", "gain", "equivalent", "factor"):
                found: Interval | None = getattr(level, key)
                for end in ("value", "low", "high"):
                    value = getattr(found, end) if found else math.nan
                    row[f"{key}_{end}".removesuffix("_value")] = value if math.isfinite(value) else None
            rows.append(row | {"note": level.equivalent.note if level.equivalent else level.score.note})
    return rows


def _failed(failed: Sequence[str]) -> str:
    if not failed:
        return ""
    many = "One point" if len(failed) == 1 else f"{len(failed)} points"
    return f'<div class="failed"><p><b>{many} failed; the fit goes on without.</b></p>{_list(failed)}</div>'


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _examples(examples: Sequence[Picture]) -> str:
    if not examples:
        return ""
    figures = [
        "<figure>"
        + (f'<img alt="axial slice of {escape(one.case)}" src="data:image/png;base64,{one.png}">' if one.png else "")
        + f"<figcaption><b>{escape(one.case)}</b>: {escape(one.caption)}</figcaption></figure>"
        for one in examples
    ]
    head = (
        "<h2>Example cases</h2><p class=muted>Truth blue; predicted by a model without synthetic tumors orange, with "
        "them purple. Cases were chosen by the size of their tumors before any was predicted.</p>"
    )
    return f'{head}<div class="plots examples">{"".join(figures)}</div>'


def _banks(tumors: Sequence[Mapping[str, Any]]) -> str:
    """How many tumors the arms had to paste, and what share of those judged a critic kept."""
    if not tumors:
        return ""
    rows = []
    for row in tumors:
        judged = row.get("judged", 0)
        kept = f"{row['kept']} of {judged}, {100 * row['kept'] / judged:.0f} %" if judged else "–"
        rows.append([escape(row["arm"]), str(row["cases"]), str(row["seed"]), str(row["tumors"]), kept])
    head = ["arm", "real cases", "seed", "tumors to paste", "kept by the critic"]
    return "<h3>The tumors of each arm</h3>" + table(head, rows, numeric=(1, 2, 3))


def _levels(fit: StudyFit, metric: str) -> str:
    rows = [
        [
            escape(level.arm),
            str(level.cases),
            str(level.seeds),
            _interval(level.score),
            _interval(level.gain, "+.3f"),
            _reached(level.equivalent),
            _interval(level.factor, ".1f"),
            escape(level.equivalent.note if level.equivalent else ""),
        ]
        for level in fit.levels
    ]
    head = ["arm", "real cases", "seeds", escape(metric), "gain", "equals real cases", "times as many", ""]
    return table(head, rows, numeric=(1, 2))


def _curves(fit: StudyFit) -> str:
    rows = [
        [
            escape(one.arm),
            escape(one.law or "none"),
            *(_interval(one.parameters.get(key), ".3g") for key in ("a", "b", "c")),
            ", ".join(f"{law} {error:.3f}" for law, error in one.held_out.items() if math.isfinite(error)) or "–",
            escape(one.problem or "nothing found"),
        ]
        for one in fit.arms
    ]
    return table(["curve of", "law", "a", "b", "c", "error at sizes left out", "what is wrong with it"], rows)


def _interval(found: Interval | None, style: str = ".3f") -> str:
    if found is None or math.isnan(found.value):
        return "–"
    value, low, high = ("∞" if math.isinf(end) else format(end, style) for end in (found.value, found.low, found.high))
    return value if math.isnan(found.low) else f"{value} ({low.lstrip('+')} to {high.lstrip('+')})"


def _reached(found: Interval | None) -> str:
    return "–" if found is None or math.isnan(found.value) else escape(answer.reach(found).replace(" real cases", ""))
