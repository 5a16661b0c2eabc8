"""What a blinded study says: can readers tell, do they agree with each other and with themselves, what gave it away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from synthoma.review.store import Answer, Item, Reader, Task
from synthoma.review.turing import SIGNS, SYNTHETIC, TuringKind
from synthoma.seeds import rng_for
from synthoma.statistics.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha
from synthoma.statistics.intervals import Interval
from synthoma.statistics.multireader import (
    Equivalence,
    ReaderMean,
    equivalence,
    reader_auc,
    reader_rate,
    reader_share,
)
from synthoma.tables import Row, plain
from synthoma.volume import Array

CALLED = 4  # ratings from here on say synthetic
RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Rated:
    """The findings. figures: metric -> mean over readers; agreement: name -> interval over items; rows: every answer.

    items: shown and answered by every reader who took part; left_out: those that somebody has not answered.
    """

    readers: tuple[Reader, ...]
    items: int
    left_out: int
    figures: dict[str, ReaderMean]
    agreement: dict[str, Interval]
    repeats: tuple[Row, ...]
    seconds: dict[str, tuple[float, float, float, int]]
    signs: tuple[Row, ...]
    equivalence: Equivalence | None
    notes: tuple[str, ...]
    rows: tuple[Row, ...]

    def figure_rows(self) -> list[Row]:
        """Every figure as a row: metric, reader, value, interval, n, note."""
        rows = []
        for metric, mean in self.figures.items():
            each = zip((reader.name for reader in self.readers), mean.by_reader, strict=True)
            for name, interval in [("all", mean.interval), *(each if len(self.readers) > 1 else ())]:
                rows.append(_row(metric, name, interval))
        return rows + [_row(name, "all", interval) for name, interval in self.agreement.items()]


def _row(metric: str, reader: str, interval: Interval) -> Row:
    values = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {"metric": metric, "reader": reader, **{k: plain(v) for k, v in values.items()}, "n": interval.n}


def evaluate(kind: TuringKind) -> Rated:
    """The findings of a study as far as it has come."""
    store = kind.store
    items, answers, tasks = {item.id: item for item in store.items()}, store.last_answers(), store.tasks()
    pairs = kind.recipe.design == "pairs"
    rows = [
        _answer_row(kind, task, items[task.item], answers[task.id])
        for task in tasks
        if task.id in answers and answers[task.id].final
    ]
    readers = [reader for reader in store.readers() if any(row["reader"] == reader.name for row in rows)]
    first = {(row["reader"], row["item"]): row for row in rows if not row["repeat"]}
    shared = (
        [number for number in items if all((reader.name, number) in first for reader in readers)] if readers else []
    )
    notes: list[str] = []
    figures: dict[str, ReaderMean] = {}
    grid = [[first[reader.name, number] for number in shared] for reader in readers]
    if shared:
        figures, notes = _figures(grid, pairs)
    tested = None
    if "accuracy" in figures:
        tested = equivalence(figures["accuracy"], 0.5, kind.recipe.margin)
    agreement = _agreement(grid, pairs) if len(readers) > 1 and shared else {}
    return Rated(
        tuple(readers), len(shared), len(items) - len(shared), figures, agreement, tuple(_repeats(rows, readers)),
        _seconds(rows, readers), tuple(_signs(rows)), tested, tuple(notes), tuple(rows),
    )  # fmt: skip


def _answer_row(kind: TuringKind, task: Task, item: Item, answer: Answer) -> Row:
    reader = next(reader.name for reader in kind.store.readers() if reader.id == task.reader)
    row: Row = {
        "reader": reader, "item": item.id, "case": item.case_id, "organ": item.structure.removesuffix("_lesion"),
        "arm": item.arm, "repeat": task.repeat, "position": task.position, "seconds": answer.seconds,
        "late": bool(answer.content["late"]), "signs": " ".join(answer.content["signs"]),
    }  # fmt: skip
    if item.arm == "pair":
        chosen = answer.content["choice"]
        right = chosen == ("first" if kind.synthetic_first(task) else "second")
        return row | {"choice": chosen, "correct": right, "called": None, "rating": None}
    called = answer.content["rating"] >= CALLED
    facts = {"diameter_mm": item.facts["diameter_mm"], "contrast_hu": item.facts["contrast_hu"]}
    return row | facts | {
        "rating": answer.content["rating"], "called": called, "correct": called == (item.arm == SYNTHETIC),
    }  # fmt: skip


def _figures(grid: Sequence[Sequence[Row]], pairs: bool) -> tuple[dict[str, ReaderMean], list[str]]:
    """Figures over readers and items; notes on those that are undefined."""
    correct = np.array([[row["correct"] for row in rows] for rows in grid], float)
    if pairs:
        if correct.shape[1] < 2:
            return {}, ["fewer than two pairs were answered by every reader: no interval"]
        return {"accuracy": reader_rate(correct)}, []
    synthetic = np.array([row["arm"] == SYNTHETIC for row in grid[0]])
    if min(synthetic.sum(), (~synthetic).sum()) < 2:
        return {}, ["fewer than two items of each arm were answered by every reader: no interval"]
    ratings = np.array([[row["rating"] for row in rows] for rows in grid], float)
    return {
        "accuracy": reader_share(correct, synthetic),
        "sensitivity": reader_rate(correct[:, synthetic]),
        "specificity": reader_rate(correct[:, ~synthetic]),
        "AUC": reader_auc(ratings, synthetic),
    }, []


def _agreement(grid: Sequence[Sequence[Row]], pairs: bool) -> dict[str, Interval]:
    """Agreement between readers, with percentile intervals over items."""
    if pairs:
        right = np.array([[row["correct"] for row in rows] for rows in grid], float)
        return {"Fleiss kappa of right answers": _over_items(right, lambda table: _fleiss(table))}
    calls = np.array([[row["called"] for row in rows] for rows in grid], float)
    ratings = np.array([[row["rating"] for row in rows] for rows in grid], float)
    return {
        "Fleiss kappa of calls": _over_items(calls, lambda table: _fleiss(table)),
        "Krippendorff alpha of ratings": _over_items(ratings, lambda table: krippendorff_alpha(table, "ordinal")),
    }


def _fleiss(table: Array) -> float:
    return fleiss_kappa(np.stack([(table == 0).sum(axis=0), (table == 1).sum(axis=0)], axis=1))


def _over_items(table: Array, statistic: Callable[[Array], float]) -> Interval:
    n = table.shape[1]
    rng = rng_for(0, "items", n)
    drawn = np.array([statistic(table[:, rng.integers(0, n, n)]) for _ in range(RESAMPLES // 4)])
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) < 0.95 * RESAMPLES // 4:
        return Interval(statistic(table), n=n, note="undefined in too many resamples")
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(statistic(table), float(low), float(high), n)


def _repeats(rows: Sequence[Row], readers: Sequence[Reader]) -> list[Row]:
    """How each reader answered what came twice: pairs of answers, the same call, kappa of the ratings."""
    found = []
    for reader in readers:
        own = {(row["item"], row["repeat"]): row for row in rows if row["reader"] == reader.name}
        twice = [(own[item, 0], own[item, 1]) for item, repeat in own if repeat == 1 and (item, 0) in own]
        if not twice:
            continue
        key = "correct" if twice[0][0]["rating"] is None else "called"
        same = sum(one[key] == two[key] for one, two in twice)
        kappa = float("nan")
        if key == "called":
            kappa = cohen_kappa([a["rating"] for a, _ in twice], [b["rating"] for _, b in twice], "quadratic")
        found.append({"reader": reader.name, "n": len(twice), "same": same, "kappa": plain(kappa)})
    return found


def _seconds(rows: Sequence[Row], readers: Sequence[Reader]) -> dict[str, tuple[float, float, float, int]]:
    """Reader -> quartiles of the seconds an item took, and how many."""
    result = {}
    for reader in readers:
        seconds = [row["seconds"] for row in rows if row["reader"] == reader.name]
        low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
        result[reader.name] = float(low), float(middle), float(high), len(seconds)
    return result


def _signs(rows: Sequence[Row]) -> list[Row]:
    """How often a sign was named with a right and with a wrong answer."""
    found = []
    for sign in SIGNS:
        named = [row for row in rows if not row["repeat"] and sign in row["signs"].split()]
        right = sum(row["correct"] for row in named)
        found.append({"sign": sign, "named": len(named), "right": right, "wrong": len(named) - right})
    return sorted(found, key=lambda row: -row["named"])
