"""Overlap, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from masks import FLAT, box, turned

from synthoma.evaluation.planes import region_of
from synthoma.evaluation.voxel import score_voxels
from synthoma.volume import Geometry, Volume


@pytest.mark.parametrize("geometry", [FLAT, turned()], ids=["anisotropic", "oblique"])
def test_overlap_and_volume_of_two_boxes(geometry: Geometry) -> None:
    # 100 and 80 voxels, 40 shared; 0.8 x 1 x 2.5 mm each
    found = score_voxels(region_of(box(geometry, (0, 0, 0), (5, 5, 4))), region_of(box(geometry, (3, 0, 0), (7, 5, 4))))
    assert found.dsc == pytest.approx(80 / 180)
    assert found.iou == pytest.approx(40 / 140)
    assert found.truth_ml == pytest.approx(0.2)
    assert found.error_ml == pytest.approx(-0.04)


def test_dsc_of_two_empty_masks_is_nan_and_of_one_is_0() -> None:
    none, some = Volume(np.zeros(FLAT.shape, bool), FLAT), box(FLAT, (0, 0, 0), (2, 2, 2))
    assert np.isnan(score_voxels(region_of(none), region_of(none)).dsc)
    assert np.isnan(score_voxels(region_of(none), region_of(none)).iou)
    for first, second in ((none, some), (some, none)):
        assert score_voxels(region_of(first), region_of(second)).dsc == 0.0
