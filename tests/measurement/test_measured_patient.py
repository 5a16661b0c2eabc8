"""Patients over dates: figures of lesions known by construction, links, splits and mergers, what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthesis.phantoms import FAT, LIVER, fine, grid, rho
from synthoma.cases import Case
from synthoma.commands.measuring import measure
from synthoma.datasets.writing import write_case
from synthoma.errors import CaseError
from synthoma.measurement.patient import Patient, measure_patient, patients_of
from synthoma.volume import Geometry, Volume

Ball = tuple[float, tuple[float, float, float]]


def scan(day: float | None, balls: Sequence[Ball], geometry: Geometry | None = None, shift: float = 0.0) -> Case:
    """A liver of 60 mm with lesions as balls (radius, center), -40 HU, and a vessel to its left."""
    geometry = geometry or fine((76, 72, 72))
    liver = rho(geometry, (30, 30, 30), (shift, 0, 0)) < 1
    lesion = np.zeros(geometry.shape, bool)
    for radius, (x, y, z) in balls:
        lesion |= rho(geometry, (radius,) * 3, (x + shift, y, z)) < 1
    vessel = rho(geometry, (2, 2, 30), (shift - 20, 0, 0)) < 1
    hu = np.where(lesion, LIVER - 40, np.where(liver, LIVER, FAT)).astype(np.int16)
    masks = {"liver": liver, "liver_lesion": lesion, "hepatic_vessel": vessel}
    return Case(
        f"p_{day}", Volume(np.asfortranarray(hu), geometry),
        {name: Volume(np.asfortranarray(mask), geometry) for name, mask in masks.items()},
        patient="p", attributes={} if day is None else {"day": day},
    )  # fmt: skip


def result_of(*scans: Case) -> dict[str, Any]:
    (patient,) = patients_of(scans)
    return measure_patient(patient)


def test_a_lesion_is_measured_as_it_was_made() -> None:
    (lesion,) = result_of(scan(0, [(8.0, (10.0, 0.0, 12.0))]))["lesions"]
    assert lesion["longest_mm"] == pytest.approx(16, abs=1.5)
    assert lesion["perpendicular_mm"] == pytest.approx(16, abs=1.5)
    assert lesion["volume_ml"] == pytest.approx(4 / 3 * np.pi * 8**3 / 1000, rel=0.03)
    assert (lesion["mean_hu"], lesion["organ_hu"], lesion["contrast_hu"]) == (LIVER - 40, LIVER, -40)
    assert lesion["surface_mm"] == pytest.approx(30 - np.hypot(10, 12) - 8, abs=1.2)
    assert lesion["vessel_mm"] == pytest.approx(30 - 8 - 2, abs=1.2)
    assert lesion["vessel"] == "hepatic_vessel"
    assert lesion["part"] == "right third"
    assert lesion["slice_index"] == 47  # of two alike the one nearer to the feet


def test_a_tumor_of_the_colon_is_compared_with_its_wall_and_not_with_gas() -> None:
    geometry = fine((60, 60, 60))
    colon, lumen = (rho(geometry, (radius, radius, 1000), (0, 0, 0)) < 1 for radius in (20, 14))
    lesion = rho(geometry, (8, 8, 8), (16, 0, 0)) < 1
    hu = np.where(lesion, 95, np.where(lumen, -990, np.where(colon, 60, FAT))).astype(np.int16)
    masks = {"colon": Volume(colon & ~lesion, geometry), "colon_lesion": Volume(lesion, geometry)}
    (found,) = result_of(Case("c", Volume(hu, geometry), masks, patient="p"))["lesions"]
    assert (found["organ_hu"], found["contrast_hu"]) == (60, 35)


def test_a_lesion_that_doubles_in_90_days_is_told_so_on_another_grid_and_shifted() -> None:
    other = grid((1.2, 1.0, 2.0), (84, 76, 76), (8, -5, 10))
    result = result_of(
        scan(90, [(8.0 * 2 ** (1 / 3), (10, 0, 0)), (6.0, (-12, 0, 5))], other, shift=5.0),
        scan(0, [(8.0, (10, 0, 0)), (6.0, (-12, 0, 5))]),
    )
    assert result["days"] == [0, 90]
    rows = {(row["lesion"], row["day"]): row for row in result["growth"]}
    assert rows[1, 90]["doubling_days"] == pytest.approx(90, rel=0.06)
    assert abs(rows[2, 90]["growth_per_day"]) < 0.001
    assert {row["event"] for row in result["growth"]} == {""}
    assert result["response"][0]["targets"] == ["liver 1", "liver 2"]
    assert result["response"][1]["category"] == "SD"


def test_new_and_vanished_lesions_are_told_and_new_ones_are_progression() -> None:
    result = result_of(scan(0, [(8.0, (10, 0, 0)), (6, (-12, 0, 0))]), scan(60, [(8.0, (10, 0, 0)), (6, (0, 16, 0))]))
    events = {(row["lesion"], row["day"]): row["event"] for row in result["growth"]}
    assert events[2, 60] == "gone"
    assert events[3, 60] == "new"
    assert result["response"][1]["category"] == "PD"
    assert "p_60: liver lesion 3 is new" in result["notes"]


def test_a_lesion_that_splits_and_two_that_merge_are_told_as_such() -> None:
    one, two = [(11.0, (4, 0, 0))], [(5.0, (-3, 0, 0)), (5.0, (9, 0, 0))]
    split = result_of(scan(0, one), scan(30, two))
    assert split["links"][0]["event"] == ["", "split"]
    assert split["links"][0]["at"][1] == [1, 2]
    merged = result_of(scan(0, two), scan(30, one))
    assert [link["event"][1] for link in merged["links"]] == ["", "merged into 1"]
    assert "p_30: liver lesion 2 has merged into 1" in merged["notes"]


def test_scans_without_dates_are_measured_but_not_compared() -> None:
    result = result_of(scan(None, [(8.0, (10, 0, 0))]), scan(3, [(9.0, (10, 0, 0))]))
    assert len(result["lesions"]) == 2
    assert result["response"] == []
    assert "2 scans without dates" in result["notes"][0]
    twins = Patient("p", (scan(3, []), scan(3, [])), (0.0, 0.0))
    assert "two scans of one date" in measure_patient(twins)["notes"][0]


def test_a_date_that_is_none_and_a_case_without_a_tumor_mask_are_refused() -> None:
    case = scan(0, [])
    with pytest.raises(CaseError, match="the date of the scan cannot be read; found soon"):
        patients_of([Case("a", case.image, case.masks, attributes={"date": "soon"})])
    with pytest.raises(CaseError, match="no tumor mask is there to measure"):
        measure_patient(Patient("a", (Case("a", case.image, {"liver": case.masks["liver"]}),), (0.0,)))


def test_a_lesion_without_its_organ_has_no_contrast_and_no_place() -> None:
    case = scan(0, [(8.0, (10, 0, 0))])
    result = result_of(Case("a", case.image, {"liver_lesion": case.masks["liver_lesion"]}))
    (lesion,) = result["lesions"]
    assert (lesion["contrast_hu"], lesion["surface_mm"], lesion["vessel_mm"], lesion["part"]) == (None, None, None, "")
    assert result["notes"] == ["a: no mask of the liver to relate its lesions to"]


def test_a_data_set_is_measured_to_tables_and_a_page_that_reads_like_a_report(tmp_path: Path) -> None:
    for day, radius in ((0, 7.0), (100, 10.0)):
        case = scan(day, [(radius, (10, 0, 12))])
        write_case(case, tmp_path / "data" / case.id)
    done = measure(tmp_path / "data", tmp_path / "out")
    assert not done.failed
    text = (tmp_path / "out/pages/p.html").read_text()
    assert "Liver, right third: lesion 1, 15 x 1" in text
    assert "hypodense (65 HU, 40 HU below the liver)" in text
    assert "progressive disease (PD, RECIST 1.1)" in text
    assert (tmp_path / "out/lesions.csv").read_text().count("\n") == 3
    assert "PD" in (tmp_path / "out/dates.csv").read_text()
    assert json.loads((tmp_path / "out/measurement.json").read_text())[0]["patient"] == "p"
    before = (tmp_path / "out/records.jsonl").read_bytes()
    measure(tmp_path / "data", tmp_path / "out")
    assert (tmp_path / "out/records.jsonl").read_bytes() == before
