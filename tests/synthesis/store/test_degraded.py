"""Rows say how a scan is made worse; what no scan can be is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synthoma.degradation import Degradation, degrade
from synthoma.errors import CaseError
from synthoma.synthesis.store.degraded import as_json, degradation_of, degraded
from synthoma.volume import Geometry, Volume


def test_what_is_asked_for_comes_back_from_the_row() -> None:
    how = Degradation(noise_hu=20.0, noise_mm=0.35, noise_seed=7, view_mm=40.0)
    row = as_json(how)
    assert row == {"degraded": {"noise_hu": 20.0, "noise_mm": 0.35, "noise_seed": 7, "view_mm": 40.0}}
    assert degradation_of([row]) == how
    assert as_json(Degradation()) == {}
    scan = Volume(np.zeros((30, 30, 10), np.int16), Geometry.of((30, 30, 10), (1.0, 1.0, 2.0)))
    assert np.array_equal(degraded(scan, [row]).data, degrade(scan, how).data)
    assert degraded(scan, [{"plan": None}]) is scan


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"blur_mm": 1e9}, "wrong blur_mm"),
        ({"noise_hu": float("nan")}, "wrong noise_hu"),
        ({"shift_hu": "10"}, "wrong shift_hu"),
        ({"slice_mm": True}, "wrong slice_mm"),
        ({"command": 1}, "in an unknown way"),
        (["noise_hu"], "in an unknown way"),
    ],
)
def test_a_manifest_that_asks_for_what_no_scan_can_be_is_refused(told: Any, words: str) -> None:
    with pytest.raises(CaseError, match=words):
        degradation_of([{"degraded": told}])
