"""Splits: by patient, whatever the order, written once, and leaks that are found."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from synthoma.cases import Case
from synthoma.datasets.splits import (
    Fold,
    SplitRecipe,
    Splits,
    check_leaks,
    draw_splits,
    read_nnunet_splits,
    read_splits,
    write_nnunet_splits,
    write_splits,
)
from synthoma.errors import CaseError, FileError
from synthoma.volume import Geometry, Volume

SCAN = Volume(np.zeros((2, 2, 2), np.int16), Geometry.of((2, 2, 2)))


def cohort(patients: int = 40, scans: int = 2) -> list[Case]:
    """Patients with several scans; every fourth is of hospital B."""
    return [
        Case(f"p{patient:03d}_{scan}", SCAN, patient=f"p{patient:03d}", attributes={"hospital": "AAAB"[patient % 4]})
        for patient in range(patients)
        for scan in range(scans)
    ]


def patients_of(ids: tuple[str, ...]) -> set[str]:
    return {case.split("_")[0] for case in ids}


def test_every_case_is_validated_once_and_never_trained_on_then() -> None:
    cases = cohort()
    splits = draw_splits(cases, SplitRecipe(test=0.25, folds=5), seed=1)
    assert len(splits.test) == 20
    assert Counter(case for fold in splits.folds for case in fold.val) == {
        case.id: 1 for case in cases if case.id not in splits.test
    }
    for fold in splits.folds:
        assert sorted([*fold.train, *fold.val, *splits.test]) == [case.id for case in cases]
        assert len(fold.val) == 12
        sides = [patients_of(ids) for ids in (fold.train, fold.val, splits.test)]
        assert sum(map(len, sides)) == 40
    assert check_leaks(splits) == []


def test_one_fold_is_a_single_division() -> None:
    splits = draw_splits(cohort(scans=1), SplitRecipe(test=0.2, folds=1, val=0.25))
    (fold,) = splits.folds
    assert (len(splits.test), len(fold.val), len(fold.train)) == (8, 8, 24)


def test_order_changes_nothing_and_the_seed_everything() -> None:
    cases = cohort()
    assert draw_splits(cases, seed=3) == draw_splits(cases[::-1], seed=3)
    assert draw_splits(cases, seed=3).digest() == draw_splits(cases[::-1], seed=3).digest()
    assert draw_splits(cases, seed=3).folds != draw_splits(cases, seed=4).folds


def test_an_attribute_is_mixed_alike_on_all_sides() -> None:
    cases = cohort()
    splits = draw_splits(cases, SplitRecipe(test=0.2, folds=4, by="hospital"), seed=5)
    hospital = {case.id: case.attributes["hospital"] for case in cases}
    assert [hospital[case] for case in splits.test].count("B") == 4
    for fold in splits.folds:
        assert [hospital[case] for case in fold.val].count("B") == 4


def test_catalog_rows_are_mixed_by_a_structure() -> None:
    rows = [
        {
            "id": f"c{index}",
            "patient": f"c{index}",
            "attributes": {"sex": "F"},
            "structures": {"liver_lesion": {"status": "present" if index % 3 == 0 else "absent"}} if index < 24 else {},
        }
        for index in range(30)
    ]
    splits = draw_splits(rows, SplitRecipe(folds=2, by="liver_lesion"), seed=0)
    for fold in splits.folds:
        kinds = Counter(index % 3 == 0 for case in fold.val if (index := int(case[1:])) < 24)
        assert kinds == {True: 4, False: 8}
    with pytest.raises(CaseError, match="no case has 'liver_leson'"):
        draw_splits(rows, SplitRecipe(by="liver_leson"))


def test_patients_that_share_a_scan_stay_together() -> None:
    cases = cohort(scans=1)
    chain = [("p000_0", "p013_0", 0.9), ("p013_0", "p027_0", 0.9), ("p005_0", "elsewhere", 0.9)]
    plain, kept = (draw_splits(cases, SplitRecipe(folds=8), 2, pairs) for pairs in ((), chain))
    assert check_leaks(plain, chain)
    assert check_leaks(kept, chain) == []
    assert any({"p000_0", "p013_0", "p027_0"} <= set(fold.val) for fold in kept.folds)


def test_leaks_name_the_cases_and_the_sides() -> None:
    patients = {"a": "a", "b": "b", "c": "c", "c2": "c"}
    splits = Splits((Fold(("a",), ("b", "c2")),), ("c",), patients)
    scan, patient = check_leaks(splits, [("a", "b", 0.97)])[::-1]
    assert (scan.first, scan.second, scan.fold, scan.sides, scan.why) == ("a", "b", 0, ("train", "val"), "one scan")
    assert (patient.first, patient.second, patient.fold) == ("c", "c2", None)
    assert (patient.sides, patient.why) == (("test", "train and val"), "one patient")


def test_splits_come_back_and_are_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    splits = draw_splits(cohort(), SplitRecipe(test=0.1), seed=7)
    write_splits(splits, path)
    before = path.read_bytes()
    assert read_splits(path) == splits
    write_splits(draw_splits(cohort(), SplitRecipe(test=0.1), seed=7), path)
    with pytest.raises(FileError, match="holds other splits"):
        write_splits(draw_splits(cohort(), SplitRecipe(test=0.1), seed=8), path)
    assert path.read_bytes() == before


def test_an_edited_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    write_splits(draw_splits(cohort()), path)
    data = json.loads(path.read_text())
    data["folds"][0]["train"].append(data["folds"][0]["val"].pop())
    path.write_text(json.dumps(data))
    with pytest.raises(FileError, match="changed after it was drawn"):
        read_splits(path)
    path.write_text("[]")
    with pytest.raises(FileError, match="holds no splits"):
        read_splits(path)


def test_nnunet_reads_ours_and_we_read_theirs(tmp_path: Path) -> None:
    splits = draw_splits(cohort(), SplitRecipe(test=0.2, folds=3), seed=7)
    write_nnunet_splits(splits, tmp_path / "splits_final.json")
    data = json.loads((tmp_path / "splits_final.json").read_text())
    assert [sorted(fold) for fold in data] == [["train", "val"]] * 3
    back = read_nnunet_splits(tmp_path / "splits_final.json", splits.patients)
    assert back.folds == splits.folds
    assert set(back.patients) == set(splits.patients) - set(splits.test)
    (tmp_path / "splits_final.json").write_text('{"train": []}')
    with pytest.raises(FileError, match=r"no splits_final\.json"):
        read_nnunet_splits(tmp_path / "splits_final.json")


def test_too_few_patients_and_double_ids_are_refused() -> None:
    with pytest.raises(CaseError, match=r"too few patients to divide; found 4 of 8 cases, expected 5 or more"):
        draw_splits(cohort(4))
    with pytest.raises(CaseError, match="p000_0: two cases of one id"):
        draw_splits(cohort(6, 1) * 2)


def test_tiny_shares_still_hold_somebody_out() -> None:
    splits = draw_splits(cohort(12, 1), SplitRecipe(test=0.01, folds=1, val=0.01))
    assert (len(splits.test), len(splits.folds[0].val)) == (1, 1)
