"""What a realism report leaves in its run folder: the lesions as a table, distances, plots, the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import disk
from synthoma.errors import CaseError
from synthoma.realism.crops import Crops, Kind
from synthoma.realism.distances import Distance, compare_features, match_sizes
from synthoma.realism.features import BY_NAME, FEATURES, Row
from synthoma.realism.recipe import RealismRecipe
from synthoma.realism.report import draw_feature, plain, realism_page, verdict
from synthoma.realism.telling import PLACE, SIZE, Classifiers, Told, classify, classify_crops, find_copies
from synthoma.statistics.intervals import Interval
from synthoma.tables import plain as plain_number
from synthoma.tables import write_table

KIND = "realism"
LESIONS, DISTANCES, SUMMARY, REPORT = "lesions.parquet", "distances.csv", "summary.json", "report.html"


def finish_realism(
    real: Sequence[Row],
    synthetic: Sequence[Row],
    out: Path,
    recipe: RealismRecipe,
    seed: int,
    facts: Mapping[str, Any],
    word: str = "real",
    crops: Crops | str = "no crops were cut",
) -> dict[str, Any]:
    """Compares the lesions and writes tables, plots and page; the verdict and its figures for the run's record.

    word: what the real side is called, where it is not real. crops: of all lesions, for a network to look at; or why
    there are none. Raises `CaseError` if a side has no lesion, or they share no organ.
    """
    shared = sorted({row["organ"] for row in real} & {row["organ"] for row in synthetic})
    if not shared:
        raise CaseError(
            "nothing to compare",
            found=f"real lesions in {_organs(real)}, synthetic ones in {_organs(synthetic)}",
            expected="lesions of one organ at least on both sides",
        )
    real, synthetic = ([row for row in rows if row["organ"] in shared] for rows in (real, synthetic))
    matched = match_sizes(real, synthetic, seed)
    distances = compare_features(*matched, seed, recipe.resamples)
    sizes = [d for d in compare_features(real, synthetic, seed, recipe.resamples) if BY_NAME[d.feature].about == "size"]
    classifiers = ask_classifiers(*matched, crops, seed, recipe.resamples)
    copies = find_copies(real, synthetic)
    n = len(matched[0]), len(matched[1])
    plots = [draw_feature(distance.feature, *matched, (word, "synthetic")) for distance in distances]
    rows = [
        {"side": side, **row} for side, side_rows in (("real", real), ("synthetic", synthetic)) for row in side_rows
    ]
    write_table(rows, out / LESIONS)
    write_table([_as_row(distance) for distance in distances], out / DISTANCES)
    (out / "plots").mkdir(exist_ok=True)
    for plot in plots:
        disk.write_text(out / "plots" / f"{plot.name}.svg", plot.svg)
        write_table(list(plot.rows), out / "plots" / f"{plot.name}.csv")
    summary = {
        "verdict": verdict(classifiers, distances, n, word),
        "auc": _told(classifiers.features),
        "auc_without_place": _told(classifiers.without_place),
        "auc_of_crops": _told(classifiers.crops),
        "auc_of_healthy_tissue": _told(classifiers.healthy),
        "differs": [distance.feature for distance in distances if distance.differs],
        "lesions": {"real": len(real), "synthetic": len(synthetic), "of equal sizes": n[0]},
        "copies": dataclasses.asdict(copies),
    }
    summary = _json(summary)
    disk.write_json(out / SUMMARY, summary)
    told_facts = {
        **facts,
        "organs": ", ".join(shared),
        "lesions": f"{len(real)} real, {len(synthetic)} synthetic; {n[0]} and {n[1]} of equal sizes",
        "patients": f"{_patients(real)} real, {_patients(synthetic)} synthetic",
        "recipe": recipe.as_dict(),
        "seed": seed,
        "features": "; ".join(f"{plain(feature.name)}: {feature.words}" for feature in FEATURES),
    }
    disk.write_text(
        out / REPORT,
        realism_page(f"Realism {out.name}", classifiers, distances, sizes, copies, plots, n, told_facts, word),
    )
    return dict(summary)


def ask_classifiers(
    real: Sequence[Row], synthetic: Sequence[Row], crops: Crops | str, seed: int = 0, resamples: int = 1000
) -> Classifiers:
    """All classifiers on lesions of equal sizes. crops: of all lesions, or why there are none."""
    features = classify(real, synthetic, seed, resamples)
    without_place = classify(real, synthetic, seed, resamples, (*SIZE, *PLACE), shuffle=False)
    if isinstance(crops, str):
        none = Told(Interval(np.nan, note=crops), {}, crops)
        return Classifiers(features, without_place, none, none)
    kinds: tuple[Kind, ...] = ("lesion", "healthy")
    seen = [
        classify_crops(
            real, synthetic, (crops.read("real", real, kind), crops.read("synthetic", synthetic, kind)), seed, resamples
        )
        for kind in kinds
    ]
    return Classifiers(features, without_place, *seen)


def _as_row(distance: Distance) -> Row:
    return {
        "feature": distance.feature, "ks": distance.ks.value, "low": distance.ks.low, "high": distance.ks.high,
        "halves": distance.halves, "halves_high": distance.halves_high, "p": distance.p, "adjusted": distance.adjusted,
        "real": distance.n[0], "synthetic": distance.n[1],
    }  # fmt: skip


def _told(told: Told) -> dict[str, Any]:
    return {
        "value": told.auc.value,
        "low": told.auc.low,
        "high": told.auc.high,
        "weights": told.weights,
        "note": told.note,
        "lesions": list(told.n),
    }


def _organs(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({row["organ"] for row in rows})) or "no organ"


def _patients(rows: Sequence[Row]) -> int:
    return len({row["patient"] for row in rows})


def _json(value: Any) -> Any:
    """The same with None for numbers that are none."""
    if isinstance(value, dict):
        return {name: _json(entry) for name, entry in value.items()}
    return plain_number(value)
