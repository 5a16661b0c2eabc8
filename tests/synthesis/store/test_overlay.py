"""Overlays: small, exact for both types of scan, and refused where they do not belong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthesis.patients import OBLIQUE, RECIPE, UPRIGHT, patient
from synthoma.datasets.layouts.opening import read_case
from synthoma.errors import CaseError, FileError
from synthoma.synthesis.pipeline import Synthesis, insert_tumors
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.store.manifest import rows_of
from synthoma.synthesis.store.overlay import lay_over, write_overlay
from synthoma.synthesis.store.rendered import MaskWithTumors
from synthoma.volume import Volume

PUSHING = RECIPE.with_changes(mass_effect_share=1.0, lesions=(2, 3))
CASES = {
    "int16": (UPRIGHT, np.int16, False),
    "float32": (UPRIGHT, np.float32, False),
    "oblique": (OBLIQUE, np.int16, True),
}


def overlay(done: Synthesis, path: Path) -> Path:
    write_overlay(done, rows_of(done, PUSHING.organs), path)
    return path


@pytest.mark.parametrize("name", CASES)
def test_laid_over_the_healthy_scan_every_voxel_is_as_synthesis_made_it(name: str, tmp_path: Path) -> None:
    case = patient("p", *CASES[name])
    healthy = case.read_image().data.copy()
    done = insert_tumors(case, PUSHING, seed=2)
    assert len(done.displacements) > 0
    again = lay_over(case.read_image(), overlay(done, tmp_path / "o.npz"), "p")
    assert np.array_equal(again.ct.data, done.ct.data)
    assert again.ct.data.dtype == done.ct.data.dtype
    assert not np.array_equal(again.ct.data, healthy)
    assert np.array_equal(case.read_image().data, healthy)
    assert (again.phase, again.scan_digest) == (done.phase, done.scan_digest)
    for mine, theirs in zip(again.inserted, done.inserted, strict=True):
        assert (mine.plan, mine.digest, mine.index, mine.box) == (theirs.plan, theirs.digest, theirs.index, theirs.box)
        for part in ("mask", "before", "after"):
            assert np.array_equal(getattr(mine, part), getattr(theirs, part))
    for structure, mask in case.each_mask():
        assert np.array_equal(again.moved(mask).data, done.moved(mask).data), structure


@pytest.mark.parametrize("name", CASES)
def test_masks_known_from_synthesis_are_those_made_anew_from_the_healthy_ones(name: str) -> None:
    case = patient("p", *CASES[name])
    done = insert_tumors(case, PUSHING, seed=2)
    forgot = dataclasses.replace(done, masks={})
    changed = 0
    for structure in (*case.masks, "liver_lesion", "kidney_lesion"):
        known, anew = (MaskWithTumors(case, made, structure) for made in (done, forgot))
        assert np.array_equal(known().data, anew().data), structure
        assert known().geometry == done.ct.geometry
        assert np.array_equal(known.bounded().whole.data, anew().data)
        healthy = case.read_mask(structure).data if structure in case.masks else np.zeros_like(anew().data)
        changed += not np.array_equal(healthy, anew().data)
    assert changed >= 2, "an organ that was displaced, and the tumors"


def test_a_scan_in_c_order_gives_the_same_overlay(tmp_path: Path) -> None:
    case = patient("p")
    turned = Volume(np.ascontiguousarray(case.image.data), case.image.geometry)
    done = insert_tumors(case, PUSHING, seed=2)
    other = insert_tumors(type(case)("p", turned, case.masks, attributes=case.attributes), PUSHING, seed=2)
    assert overlay(done, tmp_path / "f").read_bytes() == overlay(other, tmp_path / "c").read_bytes()
    assert np.array_equal(lay_over(turned, tmp_path / "f", "p").ct.data, done.ct.data)


def test_not_a_number_in_a_scan_stays_where_it_is(tmp_path: Path) -> None:
    case = patient("p", UPRIGHT, np.float32)
    hu = case.image.data.copy(order="K")
    hu[:2, :2, :2] = -1024.5
    case = type(case)("p", Volume(hu, UPRIGHT), case.masks, attributes=case.attributes)
    done = insert_tumors(case, PUSHING, seed=2)
    again = lay_over(case.read_image(), overlay(done, tmp_path / "o.npz"), "p")
    assert np.array_equal(again.ct.data, done.ct.data)


def test_no_tumors_are_an_overlay_too(tmp_path: Path) -> None:
    case, none = patient("p"), RECIPE.with_changes(probability=0.0)
    again = lay_over(case.image, overlay(insert_tumors(case, none), tmp_path / "o.npz"), "p")
    assert again.inserted == ()
    assert np.array_equal(again.ct.data, case.image.data)


@pytest.mark.parametrize("name", CASES)
def test_overlays_are_at_least_50_times_smaller_than_packed_scans(name: str, tmp_path: Path) -> None:
    from synthoma import files

    case = patient("p", *CASES[name])
    recipe = RECIPE.with_changes(lesions=(1, 1))  # of 6 to 16 mm in a field of view of 120 mm
    write_overlay(
        insert_tumors(case, recipe, 0), rows_of(insert_tumors(case, recipe, 0), recipe.organs), tmp_path / "o.npz"
    )
    files.write_volume(case.image, tmp_path / "ct.nii.gz")
    assert (tmp_path / "ct.nii.gz").stat().st_size > 50 * (tmp_path / "o.npz").stat().st_size


def test_an_overlay_of_a_real_scan_is_at_least_50_times_smaller(real_data: Path, tmp_path: Path) -> None:
    case = read_case(real_data / "chaos")
    recipe = SynthesisRecipe(organs=("liver", "kidney", "pancreas"))
    done = insert_tumors(case, recipe, seed=1)
    write_overlay(done, rows_of(done, recipe.organs), tmp_path / "o.npz")
    assert (real_data / "chaos" / "ct.nii.gz").stat().st_size > 50 * (tmp_path / "o.npz").stat().st_size
    assert np.array_equal(lay_over(case.read_image(), tmp_path / "o.npz", "chaos").ct.data, done.ct.data)


def other_scans() -> dict[str, Volume]:
    scan = patient("p").image
    return {
        "brighter": Volume(scan.data + np.int16(1), scan.geometry),
        "float32": Volume(scan.data.astype(np.float32), scan.geometry),
        "elsewhere": Volume(
            scan.data, OBLIQUE if OBLIQUE.shape == scan.data.shape else scan.geometry.reoriented("LPS")
        ),
        "cropped": Volume(
            scan.data[1:], scan.crop(scan.geometry.box_around((0, 0, 0), 1e3)._replace(lower=(1, 0, 0))).geometry
        ),
    }


@pytest.mark.parametrize("name", other_scans())
def test_another_scan_is_refused(name: str, tmp_path: Path) -> None:
    path = overlay(insert_tumors(patient("p"), PUSHING, seed=2), tmp_path / "o.npz")
    with pytest.raises(
        CaseError, match=r"p: the scan differs from the one .*; found digest .*, expected .*; give the data"
    ):
        lay_over(other_scans()[name], path, "p")


def damaged(path: Path, tmp_path: Path) -> dict[str, tuple[bytes, str]]:
    whole = path.read_bytes()
    np.savez(tmp_path / "format.npz", header=np.frombuffer(b'{"format": 9, "versions": "synthoma 9"}', np.uint8),
             masks=np.zeros(0), changed=np.zeros(0), steps=np.zeros(0))  # fmt: skip
    return {
        "cut": (whole[: len(whole) // 2], "is no overlay, or damaged"),
        "empty": (b"", "is no overlay, or damaged"),
        "text": (b"no overlay", "is no overlay, or damaged"),
        "flipped": (whole[:300] + bytes([whole[300] ^ 255]) + whole[301:], "is no overlay, or damaged"),
        "format": ((tmp_path / "format.npz").read_bytes(), "found format 9, written by synthoma 9, expected format 1"),
    }


@pytest.mark.parametrize("name", ["cut", "empty", "text", "flipped", "format"])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    case = patient("p")
    path = overlay(insert_tumors(case, PUSHING, seed=2), tmp_path / "o.npz")
    content, message = damaged(path, tmp_path)[name]
    path.write_bytes(content)
    with pytest.raises(FileError, match=message):
        lay_over(case.image, path, "p")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no file .*o\.npz; run the synthesis again"):
        lay_over(patient("p").image, tmp_path / "o.npz", "p")


def test_a_tumor_that_comes_out_otherwise_is_refused_with_the_versions(tmp_path: Path, monkeypatch: Any) -> None:
    case = patient("p")
    done = insert_tumors(case, PUSHING, seed=2)
    rows = rows_of(done, PUSHING.organs)
    rows[1]["digest"], rows[1]["versions"] = "0" * 16, "synthoma 0.0.1"
    write_overlay(done, rows, tmp_path / "o.npz")
    with pytest.raises(CaseError, match=r"p: tumor 2 of the liver comes out otherwise .* made with synthoma 0.0.1"):
        lay_over(case.image, tmp_path / "o.npz", "p")
