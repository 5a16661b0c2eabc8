"""The catalog: what a row says, the table's bytes, and what comes back from it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scans import body

from grids import oblique
from synthoma import files
from synthoma.cases import Case, Label
from synthoma.datasets import catalog
from synthoma.datasets.catalog import describe_case, read_catalog, write_catalog
from synthoma.datasets.fingerprint import SIZE
from synthoma.datasets.layouts.opening import read_case
from synthoma.datasets.writing import write_case
from synthoma.errors import CaseError, FileError, SynthomaError
from synthoma.volume import Geometry, Volume

UPRIGHT = Geometry.of((24, 20, 16), (1.0, 1.5, 2.5), "LPS")


def phantom(geometry: Geometry = UPRIGHT, name: str = "p") -> Case:
    """Air, a block of tissue, and in it a liver of 6 x 6 x 6 voxels with lesions of 8 and 1."""
    hu = np.full(geometry.shape, -1000, np.int16, order="F")
    hu[4:20, 3:17, 2:14] = 50
    masks = {key: np.zeros(geometry.shape, bool, order="F") for key in ("liver", "liver_lesion", "spleen")}
    masks["liver"][6:12, 5:11, 4:10] = True
    masks["liver_lesion"][7:9, 6:8, 5:7] = True
    masks["liver_lesion"][11, 10, 9] = True
    return Case(
        name,
        Volume(hu, geometry),
        {key: Volume(mask, geometry) for key, mask in masks.items()},
        patient="Jane",
        dataset="phantoms",
        attributes={"phase": "portal", "hospital": "A", "age": 61},
    )


def on_disk(case: Case, folder: Path) -> Case:
    """The case as files; the liver and its tumors in one label map."""
    root = folder / case.id
    files.write_volume(case.image, root / "ct.nii.gz")
    labels = case.masks["liver"].data.astype(np.uint8) + case.masks["liver_lesion"].data
    files.write_volume(Volume(labels, case.image.geometry), root / "labels.nii.gz")
    files.write_volume(case.masks["spleen"], root / "spleen.nii.gz")
    masks = {
        "liver": Label(root / "labels.nii.gz", (1, 2)),
        "liver_lesion": Label(root / "labels.nii.gz", (2,)),
        "spleen": root / "spleen.nii.gz",
    }
    return Case(case.id, root / "ct.nii.gz", masks, case.patient, case.dataset, case.attributes)


@pytest.mark.parametrize("geometry", [UPRIGHT, oblique(5, UPRIGHT.shape)], ids=["anisotropic", "oblique"])
def test_a_row_tells_volumes_lesions_and_hu(geometry: Geometry) -> None:
    row = describe_case(phantom(geometry))
    voxel_ml = geometry.voxel_mm3 / 1000
    assert row["structures"]["liver"] == {
        "status": "present",
        "volume_ml": pytest.approx(216 * voxel_ml, abs=1e-5),
        "cut": "",
    }
    assert row["structures"]["spleen"]["status"] == "absent"
    assert "pancreas" not in row["structures"]
    assert row["lesions"]["liver_lesion"] == pytest.approx(
        [(6 * n * geometry.voxel_mm3 / np.pi) ** (1 / 3) for n in (8, 1)], abs=1e-3
    )
    assert (row["hu"]["low"], row["hu"]["high"]) == (-1000, 50)
    tissue = 16 * 14 * 12 / np.prod(geometry.shape)
    assert row["hu"]["soft"] == pytest.approx(tissue, abs=1e-4)
    assert row["hu"]["air"] == pytest.approx(1 - tissue, abs=1e-4)
    assert (row["patient"], row["phase"], row["attributes"]["age"]) == ("Jane", "portal", 61)
    np.testing.assert_allclose(np.reshape(row["affine"], (4, 4)), geometry.affine)
    json.dumps(row, allow_nan=False)


def test_files_label_maps_and_functions_give_the_same_row(tmp_path: Path) -> None:
    case = phantom()
    stored = describe_case(on_disk(case, tmp_path))
    lazy = Case(
        case.id,
        lambda: case.image,
        {name: partial(case.read_mask, name) for name in case.masks},
        case.patient,
        case.dataset,
        case.attributes,
    )
    for row in (stored, describe_case(lazy)):
        for key, value in describe_case(case).items():
            if key not in ("image", "masks"):
                assert row[key] == value, key
    assert stored["masks"][1]["values"] == [2]


def test_a_mirrored_scan_has_mirrored_sides_and_the_same_volumes() -> None:
    case = phantom()
    hu = case.image.data
    edge = {"liver": Volume(np.zeros(UPRIGHT.shape, np.uint8), UPRIGHT)}
    data = edge["liver"].data.copy()
    data[0, 5:9, 3:9] = 1
    straight = describe_case(Case("a", Volume(hu, UPRIGHT), {"liver": Volume(data, UPRIGHT)}))
    mirrored = describe_case(Case("a", Volume(hu[::-1], UPRIGHT), {"liver": Volume(data[::-1], UPRIGHT)}))
    assert straight["structures"]["liver"]["cut"] == "R"
    assert mirrored["structures"]["liver"]["cut"] == "L"
    assert mirrored["structures"]["liver"]["volume_ml"] == straight["structures"]["liver"]["volume_ml"]


def test_an_unreadable_file_is_an_error_for_describe_case(tmp_path: Path) -> None:
    case = on_disk(phantom(), tmp_path)
    (tmp_path / "p" / "spleen.nii.gz").write_bytes(b"no")
    with pytest.raises(FileError, match=r"spleen\.nii\.gz"):
        describe_case(case)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [describe_case(on_disk(phantom(name=name), tmp_path)) for name in ("b", "a")]
    rows.append(describe_case(body()))
    rows[0]["structures"]["colon"] = {"status": "unreadable"}
    rows[0]["faults"] = ["unreadable"]
    blank = dict.fromkeys(("shape", "spacing_mm", "axes", "affine", "hu", "fingerprint"))
    rows.append(rows[1] | blank | {"id": "no scan"})
    write_catalog(rows, tmp_path / "catalog.parquet")
    catalog = read_catalog(tmp_path / "catalog.parquet")
    assert len(catalog) == 4
    back = list(catalog.rows())
    assert [row["id"] for row in back] == ["a", "b", "body_0", "no scan"]
    for row in back:
        wanted = next(one for one in rows if one["id"] == row["id"])
        lesions = {name: pytest.approx(value, abs=1e-3) for name, value in wanted["lesions"].items()}
        assert row == wanted | {"lesions": lesions}


def test_bytes_depend_on_the_rows_only_not_on_order_or_place(tmp_path: Path) -> None:
    made = []
    for place in ("one", "two"):
        rows = [describe_case(on_disk(phantom(name=name), tmp_path / place)) for name in ("a", "b", "c")]
        rows = rows if place == "one" else rows[::-1]
        write_catalog(rows, tmp_path / place / "catalog.parquet")
        made.append((tmp_path / place / "catalog.parquet").read_bytes())
    assert made[0] == made[1]


def test_a_moved_folder_still_leads_to_its_cases(tmp_path: Path) -> None:
    case = on_disk(phantom(), tmp_path / "here")
    write_catalog([describe_case(case)], tmp_path / "here" / "catalog.parquet")
    (tmp_path / "here").rename(tmp_path / "there")
    (again,) = read_catalog(tmp_path / "there" / "catalog.parquet").cases()
    assert again.image == tmp_path / "there" / "p" / "ct.nii.gz"
    assert np.array_equal(again.read_mask("liver").data, phantom().masks["liver"].data)
    assert (again.patient, again.dataset, again.attributes["hospital"]) == ("Jane", "phantoms", "A")


def test_a_case_in_memory_cannot_be_read_back(tmp_path: Path) -> None:
    write_catalog([describe_case(phantom())], tmp_path / "c.parquet")
    with pytest.raises(CaseError, match="p: its files are not on disk"):
        list(read_catalog(tmp_path / "c.parquet").cases())


def test_filters_tell_absent_from_not_annotated(tmp_path: Path) -> None:
    first, second = describe_case(phantom(name="a")), describe_case(body())
    third = describe_case(Case("z", phantom().image))
    write_catalog([first, second, third], tmp_path / "c.parquet")
    catalog = read_catalog(tmp_path / "c.parquet")

    def ids(where: object) -> list[str]:
        return catalog.table(["id"], where)["id"].to_pylist()

    assert ids(pc.field("spleen_ml") == 0) == ["a"]
    assert ids(pc.field("spleen_ml") > 0) == ["body_0"]
    assert ids(pc.field("spleen_ml").is_null()) == ["z"]
    assert ids((pc.field("liver_lesion_count") >= 2) & (pc.field("dataset") == "phantoms")) == ["a"]
    assert [len(data) for data in catalog.fingerprints()[1]] == [SIZE] * 3
    with pytest.raises(FileError, match="cannot be asked that"):
        ids(pc.field("liver_size") > 0)


def test_an_empty_catalog_is_a_catalog(tmp_path: Path) -> None:
    write_catalog([], tmp_path / "c.parquet")
    catalog = read_catalog(tmp_path / "c.parquet")
    assert (len(catalog), list(catalog.rows()), catalog.fingerprints()) == (0, [], ([], []))


def test_two_rows_of_one_case_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    row = describe_case(phantom())
    with pytest.raises(CaseError, match="p: two rows of one case"):
        write_catalog([row, row], tmp_path / "c.parquet")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_catalog_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no file"):
        read_catalog(tmp_path / "c.parquet")
    (tmp_path / "c.parquet").write_text("hello")
    with pytest.raises(FileError, match="no Parquet file"):
        read_catalog(tmp_path / "c.parquet")
    write_catalog([], tmp_path / "c.parquet")
    pq.write_table(pq.read_table(tmp_path / "c.parquet").replace_schema_metadata({}), tmp_path / "d.parquet")
    with pytest.raises(FileError, match="not a catalog of this version"):
        read_catalog(tmp_path / "d.parquet")


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_written_in_groups_and_one_is_found(tmp_path: Path) -> None:
    row = describe_case(phantom()) | {"fingerprint": None}
    write_catalog((row | {"id": f"{index * 7919 % 100_000:06d}"} for index in range(100_000)), tmp_path / "c.parquet")
    assert pq.read_metadata(tmp_path / "c.parquet").num_row_groups == 20
    catalog = read_catalog(tmp_path / "c.parquet")
    ids = catalog.table(["id"])["id"].to_pylist()
    assert ids == sorted(ids)
    assert [row["id"] for row in catalog.rows(pc.field("id") == "077777")] == ["077777"]


def test_a_catalog_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    write_case(phantom(), tmp_path / "data" / "p")
    case = read_case(tmp_path / "data" / "p")
    row = describe_case(case, tmp_path / "report")
    assert str(tmp_path) not in json.dumps(row)
    assert row["image"] == "../data/p/ct.nii.gz"
    write_catalog([row], tmp_path / "report" / "catalog.parquet")
    write_catalog([describe_case(case)], tmp_path / "report" / "same.parquet")
    assert (tmp_path / "report" / "catalog.parquet").read_bytes() == (tmp_path / "report" / "same.parquet").read_bytes()
    table = read_catalog(tmp_path / "report" / "catalog.parquet").table()
    assert str(tmp_path) not in str(table.to_pylist())
    (found,) = read_catalog(tmp_path / "report" / "catalog.parquet").cases()
    assert found.image == tmp_path / "data" / "p" / "ct.nii.gz"


def test_rows_are_written_and_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = describe_case(phantom())
    names = [f"c{place * 7 % 50:02d}" for place in range(50)]
    write_catalog((row | {"id": name} for name in names), tmp_path / "whole.parquet")
    monkeypatch.setattr(catalog, "BATCH", 4)
    held = []
    monkeypatch.setattr(catalog, "_table", lambda rows, inner=catalog._table: held.append(len(rows)) or inner(rows))
    write_catalog((row | {"id": name} for name in names), tmp_path / "parts.parquet")
    assert max(held) == 4
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert [found["id"] for found in read_catalog(tmp_path / "parts.parquet").rows()] == sorted(names)
    assert {path.name for path in tmp_path.iterdir()} == {"parts.parquet", "whole.parquet"}


@pytest.mark.parametrize(
    ("change", "words"),
    [({"shape": [9, 9, 2**30]}, "voxels along an axis"), ({"spacing_mm": [1.0, -1.0, 1.0]}, "mm between voxels")],
)
def test_a_row_with_impossible_numbers_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    write_catalog([describe_case(phantom()) | change], tmp_path / "c.parquet")
    with pytest.raises(FileError, match=f"impossible numbers; found .* {words}"):
        list(read_catalog(tmp_path / "c.parquet").rows())


def test_a_damaged_catalog_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    write_catalog([describe_case(phantom()) | {"id": f"c{place}"} for place in range(20)], path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    told = []
    for _ in range(60):
        damaged = bytearray(whole)
        place = int(rng.integers(4, len(whole)))
        damaged[place : place + 8] = rng.bytes(8)
        path.write_bytes(damaged)
        try:
            list(read_catalog(path).cases())
        except SynthomaError as fault:
            told.append(str(fault))
    assert len(told) > 20
    assert not any("\n" in text for text in told)
