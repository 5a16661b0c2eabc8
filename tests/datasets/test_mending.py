"""Masks whose header was lost get it back when asked; those that lie elsewhere are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from datasets.builders import SHAPE, patient
from grids import oblique
from synthoma import files
from synthoma.cases import Case, Label
from synthoma.cli.main import app
from synthoma.datasets.layouts.opening import open_dataset, read_case
from synthoma.datasets.mending import find_mendings, mend
from synthoma.errors import GeometryError
from synthoma.volume import Geometry, Volume


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Masks on the scan's grid, flipped, with a lost header, half a voxel off, on another grid."""
    geometry = oblique(3, SHAPE)
    drawn = patient(geometry)
    files.write_volume(drawn.image, tmp_path / "in" / "p" / "ct.nii.gz")
    liver = np.asfortranarray(drawn.masks["liver"].data.astype(np.uint8))
    shifted = geometry.affine.copy()
    shifted[:3, 3] += 0.5 * geometry.affine[:3, 0]
    places = {
        "liver": Volume(liver, geometry),
        "spleen": Volume(np.asfortranarray(liver), geometry).reorient("SAR"),
        "colon": Volume(liver, Geometry.of(SHAPE)),
        "stomach": Volume(liver, Geometry(SHAPE, shifted)),
        "aorta": Volume(liver, Geometry.of(SHAPE, (0.7, 0.8, 3.0))),
    }
    for name, mask in places.items():
        files.write_volume(mask, tmp_path / "in" / "p" / "segmentations" / f"{name}.nii.gz")
    return read_case(tmp_path / "in" / "p")


def test_only_lost_headers_are_mended_and_all_is_told(case: Case) -> None:
    told = {one.structure: one.told for one in find_mendings(case)}
    assert told.keys() == {"colon", "stomach", "aorta"}
    assert told["colon"].startswith("1 mm along every axis")
    assert "mm off: gets the scan's header" in told["stomach"]
    assert "is left as it is" in told["aorta"]
    whole = mend(case)
    assert whole.attributes["mended"] == ["colon", "stomach"]
    liver = whole.read_mask("liver").data
    assert np.array_equal(whole.read_mask("colon").data, liver)
    assert np.array_equal(whole.read_mask("stomach").data, liver)
    assert np.array_equal(whole.read_mask("spleen").data, liver)
    with pytest.raises(GeometryError, match="aorta"):
        whole.read_mask("aorta")


def test_labels_of_a_map_are_mended_each(case: Case) -> None:
    path = case.masks["colon"]
    assert isinstance(path, Path)
    labeled = Case("p", case.image, {"liver": Label(path, (1,)), "spleen": Label(path, (2,))})
    assert mend(labeled).read_mask("liver").data.any()
    assert not mend(labeled).read_mask("spleen").data.any()


def test_convert_shows_before_it_mends(case: Case, tmp_path: Path) -> None:
    assert isinstance(case.image, Path)
    (case.image.parent / "segmentations" / "aorta.nii.gz").unlink()
    asked = ["convert", str(tmp_path / "in"), "--to", "abdomenatlas", "--out", str(tmp_path / "out"), "--mend"]
    shown = CliRunner().invoke(app, [*asked, "show"])
    assert shown.exit_code == 0
    assert "2 masks of 1 cases do not lie on their scan; nothing was written" in shown.output
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(app, [*asked, "do"]).exit_code == 0
    (after,) = open_dataset(tmp_path / "out")
    assert np.array_equal(after.read_mask("colon").data, case.read_mask("liver").data)
    assert after.attributes["mended"] == ["colon", "stomach"]
