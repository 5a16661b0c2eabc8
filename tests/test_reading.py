"""Reading results: lazily, from another place, in another process, and one tumor at a time."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthesis.patients import PATIENTS, RECIPE, replay_all, synthesize_all, voxels, write_patients
from synthoma.datasets.layouts import opening
from synthoma.errors import CaseError, LayoutError
from synthoma.reading import find_gallery, is_synthesis, open_dataset, read_case, read_lesion
from synthoma.synthesis.store import rendered
from synthoma.synthesis.store.manifest import read_manifest


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reading")
    write_patients(root / "data")
    for write in ("full", "overlay", "plans"):
        synthesize_all(root / "data", root / write, write)
    return root


@pytest.mark.parametrize("write", ["overlay", "plans"])
def test_a_data_set_of_results_is_like_any_other(outputs: Path, write: str) -> None:
    full, dataset = open_dataset(outputs / "full"), open_dataset(outputs / write)
    assert (dataset.layout, dataset.name, dataset.faults) == (write, write, ())
    assert {case.id for case in dataset} == {case.id for case in full} == set(PATIENTS)
    for case in full:
        assert dataset[case.id].masks.keys() == case.masks.keys()
    assert voxels(dataset["oblique"]) == voxels(full["oblique"])


def test_plain_folders_are_read_as_ever(outputs: Path) -> None:
    data = outputs / "data"
    assert voxels(read_case(data / "ill")) == voxels(opening.read_case(data / "ill"))
    assert open_dataset(data).layout == "abdomenatlas"
    assert [is_synthesis(outputs / name) for name in ("data", "full", "plans")] == [False, True, True]


@pytest.mark.parametrize("write", ["overlay", "plans"])
def test_cases_pickle_before_and_after_they_were_read(outputs: Path, write: str) -> None:
    case = open_dataset(outputs / write)["float"]
    fresh = pickle.dumps(case)
    assert len(fresh) < 10_000
    expected = voxels(case)
    assert len(pickle.dumps(case)) < 20_000
    assert voxels(pickle.loads(fresh)) == expected


def test_scan_and_masks_are_rendered_once(outputs: Path, monkeypatch: Any) -> None:
    calls: list[str] = []
    original = rendered.replay_rows
    monkeypatch.setattr(rendered, "replay_rows", lambda case, *rows: calls.append(case.id) or original(case, *rows))
    case = read_case(outputs / "plans" / "oblique")
    case.read_image()
    case.read_masks()
    case.read_image()
    assert calls == ["oblique"]


def test_masks_that_no_push_can_move_are_the_healthy_files(outputs: Path, tmp_path: Path) -> None:
    synthesize_all(outputs / "data", tmp_path / "out", "plans", RECIPE.with_changes(mass_effect_share=0.0))
    case = read_case(tmp_path / "out" / "plain")
    assert case.masks["liver"] == outputs / "data" / "plain" / "segmentations" / "liver.nii.gz"
    assert callable(case.masks["liver_lesion"])
    assert "colon" not in case.masks
    with pytest.raises(CaseError, match="plain: colon is not annotated"):
        case.read_mask("colon")


def test_data_and_results_may_move_together_or_be_told_apart(outputs: Path, tmp_path: Path) -> None:
    expected = voxels(read_case(outputs / "overlay" / "ill"))
    for name in ("data", "overlay"):
        shutil.copytree(outputs / name, tmp_path / "moved" / name)
    assert voxels(read_case(tmp_path / "moved" / "overlay" / "ill")) == expected
    (tmp_path / "moved" / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(LayoutError, match=r"are not where they were; found no folder .*moved/data; say where they are"):
        read_case(tmp_path / "moved" / "overlay" / "ill")
    assert voxels(read_case(tmp_path / "moved" / "overlay" / "ill", data=tmp_path / "elsewhere")) == expected
    assert len(open_dataset(tmp_path / "moved" / "overlay", data=tmp_path / "elsewhere")) == 4


def test_a_healthy_case_that_is_gone_is_a_fault_and_the_others_are_read(outputs: Path, tmp_path: Path) -> None:
    for name in ("data", "plans"):
        shutil.copytree(outputs / name, tmp_path / name)
    shutil.rmtree(tmp_path / "data" / "ill")
    dataset = open_dataset(tmp_path / "plans")
    assert len(dataset) == 3
    assert [str(fault).split(":")[0] for fault in dataset.faults] == ["ill"]
    with pytest.raises(CaseError, match="no case 'ill'"):
        read_case(tmp_path / "plans" / "ill")


def test_tumors_may_be_put_into_a_case_with_tumors(outputs: Path, tmp_path: Path) -> None:
    synthesize_all(outputs / "plans", tmp_path / "twice", "overlay", RECIPE.with_changes(lesions=(1, 1)))
    once, twice = (read_case(folder / "plain") for folder in (outputs / "full", tmp_path / "twice"))
    first, both = (case.read_mask("liver_lesion").data for case in (once, twice))
    assert both[first].all()
    assert both.sum() > first.sum()


def test_another_format_is_refused(outputs: Path, tmp_path: Path) -> None:
    shutil.copytree(outputs / "plans", tmp_path / "plans")
    (tmp_path / "plans" / "synthesis.json").write_text('{"format": 5, "versions": "synthoma 9"}')
    for read in (open_dataset, lambda folder: read_case(folder / "ill")):
        with pytest.raises(LayoutError, match=r"found format 5, written by synthoma 9, expected format 1"):
            read(tmp_path / "plans")


@pytest.mark.parametrize("write", ["full", "overlay", "plans"])
@pytest.mark.parametrize("name", ["plain", "oblique"])
def test_a_tumor_is_shown_before_and_after_with_its_own_mask(outputs: Path, write: str, name: str) -> None:
    healthy, full = opening.read_case(outputs / "data" / name), read_case(outputs / "full" / name)
    rows = [row for row in read_manifest(outputs / write).rows(name) if row["accepted"]]
    for number, row in enumerate(rows, start=1):
        view = read_lesion(outputs / write / name, number)
        assert view.mask.data.sum() * view.mask.geometry.voxel_mm3 / 1000 == pytest.approx(
            row["scores"]["volume_ml"], abs=1e-3
        )
        for volume, case in ((view.before, healthy), (view.after, full)):
            whole = case.read_image()
            assert volume.geometry.matches(view.mask.geometry)
            lower = np.rint(whole.geometry.to_ijk(volume.geometry.to_mm((0, 0, 0)))).astype(int)
            place = tuple(slice(low, low + n) for low, n in zip(lower, volume.data.shape, strict=True))
            assert np.array_equal(whole.data[place], volume.data)
        assert row["plan"]["organ"] in view.caption
    with pytest.raises(CaseError, match=f"{name}: no tumor {len(rows) + 1}; expected 1 to {len(rows)}"):
        read_lesion(outputs / write / name, len(rows) + 1)


@pytest.mark.parametrize("write", ["full", "overlay", "plans"])
def test_a_gallery_has_every_tumor_or_some_of_each_organ_and_size(outputs: Path, write: str) -> None:
    tumors = list(read_manifest(outputs / write).tumors())
    whole, part = find_gallery(outputs / write, 100), find_gallery(outputs / write, 5)
    assert (whole.tumors, whole.cases) == (part.tumors, part.cases) == (len(tumors), 4)
    assert len(whole.items) == len(tumors)
    listed = sorted((tumor.organ, tumor.equivalent_diameter_mm) for tumor in tumors)
    assert [title for title, *_ in whole.items] == [f"{organ}, {diameter:.0f} mm" for organ, diameter in listed]
    organs = [title.split(",")[0] for title, *_ in part.items]
    assert (organs.count("kidney"), organs.count("liver")) in [(2, 3), (3, 2)]
    assert {title for title, *_ in part.items} <= {title for title, *_ in whole.items}
    for _, before, after, mask in whole.items:
        assert before.data.shape == after.data.shape == mask.data.shape
        assert (before.data[mask.data] != after.data[mask.data]).any()


def test_a_gallery_of_written_files_renders_nothing_and_shows_the_same(outputs: Path, monkeypatch: Any) -> None:
    rendered_items = find_gallery(outputs / "plans", 100).items
    monkeypatch.setattr(rendered, "replay_rows", None)
    for (title, *made), (same, *again) in zip(find_gallery(outputs / "full", 100).items, rendered_items, strict=True):
        assert title == same
        for one, other in zip(made[:2], again[:2], strict=True):
            points = one.geometry.points_mm()[made[2].data]
            place = tuple(np.rint(other.geometry.to_ijk(points)).astype(int).T)
            assert np.array_equal(one.data[made[2].data], other.data[place])
        assert made[2].data.sum() >= again[2].data.sum()


def test_a_case_with_several_tumors_is_rendered_once(outputs: Path, monkeypatch: Any) -> None:
    calls: list[str] = []
    original = rendered.replay_rows
    monkeypatch.setattr(rendered, "replay_rows", lambda case, *rows: calls.append(case.id) or original(case, *rows))
    assert len(find_gallery(outputs / "plans", 100).items) > len(calls)
    assert len(calls) == len(set(calls))


def test_a_synthesis_without_tumors_has_nothing_to_show(tmp_path: Path) -> None:
    write_patients(tmp_path / "data", "plain")
    synthesize_all(tmp_path / "data", tmp_path / "out", recipe=RECIPE.with_changes(probability=0.0))
    with pytest.raises(CaseError, match="holds no tumor to show; found 1 cases without one"):
        find_gallery(tmp_path / "out")


def test_a_folder_that_is_no_synthesis_shows_no_tumor(outputs: Path) -> None:
    with pytest.raises(LayoutError, match=r"is no output of a synthesis; expected a synthesis\.json in it"):
        read_lesion(outputs / "data" / "plain", 1)


def test_a_replay_of_part_of_the_data_is_a_data_set(outputs: Path, tmp_path: Path) -> None:
    write_patients(tmp_path / "data", "plain", "float")
    replay_all(outputs / "plans", tmp_path / "data", tmp_path / "out", "plans")
    assert [case.id for case in open_dataset(tmp_path / "out")] == ["float", "plain"]
