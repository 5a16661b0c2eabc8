"""The same scan under two names is found, two patients are not taken for one."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scans import body

from grids import oblique
from synthoma import files
from synthoma.datasets import duplicates
from synthoma.datasets.duplicates import Duplicate, find_duplicates, find_repeats
from synthoma.datasets.fingerprint import SIZE, THRESHOLD, fingerprint, similarity
from synthoma.errors import CaseError
from synthoma.phantom.cohort import CohortRecipe, cohort_case
from synthoma.volume import Box, Geometry, Volume


def without_header(data: np.ndarray) -> Volume:
    """The voxels as a careless tool leaves them: 1 mm, upright, at 0."""
    return Volume(data, Geometry.of(data.shape))


def cropped(ct: Volume, lower: tuple[float, float, float], upper: tuple[float, float, float]) -> Volume:
    """Without these shares of each axis at its ends."""
    shape = np.asarray(ct.data.shape)
    low, high = np.rint(shape * lower).astype(int), shape - np.rint(shape * upper).astype(int)
    return ct.crop(Box(tuple(low.tolist()), tuple(high.tolist())))


def mapped(ct: Volume, low: float, high: float) -> Volume:
    return Volume(np.clip(ct.data, low, high).astype(ct.data.dtype), ct.geometry)


REPACKED = {
    "as it is": lambda ct: ct,
    "stored as float": lambda ct: Volume(ct.data.astype(np.float32) + np.float32(0.25), ct.geometry),
    "other index axes": lambda ct: ct.reorient("SAL"),
    "mirrored": lambda ct: Volume(ct.data[::-1], ct.geometry),
    "turned, header lost": lambda ct: without_header(ct.data.transpose(2, 0, 1)[:, ::-1]),
    "header lost": lambda ct: without_header(ct.data),
    "top missing": lambda ct: cropped(ct, (0, 0, 0), (0, 0, 0.1)),
    "both ends missing, upside down": lambda ct: without_header(cropped(ct, (0, 0, 0.1), (0, 0, 0.1)).data[..., ::-1]),
    "air cut off": lambda ct: cropped(ct, (0.04, 0.04, 0), (0.04, 0.04, 0)),
    "air added": lambda ct: without_header(np.pad(ct.data, ((9, 5), (4, 8), (0, 0)), constant_values=-1024)),
    "resampled": lambda ct: ct.to(ct.geometry.resampled(6.0)),
    "thicker slices": lambda ct: ct.to(ct.geometry.resampled((5.0, 5.0, 11.0))),
    "resampled, mirrored, cropped": lambda ct: without_header(
        cropped(ct.to(ct.geometry.resampled(4.0)), (0, 0, 0), (0, 0, 0.1)).data[::-1]
    ),
    "clipped to +-1000": lambda ct: mapped(ct, -1000, 1000),
    "clipped to a soft-tissue window": lambda ct: mapped(ct, -160, 250),
}


@pytest.mark.parametrize("how", REPACKED)
def test_a_repacked_scan_is_found(how: str) -> None:
    for seed in (0, 1):
        ct = body(seed=seed).read_image()
        assert similarity(fingerprint(ct), fingerprint(REPACKED[how](ct))) >= THRESHOLD


def test_a_scan_on_an_oblique_grid_is_found() -> None:
    ct = body().read_image()
    skewed = Volume(ct.data, oblique(3, ct.data.shape))
    assert similarity(fingerprint(ct), fingerprint(skewed)) > 0.99


def test_different_patients_are_not_taken_for_one() -> None:
    pictures = [fingerprint(body(seed=seed).read_image()) for seed in range(6)]
    assert max(similarity(one, other) for one, other in itertools.combinations(pictures, 2)) < 0.7
    assert find_duplicates([f"p{place}" for place in range(6)], pictures) == []


def test_pairs_come_sorted_by_id_whatever_the_order() -> None:
    first, second = (fingerprint(body(seed=seed).read_image()) for seed in (0, 1))
    ids, pictures = ["d", "c", "b", "a"], [first, second, first, second]
    pairs = find_duplicates(ids, pictures)
    assert pairs == [Duplicate("a", "c", 1.0), Duplicate("b", "d", 1.0)]
    assert pairs == find_duplicates(ids[::-1], pictures[::-1])


def test_many_cases_are_compared_across_blocks() -> None:
    picture = fingerprint(body().read_image())
    noise = np.random.default_rng(0).integers(0, 255, (70, SIZE), np.uint8)
    pictures = [picture, *(row.tobytes() for row in noise), picture]
    ids = [f"{place:03d}" for place in range(len(pictures))]
    assert find_duplicates(ids, pictures) == [Duplicate("000", "071", 1.0)]


def test_a_fingerprint_is_small_and_the_same_each_time() -> None:
    ct = body().read_image()
    assert len(fingerprint(ct)) == SIZE
    assert fingerprint(ct) == fingerprint(Volume(ct.data.copy(order="F"), ct.geometry))
    assert similarity(fingerprint(ct), fingerprint(Volume(np.ascontiguousarray(ct.data), ct.geometry))) > 0.999


@pytest.mark.parametrize("value", [-1000, -1024])
def test_a_scan_without_tissue_matches_nothing(value: int) -> None:
    empty = fingerprint(Volume(np.full((8, 8, 8), value, np.int16), Geometry.of((8, 8, 8))))
    assert empty == b""
    assert find_duplicates(["a", "b", "c"], [empty, empty, fingerprint(body().read_image())]) == []


def test_nan_and_infinity_do_not_spoil_a_fingerprint() -> None:
    ct = body().read_image()
    data = ct.data.astype(np.float32)
    data[::9, ::9, ::5] = np.nan
    data[1, 1, 1] = np.inf
    assert similarity(fingerprint(ct), fingerprint(Volume(data, ct.geometry))) > 0.9


def test_tiny_and_constant_scans_are_no_trouble() -> None:
    for shape in ((1, 1, 1), (3, 2, 1), (20, 1, 5)):
        flat = fingerprint(Volume(np.full(shape, 40, np.int16), Geometry.of(shape)))
        assert len(flat) == SIZE
        assert find_duplicates(["a", "b"], [flat, flat]) == []


def test_a_fingerprint_of_another_version_is_refused() -> None:
    with pytest.raises(CaseError, match="old: a fingerprint of another version; found 10 bytes"):
        find_duplicates(["old", "other"], [b"x" * 10, bytes(SIZE)])
    with pytest.raises(ValueError, match="2 ids for 1"):
        find_duplicates(["a", "b"], [bytes(SIZE)])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_silico_patients_give_no_false_alarm() -> None:
    recipe = CohortRecipe(cases=24, spacing_mm=10.0)
    cases = [cohort_case(recipe, index) for index in range(24)]  # a second each
    pictures = [fingerprint(case.read_image()) for case in cases]
    ids = [case.id for case in cases]
    assert find_duplicates(ids, pictures) == []
    again = cropped(cases[7].read_image(), (0, 0, 0.08), (0, 0, 0))
    renamed = find_duplicates([*ids, "renamed"], [*pictures, fingerprint(without_header(again.data[::-1]))])
    assert [(pair.first, pair.second) for pair in renamed] == [(ids[7], "renamed")]


def test_real_scans_are_found_again_and_told_apart(real_data: Path) -> None:
    scans = {path.parent.name: path for path in sorted(real_data.glob("*/ct.nii.gz"))}
    scans["dicom_totalseg_thin"] = real_data / "dicom_totalseg_thin"
    pictures = {name: fingerprint(files.read_image(path)) for name, path in scans.items()}
    pairs = find_duplicates(list(pictures), list(pictures.values()))
    assert [pair[:2] for pair in pairs] == [("dicom_totalseg_thin", "totalseg_thin")]
    for name in ("chaos", "crlm_1006", "totalseg_3mm"):
        ct = files.read_image(scans[name])
        small = cropped(ct, (0, 0, 0.1), (0, 0, 0.08)).to(ct.geometry.resampled(3.0))
        changed = fingerprint(mapped(without_header(small.data[::-1]), -200, 300))
        assert similarity(pictures[name], changed) >= THRESHOLD, name
        others = [similarity(picture, changed) for other, picture in pictures.items() if other != name]
        assert max(others) < 0.6


def test_the_search_finds_what_all_pairs_in_full_would() -> None:
    """Alike patients (blends of two), repacked scans among them, and identical pictures."""
    rng = np.random.default_rng(3)
    scans = [body(seed=seed).read_image() for seed in range(3)]
    plain = [np.frombuffer(fingerprint(ct), np.uint8).astype(float) for ct in scans]
    blends = [np.average([plain[0], plain[one]], axis=0, weights=[2, 1]) for one in (1, 2)]
    blends += [np.clip(blends[0] + rng.normal(0, 25, SIZE), 0, 255) for _ in range(7)]
    pictures = [np.rint(blend).astype(np.uint8).tobytes() for blend in blends]
    how = list(REPACKED.values())
    pictures += [fingerprint(how[place](ct)) for ct in scans for place in rng.choice(len(how), 2, replace=False)]
    pictures += [pictures[0], pictures[-1]]
    ids = [f"c{place:02d}" for place in range(len(pictures))]
    pairs = itertools.combinations(zip(ids, pictures, strict=True), 2)
    scores = {(one[0], other[0]): similarity(one[1], other[1]) for one, other in pairs}
    assert sum(0.6 < score < THRESHOLD for score in scores.values()) > 5
    found = {pair[:2]: pair.score for pair in find_duplicates(ids, pictures)}
    assert found == pytest.approx({pair: score for pair, score in scores.items() if score >= THRESHOLD}, abs=0.01)


def test_full_comparisons_grow_with_the_cases_not_with_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=SIZE)
    pictures = [
        np.clip(128 + 30 * (shared + 0.6 * rng.normal(size=SIZE)), 0, 255).astype(np.uint8).tobytes() for _ in range(60)
    ]
    calls = []
    monkeypatch.setattr(duplicates, "compare", lambda one, other: calls.append(1) or 0.7)
    assert find_duplicates([f"p{place:02d}" for place in range(60)], pictures) == []
    assert 60 <= len(calls) <= 60 * duplicates.MISSES < 60 * 59 / 2


def test_copies_of_a_patient_are_compared_with_the_patients_scans_only() -> None:
    first, second, other = (fingerprint(body(seed=seed).read_image()) for seed in (0, 1, 2))
    again = fingerprint(REPACKED["top missing"](body(seed=0).read_image()))
    prints = {"a": first, "a2": again, "a3": first, "b": second, "b2": other, "b3": second, "c": first, "d": b""}
    patients = {case: case[0] for case in prints}
    assert find_repeats(patients, prints) == {"a": ["a2", "a3"], "b": ["b3"]}
