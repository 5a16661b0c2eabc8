"""What a critic let through: pass rates by organ, size and contrast, so that it shows when only the easy ones stay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from synthoma.synthesis.store.columns import Row

SIZES_MM = (10.0, 20.0, 50.0)
CONTRASTS_HU = (15.0, 40.0)
_FEW = 5  # judged tumors, under which a share says nothing
_APART = 0.5  # difference of shares from which a critic keeps what is easy


def pass_rates(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """A row for each organ, size class and class of contrast (absolute, as planned) that a critic has judged.

    judged: plans that it saw; those that other rules rejected before are no part. kept: those it kept; share: of the
    judged. Empty if no critic judged any.
    """
    counts: dict[tuple[str, int, int], list[int]] = {}
    for row in rows:
        score = row["scores"].get("critic")
        if row["plan"] is None or score is None or (isinstance(score, float) and math.isnan(score)):
            continue
        diameter = row["scores"]["equivalent_diameter_mm"]
        key = (row["plan"]["organ"], _class(diameter, SIZES_MM), _class(abs(row["plan"]["contrast_hu"]), CONTRASTS_HU))
        found = counts.setdefault(key, [0, 0])
        found[0] += 1
        found[1] += bool(row["accepted"])
    return [
        {
            "organ": organ,
            "size": _words(size, SIZES_MM, "mm"),
            "contrast": _words(contrast, CONTRASTS_HU, "HU"),
            "judged": judged,
            "kept": kept,
            "share": round(kept / judged, 3),
        }
        for (organ, size, contrast), (judged, kept) in sorted(counts.items())
    ]


def easy_ones(rates: Sequence[dict[str, Any]]) -> str:
    """A sentence if the critic keeps much more of one size, or of one contrast, than of another; empty if not."""
    for name in ("size", "contrast"):
        shares: dict[str, tuple[int, int]] = {}
        for row in rates:
            judged, kept = shares.get(row[name], (0, 0))
            shares[row[name]] = judged + row["judged"], kept + row["kept"]
        enough = {words: kept / judged for words, (judged, kept) in shares.items() if judged >= _FEW}
        if len(enough) < 2:
            continue
        most, least = max(enough, key=lambda words: enough[words]), min(enough, key=lambda words: enough[words])
        if enough[most] - enough[least] > _APART:
            return (
                f"the critic keeps {100 * enough[most]:.0f} % of tumors of {most} and {100 * enough[least]:.0f} % of "
                f"those of {least}: it sorts by {name}, so what stays is what it finds anyway"
            )
    return ""


def _class(value: float, limits: Sequence[float]) -> int:
    return sum(value >= limit for limit in limits)


def _words(index: int, limits: Sequence[float], unit: str) -> str:
    if index == 0:
        return f"under {limits[0]:g} {unit}"
    if index == len(limits):
        return f"{limits[-1]:g} {unit} or more"
    return f"{limits[index - 1]:g}-{limits[index]:g} {unit}"
