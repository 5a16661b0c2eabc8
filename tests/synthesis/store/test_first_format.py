"""Manifests and overlays of the first format, on a scan whose axes are not RAS: read, replayed, laid over."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from synthesis.patients import patient
from synthoma.cases import Case
from synthoma.synthesis.store.manifest import read_manifest
from synthoma.synthesis.store.overlay import lay_over
from synthoma.synthesis.store.rendered import replay_rows

# Written by synthoma 0.1.0; the digests are those of the scan with its tumors, and of the tumors.
FOLDER = Path(__file__).with_name("first_format")
SCAN = "07d10dba62190836"
TUMORS = ["067ebf7148112846", "0ff9745f94c52b40", "b00ff3b3bd2b7463", "e086e6b0db955ff8"]


@pytest.fixture
def case() -> Case:
    upright = patient("plain")
    masks = {name: mask.reorient("LPS") for name, mask in upright.each_mask()}
    return dataclasses.replace(upright, image=upright.read_image().reorient("LPS"), masks=masks)


def digest(hu: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(hu).tobytes(), digest_size=8).hexdigest()


def test_an_overlay_gives_the_voxels_that_it_was_written_from(case: Case) -> None:
    done = lay_over(case.read_image(), FOLDER / "overlay.npz", "plain")
    assert [tumor.digest for tumor in done.inserted] == TUMORS
    assert digest(done.ct.data) == SCAN
    assert done.inserted[0].verdict.scores["equivalent_diameter_mm"] > 8
    for tumor in done.inserted:
        place = done.stored_box(tumor.box)
        assert done.tumors(tumor.plan.organ).data[place.slices].sum() >= tumor.mask.sum()


def test_a_manifest_is_replayed_bit_for_bit(case: Case) -> None:
    manifest = read_manifest(FOLDER / "manifest.parquet")
    assert [listed.organ for listed in manifest.tumors()] == ["liver", "liver", "kidney", "kidney"]
    assert [plan.displacement_mm for plan in manifest.plans("plain")] == [2.2, 1.54, 2.22, 0.0]
    assert manifest.plans("plain")[0].details["form"] == "mass"
    done, _ = replay_rows(case, manifest.rows("plain"))
    assert [tumor.digest for tumor in done.inserted] == TUMORS
    assert digest(done.ct.data) == SCAN
