"""Scans that are made worse after the tumors are in: how, as a column of the manifest, done when they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from synthoma.degradation import Degradation, degrade
from synthoma.errors import CaseError
from synthoma.synthesis.store.columns import DEGRADED, Row
from synthoma.volume import Volume

# What a manifest may ask for; far beyond any use, and small enough to be computed.
_LIMITS = {
    "slice_mm": (0.0, 100.0),
    "blur_mm": (0.0, 30.0),
    "noise_hu": (0.0, 1000.0),
    "noise_mm": (0.0, 30.0),
    "noise_seed": (0, 2**63),
    "shift_hu": (-2000.0, 2000.0),
    "view_mm": (0.0, 5000.0),
}


def as_json(how: Degradation) -> dict[str, Any]:
    """The column of a row: what differs from the scan as it is; no column if nothing does."""
    differs = {
        field.name: getattr(how, field.name)
        for field in dataclasses.fields(how)
        if getattr(how, field.name) != field.default
    }
    return {DEGRADED: differs} if differs else {}


def degradation_of(rows: Sequence[Row]) -> Degradation:
    """How the scan of these rows, all of one case, is made worse. Raises `CaseError` for what no scan can be."""
    told = rows[0].get(DEGRADED) or {}
    if not isinstance(told, Mapping) or not told.keys() <= _LIMITS.keys():
        raise CaseError("the manifest degrades the scan in an unknown way", found=str(told)[:80])
    for name, value in told.items():
        low, high = _LIMITS[name]
        if type(value) not in (int, float) or not low <= value <= high:
            raise CaseError(
                f"the manifest degrades the scan by a wrong {name}", found=str(value)[:80],
                expected=f"{low:g} to {high:g}",
            )  # fmt: skip
    return Degradation(**told)


def degraded(ct: Volume, rows: Sequence[Row]) -> Volume:
    """The scan as its rows say; the same object where they say nothing."""
    return degrade(ct, degradation_of(rows)) if rows else ct
