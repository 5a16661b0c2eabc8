"""Summaries: pooled, by group and by size, with FROC against a hand-made table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from masks import FLAT, balls

from synthoma.evaluation.figures import size_bins
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe, score_labels
from synthoma.evaluation.summary import froc_points, sensitivity_at, summarise
from synthoma.volume import Volume

RECIPE = EvaluateRecipe(resamples=300, groups=("hospital",))


def scored(case: str, patient: str, truth: Volume, predicted: Volume, hospital: str = "A") -> CaseScores:
    found = score_labels(truth, predicted, {"liver_lesion": None}, case=case)
    rows = tuple(row | {"patient": patient} for row in found.rows)
    lesions = tuple(row | {"patient": patient} for row in found.lesions)
    return CaseScores(case, patient, rows, lesions, (), {"hospital": hospital})


NOTHING = balls(FLAT)
SMALL, LARGE = ((0.25, 0.3, 0.4), 8), ((0.7, 0.7, 0.5), 14)
STUDY = [
    scored("a", "p1", balls(FLAT, SMALL, LARGE), balls(FLAT, LARGE)),
    scored("b", "p1", balls(FLAT, LARGE), balls(FLAT, LARGE, ((0.2, 0.8, 0.8), 4)), "B"),
    scored("c", "p2", NOTHING, NOTHING, "B"),
    scored("d", "p3", NOTHING, balls(FLAT, SMALL)),
    scored("e", "p4", balls(FLAT, SMALL), NOTHING),
]


def test_figures_by_hand() -> None:
    summary = summarise(STUDY, RECIPE)
    value = {
        name: summary["liver_lesion", name].value
        for name in ("lesion_sensitivity", "false_per_scan", "lesion_precision")
    }
    assert value == pytest.approx({"lesion_sensitivity": 2 / 4, "false_per_scan": 2 / 5, "lesion_precision": 2 / 4})
    assert summary["liver_lesion", "patient_sensitivity"].value == pytest.approx(1 / 2)
    assert summary["liver_lesion", "patient_specificity"].value == pytest.approx(1 / 2)
    # the strongest: p1 14 mm ball, p4 nothing; p2 nothing, p3 8 mm ball
    assert summary["liver_lesion", "patient_auc"].value == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    dsc = [row["dsc"] for each in STUDY for row in each.rows if row["dsc"] is not None]
    assert summary["liver_lesion", "dsc"].value == pytest.approx(np.mean(dsc))
    assert summary.counts["outcomes"] == {
        "liver_lesion": {"true positive": 2, "true negative": 1, "false positive": 1, "false negative": 1}
    }


def test_undefined_scans_are_counted_and_not_averaged() -> None:
    figures = {one.metric: one for one in summarise(STUDY, RECIPE).figures if not (one.group or one.size)}
    assert figures["dsc"].undefined == 1
    assert figures["hd95_mm"].undefined == 3
    assert figures["dsc"].interval.n == 3


def test_sizes_and_groups_part_the_lesions() -> None:
    figures = {(one.metric, one.group, one.size): one.interval.value for one in summarise(STUDY, RECIPE).figures}
    assert figures["lesion_sensitivity", "", "< 10 mm"] == 0.0
    assert figures["lesion_sensitivity", "", "10-20 mm"] == 1.0
    assert np.isnan(figures["lesion_sensitivity", "", ">= 50 mm"])
    assert figures["false_per_scan", "hospital=A", ""] == pytest.approx(1 / 3)
    assert figures["false_per_scan", "hospital=B", ""] == pytest.approx(1 / 2)


def test_bins_leave_no_diameter_out() -> None:
    names = [name for name, _, _ in size_bins((10, 20, 50))]
    assert names == ["", "early, < 20 mm", "< 10 mm", "10-20 mm", "20-50 mm", ">= 50 mm"]


def test_a_summary_is_json_and_the_same_for_the_same_seed() -> None:
    first, again = (json.dumps(summarise(STUDY, RECIPE, seed=3).as_dict(), allow_nan=False) for _ in range(2))
    assert first == again


def test_a_single_case_has_values_and_no_intervals() -> None:
    interval = summarise(STUDY[:1], RECIPE)["liver_lesion", "dsc"]
    assert interval.value > 0
    assert np.isnan(interval.low)
    assert "one patient" in interval.note


def test_no_cases_give_no_figures() -> None:
    assert summarise([], RECIPE).figures == ()


def test_froc_of_a_hand_made_table() -> None:
    rows = [
        {"lesions": 3, "curve": [[0.3, 3, 4], [0.5, 2, 1], [0.7, 1, 0]]},
        {"lesions": 1, "curve": [[0.3, 1, 2], [0.5, 1, 0], [0.7, 0, 0]]},
        {"lesions": 0, "curve": [[0.3, 0, 1], [0.5, 0, 0], [0.7, 0, 0], [0.9, 0, 0]]},
        {"lesions": 1, "curve": [[0.3, 1, 1], [0.5, 0, 0], [0.7, 0, 0]]},
    ]
    points = froc_points(rows)
    assert points == [(0.7, 0.0, 1 / 5), (0.5, 1 / 4, 3 / 5), (0.3, 8 / 4, 1.0)]
    at = [sensitivity_at(points, rate) for rate in (0.125, 0.25, 0.5, 1, 2, 4, 8)]
    assert at == pytest.approx([0.2, 0.6, 0.6, 0.6, 1, 1, 1])
