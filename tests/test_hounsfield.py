"""Values that cannot be HU are told by value and share; real scans, whatever their padding, are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from synthoma import files
from synthoma.hounsfield import PADDINGS_HU, impossible_hu, padding_hu

Change = Callable[[np.ndarray], np.ndarray]


def body(air: bool = True) -> np.ndarray:
    """A fifth air (if any), fat, a lot of soft tissue, some bone, as 40,000 voxels in order of kind."""
    rng = np.random.default_rng(0)
    parts = [(-1000, 5, 8000 if air else 0), (-100, 20, 8000), (50, 25, 20000), (450, 250, 4000)]
    return np.concatenate([rng.normal(center, width, count) for center, width, count in parts]).round()


def outside(value: float) -> Change:
    """A quarter of the voxels, among them some of every kind, replaced by what lies outside the field of view."""
    return lambda hu: np.where(np.arange(len(hu)) % 4 == 0, value, hu)


IMPOSSIBLE = {
    "padding read as unsigned": (outside(63536), "wrapped", 63536, 0.25),
    "other padding read as unsigned": (outside(64512), "wrapped", 64512, 0.25),
    "any padding read as unsigned": (outside(65036), "wrapped", 65036, 0.25),
    "padding wrapped at 12 bits": (outside(3072), "wrapped", 3072, 0.25),
    "all air wrapped at 12 bits": (lambda hu: np.where(hu < -500, hu + 4096, hu), "wrapped", 3096, 0.2),
    "unsigned read as signed": (lambda hu: np.where(hu > 400, hu - 30000, hu), "wrapped", -29550, 0.06),
    "no intercept": (lambda hu: hu + 1024, "shifted", 1060, 0.7),
    "no intercept, and padding": (lambda hu: outside(-2000)(hu + 1024), "shifted", 1060, 0.7),
    "intercept twice": (lambda hu: hu - 1024, "shifted", -980, 0.7),
    "windowed": (lambda hu: np.clip(hu, -160, 240), "windowed", -160, 0.2),
    "saturated at bone": (lambda hu: np.clip(hu, -1024, 400), "saturated", 400, 0.06),
    "saturated below contrast": (lambda hu: outside(1200)(np.clip(hu, -1024, 1200)), "saturated", 1200, 0.25),
    "unit variance": (lambda hu: (hu - hu.mean()) / hu.std(), "scaled", 2.9, 1.0),
    "eight bits": (lambda hu: np.rint((np.clip(hu, -160, 240) + 160) / 400 * 255), "scaled", 255, 1.0),
    "zero to one": (lambda hu: (hu + 1100) / 4000, "scaled", 0.6, 1.0),
    "nothing": (lambda hu: np.full_like(hu, -7), "constant", -7, 1.0),
    "another modality": (lambda hu: 5 * hu + 8000, "no_tissue", 8200, 0.0),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_hu_is_told_by_value_and_share(name: str) -> None:
    change, kind, value, share = IMPOSSIBLE[name]
    found = impossible_hu(change(body()))
    assert found is not None
    assert found.kind == kind
    assert found.value == pytest.approx(value, rel=0.15, abs=60)
    assert found.share == pytest.approx(share, abs=0.05)
    assert f"{found.value:g}" in found.told or kind == "no_tissue"
    assert "%" in found.told or kind in ("scaled", "constant")


@pytest.mark.parametrize("padding", PADDINGS_HU)
def test_every_known_padding_is_recognised_and_makes_no_scan_impossible(padding: int) -> None:
    hu = outside(padding)(body())
    assert padding_hu(hu) == padding
    assert impossible_hu(hu) is None


def test_a_value_far_below_all_others_is_padding_even_if_we_do_not_know_it() -> None:
    assert padding_hu(outside(-1500)(body())) == -1500
    assert padding_hu(body()) is None
    assert padding_hu(np.append(body(), -1500)) is None  # one voxel is none
    assert padding_hu(np.zeros(0)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda hu: hu,
        lambda hu: np.clip(hu, -1000, 1000),
        lambda hu: np.where(np.arange(len(hu)) % 100 == 0, 3071, hu),  # metal
        lambda hu: np.where(np.arange(len(hu)) % 2000 == 0, 28000, hu),  # metal on the extended scale
        lambda hu: hu.astype(np.float32) + 0.25,
    ],
)
def test_scans_in_hu_are_possible(change: Change) -> None:
    assert impossible_hu(change(body())) is None


def test_a_block_inside_the_body_has_no_air_and_is_possible() -> None:
    assert impossible_hu(body(air=False)) is None
    assert impossible_hu(np.zeros(0)) is None


def test_the_sentence_names_the_padding_that_was_read_as_unsigned() -> None:
    found = impossible_hu(outside(63536)(body()))
    assert found is not None
    assert found.told == "63536 or near it in 25.0% of the voxels, the padding -2000 read as unsigned"


def test_real_scans_are_possible(real_data: Path) -> None:
    for case in ("chaos", "totalseg_3mm", "crlm_1004", "ccth01"):
        data = files.read_image(real_data / case / "ct.nii.gz").data[::7, ::7]
        assert impossible_hu(data.ravel()) is None, case
